/** A stage of a programme as a request for a signed plan. */

import type { Kysely } from 'kysely';
import type { RolloutRequest } from '../catalog.ts';
import type { Schema } from '../db/schema.ts';
import { CANDIDATE_ARM } from '../../update/arms.ts';
import { weightsOf } from './bandit.ts';
import type { Programme } from './programme.ts';
import { readRewards } from './rewards.ts';

/** What a stage is asked of. */
export interface StageRequest {
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  readonly programme: Programme;
  /** Index of the stage in the programme. */
  readonly index: number;
  /** Stage of the plan. */
  readonly stage: number;
  readonly reason: string;
  /** When it begins, milliseconds since 1970; absent where the release is everywhere already. */
  readonly startAt?: number;
}

/** Share of the calls of a device that a shadow gets, per cent. */
const shadowSample = 10;

/** Says what the catalog is to sign. @param before - the stage that a bandit learned from; absent for the first. */
export async function requestOf(
  db: Kysely<Schema>,
  request: StageRequest,
  before?: { readonly rollout: string; readonly stage: number },
): Promise<RolloutRequest> {
  const { channel, model, version, programme, index, stage, reason, startAt } = request;
  const { bp = 10_000, ctl, durationS = 0, rules } = programme.stages[index] ?? {};
  const isShadow = programme.strategy === 'shadow';
  const arms =
    before && programme.strategy === 'bandit' ? await learnt(db, programme, before) : programme.arms;
  return {
    channel,
    model,
    version,
    stage,
    // What does not fit a field of the audit log is in the log of looks.
    reason: reason.slice(0, 500),
    percent: isShadow ? 0 : bp / 100,
    ...(isShadow && { shadow: bp / 100, shadowSample }),
    ...(ctl !== undefined && { control: ctl / 100 }),
    ...(durationS > 0 && { durationS }),
    // With a begin, the last share is one to be judged like the others; without, the rollout would be over with it.
    ...(startAt !== undefined && !isShadow && { startAt }),
    ...(rules && { rules }),
    ...(arms && bp < 10_000 && { arms }),
    ...(programme.strategy === 'pin' && { pinned: true }),
  };
}

/** The arms with weights by what is known of each; the candidate gets what is left. */
async function learnt(
  db: Kysely<Schema>,
  { arms = [], guard }: Programme,
  before: { readonly rollout: string; readonly stage: number },
): Promise<NonNullable<Programme['arms']>> {
  const rewards = await readRewards(db, before, guard.biz?.name);
  const known = [CANDIDATE_ARM, ...arms.map(({ name }) => name)].map(
    (arm) => rewards.find((reward) => reward.arm === arm) ?? { arm, devices: 0, good: 0 },
  );
  const weights = weightsOf(known);
  return arms.map((arm, i) => ({ ...arm, weightBp: weights[i + 1] ?? 0 }));
}
