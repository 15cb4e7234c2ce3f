/** Alerts over the fleet: rules, what fires, who is told, and what came of it. */

import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type { AlertsAnswer } from '../api/answers.ts';
import type { Schema } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Drift } from '../drift/drift.ts';
import type { Job } from '../jobs/job.ts';
import { createChannels, type ChannelParts } from './channels.ts';
import { readContact, type Contact } from './contact.ts';
import { defaultRules } from './default-rules.ts';
import { dryRun, type DryRun } from './dry-run.ts';
import { createEvaluation } from './evaluation.ts';
import { levelOf } from './machine.ts';
import type { ActionNotification, AlertNotification } from './notification.ts';
import { createOutboxJob, readDeliveries, type Delivery } from './outbox.ts';
import type { AlertRule, Level } from './rule.ts';
import { labelSchema, readAs, readRule } from './rule-reader.ts';
import { createSignals, type Labels } from './signals.ts';
import {
  readAlerts,
  readContacts,
  readRules,
  readSetting,
  writeAlerts,
  writeDeliveries,
  writeEvents,
  writeRule,
  writeSetting,
} from './store.ts';

/** Somebody does not want to hear of some alerts for a time. */
export interface SilenceRecord {
  readonly id: string;
  /** Labels that an alert must have; `rule` and `level` count as labels. */
  readonly matchers: Labels;
  readonly fromAt: number;
  readonly untilAt: number;
  readonly actor: string;
  readonly comment: string;
}

/** The alerts of a server. */
export interface Alerts {
  /** Looks at the rules, and delivers. */
  readonly jobs: readonly Job[];
  /** Alerts that are or were there in the last 30 days, and what happened lately. @param most - events. Default 200. */
  list(most?: number): Promise<AlertsAnswer>;
  /**
   * Notes that somebody takes care: no repeats and no escalation until it gets worse.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND`, or `ERR_INLAY_CONFLICT` if it does not fire.
   */
  acknowledge(fingerprint: string, actor: string): Promise<void>;
  rules(): Promise<readonly { readonly rule: AlertRule; readonly isEnabled: boolean }[]>;
  /** Adds a rule or replaces the one of this name. @throws {@link ServerError} `ERR_INLAY_REFUSED` */
  putRule(rule: unknown, isEnabled?: boolean): Promise<AlertRule>;
  /** Removes a rule; its alerts end, and nobody is told. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
  removeRule(id: string): Promise<void>;
  silences(): Promise<readonly SilenceRecord[]>;
  /** @throws {@link ServerError} `ERR_INLAY_REFUSED` */
  silence(silence: unknown, actor: string): Promise<SilenceRecord>;
  /** Ends a silence. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
  endSilence(id: string): Promise<void>;
  contacts(): Promise<readonly Contact[]>;
  /** Adds a contact or replaces the one of this name. @throws {@link ServerError} `ERR_INLAY_REFUSED` */
  putContact(contact: unknown): Promise<Contact>;
  /** @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
  removeContact(id: string): Promise<void>;
  /** Sends a test by way of the outbox. @returns the key to look for in the deliveries. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
  testContact(id: string): Promise<string>;
  deliveries(most?: number): Promise<readonly Delivery[]>;
  /** Tries again what was given up. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
  redeliver(key: string): Promise<void>;
  /** Plays a rule on up to 14 days. @throws {@link ServerError} `ERR_INLAY_REFUSED` */
  dryRun(rule: unknown, days: number): Promise<DryRun>;
}

/** What {@link createAlerts} needs. */
export interface AlertsParts extends ChannelParts {
  readonly db: Kysely<Schema>;
  readonly drift: Pick<Drift, 'rows' | 'profiles'>;
  readonly platform: Pick<Platform, 'now' | 'random'>;
  /** Takes the rollouts of a model back, when a rule says so and an emergency begins. Called again if it fails. */
  readonly rollback?: (action: ActionNotification) => Promise<void>;
  readonly onError?: (error: unknown) => void;
}

const silenceSchema = z.strictObject({
  matchers: z.record(labelSchema, z.string().max(128)).refine((all) => Object.keys(all).length > 0, {
    error: 'It names one label at least',
  }),
  /** Milliseconds since 1970; now, if absent. */
  fromAt: z.int().min(0).optional(),
  untilAt: z.int().min(0),
  comment: z
    .string()
    .max(500)
    .regex(/^\P{Cc}*$/u)
    .default(''),
});

/** Looks are this far apart, milliseconds. */
const EVERY_MS = 30_000;
/** Alerts that have ended are shown for so long, and events kept. */
const KEEP_ENDED_MS = 30 * 86_400_000;
const KEEP_EVENTS_MS = 400 * 86_400_000;

/** Creates the alerts of a server. */
export function createAlerts(parts: AlertsParts): Alerts {
  const { db, platform, drift, rollback, onError = () => undefined } = parts;
  const evaluate = createEvaluation({ db, signals: createSignals({ db, drift }), onError });

  const seed = async (): Promise<void> => {
    if ((await readSetting(db, 'alerts.seeded')) === true) return;
    for (const rule of defaultRules) await writeRule(db, readRule(rule), true, platform.now(), true);
    await writeSetting(db, 'alerts.seeded', true);
  };

  const clean = async (now: number): Promise<void> => {
    await db
      .deleteFrom('alert')
      .where('state', '=', 'resolved')
      .where('updated_at', '<', now - KEEP_ENDED_MS)
      .execute();
    await db
      .deleteFrom('alert_event')
      .where('at', '<', now - KEEP_EVENTS_MS)
      .execute();
    await db
      .deleteFrom('silence')
      .where('until_at', '<', now - KEEP_ENDED_MS)
      .execute();
  };

  const alertsJob: Job = {
    name: 'alerts',
    everyMs: EVERY_MS,
    run: async (now) => {
      await seed();
      await evaluate(now);
      await clean(now);
    },
  };
  const outboxJob = createOutboxJob({ db, platform, deliver: createChannels(parts), rollback, onError });

  return {
    jobs: [alertsJob, outboxJob],
    list: async (most = 200) => {
      const runbooks = new Map(
        (await readRules(db, true)).map(({ rule }) => [rule.id, rule.runbook ?? null]),
      );
      const alerts = await readAlerts(db);
      const events = await db
        .selectFrom('alert_event')
        .selectAll()
        .orderBy('id', 'desc')
        .limit(most)
        .execute();
      return {
        alerts: alerts
          .map(({ fingerprint, rule, labels, state, value, text, peak, ackedBy, updatedAt }) => ({
            fingerprint,
            rule,
            labels,
            state: state.state,
            level: levelOf(state.rank === 0 ? peak : state.rank),
            value,
            text,
            startedAt: state.firedAt,
            updatedAt,
            ackedBy,
            runbook: runbooks.get(rule) ?? null,
          }))
          .sort((a, b) => b.startedAt - a.startedAt),
        events: events.map(({ at, fingerprint, kind, level, body }) => ({
          at,
          fingerprint,
          kind,
          level: level as Level,
          ...(JSON.parse(body) as { rule: string; text: string }),
        })),
      };
    },
    acknowledge: (fingerprint, actor) =>
      inTransaction(
        db,
        async (tx) => {
          const [alert] = await readAlerts(tx, fingerprint);
          if (!alert) throw notFound('alert', fingerprint);
          const { state } = alert;
          if (state.state === 'acked') return;
          if (state.state !== 'firing') {
            throw new ServerError(
              'ERR_INLAY_CONFLICT',
              `The alert is ${state.state}; only one that fires is acknowledged.`,
            );
          }
          const now = platform.now();
          const acked = {
            ...alert,
            state: { ...state, state: 'acked' as const },
            ackedBy: actor,
            updatedAt: now,
          };
          await writeAlerts(tx, [acked]);
          const event = {
            fingerprint,
            rule: alert.rule,
            at: now,
            kind: 'acked',
            rank: state.rank,
            text: actor,
          };
          await writeEvents(tx, [event]);
        },
        { snapshot: true },
      ),
    rules: async () => {
      await seed();
      return readRules(db, true);
    },
    putRule: async (value, isEnabled = true) => {
      await seed();
      const rule = readRule(value);
      await writeRule(db, rule, isEnabled, platform.now());
      return rule;
    },
    removeRule: async (id) => {
      await seed();
      const { numDeletedRows } = await db.deleteFrom('alert_rule').where('id', '=', id).executeTakeFirst();
      if (Number(numDeletedRows) === 0) throw notFound('rule', id);
    },
    silences: async () => {
      const rows = await db.selectFrom('silence').selectAll().orderBy('from_at', 'desc').execute();
      return rows.map(({ id, matchers, from_at, until_at, actor, comment }) => ({
        id,
        matchers: JSON.parse(matchers) as Labels,
        fromAt: from_at,
        untilAt: until_at,
        actor,
        comment,
      }));
    },
    silence: async (value, actor) => {
      const { matchers, fromAt = platform.now(), untilAt, comment } = readAs(silenceSchema, value, 'silence');
      if (untilAt <= Math.max(fromAt, platform.now())) {
        throw new ServerError(
          'ERR_INLAY_REFUSED',
          'The silence would be over before it begins; choose a later end.',
        );
      }
      const id = randomUUID();
      const row = {
        id,
        matchers: JSON.stringify(matchers),
        from_at: fromAt,
        until_at: untilAt,
        actor,
        comment,
      };
      await db.insertInto('silence').values(row).execute();
      return { id, matchers, fromAt, untilAt, actor, comment };
    },
    endSilence: async (id) => {
      const now = platform.now();
      const { numUpdatedRows } = await db
        .updateTable('silence')
        .set({ until_at: now })
        .where('id', '=', id)
        .where('until_at', '>', now)
        .executeTakeFirst();
      if (Number(numUpdatedRows) === 0) throw notFound('silence', id);
    },
    contacts: () => readContacts(db),
    putContact: async (value) => {
      const contact = readContact(value);
      const row = { id: contact.id, kind: contact.kind, body: JSON.stringify(contact) };
      await db
        .insertInto('contact')
        .values(row)
        .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
        .execute();
      return contact;
    },
    removeContact: async (id) => {
      const { numDeletedRows } = await db.deleteFrom('contact').where('id', '=', id).executeTakeFirst();
      if (Number(numDeletedRows) === 0) throw notFound('contact', id);
    },
    testContact: async (id) => {
      if (!(await readContacts(db)).some((contact) => contact.id === id)) throw notFound('contact', id);
      const now = platform.now();
      const body: AlertNotification = {
        v: 1,
        kind: 'test',
        at: now,
        status: 'firing',
        level: 'warning',
        labels: {},
        alerts: [],
        repeatS: 0,
      };
      const key = randomUUID();
      await writeDeliveries(db, [{ contact: id, key, body: JSON.stringify(body) }], now);
      return key;
    },
    deliveries: (most) => readDeliveries(db, most),
    redeliver: async (key) => {
      const { numUpdatedRows } = await db
        .updateTable('outbox')
        .set({ done_at: 0, next_at: platform.now(), attempts: 0 })
        .where('key', '=', key)
        .where('done_at', '>', 0)
        .where('error', '!=', '')
        .executeTakeFirst();
      if (Number(numUpdatedRows) === 0) throw notFound('delivery', key);
    },
    dryRun: (value, days) => dryRun({ db, drift }, readRule(value), days, platform.now()),
  };
}

function notFound(what: string, name: string): ServerError {
  return new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `There is no ${what} "${name.slice(0, 100)}" that this could be done to.`,
  );
}
