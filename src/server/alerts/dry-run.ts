/** Plays a rule on what has been: how often would it have fired, and when? */

import { setImmediate } from 'node:timers/promises';
import type { Kysely } from 'kysely';
import { ServerError } from '../../core/errors.ts';
import type { Schema } from '../db/schema.ts';
import { devicesOf, type CountRow } from '../counts.ts';
import type { Drift } from '../drift/drift.ts';
import { observe, SLOT_MS } from './conditions.ts';
import { createCountReader } from './count-reader.ts';
import { fingerprintOf } from './evaluation.ts';
import { inactive, levelOf, step, type AlertState } from './machine.ts';
import type { AlertRule, Level } from './rule.ts';
import { labelsOf, sumRows, type Labels, type SilenceSignal, type Signals } from './signals.ts';

/** Counts are kept by 5 minutes for so many days. */
const MOST_DAYS = 14;

/** What a rule would have done. */
export interface DryRun {
  /** Milliseconds since 1970. */
  readonly from: number;
  readonly to: number;
  /** Looks, one for each 5 minutes. */
  readonly looks: number;
  /** Alerts that would have begun. */
  readonly fired: number;
  /** At each change: 500 at most, the oldest first. */
  readonly events: readonly {
    readonly at: number;
    readonly kind: string;
    readonly level: Level;
    readonly labels: Labels;
    readonly text: string;
  }[];
}

/** Where the past comes from. */
export interface ReplayParts {
  readonly db: Kysely<Schema>;
  readonly drift: Pick<Drift, 'rows' | 'profiles'>;
}

/** Lets others have their turn after so many looks. */
const LOOKS_PER_TURN = 16;
const MOST_EVENTS = 500;

/**
 * Plays a rule on the days before now, in steps of 5 minutes.
 * @param days - 1 to 14.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` for rules about rollouts and drift, of which no history is kept in steps.
 */
export async function dryRun(
  { db, drift }: ReplayParts,
  rule: AlertRule,
  days: number,
  now: number,
): Promise<DryRun> {
  const { kind } = rule.cond;
  if (kind === 'guard' || kind === 'drift' || kind === 'loss') {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `A rule of the kind "${kind}" cannot be tried on the past; look at the page of rollouts, drift or telemetry instead.`,
    );
  }
  const to = Math.floor(now / SLOT_MS) * SLOT_MS;
  const from = to - Math.min(MOST_DAYS, Math.max(1, days)) * 86_400_000;
  const signals = createReplay({ db, drift });
  const states = new Map<string, { labels: Labels; state: AlertState }>();
  const events: DryRun['events'][number][] = [];
  let fired = 0;
  let looks = 0;
  for (let at = from; at <= to; at += SLOT_MS) {
    looks += 1;
    if (looks % LOOKS_PER_TURN === 0) await setImmediate();
    // The slot that begins now is empty; what was just completed counts.
    const seen = await observe(rule, signals, at - 1);
    const byFingerprint = new Map(seen.map((it) => [fingerprintOf(rule.id, it.labels), it]));
    for (const fingerprint of new Set([...byFingerprint.keys(), ...states.keys()])) {
      const sight = byFingerprint.get(fingerprint);
      const known = states.get(fingerprint);
      const delays = { forMs: rule.forS * 1000, clearMs: rule.clear.forS * 1000 };
      const before = known?.state ?? inactive;
      const { after, happened } = step(before, sight, delays, at);
      const labels = sight?.labels ?? known?.labels ?? {};
      states.set(fingerprint, { labels, state: after });
      if (happened === 'firing') fired += 1;
      if (happened === undefined || happened === 'pending' || happened === 'cancelled') continue;
      const rank = after.rank === 0 ? before.rank : after.rank;
      if (events.length < MOST_EVENTS) {
        events.push({ at, kind: happened, level: levelOf(rank), labels, text: sight?.text ?? '' });
      }
    }
  }
  return { from, to, looks, fired, events };
}

/** Silence is looked for in so many hours; what is silent for longer stays as it is. */
const SILENCE_HOURS = 6;

/** Signals out of counts alone. */
function createReplay({ db, drift }: ReplayParts): Signals {
  const counts = createCountReader(db, true);
  return {
    drift,
    sums: async (scope, by, from, to) => sumRows(await counts.rows(scope, from, to), by),
    silences: async (scope, by, now) => {
      const rows = await counts.slots(scope, now - SILENCE_HOURS * 3_600_000, now);
      const groups = new Map<string, { labels: Labels; rows: CountRow[] }>();
      for (const row of rows) {
        const labels = labelsOf(row, by);
        const key = JSON.stringify(labels);
        const group = groups.get(key) ?? { labels, rows: [] };
        groups.set(key, group);
        group.rows.push(row);
      }
      return [...groups.values()].map((group): SilenceSignal => {
        const end = Math.max(...group.rows.map(({ t, res }) => t + res));
        const lastHour = group.rows.filter(({ t }) => t >= end - 3600);
        return { labels: group.labels, lastAt: Math.min(now, end * 1000), devices: devicesOf(lastHour) };
      });
    },
    rollouts: () => Promise.resolve([]),
    silentArms: () => Promise.resolve(0),
    health: () => Promise.resolve({}),
  };
}
