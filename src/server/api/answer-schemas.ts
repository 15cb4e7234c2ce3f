/** The answers of `answers.ts` in words that the OpenAPI document is written in; the compiler holds them together. */

import { z } from 'zod';
import type { SignedPlan } from '../../update/plan.ts';
import { accessRoles, type Principal } from '../access.ts';
import type { Programme } from '../guards/programme.ts';
import type { RolloutAnswer } from '../catalog.ts';
import type { AuditRecord } from '../db/repository.ts';
import type { ServerStatus } from '../status.ts';
import type { NewToken, TokenRecord } from '../tokens.ts';
import type {
  AlertsAnswer,
  AuditAnswer,
  DriftAnswer,
  ErrorsAnswer,
  FleetAnswer,
  HeatmapAnswer,
  RolloutEvidence,
  SeriesAnswer,
  StagePower,
  TelemetryHealthAnswer,
  VerificationAnswer,
} from './answers.ts';

const number = z.number();
const string = z.string();
const maybe = z.number().nullable();
const maybes = z.array(maybe);
const details: z.ZodType<Readonly<Record<string, unknown>>> = z.record(z.string(), z.unknown());

/** A plan in force; `docs/protocol.md` describes its fields. */
export const planSchema: z.ZodType<SignedPlan> = z
  .custom<SignedPlan>()
  .meta({ description: 'A plan as it is signed; see docs/protocol.md.' });

/** A plan, with what should be known of the step that led to it. */
export const rolloutSchema: z.ZodType<RolloutAnswer> = z
  .custom<RolloutAnswer>()
  .meta({ description: 'A plan as it is signed, with `notices`.' });

/** A programme as it is carried out. */
const programmeSchema: z.ZodType<Programme> = z
  .custom<Programme>()
  .meta({ description: 'A programme; the body that starts one describes it.' });

/** What is installed. */
export const statusSchema: z.ZodType<ServerStatus> = z
  .custom<ServerStatus>()
  .meta({ description: 'Metadata, releases, plans by channel, blobs.' });

/** An event of the audit log. */
export const recordSchema: z.ZodType<AuditRecord> = z.object({
  seq: number,
  at: string,
  actor: string,
  action: string,
  details,
});

export const fleetSchema: z.ZodType<FleetAnswer> = z.object({
  at: number,
  devices: maybe,
  kAnonymity: number,
  rows: z.array(
    z.object({
      model: string,
      version: string,
      rollout: string,
      stage: number,
      arm: string,
      devices: maybe,
      lastAt: number,
    }),
  ),
  classes: z.array(z.object({ cls: number, title: string, devices: maybe })),
  models: z.array(string),
});

export const seriesSchema: z.ZodType<SeriesAnswer> = z.object({
  query: z.custom<SeriesAnswer['query']>().meta({ description: 'What was asked, with its defaults.' }),
  step: number,
  times: z.array(number),
  lines: z.array(
    z.object({
      key: string,
      calls: maybes,
      devices: maybes,
      errorRate: maybes,
      p50: maybes,
      p50Low: maybes,
      p50High: maybes,
      p95: maybes,
      p95Low: maybes,
      p95High: maybes,
      p99: maybes,
      cacheHitRate: maybes,
      coldStarts: maybes,
      loadP95: maybes,
      memory: maybes,
      cost: maybes,
    }),
  ),
});

export const heatmapSchema: z.ZodType<HeatmapAnswer> = z.object({
  step: number,
  times: z.array(number),
  edges: z.array(number),
  counts: z.array(z.array(number).nullable()),
});

export const errorsSchema: z.ZodType<ErrorsAnswer> = z.object({
  rows: z.array(z.object({ version: string, code: string, calls: maybe, share: maybe })),
});

export const healthSchema: z.ZodType<TelemetryHealthAnswer> = z.object({
  hours: z.array(number),
  counts: z.record(z.string(), z.array(number)),
  consent: z.record(z.string(), maybe),
  lossRate: maybe,
});

const arm = z.object({ judged: number, bad: number });

const guardName = z.enum(['errors', 'latency', 'memory', 'load', 'quality', 'silence', 'biz', 'rejections']);

export const evidenceSchema: z.ZodType<RolloutEvidence> = z.object({
  channel: string,
  plan: planSchema,
  programme: programmeSchema.nullable(),
  status: z.enum(['running', 'held', 'failed', 'ended', 'manual']),
  stage: number,
  stageAt: number,
  reason: string,
  devices: z.object({ exposed: number, control: number, silent: number }),
  guards: z.array(
    z.object({
      guard: z.union([guardName, z.enum(['tripwire', 'sample-ratio'])]),
      required: z.boolean(),
      logEFail: number,
      failAt: number,
      logEPass: number,
      passAt: number,
      verdict: z.enum(['open', 'fail', 'pass', 'hold']),
      treated: arm,
      control: arm,
      ratio: maybe,
      devicesLeft: maybe,
      text: string,
      history: z.array(z.object({ at: number, fail: number, pass: number })),
    }),
  ),
  arms: z.array(
    z.object({
      arm: string,
      version: string,
      weightBp: number,
      devices: maybe,
      reward: maybe,
      comparison: z
        .object({ verdict: z.enum(['better', 'worse', 'open']), logE: number, at: number, text: string })
        .nullable(),
    }),
  ),
  shadow: z.object({ n: number, alike: number, unlike: number, failed: number }).nullable(),
});

export const powerSchema: z.ZodType<StagePower> = z.object({
  bp: number,
  treated: number,
  control: number,
  rows: z.array(
    z.object({
      guard: guardName,
      baseRate: number,
      ratio: number,
      median: number,
      p90: number,
      detectable: z.boolean(),
    }),
  ),
  smallest: maybe,
  text: string,
});

export const verificationSchema: z.ZodType<VerificationAnswer> = z.object({
  stages: z.array(z.object({ stage: number, looks: number, broken: z.array(number) })),
});

export const driftSchema: z.ZodType<DriftAnswer> = z.object({
  rows: z.array(
    z.object({
      model: string,
      version: string,
      feature: string,
      kind: z.enum(['input', 'output']),
      against: z.enum(['training', 'rolling']),
      n: number,
      devices: number,
      psi: maybe,
      psiAt: maybe,
      chi2P: maybe,
      ks: maybe,
      ksP: maybe,
      js: maybe,
      w1: maybe,
      verdict: z.enum(['none', 'warning', 'critical', 'too-few']),
      bins: z.array(string),
      reference: z.array(number),
      current: z.array(number),
      history: maybes,
    }),
  ),
  concept: z.array(
    z.object({
      model: string,
      version: string,
      labelled: number,
      coverage: maybe,
      accuracy: maybe,
      reference: maybe,
      logE: maybe,
      calibration: z.array(z.tuple([number, number, number])),
    }),
  ),
});

export const alertsSchema: z.ZodType<AlertsAnswer> = z.object({
  alerts: z.array(
    z.object({
      fingerprint: string,
      rule: string,
      labels: z.record(z.string(), string),
      state: string,
      level: string,
      value: maybe,
      text: string,
      startedAt: number,
      updatedAt: number,
      ackedBy: string.nullable(),
      runbook: string.nullable(),
    }),
  ),
  events: z.array(
    z.object({
      at: number,
      fingerprint: string,
      rule: string,
      kind: string,
      level: string,
      text: string,
    }),
  ),
});

export const auditSchema: z.ZodType<AuditAnswer> = z.object({
  records: z.array(
    z.object({ seq: number, at: string, actor: string, action: string, details, hash: string }),
  ),
  intact: z.boolean(),
});

const role = z.enum(accessRoles);
const scope = z
  .custom<TokenRecord['scope']>()
  .meta({ description: 'Lists `models` and `channels`; absent is everything.' });

/** Who asks. */
export const principalSchema: z.ZodType<Principal> = z.object({ actor: string, role, scope });

export const tokenSchema: z.ZodType<TokenRecord> = z.object({
  id: string,
  name: string,
  role,
  scope,
  createdAt: number,
  expiresAt: maybe,
  revokedAt: maybe,
  usedAt: maybe,
  state: z.enum(['valid', 'expired', 'revoked']),
});

export const newTokenSchema: z.ZodType<NewToken> = z.object({
  token: string.meta({ description: 'The key itself, shown this once.' }),
  record: tokenSchema,
});
