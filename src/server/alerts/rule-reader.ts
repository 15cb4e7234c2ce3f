/** Reads rules and whatever else people write for alerts, strictly. */

import { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import { LEVELS, SIGNALS, type AlertRule } from './rule.ts';

/** Names of rules and contacts. */
export const nameSchema: z.ZodType<string> = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/);
/** Without control characters, which could end a header, and which databases do not take. */
const text = z
  .string()
  .max(200)
  .regex(/^\P{Cc}*$/u, 'It has no control characters.');
/** Names of labels. */
export const labelSchema: z.ZodType<string> = z.string().regex(/^[a-z][a-zA-Z0-9_]{0,31}$/);
const labelValue = text.max(128);
const seconds = z.int().min(0).max(31_536_000);
const level = z.enum(LEVELS);
const figure = z.number().finite();
const clause = z.union([figure, z.record(labelSchema, figure).refine((all) => Object.keys(all).length > 0)]);
const clauses = z.union([clause, z.array(clause).min(1).max(8)]);
const labels = z.array(labelSchema).max(8);

const windowS = z.int().min(300).max(2_592_000).multipleOf(300);
const condition = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('threshold'),
    signal: z.enum(SIGNALS),
    windowS,
    below: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal('ratio'),
    signal: z.enum(SIGNALS),
    windowS,
    baselineDays: z.int().min(1).max(90).default(7),
    below: z.boolean().default(false),
  }),
  z.strictObject({ kind: z.literal('absence') }),
  z.strictObject({
    kind: z.literal('drift'),
    against: z.enum(['training', 'rolling']).default('training'),
    windowS: windowS.default(86_400),
  }),
  z.strictObject({
    kind: z.literal('burn-rate'),
    objective: z.number().gt(0).lt(1),
    windows: z
      .array(z.strictObject({ longS: windowS, shortS: windowS, factor: z.number().positive(), level }))
      .min(1)
      .max(6),
  }),
  z.strictObject({ kind: z.literal('accuracy'), windowS: windowS.default(604_800) }),
  z.strictObject({ kind: z.literal('guard') }),
  z.strictObject({
    kind: z.literal('loss'),
    windowS: z.int().min(3600).max(604_800).multipleOf(3600).default(3600),
  }),
]);

const clock = z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d$|^24:00$/);
const span = z.strictObject({
  days: z.array(z.int().min(1).max(7)).min(1).max(7).default([1, 2, 3, 4, 5, 6, 7]),
  from: clock.default('00:00'),
  to: clock.default('24:00'),
});
const schedule = z.strictObject({
  tz: z
    .string()
    .max(64)
    .refine(isTimeZone, { error: 'is not the name of a time zone, such as Europe/Berlin' })
    .default('UTC'),
  active: z.array(span).max(14).default([]),
  mute: z.array(span).max(14).default([]),
});

const rule = z.strictObject({
  id: nameSchema,
  v: z.literal(1).default(1),
  title: text.default(''),
  scope: z
    .strictObject({
      channel: labelValue.optional(),
      model: labelValue.optional(),
      version: labelValue.optional(),
      cls: z.int().min(0).max(11).optional(),
    })
    .default({}),
  cond: condition,
  forS: seconds.default(0),
  min: z
    .strictObject({ devices: z.int().min(0).default(0), n: z.int().min(0).default(0) })
    .default({ devices: 0, n: 0 }),
  levels: z
    .strictObject({
      warning: clauses.optional(),
      critical: clauses.optional(),
      emergency: clauses.optional(),
    })
    .default({}),
  clear: z
    .strictObject({ ratio: z.number().gt(0).max(1).default(0.9), forS: seconds.default(300) })
    .default({ ratio: 0.9, forS: 300 }),
  by: z
    .array(z.enum(['channel', 'model', 'version', 'cls']))
    .max(4)
    .default(['model', 'version']),
  groupBy: labels.default(['model']),
  inhibitedBy: z
    .array(z.strictObject({ level, same: labels.default([]), rule: nameSchema.optional() }))
    .max(8)
    .default([]),
  schedule: schedule.optional(),
  route: z
    .array(z.strictObject({ contact: nameSchema, levels: z.array(level).min(1).optional() }))
    .max(16)
    .optional(),
  escalate: z
    .array(
      z.strictObject({
        afterS: seconds.min(1),
        unless: z.enum(['acked', 'resolved']).default('acked'),
        to: nameSchema,
      }),
    )
    .max(8)
    .default([]),
  repeatS: seconds.min(300).default(14_400),
  runbook: z
    .url({ protocol: /^https?$/ })
    .max(500)
    .optional(),
  rollback: z.boolean().default(false),
  retrain: nameSchema.optional(),
});

/** Schema of rules, for the description of the API. */
export const alertRuleSchema: z.ZodType<AlertRule> = rule.superRefine((value, context) => {
  const isLevelled =
    value.cond.kind === 'burn-rate' || Object.values(value.levels).some((it) => it !== undefined);
  if (!isLevelled) context.addIssue({ code: 'custom', path: ['levels'], message: 'has no level' });
});

/**
 * Reads a rule.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readRule(value: unknown): AlertRule {
  return readAs(alertRuleSchema, value, 'rule');
}

/**
 * Reads a value that a person wrote.
 * @param what - for the message.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readAs<Output>(schema: z.ZodType<Output>, value: unknown, what: string): Output {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = issue?.path.map(String).join('.') ?? '';
  const place = field === '' ? what : `${what}'s field "${field.slice(0, 100)}"`;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The ${place} cannot be used: ${issue?.message ?? 'it is invalid'}.`,
    {
      details: { field },
    },
  );
}

function isTimeZone(tz: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: tz }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
}
