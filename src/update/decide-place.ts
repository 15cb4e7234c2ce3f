/** What a plan wants a device to run, and as what it counts. How it gets there is for `decide` to say. */

import type { Install, PlanEntry } from './plan.ts';
import type { ResolvedPlan } from './resolve.ts';
import { isWithdrawn } from './resolve.ts';
import { rulesHold, satisfies } from './rules.ts';
import { rejectionOf } from './slots-rejections.ts';
import type { SlotsState } from './slot.ts';
import { buckets, bucketOf, unitHash } from './unit.ts';

/**
 * As what a device counts in a rollout. `candidate` and `control` are compared with each other; `base` waits, or was
 * sent back; `out` does not take part.
 */
export type Arm = 'candidate' | 'control' | 'base' | 'out';

/** What a decision needs to know of the slots of a model. */
export type SlotsView = Pick<
  SlotsState,
  'embedded' | 'committed' | 'previous' | 'trial' | 'rejected' | 'plan' | 'policy'
>;

/** Why a device is where it is. The words are part of the telemetry and never change their meaning. */
export type PlaceReason =
  /** The plan names this device in `deny`. */
  | 'denied'
  | 'rolled-back'
  /** The candidate must not run any more. */
  | 'withdrawn'
  /** The release needs a later version of Inlay. */
  | 'sdk-too-old'
  /** The candidate did not work here. */
  | 'rejected'
  | 'halted'
  /** It has begun with the candidate, and stays with it. */
  | 'began'
  /** No rule of the plan holds. */
  | 'rules'
  /** It lacks the attribute that places it in a bucket. */
  | 'no-attribute'
  | 'complete'
  | 'paused'
  /** The plan names this device in `allow`. */
  | 'allowed'
  | 'in-bucket'
  /** Its turn comes at `dueAt`. */
  | 'not-yet'
  | 'control'
  | 'not-in-bucket';

/** Which release of the plan a device is to run. */
export interface Place {
  readonly wants: 'cand' | 'base';
  readonly arm: Arm;
  readonly reason: PlaceReason;
  /** When something changes by itself, milliseconds since 1970. */
  readonly dueAt?: number;
}

/**
 * Finds the place of a device in a plan. The first line that applies counts:
 *
 * | the device, or the plan | wants | arm | reason |
 * |---|---|---|---|
 * | is in `deny` | base | out | `denied` |
 * | is `rolledback` | base | base | `rolled-back` |
 * | names a withdrawn candidate | base | base | `withdrawn` |
 * | has a version of Inlay below that of the candidate | base | out | `sdk-too-old` |
 * | has rejected the candidate, and may not try again yet | base | base | `rejected` |
 * | is `halted`, and the device has committed the candidate, or it came with the app | cand | candidate | `halted` |
 * | has begun with the candidate, unless `halted` | cand | candidate | `began` |
 * | meets no rule, and is not in `allow` | base | out | `rules` |
 * | is `complete` | cand | candidate | `complete` |
 * | lacks the attribute `bucketBy`, and is not in `allow` | base | out | `no-attribute` |
 * | is above the share: `bucket ≥ 10000 − min(ctl, 10000 − bp)` | base | control | `control` |
 * | is above the share otherwise | base | base | `not-in-bucket` |
 * | is `halted` | base | base | `halted` |
 * | has committed the candidate, or it came with the app | cand | candidate | `began` |
 * | is `paused` | base | base | `paused` |
 * | is in `allow` | cand | candidate | `allowed` |
 * | is below the share, and its turn has come | cand | candidate | `in-bucket` |
 * | is below the share | base | base | `not-yet` |
 */
export function placeOf(plan: ResolvedPlan, install: Install, now: number, slots: SlotsView): Place {
  const { cand, state, salt, bp, ctl } = plan;
  const unit = unitOf(plan, install);
  const isNamed = (list: readonly string[]): boolean =>
    list.length > 0 && [install.id, unit].some((id) => id !== undefined && list.includes(unitHash(salt, id)));
  const runs = slots.committed ?? slots.embedded;
  const runsCandidate = runs !== undefined && isSame(runs.release, cand);

  if (isNamed(plan.deny)) return { wants: 'base', arm: 'out', reason: 'denied' };
  if (state === 'rolledback') return { wants: 'base', arm: 'base', reason: 'rolled-back' };
  if (isWithdrawn(plan.policy, cand) || isWithdrawn(slots.policy ?? {}, cand))
    return { wants: 'base', arm: 'base', reason: 'withdrawn' };
  if (!runsOn(install, plan.minSdk.cand)) return { wants: 'base', arm: 'out', reason: 'sdk-too-old' };
  const rejection = rejectionOf(slots, cand.sha256, { now, ...install }, plan.retryNonce);
  if (rejection) {
    const dueAt = rejection.until === null ? {} : { dueAt: rejection.until };
    return { wants: 'base', arm: 'base', reason: 'rejected', ...dueAt };
  }
  if (state === 'halted') {
    if (runsCandidate) return { wants: 'cand', arm: 'candidate', reason: 'halted' };
  } else if (hasBegun(plan, slots)) return { wants: 'cand', arm: 'candidate', reason: 'began' };

  const isAllowed = isNamed(plan.allow);
  if (!isAllowed && !rulesHold(plan.rules, install)) return { wants: 'base', arm: 'out', reason: 'rules' };
  if (state === 'complete') return { wants: 'cand', arm: 'candidate', reason: 'complete' };
  let bucket = 0;
  if (!isAllowed) {
    if (unit === undefined) return { wants: 'base', arm: 'out', reason: 'no-attribute' };
    bucket = bucketOf(salt, unit);
    // Control is taken from the top: the two arms never meet, and whoever is in the candidate's stays in as it grows.
    if (bucket >= bp) {
      return bucket >= buckets - ctl
        ? { wants: 'base', arm: 'control', reason: 'control' }
        : { wants: 'base', arm: 'base', reason: 'not-in-bucket' };
    }
  }
  if (state === 'halted') return { wants: 'base', arm: 'base', reason: 'halted' };
  if (runsCandidate) return { wants: 'cand', arm: 'candidate', reason: 'began' };
  if (state === 'paused') return { wants: 'base', arm: 'base', reason: 'paused' };
  if (isAllowed) return { wants: 'cand', arm: 'candidate', reason: 'allowed' };
  const dueAt = turnOf(plan, bucket);
  return now >= dueAt
    ? { wants: 'cand', arm: 'candidate', reason: 'in-bucket' }
    : { wants: 'base', arm: 'base', reason: 'not-yet', dueAt };
}

/**
 * Tells whether a plan breaks what it promised when this device saw it last: within one rollout neither salt nor
 * candidate change, and the share falls only when it is halted or rolled back.
 */
export function breaksPromise(
  { id, salt, cand, bp, state }: ResolvedPlan,
  { plan: seen }: SlotsView,
): boolean {
  if (seen?.id !== id) return false;
  const mayFall = state === 'halted' || state === 'rolledback';
  return seen.salt !== salt || seen.cand !== cand.sha256 || (bp < seen.bp && !mayFall);
}

/** Tells whether two entries are one release. The same bytes can be released twice. */
export function isSame(a: PlanEntry, b: PlanEntry): boolean {
  return a.sha256 === b.sha256 && a.seq === b.seq;
}

/** Tells whether a version of Inlay is at least the one that a release needs. */
export function runsOn({ sdk }: Install, minSdk: string | undefined): boolean {
  return minSdk === undefined || satisfies(sdk, `>=${minSdk}`);
}

function hasBegun({ id, cand }: ResolvedPlan, { plan: seen, trial }: SlotsView): boolean {
  return (
    (seen?.id === id && seen.isIn) ||
    (trial?.plan === id && trial.phase === 'active' && isSame(trial.release, cand))
  );
}

function unitOf({ bucketBy }: ResolvedPlan, { id, attributes = {} }: Install): string | undefined {
  if (bucketBy === 'install') return id;
  return Object.hasOwn(attributes, bucketBy) ? attributes[bucketBy] : undefined;
}

/** When a bucket below the share begins, milliseconds since 1970; rounded down to a whole one. */
function turnOf({ fromBp, bp, startAt, durationS }: ResolvedPlan, bucket: number): number {
  if (startAt === undefined || (fromBp < bp && bucket < fromBp)) return 0;
  if (fromBp === bp) return Date.parse(startAt);
  return Date.parse(startAt) + Math.floor((durationS * 1000 * (bucket - fromBp)) / (bp - fromBp));
}
