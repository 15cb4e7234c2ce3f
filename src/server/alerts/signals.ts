/** What rules look at, read from the counts of the fleet. */

import type { Kysely } from 'kysely';
import { quantileOf } from '../../telemetry/histogram.ts';
import type { Schema } from '../db/schema.ts';
import { devicesOf, type CountRow } from '../counts.ts';
import type { Drift } from '../drift/drift.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import { emptyAggregate, mergeAggregates } from '../ingest/merge.ts';
import { createCountReader } from './count-reader.ts';
import type { AlertRule, GroupLabel, Signal } from './rule.ts';

/** Labels of an alert. */
export type Labels = Readonly<Record<string, string>>;
/** Where a rule looks. */
export type Scope = AlertRule['scope'];

/** Sums of one group over a span. */
export interface Sum {
  readonly labels: Labels;
  readonly counts: Aggregate;
  readonly devices: number;
}

/** A rollout with a programme. */
export interface RolloutSignal {
  readonly labels: Labels;
  readonly status: string;
  readonly reason: string;
  readonly updatedAt: number;
}

/** How long nobody has reported on a model. */
export interface SilenceSignal {
  readonly labels: Labels;
  readonly lastAt: number;
  /** Devices that reported in the hour up to then. */
  readonly devices: number;
}

/** Where rules get their figures; live, or out of history. Times are milliseconds since 1970. */
export interface Signals {
  /** Sums by labels; groups without a report are not there. */
  sums(scope: Scope, by: readonly GroupLabel[], from: number, to: number): Promise<readonly Sum[]>;
  silences(scope: Scope, by: readonly GroupLabel[], now: number): Promise<readonly SilenceSignal[]>;
  rollouts(scope: Scope, now: number): Promise<readonly RolloutSignal[]>;
  /** Arms of running rollouts of which nothing is heard any more, though of the others. */
  silentArms(now: number): Promise<number>;
  /** Counts of telemetry itself by name. */
  health(from: number, to: number): Promise<Readonly<Record<string, number>>>;
  readonly drift: Pick<Drift, 'rows' | 'profiles'>;
}

const values: Readonly<Record<Signal, (counts: Aggregate, devices: number) => number | undefined>> = {
  errorRate: ({ n, ok }) => (n > 0 ? (n - ok) / n : undefined),
  p50: ({ h }) => h?.lat && quantileOf(h.lat, 0.5),
  p95: ({ h }) => h?.lat && quantileOf(h.lat, 0.95),
  p99: ({ h }) => h?.lat && quantileOf(h.lat, 0.99),
  loadP95: ({ h }) => h?.load && quantileOf(h.load, 0.95),
  fatal: ({ fatal = 0 }) => fatal,
  calls: ({ n }) => n,
  devices: (_, devices) => devices,
  cacheMissRate: ({ hit = 0, miss = 0 }) => (hit + miss > 0 ? miss / (hit + miss) : undefined),
  memory: ({ mem }) => (mem && mem[2] > 0 ? mem[1] / mem[2] : undefined),
};

/** Value of a signal, or `undefined` where there is nothing that it could be of. */
export function valueOf(
  signal: Signal,
  { counts, devices }: Pick<Sum, 'counts' | 'devices'>,
): number | undefined {
  return values[signal](counts, devices);
}

/** Sums rows by labels. */
export function sumRows(rows: readonly CountRow[], by: readonly GroupLabel[]): readonly Sum[] {
  const groups = new Map<string, { readonly labels: Labels; readonly rows: CountRow[] }>();
  for (const row of rows) {
    const labels = labelsOf(row, by);
    const key = JSON.stringify(labels);
    const group = groups.get(key) ?? { labels, rows: [] };
    groups.set(key, group);
    group.rows.push(row);
  }
  return [...groups.values()].map((group) => ({
    labels: group.labels,
    counts: group.rows.reduce((sum, { counts }) => mergeAggregates(sum, counts), emptyAggregate),
    devices: devicesOf(group.rows),
  }));
}

/** Labels of what was counted or reported. */
export function labelsOf(
  row: { readonly app: string; readonly model: string; readonly version: string; readonly cls?: number },
  by: readonly GroupLabel[],
): Labels {
  const all = { channel: row.app, model: row.model, version: row.version, cls: String(row.cls ?? 0) };
  return Object.fromEntries(by.map((name) => [name, all[name]]));
}

/** Creates the signals of a live server. */
export function createSignals(parts: {
  readonly db: Kysely<Schema>;
  readonly drift: Pick<Drift, 'rows' | 'profiles'>;
}): Signals {
  const { db, drift } = parts;
  const counts = createCountReader(db);

  return {
    drift,
    sums: async (scope, by, from, to) => sumRows(await counts.rows(scope, from, to), by),
    silences: async (scope, by, now) => {
      const last = await db
        .selectFrom('device')
        .select(['app', 'model', 'version', (eb) => eb.fn.max('last_at').as('last_at')])
        .groupBy(['app', 'model', 'version'])
        .execute();
      const groups = new Map<string, { labels: Labels; lastAt: number }>();
      for (const row of last.filter((it) => isInScope(it, scope))) {
        const labels = labelsOf(row, by);
        const key = JSON.stringify(labels);
        const lastAt = Math.min(now, Math.max(Number(row.last_at), groups.get(key)?.lastAt ?? 0));
        groups.set(key, { labels, lastAt });
      }
      return Promise.all(
        [...groups.values()].map(async (group) => {
          let devices = db
            .selectFrom('device')
            .select((eb) => eb.fn.countAll().as('devices'))
            .where('last_at', '>', group.lastAt - 3_600_000);
          const { channel, model, version } = { ...scope, ...group.labels };
          if (channel !== undefined) devices = devices.where('app', '=', channel);
          if (model !== undefined) devices = devices.where('model', '=', model);
          if (version !== undefined) devices = devices.where('version', '=', version);
          const row = await devices.executeTakeFirst();
          return { ...group, devices: Number(row?.devices ?? 0) };
        }),
      );
    },
    rollouts: async (scope) => {
      const rows = await db
        .selectFrom('programme')
        .select(['rollout', 'channel', 'model', 'version', 'status', 'reason', 'updated_at'])
        .execute();
      return rows
        .filter(({ channel, model, version }) => isInScope({ app: channel, model, version }, scope))
        .map(({ rollout, channel, model, version, status, reason, updated_at }) => ({
          labels: { channel, model, version, rollout },
          status,
          reason,
          updatedAt: updated_at,
        }));
    },
    silentArms: async (now) => {
      const arms = await db
        .selectFrom('stage_device')
        .innerJoin('programme', (join) =>
          join
            .onRef('programme.rollout', '=', 'stage_device.rollout')
            .onRef('programme.stage', '=', 'stage_device.stage'),
        )
        .where('programme.status', '=', 'running')
        .groupBy(['stage_device.rollout', 'stage_device.arm'])
        .select([
          'stage_device.rollout as rollout',
          (eb) => eb.fn.max('stage_device.last_at').as('last_at'),
          (eb) => eb.fn.countAll().as('devices'),
        ])
        .execute();
      const isHeard = (last: number | string): boolean => now - Number(last) < ARM_SILENT_MS;
      return arms.filter(
        (arm) =>
          Number(arm.devices) >= ARM_DEVICES &&
          !isHeard(arm.last_at) &&
          arms.some((other) => other.rollout === arm.rollout && isHeard(other.last_at)),
      ).length;
    },
    health: async (from, to) => {
      const rows = await db
        .selectFrom('health')
        .where('t_s', '>=', from / 1000)
        .where('t_s', '<', to / 1000)
        .groupBy('name')
        .select(['name', (eb) => eb.fn.sum('n').as('n')])
        .execute();
      return Object.fromEntries(rows.map(({ name, n }) => [name, Number(n)]));
    },
  };
}

/** An arm of at least so many devices is silent after so long. */
const ARM_DEVICES = 10;
const ARM_SILENT_MS = 900_000;

function isInScope(
  row: { readonly app: string; readonly model: string; readonly version: string },
  { channel = row.app, model = row.model, version = row.version }: Scope,
): boolean {
  return row.app === channel && row.model === model && row.version === version;
}
