/** Alerts, and what people set for them. Every change is in the audit log. */

import { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import type { Alerts, SilenceRecord } from '../alerts/alerts.ts';
import { contactSchema, type Contact } from '../alerts/contact.ts';
import type { DryRun } from '../alerts/dry-run.ts';
import type { Delivery } from '../alerts/outbox.ts';
import type { AlertRule } from '../alerts/rule.ts';
import { alertRuleSchema } from '../alerts/rule-reader.ts';
import type { Repository } from '../db/repository.ts';
import { alertsSchema } from './answer-schemas.ts';
import { endpoint, jsonBody, type BodyReader, type Endpoint } from './endpoint.ts';
import { countQuery, text, time } from './inputs.ts';

/** What these routes work on. */
export interface AlertParts {
  readonly alerts: Alerts;
  readonly repository: Pick<Repository, 'record'>;
}

const idParams = z.object({ id: text(64) });
const done = z.object({ done: z.literal(true) });

const ruleAnswer: z.ZodType<{ readonly rule: AlertRule; readonly isEnabled: boolean }> = z
  .custom<{ readonly rule: AlertRule; readonly isEnabled: boolean }>()
  .meta({ description: '`rule` with its defaults, and `isEnabled`.' });
const contactAnswer: z.ZodType<Contact> = z
  .custom<Contact>()
  .meta({ description: 'A contact with its defaults; secrets are names of variables.' });
const silenceAnswer: z.ZodType<SilenceRecord> = z
  .custom<SilenceRecord>()
  .meta({ description: '`id`, `matchers`, `fromAt`, `untilAt`, `actor`, `comment`.' });
const deliveryAnswer: z.ZodType<Delivery> = z
  .custom<Delivery>()
  .meta({ description: 'A notification on its way, delivered or given up.' });
const dryRunAnswer: z.ZodType<DryRun> = z
  .custom<DryRun>()
  .meta({ description: '`from`, `to`, `looks`, `fired`, and up to 500 `events`.' });

const silenceBody = z.strictObject({
  matchers: z
    .record(z.string().max(64), z.string().max(128))
    .meta({ description: 'Labels that an alert must have; `rule` and `level` count as labels.' }),
  fromAt: time.optional(),
  untilAt: time,
  comment: text(500, 0).optional(),
});

const ruleBody = z.strictObject({ rule: alertRuleSchema, isEnabled: z.boolean().default(true) });
const dryRunBody = z.strictObject({
  rule: alertRuleSchema,
  days: z.number().int().min(1).max(14).default(7),
});

/** The service reads it for itself, with words of its own. */
function described(schema: z.ZodType): BodyReader<Readonly<Record<string, unknown>>> {
  return { schema, read: (fields) => fields };
}

/** Creates the routes. */
export function createAlertEndpoints({ alerts, repository }: AlertParts): readonly Endpoint[] {
  const note = (actor: string, action: string, details: Readonly<Record<string, unknown>>): Promise<void> =>
    repository.record({ actor, action, details });

  return [
    endpoint({
      method: 'get',
      path: '/alerts',
      summary: 'Lists alerts, and what happened to them',
      role: 'viewer',
      query: z.strictObject({ limit: countQuery(1000).default(200) }),
      answer: alertsSchema,
      handle: ({ query: { limit } }) => alerts.list(limit),
    }),
    endpoint({
      method: 'post',
      path: '/alerts/{fingerprint}/ack',
      summary: 'Notes that somebody takes care of an alert',
      role: 'publisher',
      params: z.object({ fingerprint: z.string().regex(/^[0-9a-f]{64}$/, 'It is a SHA-256 in hex.') }),
      answer: done,
      handle: async ({ params: { fingerprint }, actor }) => {
        await alerts.acknowledge(fingerprint, actor);
        await note(actor, 'alert-ack', { fingerprint });
        return { done: true };
      },
    }),
    ...ruleEndpoints(alerts, note),
    endpoint({
      method: 'get',
      path: '/alerts/silences',
      summary: 'Lists silences, those that have ended included',
      role: 'viewer',
      answer: z.object({ silences: z.array(silenceAnswer) }),
      handle: async () => ({ silences: [...(await alerts.silences())] }),
    }),
    endpoint({
      method: 'post',
      path: '/alerts/silences',
      summary: 'Keeps some alerts from notifying anybody for a time',
      role: 'publisher',
      body: jsonBody(silenceBody),
      answer: silenceAnswer,
      handle: async ({ body, actor }) => {
        const silence = await alerts.silence(body, actor);
        const { id, matchers, untilAt } = silence;
        await note(actor, 'silence', { id, matchers, untilAt });
        return silence;
      },
    }),
    endpoint({
      method: 'delete',
      path: '/alerts/silences/{id}',
      summary: 'Ends a silence',
      role: 'publisher',
      params: idParams,
      answer: done,
      handle: async ({ params: { id }, actor }) => {
        await alerts.endSilence(id);
        await note(actor, 'silence-end', { id });
        return { done: true };
      },
    }),
    ...contactEndpoints(alerts, note),
  ];
}

type Note = (actor: string, action: string, details: Readonly<Record<string, unknown>>) => Promise<void>;

function ruleEndpoints(alerts: Alerts, note: Note): readonly Endpoint[] {
  return [
    endpoint({
      method: 'get',
      path: '/alerts/rules',
      summary: 'Lists the rules of alerts',
      role: 'viewer',
      answer: z.object({ rules: z.array(ruleAnswer) }),
      handle: async () => ({ rules: [...(await alerts.rules())] }),
    }),
    endpoint({
      method: 'put',
      path: '/alerts/rules/{id}',
      summary: 'Adds a rule or replaces it',
      role: 'admin',
      params: idParams,
      body: described(ruleBody),
      answer: ruleAnswer,
      handle: async ({ params: { id }, body: { rule, isEnabled = true, ...rest }, actor }) => {
        assertOnly(rest, 'rule, isEnabled');
        if (typeof isEnabled !== 'boolean') throw refused('The field isEnabled is true or false');
        if ((rule as { readonly id?: unknown } | undefined)?.id !== id) {
          throw refused(`The rule is to have the id ${JSON.stringify(id)} of its address`);
        }
        const put = await alerts.putRule(rule, isEnabled);
        await note(actor, 'alert-rule', { id, isEnabled });
        return { rule: put, isEnabled };
      },
    }),
    endpoint({
      method: 'delete',
      path: '/alerts/rules/{id}',
      summary: 'Removes a rule; its alerts end',
      role: 'admin',
      params: idParams,
      answer: done,
      handle: async ({ params: { id }, actor }) => {
        await alerts.removeRule(id);
        await note(actor, 'alert-rule-remove', { id });
        return { done: true };
      },
    }),
    endpoint({
      method: 'post',
      path: '/alerts/rules/dry-run',
      summary: 'Plays a rule on the days before now, and tells when it would have fired',
      role: 'publisher',
      body: described(dryRunBody),
      answer: dryRunAnswer,
      handle: ({ body: { rule, days = 7, ...rest } }) => {
        assertOnly(rest, 'rule, days');
        if (typeof days !== 'number') throw refused('The field days is a whole number from 1 to 14');
        return alerts.dryRun(rule, days);
      },
    }),
  ];
}

function contactEndpoints(alerts: Alerts, note: Note): readonly Endpoint[] {
  return [
    endpoint({
      method: 'get',
      path: '/alerts/contacts',
      summary: 'Lists where notifications go',
      role: 'viewer',
      answer: z.object({ contacts: z.array(contactAnswer) }),
      handle: async () => ({ contacts: [...(await alerts.contacts())] }),
    }),
    endpoint({
      method: 'put',
      path: '/alerts/contacts/{id}',
      summary: 'Adds a contact or replaces it',
      role: 'admin',
      params: idParams,
      body: described(contactSchema),
      answer: contactAnswer,
      handle: async ({ params: { id }, body, actor }) => {
        if (body['id'] !== id)
          throw refused(`The contact is to have the id ${JSON.stringify(id)} of its address`);
        const contact = await alerts.putContact(body);
        await note(actor, 'contact', { id, kind: contact.kind });
        return contact;
      },
    }),
    endpoint({
      method: 'delete',
      path: '/alerts/contacts/{id}',
      summary: 'Removes a contact',
      role: 'admin',
      params: idParams,
      answer: done,
      handle: async ({ params: { id }, actor }) => {
        await alerts.removeContact(id);
        await note(actor, 'contact-remove', { id });
        return { done: true };
      },
    }),
    endpoint({
      method: 'post',
      path: '/alerts/contacts/{id}/test',
      summary: 'Sends a test to a contact',
      role: 'admin',
      params: idParams,
      answer: z.object({ key: z.string() }),
      handle: async ({ params: { id } }) => ({ key: await alerts.testContact(id) }),
    }),
    endpoint({
      method: 'get',
      path: '/alerts/deliveries',
      summary: 'Lists notifications on their way, delivered or given up',
      role: 'viewer',
      query: z.strictObject({ limit: countQuery(1000).default(200) }),
      answer: z.object({ deliveries: z.array(deliveryAnswer) }),
      handle: async ({ query: { limit } }) => ({ deliveries: [...(await alerts.deliveries(limit))] }),
    }),
    endpoint({
      method: 'post',
      path: '/alerts/deliveries/{id}/retry',
      summary: 'Tries again what was given up',
      role: 'publisher',
      params: z.object({ id: text(128) }),
      answer: done,
      handle: async ({ params: { id } }) => {
        await alerts.redeliver(id);
        return { done: true };
      },
    }),
  ];
}

function assertOnly(rest: Readonly<Record<string, unknown>>, known: string): void {
  const [other] = Object.keys(rest);
  if (other !== undefined) {
    throw refused(`There is no field ${JSON.stringify(other.slice(0, 80))} here; known are ${known}`);
  }
}

function refused(problem: string): ServerError {
  return new ServerError('ERR_INLAY_REFUSED', `${problem}.`);
}
