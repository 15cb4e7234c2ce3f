/** One round: look at every rule, move every alert on, and put what is to be told into the outbox, all or nothing. */

import { createHash } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import { observe, type Observation } from './conditions.ts';
import { tell, toNotified, type LiveAlert } from './groups.ts';
import { inactive, isOn, levelOf, step, type Happening, type Rank } from './machine.ts';
import { ROLLBACK_CONTACT, type ActionNotification } from './notification.ts';
import type { AlertRule } from './rule.ts';
import type { Labels, Signals } from './signals.ts';
import {
  readAlerts,
  readContacts,
  readGroups,
  readRules,
  writeAlerts,
  writeDeliveries,
  writeEvents,
  writeGroups,
  type AlertEvent,
  type NewDelivery,
  type StoredAlert,
} from './store.ts';

/** Most alerts of one rule: labels come from devices. */
const MOST_ALERTS = 500;

/** What a round needs. */
export interface EvaluationParts {
  readonly db: Kysely<Schema>;
  readonly signals: Signals;
  /** Told of a rule that cannot be looked at; its alerts stay as they are, and the others go on. */
  readonly onError: (error: unknown) => void;
}

/** Computes what tells alerts apart. */
export function fingerprintOf(rule: string, labels: Labels): string {
  const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([rule, sorted]))
    .digest('hex');
}

/** Creates the round. */
export function createEvaluation({ db, signals, onError }: EvaluationParts): (now: number) => Promise<void> {
  const last = new Map<string, { readonly at: number; readonly body: string; readonly seen: Sightings }>();

  /** Looks at a rule, or says what was seen a moment ago where nothing can have changed since. */
  const look = async (rule: AlertRule, now: number): Promise<Sightings | undefined> => {
    const body = JSON.stringify(rule);
    const known = last.get(rule.id);
    if (known?.body === body && now >= known.at && now - known.at < pauseOf(rule)) return known.seen;
    try {
      const observations = (await observe(rule, signals, now)).slice(0, MOST_ALERTS);
      const seen = new Map(observations.map((it) => [fingerprintOf(rule.id, it.labels), it]));
      last.set(rule.id, { at: now, body, seen });
      return seen;
    } catch (error) {
      last.delete(rule.id);
      onError(error);
      return undefined;
    }
  };

  return async (now) => {
    const rules = (await readRules(db)).map(({ rule }) => rule);
    const sightings = new Map<string, Sightings | undefined>();
    for (const rule of rules) sightings.set(rule.id, await look(rule, now));
    await inTransaction(db, (tx) => turn(tx, rules, sightings, now), { snapshot: true });
  };
}

/** What a rule sees, by fingerprint. */
type Sightings = ReadonlyMap<string, Observation>;

/** Between looks, milliseconds: a thirtieth of the shortest window, a quarter of an hour at most. */
function pauseOf({ cond }: AlertRule): number {
  const windows = cond.kind === 'burn-rate' ? cond.windows.map(({ shortS }) => shortS) : [];
  const shortest = 'windowS' in cond ? cond.windowS : Math.min(...windows, Infinity);
  return Number.isFinite(shortest) ? Math.min(900_000, (shortest * 1000) / 30) : 0;
}

/** Everything that one round changes. */
interface Turn {
  readonly events: AlertEvent[];
  readonly actions: NewDelivery[];
  readonly now: number;
}

async function turn(
  tx: Kysely<Schema>,
  rules: readonly AlertRule[],
  sightings: ReadonlyMap<string, Sightings | undefined>,
  now: number,
): Promise<void> {
  const into: Turn = { events: [], actions: [], now };
  const before = await readAlerts(tx);
  const after = new Map(before.map((alert) => [alert.fingerprint, alert]));
  const changed: StoredAlert[] = [];
  for (const rule of rules) {
    const seen = sightings.get(rule.id);
    if (!seen) continue;
    const mine = before.filter((alert) => alert.rule === rule.id).map(({ fingerprint }) => fingerprint);
    for (const fingerprint of new Set([...seen.keys(), ...mine])) {
      const alert = after.get(fingerprint);
      const next = advance(rule, fingerprint, alert, seen.get(fingerprint), into);
      if (!next) continue;
      after.set(fingerprint, next);
      changed.push(next);
    }
  }
  const known = new Map((await readRules(tx, true)).map(({ rule }) => [rule.id, rule]));
  for (const alert of before) {
    const isGone = !rules.some(({ id }) => id === alert.rule);
    if (!isGone || alert.state.state === 'resolved') continue;
    const state = { ...alert.state, state: isOn(alert.state) ? 'resolved' : 'inactive', rank: 0 } as const;
    const next: StoredAlert = { ...alert, state, updatedAt: now };
    after.set(alert.fingerprint, next);
    changed.push(next);
    if (isOn(alert.state)) into.events.push(eventOf(next, 'expired', now));
  }
  const live = [...after.values()].flatMap((alert): readonly LiveAlert[] => {
    const rule = known.get(alert.rule);
    return rule ? [{ ...alert, rule }] : [];
  });
  const groups = await readGroups(tx);
  const silences = await tx
    .selectFrom('silence')
    .select('matchers')
    .where('from_at', '<=', now)
    .where('until_at', '>', now)
    .execute();
  const told = tell(
    live,
    await readContacts(tx),
    silences.map(({ matchers }) => ({ matchers: JSON.parse(matchers) as Labels })),
    groups,
    now,
  );
  const deliveries = told.outgoing.map(({ contact, identity, body }) => {
    for (const { fingerprint } of body.alerts) {
      const alert = after.get(fingerprint);
      if (alert) into.events.push({ ...eventOf(alert, 'notified', now), text: contact });
    }
    return { contact, key: keyOf(identity), body: JSON.stringify(body) };
  });
  await writeAlerts(tx, changed);
  await writeEvents(tx, into.events);
  await writeDeliveries(tx, [...into.actions, ...deliveries], now);
  if (JSON.stringify(told.groups) !== JSON.stringify(groups)) await writeGroups(tx, told.groups);
}

/** Moves one alert on. @returns nothing where nothing is worth keeping. */
function advance(
  rule: AlertRule,
  fingerprint: string,
  before: StoredAlert | undefined,
  seen: Observation | undefined,
  { events, actions, now }: Turn,
): StoredAlert | undefined {
  const delays = { forMs: rule.forS * 1000, clearMs: rule.clear.forS * 1000 };
  const { after: state, happened } = step(before?.state ?? inactive, seen, delays, now);
  const wasIdle = before === undefined || before.state.state === 'resolved';
  if (happened === undefined && wasIdle) return undefined;
  const isNews = happened === 'firing' || happened === 'raised';
  const known = happened === 'firing' ? undefined : before;
  const alert: StoredAlert = {
    fingerprint,
    rule: rule.id,
    labels: seen?.labels ?? before?.labels ?? {},
    state,
    value: seen?.value ?? before?.value ?? 0,
    text: seen?.text ?? before?.text ?? '',
    peak: Math.max(state.rank, known?.peak ?? 0) as Rank,
    newsAt: isNews ? now : (known?.newsAt ?? 0),
    ackedBy: state.state === 'acked' ? (known?.ackedBy ?? null) : null,
    escalatedTo: known?.escalatedTo ?? [],
    updatedAt: now,
  };
  if (happened) events.push(eventOf(alert, happened, now));
  if (isNews) actions.push(...actionsOf(rule, alert, seen, now));
  return escalated(rule, alert, events, now);
}

function escalated(rule: AlertRule, alert: StoredAlert, events: AlertEvent[], now: number): StoredAlert {
  if (!isOn(alert.state)) return alert;
  const due = rule.escalate.filter(
    ({ afterS, unless, to }) =>
      now - alert.newsAt >= afterS * 1000 &&
      !alert.escalatedTo.includes(to) &&
      (unless === 'resolved' || alert.state.state === 'firing'),
  );
  for (const { to } of due) events.push({ ...eventOf(alert, 'escalated', now), text: to });
  return due.length === 0
    ? alert
    : { ...alert, escalatedTo: [...alert.escalatedTo, ...new Set(due.map(({ to }) => to))] };
}

/** What an alert does by itself when it begins or gets worse. They go through the outbox, so that they are done though the server ends now. */
function actionsOf(
  rule: AlertRule,
  alert: StoredAlert,
  seen: Observation | undefined,
  now: number,
): readonly NewDelivery[] {
  const { model, version = '' } = alert.labels;
  if (model === undefined) return [];
  const action = (kind: ActionNotification['kind'], contact: string): NewDelivery => {
    const notified = toNotified({ ...alert, rule }, now);
    const body: ActionNotification = {
      v: 1,
      kind,
      at: now,
      alert: notified,
      model,
      version,
      features: kind === 'retrain' ? (seen?.features ?? []) : [],
    };
    const identity = JSON.stringify([kind, alert.fingerprint, alert.state.firedAt, alert.state.rank]);
    return { contact, key: keyOf(identity), body: JSON.stringify(body) };
  };
  const isEmergency = levelOf(alert.state.rank) === 'emergency';
  return [
    ...(rule.rollback && isEmergency ? [action('rollback', ROLLBACK_CONTACT)] : []),
    ...(rule.retrain !== undefined && rule.cond.kind === 'drift' ? [action('retrain', rule.retrain)] : []),
  ];
}

function eventOf(
  { fingerprint, rule, state, peak, text }: StoredAlert,
  kind: Happening | 'notified' | 'escalated' | 'acked',
  now: number,
): AlertEvent {
  return { fingerprint, rule, at: now, kind, rank: state.rank === 0 ? peak : state.rank, text };
}

function keyOf(identity: string): string {
  return createHash('sha256').update(identity).digest('hex');
}
