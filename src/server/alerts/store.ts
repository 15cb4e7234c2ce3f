/** Alerts, rules, contacts and silences in the database. */

import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';
import type { Contact } from './contact.ts';
import type { Groups } from './groups.ts';
import { levelOf, type AlertState, type Rank } from './machine.ts';
import type { AlertRule } from './rule.ts';
import type { Labels } from './signals.ts';

/** What is kept of an alert beside its columns. */
export interface AlertBody {
  readonly state: AlertState;
  readonly value: number;
  readonly text: string;
  /** Highest level since it began to fire. */
  readonly peak: Rank;
  /** When it began to fire, or was raised last. */
  readonly newsAt: number;
  readonly ackedBy: string | null;
  readonly escalatedTo: readonly string[];
}

/** An alert as it is kept. */
export interface StoredAlert extends AlertBody {
  readonly fingerprint: string;
  readonly rule: string;
  readonly labels: Labels;
  readonly updatedAt: number;
}

/** Something that happened to an alert. */
export interface AlertEvent {
  readonly fingerprint: string;
  readonly rule: string;
  readonly at: number;
  readonly kind: string;
  readonly rank: Rank;
  readonly text: string;
}

/** What is to be delivered. */
export interface NewDelivery {
  readonly contact: string;
  readonly key: string;
  readonly body: string;
}

/** Rows per statement: databases bound the number of their parameters. */
const CHUNK = 50;

/** Reads alerts: all of them, or one. */
export async function readAlerts(db: Kysely<Schema>, fingerprint?: string): Promise<readonly StoredAlert[]> {
  let query = db.selectFrom('alert').selectAll();
  if (fingerprint !== undefined) query = query.where('fingerprint', '=', fingerprint);
  return (await query.execute()).map(({ body, labels, rule, updated_at, ...row }) => ({
    ...(JSON.parse(body) as AlertBody),
    fingerprint: row.fingerprint,
    rule,
    labels: JSON.parse(labels) as Labels,
    updatedAt: updated_at,
  }));
}

/** Writes alerts; those that are inactive again are forgotten. */
export async function writeAlerts(db: Kysely<Schema>, alerts: readonly StoredAlert[]): Promise<void> {
  const gone = alerts.filter(({ state }) => state.state === 'inactive').map(({ fingerprint }) => fingerprint);
  for (let i = 0; i < gone.length; i += CHUNK) {
    await db
      .deleteFrom('alert')
      .where('fingerprint', 'in', gone.slice(i, i + CHUNK))
      .execute();
  }
  const rows = alerts
    .filter(({ state }) => state.state !== 'inactive')
    .map(({ fingerprint, rule, labels, updatedAt, ...body }) => ({
      fingerprint,
      rule,
      labels: JSON.stringify(labels),
      state: body.state.state,
      level: levelOf(body.state.rank === 0 ? body.peak : body.state.rank),
      body: JSON.stringify(body),
      started_at: body.state.firedAt,
      updated_at: updatedAt,
    }));
  for (let i = 0; i < rows.length; i += CHUNK) {
    await db
      .insertInto('alert')
      .values(rows.slice(i, i + CHUNK))
      .onConflict((conflict) =>
        conflict.column('fingerprint').doUpdateSet((eb) => ({
          state: eb.ref('excluded.state'),
          level: eb.ref('excluded.level'),
          body: eb.ref('excluded.body'),
          started_at: eb.ref('excluded.started_at'),
          updated_at: eb.ref('excluded.updated_at'),
        })),
      )
      .execute();
  }
}

/** Adds to the timeline. */
export async function writeEvents(db: Kysely<Schema>, events: readonly AlertEvent[]): Promise<void> {
  const rows = events.map(({ fingerprint, at, kind, rank, rule, text }) => ({
    fingerprint,
    at,
    kind,
    level: levelOf(rank),
    body: JSON.stringify({ rule, text }),
  }));
  for (let i = 0; i < rows.length; i += CHUNK) {
    await db
      .insertInto('alert_event')
      .values(rows.slice(i, i + CHUNK))
      .execute();
  }
}

/** Puts into the outbox what is not there yet. */
export async function writeDeliveries(
  db: Kysely<Schema>,
  deliveries: readonly NewDelivery[],
  now: number,
): Promise<void> {
  const rows = deliveries.map((it) => ({ ...it, attempts: 0, next_at: now, done_at: 0, error: '' }));
  for (let i = 0; i < rows.length; i += CHUNK) {
    await db
      .insertInto('outbox')
      .values(rows.slice(i, i + CHUNK))
      .onConflict((conflict) => conflict.column('key').doNothing())
      .execute();
  }
}

/** Reads rules that are switched on, or all of them. */
export async function readRules(
  db: Kysely<Schema>,
  all = false,
): Promise<readonly { readonly rule: AlertRule; readonly isEnabled: boolean }[]> {
  let query = db.selectFrom('alert_rule').select(['body', 'enabled']).orderBy('id');
  if (!all) query = query.where('enabled', '=', 1);
  return (await query.execute()).map(({ body, enabled }) => ({
    rule: JSON.parse(body) as AlertRule,
    isEnabled: enabled === 1,
  }));
}

/** Writes a rule. @param isNew - leaves one that is there as it is. */
export async function writeRule(
  db: Kysely<Schema>,
  rule: AlertRule,
  isEnabled: boolean,
  now: number,
  isNew = false,
): Promise<void> {
  const row = { id: rule.id, body: JSON.stringify(rule), enabled: Number(isEnabled), updated_at: now };
  await db
    .insertInto('alert_rule')
    .values(row)
    .onConflict((conflict) =>
      isNew ? conflict.column('id').doNothing() : conflict.column('id').doUpdateSet(row),
    )
    .execute();
}

/** Reads contacts. */
export async function readContacts(db: Kysely<Schema>): Promise<readonly Contact[]> {
  const rows = await db.selectFrom('contact').select('body').orderBy('id').execute();
  return rows.map(({ body }) => JSON.parse(body) as Contact);
}

/** Reads a small state, or `undefined` where there is none yet. */
export async function readSetting(db: Kysely<Schema>, name: string): Promise<unknown> {
  const row = await db.selectFrom('setting').select('body').where('name', '=', name).executeTakeFirst();
  return row && JSON.parse(row.body);
}

/** Writes a small state. */
export async function writeSetting(db: Kysely<Schema>, name: string, value: unknown): Promise<void> {
  const row = { name, body: JSON.stringify(value) };
  await db
    .insertInto('setting')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ body: row.body }))
    .execute();
}

const groupsSetting = 'alerts.groups';

/** Reads what contacts have been told. */
export async function readGroups(db: Kysely<Schema>): Promise<Groups> {
  return ((await readSetting(db, groupsSetting)) ?? {}) as Groups;
}

/** Writes what contacts have been told. */
export async function writeGroups(db: Kysely<Schema>, groups: Groups): Promise<void> {
  await writeSetting(db, groupsSetting, groups);
}
