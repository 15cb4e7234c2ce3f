/** What a rollout can be told besides its share, and how that gets into its plan. */

import { ServerError } from '../core/errors.ts';
import type { NetworkRules, Rule, ShadowRules, SignedPlan, TrialRules } from '../update/plan.ts';
import { unitHash } from '../update/unit.ts';
import type { ArmOption } from './arms.ts';
import { normal } from './signed-plan.ts';

/** What a rollout is told besides its share; what is absent stays as it is, or at its default in a new rollout. */
export interface RolloutOptions {
  /** Wall clock, milliseconds since 1970. Needed for `durationS`, and for raising a share while one still spreads. */
  readonly now?: number;
  /** When the stage begins, milliseconds since 1970. Default: at once. */
  readonly startAt?: number;
  /** Seconds over which the share is reached, one bucket after the other. Default 0: at once. */
  readonly durationS?: number;
  /** Stage of the rollout, from 0 on; only rises. */
  readonly stage?: number;
  /** Share that is measured on the base, per cent in [0, 100], at most two decimals. */
  readonly control?: number;
  /** Further arms, and how the buckets that the rollout wins now are shared out among them. */
  readonly arms?: readonly ArmOption[];
  /** Share of the devices that run the release in the shadow, per cent above the share of the rollout; 0: none do. */
  readonly shadow?: number;
  /** Share of their calls, per cent in [0, 100]. Default 10. */
  readonly shadowSample?: number;
  /** Whether no other release may take the place of this one until it is unpinned. */
  readonly pinned?: boolean;
  readonly rules?: readonly Rule[];
  /** Install identifiers; they are signed as `unitHash` names them. */
  readonly allow?: readonly string[];
  /** As `allow`. */
  readonly deny?: readonly string[];
  /** Only for a new rollout, since it places devices in other buckets. */
  readonly bucketBy?: string;
  readonly trial?: Partial<TrialRules>;
  readonly net?: Partial<NetworkRules>;
  readonly pollS?: number;
  /** Seconds between two reports of a device, in [60, 604800]. */
  readonly reportS?: number;
  readonly leaseS?: number;
  /** Channel of the plans, for what is said of them. Default `stable`. */
  readonly channel?: string;
}

/** Buckets of a rollout, one per basis point. */
export const whole = 10_000;
/** Share of the calls that a shadow gets where nobody says otherwise, basis points. */
const usualSampleBp = 1000;

/** A plan with its options, checked and in its one form. */
export function withOptions(plan: SignedPlan, options: RolloutOptions): SignedPlan {
  const { stage, pinned, control, rules, allow, deny, bucketBy, trial, net, pollS, reportS, leaseS } =
    options;
  const isByInstall = (bucketBy ?? plan.bucketBy ?? 'install') === 'install';
  const hashed = (ids: readonly string[]): string[] =>
    ids.map((id) => {
      if (isByInstall) assertInstallId(id);
      return unitHash(plan.salt, id);
    });
  return normal({
    ...plan,
    ...(stage !== undefined && { stage: risen(plan, stage) }),
    ...(pinned !== undefined && { pinned }),
    ...(control !== undefined && { ctl: toBasisPoints(control, 0) }),
    shadow: shadowOf(plan, options),
    ...(rules && { rules }),
    ...(allow && { allow: hashed(allow) }),
    ...(deny && { deny: hashed(deny) }),
    ...(bucketBy !== undefined && { bucketBy }),
    ...(trial && { trial: { ...plan.trial, ...trial } }),
    ...(net && { net: { ...plan.net, ...net } }),
    ...(pollS !== undefined && { pollS }),
    ...(reportS !== undefined && { report: { ...plan.report, everyS: reportS } }),
    ...(leaseS !== undefined && { leaseS }),
  });
}

/**
 * Gives a share in basis points.
 * @param least lowest one that is meant.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if it is out of range or has more than two decimals.
 */
export function toBasisPoints(percent: number, least: 0 | 1 = 1): number {
  const bp = Math.round(percent * 100);
  if (!(bp >= least && bp <= whole) || Math.abs(percent * 100 - bp) > 1e-6) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `A share of ${percent} % cannot be rolled out; use ${least / 100} to 100 with at most two decimals.`,
      { details: { percent } },
    );
  }
  return bp;
}

/** A shadow ends where the share has reached it. */
function shadowOf(
  { model, bp, state, shadow: present }: SignedPlan,
  { shadow, shadowSample }: RolloutOptions,
): ShadowRules | undefined {
  if (shadow === 0) return undefined;
  const shadowBp = shadow === undefined ? present?.bp : toBasisPoints(shadow);
  if (shadowBp === undefined) return undefined;
  if (state === 'complete' || shadowBp <= bp) {
    if (shadow === undefined) return undefined;
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `A shadow of ${shadow} % is not above the share of ${bp / 100} %, whose devices run the release already; ` +
        'raise it, or leave it out.',
      { details: { model, shadow } },
    );
  }
  const sampleBp = shadowSample === undefined ? present?.sampleBp : toBasisPoints(shadowSample, 0);
  return { bp: shadowBp, sampleBp: sampleBp ?? usualSampleBp };
}

function risen({ model, stage: present = 0 }: SignedPlan, stage: number): number {
  if (stage >= present) return stage;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The rollout of ${model} is at stage ${present} and cannot go back to ${stage}; a new rollout begins at 0.`,
    { details: { model, stage } },
  );
}

/** Any other text would name no device, and nobody would notice. */
function assertInstallId(id: string): void {
  if (/^[0-9a-f]{32}$/.test(id)) return;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `${JSON.stringify(id.slice(0, 80))} is no install identifier; those are 32 lower-case hex digits, ` +
      'as `inlay status --store` shows them.',
  );
}
