/** Rollouts that judge themselves. */

import { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import type { Guards } from '../guards/guards.ts';
import {
  GUARD_RANGES,
  MARGIN_RANGE,
  MOST_RULES,
  MOST_SECONDS_RANGE,
  MOST_STAGES,
  SECONDS_RANGE,
  SHARE_RANGE,
  START_RANGE,
  VERSION_FORM,
  WEIGHT_RANGE,
  type Range,
} from '../guards/ranges.ts';
import { EVENT_NAME } from '../../telemetry/report.ts';
import { MOST_ARMS } from '../../update/arms.ts';
import { readPlanOptions } from '../rollout-body.ts';
import { evidenceSchema, powerSchema, verificationSchema } from './answer-schemas.ts';
import type { RolloutEvidence } from './answers.ts';
import { endpoint, jsonBody, type Endpoint } from './endpoint.ts';
import type { FleetQueries } from './fleet-endpoints.ts';
import { nameParam, text } from './inputs.ts';

/** What these routes work on. */
export interface GuardParts {
  readonly guards: Guards;
  readonly fleet: Pick<FleetQueries, 'fleet'>;
}

const params = z.object({ channel: nameParam, model: nameParam });
const between = ([lowest, highest]: Range): z.ZodNumber => z.number().min(lowest).max(highest);
const whole = (range: Range): z.ZodNumber => between(range).int();
const guardName = z.enum(['errors', 'latency', 'memory', 'load', 'quality', 'silence', 'biz', 'rejections']);

const rule = z
  .record(z.string().max(64), z.unknown())
  .meta({ description: 'Which devices take part, as in a plan: `{"os":["ios"],"app":">=3.2.0"}`.' });

const guardOptions = z.strictObject({
  guards: z.array(guardName).max(8).exactOptional(),
  required: z.array(guardName).max(8).exactOptional(),
  alpha: between(GUARD_RANGES.alpha).exactOptional(),
  calls: whole(GUARD_RANGES.calls).exactOptional(),
  marginRatio: between(GUARD_RANGES.marginRatio).exactOptional(),
  minRatio: between(GUARD_RANGES.minRatio).exactOptional(),
  maxP95Ratio: between(GUARD_RANGES.maxP95Ratio).exactOptional(),
  maxLoadRatio: between(GUARD_RANGES.maxLoadRatio).exactOptional(),
  maxMemoryRatio: between(GUARD_RANGES.maxMemoryRatio).exactOptional(),
  biz: z.strictObject({ name: z.string().regex(EVENT_NAME), margin: between(MARGIN_RANGE) }).exactOptional(),
});

const programme = z.strictObject({
  strategy: z.enum(['canary', 'blue-green', 'shadow', 'ab', 'bandit', 'rolling', 'pin']),
  stages: z
    .array(
      z.strictObject({
        bp: whole(SHARE_RANGE),
        ctl: whole(WEIGHT_RANGE).exactOptional(),
        durationS: whole(SECONDS_RANGE).exactOptional(),
        soakS: whole(SECONDS_RANGE),
        maxS: whole(MOST_SECONDS_RANGE),
        rules: z.array(rule).max(MOST_RULES).exactOptional(),
      }),
    )
    .min(1)
    .max(MOST_STAGES)
    .exactOptional(),
  startAt: whole(START_RANGE).exactOptional(),
  guard: guardOptions.exactOptional(),
  inconclusive: z.enum(['hold', 'promote', 'rollback']).exactOptional(),
  soakOnly: z.boolean().exactOptional(),
  onFail: z.enum(['rollback', 'halt', 'hold']).exactOptional(),
  arms: z
    .array(
      z.strictObject({
        name: text(32),
        version: z.string().regex(VERSION_FORM),
        weightBp: whole(WEIGHT_RANGE),
      }),
    )
    .min(1)
    .max(MOST_ARMS)
    .exactOptional(),
});

const startBody = jsonBody(
  z.strictObject({
    version: text(128),
    programme: programme.default({ strategy: 'canary' }),
    options: z.record(z.string(), z.unknown()).default({}).meta({
      description:
        'What the plans of all stages say besides: `rules`, `allow`, `deny`, `bucketBy`, `trial`, `net`, `pollS`, `reportS`, `leaseS`, as a rollout by hand takes them.',
    }),
    reason: text(500, 0).exactOptional(),
  }),
);

const powerBody = jsonBody(
  z.strictObject({
    programme,
    devices: z.number().int().min(0).max(1e9).exactOptional().meta({
      description: 'Devices that report. Default: those that did within a day, of the model if one is named.',
    }),
    model: nameParam.exactOptional(),
  }),
);

const actionBody = jsonBody(z.strictObject({ reason: text(500, 0).exactOptional() }));

const about = {
  advance: 'Begins the next stage, whatever the evidence says; needs a reason',
  unpin: 'Lets another rollout take the place of a pinned one',
} as const;

/** Creates the routes. They come before those with an action in their address. */
export function createGuardEndpoints({ guards, fleet }: GuardParts): readonly Endpoint[] {
  return [
    endpoint({
      method: 'get',
      path: '/rollouts',
      summary: 'Lists rollouts with their evidence',
      role: 'viewer',
      query: z.strictObject({ channel: nameParam.exactOptional(), model: nameParam.exactOptional() }),
      answer: z.object({ rollouts: z.array(evidenceSchema) }),
      handle: async ({ query: { channel, model } }) => ({
        rollouts: [...(await guards.evidence(channel, model))],
      }),
    }),
    endpoint({
      method: 'get',
      path: '/rollouts/{channel}/{model}/evidence',
      summary: 'Reads the evidence of one rollout',
      role: 'viewer',
      params,
      answer: evidenceSchema,
      handle: ({ params: { channel, model } }) => evidenceOf(guards, channel, model),
    }),
    endpoint({
      method: 'post',
      path: '/rollouts/{channel}/{model}/programme',
      summary: 'Starts a rollout that judges itself',
      role: 'publisher',
      signs: true,
      params,
      body: startBody,
      answer: evidenceSchema,
      handle: ({ params: place, body, actor }) =>
        guards.start({ ...place, ...body, options: readPlanOptions(body.options) }, actor),
    }),
    ...(['advance', 'unpin'] as const).map((action) =>
      endpoint({
        method: 'post',
        path: `/rollouts/{channel}/{model}/${action}`,
        summary: about[action],
        role: 'publisher',
        signs: true,
        params,
        body: actionBody,
        answer: evidenceSchema,
        handle: ({ params: place, body, actor }) => guards.act({ ...place, ...body, action }, actor),
      }),
    ),
    endpoint({
      method: 'get',
      path: '/rollouts/{channel}/{model}/verify',
      summary: 'Computes the verdicts of each stage again from what was seen',
      role: 'viewer',
      params,
      answer: verificationSchema,
      handle: async ({ params: { channel, model } }) => {
        const { plan } = await evidenceOf(guards, channel, model);
        const stages = [];
        for (const stage of await guards.lookedAt(plan.id)) {
          const { looks, broken } = await guards.verify(plan.id, stage);
          stages.push({ stage, looks, broken: [...broken] });
        }
        return { stages };
      },
    }),
    endpoint({
      method: 'post',
      path: '/rollouts/power',
      summary: 'Tells what stages can detect, before they begin',
      role: 'viewer',
      isShared: true,
      body: powerBody,
      answer: z.object({ stages: z.array(powerSchema) }),
      handle: async ({ body: { programme: asked, devices, model } }) => {
        const stages = await guards.power(asked, devices ?? (await reporting(fleet, model)));
        return { stages: [...stages] };
      },
    }),
  ];
}

async function evidenceOf(guards: Guards, channel: string, model: string): Promise<RolloutEvidence> {
  const [found] = await guards.evidence(channel, model);
  if (found) return found;
  throw new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `Model ${model} has no rollout in channel ${channel}; start one with \`inlay rollout start\`.`,
  );
}

/** Devices that reported within a day; cells that are hidden count as none. */
async function reporting(fleet: GuardParts['fleet'], model: string | undefined): Promise<number> {
  const { devices, rows } = await fleet.fleet();
  if (model === undefined) return devices ?? 0;
  return rows.filter((row) => row.model === model).reduce((sum, row) => sum + (row.devices ?? 0), 0);
}
