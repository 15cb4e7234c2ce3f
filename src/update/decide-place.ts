/** What a plan wants a device to run, and as what it counts. How it gets there is for `decide` to say. */

import { armAt, CANDIDATE_ARM, CONTROL_ARM } from './arms.ts';
import type { Install, PlanEntry, ShadowRules } from './plan.ts';
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
  /** It runs the candidate beside the base, and answers nobody with it. */
  | 'shadow'
  /** Its turn comes at `dueAt`. */
  | 'not-yet'
  | 'control'
  | 'not-in-bucket';

/** Which release of the plan a device is to run. */
export interface Place {
  readonly wants: 'cand' | 'base';
  readonly arm: Arm;
  /** Name of the further arm whose release it is to run; absent for that of the candidate. */
  readonly armName?: string;
  /** The release of the arm that it is in, or would be. */
  readonly entry: PlanEntry;
  readonly reason: PlaceReason;
  /** When something changes by itself, milliseconds since 1970. */
  readonly dueAt?: number;
}

/**
 * Finds the place of a device in a plan. *Its candidate* is the release of its arm: the one in which it began; else, below
 * the share and not in `allow`, the one whose ranges have its bucket; else, and once `complete`, the candidate itself. The
 * first line that applies counts:
 *
 * | the device, or the plan | wants | arm | reason |
 * |---|---|---|---|
 * | is in `deny` | base | out | `denied` |
 * | is `rolledback` | base | base | `rolled-back` |
 * | has a candidate that is withdrawn | base | base | `withdrawn` |
 * | has a version of Inlay below that of its candidate | base | out | `sdk-too-old` |
 * | has rejected its candidate, and may not try again yet | base | base | `rejected` |
 * | is `halted`, and the device has committed its candidate, or it came with the app | cand | candidate | `halted` |
 * | has begun with its candidate, unless `halted` | cand | candidate | `began` |
 * | meets no rule, and is not in `allow` | base | out | `rules` |
 * | is `complete` | cand | candidate | `complete` |
 * | lacks the attribute `bucketBy`, and is not in `allow` | base | out | `no-attribute` |
 * | is above the share: `bucket ≥ 10000 − min(ctl, 10000 − bp)` | base | control | `control` |
 * | is above the share, and below that of the shadow in a plan that is `paused` | base | base | `paused` |
 * | is above the share, and below that of the shadow in a plan that is `ramp` | base | base | `shadow` |
 * | is above the share otherwise | base | base | `not-in-bucket` |
 * | is `halted` | base | base | `halted` |
 * | has committed its candidate, or it came with the app | cand | candidate | `began` |
 * | is `paused` | base | base | `paused` |
 * | is in `allow` | cand | candidate | `allowed` |
 * | is below the share, and its turn has come | cand | candidate | `in-bucket` |
 * | is below the share, in a plan with a shadow | base | base | `shadow` |
 * | is below the share | base | base | `not-yet` |
 */
export function placeOf(plan: ResolvedPlan, install: Install, now: number, slots: SlotsView): Place {
  const { state, salt, bp, ctl, shadow } = plan;
  const unit = unitOf(plan, install);
  const isNamed = (list: readonly string[]): boolean =>
    list.length > 0 && [install.id, unit].some((id) => id !== undefined && list.includes(unitHash(salt, id)));
  const isAllowed = isNamed(plan.allow);
  const bucket = isAllowed || unit === undefined ? 0 : bucketOf(salt, unit);
  const own = ownArm(plan, slots, isAllowed || unit === undefined ? undefined : bucket);
  const { entry } = own;
  const base = (reason: PlaceReason, arm: Arm = 'base', dueAt?: number): Place => ({
    wants: 'base',
    arm,
    entry,
    reason,
    ...(dueAt !== undefined && { dueAt }),
  });
  const candidate = (reason: PlaceReason): Place => ({
    wants: 'cand',
    arm: 'candidate',
    ...(own.name !== CANDIDATE_ARM && { armName: own.name }),
    entry,
    reason,
  });
  const runs = slots.committed ?? slots.embedded;
  const runsCandidate = runs !== undefined && isSame(runs.release, entry);

  if (isNamed(plan.deny)) return base('denied', 'out');
  if (state === 'rolledback') return base('rolled-back');
  if (isWithdrawn(plan.policy, entry) || isWithdrawn(slots.policy ?? {}, entry)) return base('withdrawn');
  if (!runsOn(install, own.minSdk)) return base('sdk-too-old', 'out');
  const rejection = rejectionOf(slots, entry.sha256, { now, ...install }, plan.retryNonce);
  if (rejection) return base('rejected', 'base', rejection.until ?? undefined);
  if (state === 'halted') {
    if (runsCandidate) return candidate('halted');
  } else if (hasBegun(plan, slots, entry)) return candidate('began');

  if (!isAllowed && !rulesHold(plan.rules, install)) return base('rules', 'out');
  if (state === 'complete') return candidate('complete');
  if (!isAllowed) {
    if (unit === undefined) return base('no-attribute', 'out');
    // Control is taken from the top: the two arms never meet, and whoever is in the candidate's stays in as it grows.
    if (bucket >= bp) {
      if (bucket >= buckets - ctl) return base('control', 'control');
      return base(isInShadow(shadow, bucket) ? (shadowReasons[state] ?? 'not-in-bucket') : 'not-in-bucket');
    }
  }
  if (state === 'halted') return base('halted');
  if (runsCandidate) return candidate('began');
  if (state === 'paused') return base('paused');
  if (isAllowed) return candidate('allowed');
  const dueAt = turnOf(plan, bucket);
  if (now >= dueAt) return candidate('in-bucket');
  return base(isInShadow(shadow, bucket) ? 'shadow' : 'not-yet', 'base', dueAt);
}

/**
 * Names what calls count for in telemetry: `t` for the candidate, `c` for control, else the name of the arm.
 * @returns `undefined` for a device that is not measured.
 */
export function armLabel({ arm, armName }: Pick<Place, 'arm' | 'armName'>): string | undefined {
  if (arm === 'control') return CONTROL_ARM;
  return arm === 'candidate' ? (armName ?? CANDIDATE_ARM) : undefined;
}

/**
 * Tells whether a plan breaks what it promised when this device saw it last: within one rollout neither salt nor
 * candidate change, the arm in which the device began keeps its release, and the share falls only when it is halted or
 * rolled back.
 */
export function breaksPromise(plan: ResolvedPlan, { plan: seen }: SlotsView): boolean {
  const { id, salt, cand, bp, state } = plan;
  if (seen?.id !== id) return false;
  const mayFall = state === 'halted' || state === 'rolledback';
  if (seen.salt !== salt || seen.cand !== cand.sha256 || (bp < seen.bp && !mayFall)) return true;
  // Who is complete has no arms any more, and who is rolled back needs none.
  if (seen.arm === undefined || state === 'complete' || state === 'rolledback') return false;
  return findArm(plan, seen.arm.name)?.entry.sha256 !== seen.arm.sha256;
}

interface OwnArm {
  readonly name: string;
  readonly entry: PlanEntry;
  readonly minSdk: string | undefined;
}

/** What a paused or open plan has for a device in the shadow. */
const shadowReasons: Readonly<Partial<Record<ResolvedPlan['state'], PlaceReason>>> = {
  ramp: 'shadow',
  paused: 'paused',
};

function isInShadow(shadow: ShadowRules | undefined, bucket: number): boolean {
  return shadow !== undefined && bucket < shadow.bp;
}

/** @param bucket - `undefined` for a device that is in no range. */
function ownArm(plan: ResolvedPlan, { plan: seen }: SlotsView, bucket: number | undefined): OwnArm {
  const begun = seen?.id === plan.id && seen.arm ? findArm(plan, seen.arm.name) : undefined;
  const placed = bucket === undefined ? undefined : armAt(plan.arms, bucket);
  return begun ?? findArm(plan, placed?.name ?? CANDIDATE_ARM) ?? candidateArm(plan);
}

function findArm(plan: ResolvedPlan, name: string): OwnArm | undefined {
  if (name === CANDIDATE_ARM) return candidateArm(plan);
  const arm = plan.arms.find((one) => one.name === name);
  return arm && { ...arm, minSdk: plan.minSdk.arms?.[name] };
}

function candidateArm({ cand, minSdk }: ResolvedPlan): OwnArm {
  return { name: CANDIDATE_ARM, entry: cand, minSdk: minSdk.cand };
}

/** Tells whether two entries are one release. The same bytes can be released twice. */
export function isSame(a: PlanEntry, b: PlanEntry): boolean {
  return a.sha256 === b.sha256 && a.seq === b.seq;
}

/** Tells whether a version of Inlay is at least the one that a release needs. */
export function runsOn({ sdk }: Install, minSdk: string | undefined): boolean {
  return minSdk === undefined || satisfies(sdk, `>=${minSdk}`);
}

function hasBegun({ id }: ResolvedPlan, { plan: seen, trial }: SlotsView, entry: PlanEntry): boolean {
  return (
    (seen?.id === id && seen.isIn) ||
    (trial?.plan === id && trial.phase === 'active' && isSame(trial.release, entry))
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
