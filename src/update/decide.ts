/** What a device does next about one model: a pure function of the verified plan and of what it has. */

import {
  breaksPromise,
  isSame,
  placeOf,
  runsOn,
  type Arm,
  type PlaceReason,
  type SlotsView,
} from './decide-place.ts';
import type { Install, PlanEntry } from './plan.ts';
import { isWithdrawn, type ResolvedPlan } from './resolve.ts';
import { rejectionOf } from './slots-rejections.ts';

export { armLabel } from './decide-place.ts';
export { bucketOf, unitHash } from './unit.ts';
export type { Arm, SlotsView };

/** Why a device does something, or nothing. The words are part of the telemetry and never change their meaning. */
export type Reason =
  | PlaceReason
  /** There is no usable plan: what is there stays. */
  | 'no-plan'
  /** The plan breaks what its rollout promised, and does not count: what is there stays. */
  | 'plan-broken'
  /** Something would begin, but the metadata has expired. */
  | 'expired'
  /** The plan was not confirmed for longer than `leaseS`. */
  | 'lease-over'
  /** What is on trial belongs to a rollout that another one took the place of. */
  | 'superseded'
  /** The release that other devices run is being tried, and what is wanted cannot be had now. */
  | 'on-trial'
  /** It should not run any more, but nothing else could. */
  | 'no-alternative'
  /** It is withdrawn, but nothing else could run. */
  | 'withdrawn-no-alternative';

/** Slots that a device goes back to. */
export type Refuge = 'committed' | 'previous' | 'embedded';

interface Decided {
  readonly arm: Arm;
  /** Name of the further arm that it is in; absent for that of the candidate. `armLabel` gives the name for telemetry. */
  readonly armName?: string;
  readonly reason: Reason;
  /** When to decide again at the latest although nothing has happened, milliseconds since 1970. */
  readonly dueAt?: number;
}

/** What to do next. After it is done, decide again. */
export type Decision =
  | (Decided & {
      readonly kind: 'stay';
      /** What is staged runs beside what answers. */
      readonly shadow?: ShadowRun;
    })
  /** Bring a release and stage it. */
  | (Decided & {
      readonly kind: 'fetch';
      readonly entry: PlanEntry;
      /** What runs now must not go on: this slot takes over if the file cannot come at once. */
      readonly meanwhile?: Refuge;
    })
  /** Try what is staged, when the host finds it convenient. */
  | (Decided & {
      readonly kind: 'activate';
      readonly entry: PlanEntry;
      /** What runs now must not go on: this slot takes over if the moment is not convenient. */
      readonly meanwhile?: Refuge;
    })
  /**
   * Go back now. `committed`: give the trial up, or what is staged. `previous`, `embedded`: that slot takes the place of
   * what runs. `base`: what is staged is the base; try it at once.
   */
  | (Decided & { readonly kind: 'revert'; readonly to: Refuge | 'base'; readonly entry: PlanEntry });

/** A release that answers nobody, with samples of the calls that others answer. */
export interface ShadowRun {
  readonly entry: PlanEntry;
  /** Share of the calls, basis points. */
  readonly sampleBp: number;
}

interface Back {
  readonly to: Refuge;
  readonly entry: PlanEntry;
}

/** Slots with releases that need no trial: what ran before, and what came with the app. */
const behind: readonly Refuge[] = ['previous', 'embedded'];

/** Reasons for which a device leaves the candidate also where the plan has nothing else for it. */
const urgent: ReadonlySet<Reason> = new Set<Reason>([
  'denied',
  'rolled-back',
  'withdrawn',
  'sdk-too-old',
  'rejected',
  'halted',
  'lease-over',
]);

/** Reasons for which what is staged stays so. */
const waiting: ReadonlySet<Reason> = new Set<Reason>(['paused', 'not-yet', 'shadow']);

/**
 * Decides what a device does next about one model. Nothing else is read, and nothing is written; the same arguments give
 * the same answer on every device, for which `test/vectors/decide` has examples.
 *
 * `placeOf` says what the plan wants the device to run: the candidate, which is the release of its arm, or the base. Then:
 *
 * | what there is | what it does |
 * |---|---|
 * | no plan, or one that breaks its promises | keeps what there is, unless that is withdrawn |
 * | the wanted release runs, as committed, trial or embedded | `stay` |
 * | it is staged | `activate`; `revert` to `base` if what runs has to go |
 * | the base is in `previous` or `embedded` | `revert` to that slot |
 * | it is in no slot | `fetch`; with `meanwhile` if what runs has to go |
 * | another release is on trial | `revert` to `committed`, else to the base, `previous` or `embedded`; a trial of the base goes on until what is wanted is there |
 * | its candidate is staged, and paused or not yet due | `stay`: it is kept |
 * | it runs the base, and is in the shadow | `fetch`; once staged, `stay` with `shadow` |
 * | a trial of the candidate was not confirmed for `leaseS` | as another release on trial; nothing begins until then |
 * | the metadata has expired | no `fetch`, no `activate`; only what leads back |
 * | what is committed is withdrawn, or has to go | the wanted release, else `previous`, else `embedded`, else `stay` |
 *
 * No answer names a release that is withdrawn or rejected here, and none takes the last release from a device.
 * @param plan what `resolvePlan` gave; `undefined` where none counts.
 * @param now milliseconds since 1970.
 */
export function decide(
  plan: ResolvedPlan | undefined,
  install: Install,
  now: number,
  slots: SlotsView,
): Decision {
  const { embedded, committed, trial } = slots;
  const counts = (release: PlanEntry): boolean =>
    !isWithdrawn(plan?.policy ?? {}, release) && !isWithdrawn(slots.policy ?? {}, release);
  const isRejected = ({ sha256 }: PlanEntry): boolean =>
    rejectionOf(slots, sha256, { now, ...install }, plan?.retryNonce) !== undefined;

  const isBroken = plan !== undefined && breaksPromise(plan, slots);
  const place = plan && !isBroken ? placeOf(plan, install, now, slots) : undefined;
  const why: Decided = {
    arm: place?.arm ?? 'out',
    ...(place?.armName !== undefined && { armName: place.armName }),
    reason: place?.reason ?? (isBroken ? 'plan-broken' : 'no-plan'),
    ...(place?.dueAt !== undefined && { dueAt: place.dueAt }),
  };
  const isCurrent = plan?.isCurrent === true;
  const leaseEndsAt = plan ? leaseEnd(plan, slots) : Infinity;
  const isLeaseOver = now >= leaseEndsAt;

  const wantsCandidate = place?.wants === 'cand';
  const mayRun = (release: PlanEntry, minSdk?: string): boolean =>
    counts(release) && !isRejected(release) && runsOn(install, minSdk);
  const isOwn = (release: PlanEntry): boolean => place !== undefined && isSame(release, place.entry);
  /** Whether a release is the candidate, or that of an arm. */
  const isCandidate = (release: PlanEntry): boolean =>
    plan !== undefined &&
    [plan.cand, ...plan.arms.map(({ entry }) => entry)].some((one) => isSame(one, release));
  // A plan that sends devices back to what they are to leave has no base.
  const hasBase = place && plan?.base && !isCandidate(plan.base) && mayRun(plan.base, plan.minSdk.base);
  const base = hasBase ? plan.base : undefined;
  const wanted = wantsCandidate ? place.entry : base;
  const isWanted = (release: PlanEntry): boolean =>
    wantsCandidate ? isOwn(release) : release.sha256 === base?.sha256 && !isLeft(release);
  /** Whether a release is the candidate, and this device is not to run that. */
  const isLeft = (release: PlanEntry): boolean =>
    place !== undefined && (!wantsCandidate || isLeaseOver) && isCandidate(release);

  const findRefuge = (names: readonly Refuge[], release?: PlanEntry): Back | undefined => {
    for (const to of names) {
      const entry = slots[to]?.release;
      const isMeant = release === undefined || entry?.sha256 === release.sha256;
      if (entry && isMeant && mayRun(entry) && !isLeft(entry)) return { to, entry };
    }
    return undefined;
  };
  const stay = (reason = why.reason): Decision => ({ kind: 'stay', ...why, reason });
  const begin = (entry: PlanEntry, reason = why.reason, meanwhile?: Refuge): Decision => {
    const isStaged = trial?.phase === 'staged' && isSame(trial.release, entry);
    const kind = isStaged ? 'activate' : 'fetch';
    return { kind, ...why, reason, entry, ...(meanwhile !== undefined && { meanwhile }) };
  };

  const kept = committed ?? embedded;
  /** Runs the base, and its candidate beside it where the plan says so. */
  const rest = (): Decision => {
    const shadow = place?.reason === 'shadow' ? plan?.shadow : undefined;
    if (!place || !shadow || !kept || trial?.phase === 'active') return stay();
    const { entry } = place;
    if (isSame(kept.release, entry)) return stay();
    if (trial && isSame(trial.release, entry)) {
      const { sampleBp } = shadow;
      return { kind: 'stay', ...why, ...(sampleBp > 0 && { shadow: { entry, sampleBp } }) };
    }
    return isCurrent ? begin(entry) : stay('expired');
  };
  const running = trial?.phase === 'active' ? trial : kept;
  /** Leaves what is committed or embedded, or a trial where nothing is committed. */
  const leave = (goal: PlanEntry | undefined, reason: Reason): Decision => {
    const atHand = goal && !isCandidate(goal) ? findRefuge(behind, goal) : undefined;
    if (atHand) return { kind: 'revert', ...why, reason, ...atHand };
    const back = findRefuge(behind);
    if (back && !(goal && isCurrent)) return { kind: 'revert', ...why, reason, ...back };
    if (!goal || !isCurrent) {
      if (!running) return stay(reason);
      return stay(counts(running.release) ? 'no-alternative' : 'withdrawn-no-alternative');
    }
    const next = begin(goal, reason, urgent.has(reason) ? back?.to : undefined);
    // The base has no need to wait for a convenient moment.
    return next.kind === 'activate' && !wantsCandidate
      ? { kind: 'revert', ...why, reason, to: 'base', entry: goal }
      : next;
  };
  /** Gives up what is on trial or staged. */
  const giveUp = (goal: PlanEntry | undefined, reason: Reason): Decision => {
    const back = findRefuge(['committed']);
    return back ? { kind: 'revert', ...why, reason, ...back } : leave(goal, reason);
  };

  if (trial) {
    const { release, phase } = trial;
    const reason = isCandidate(release) ? why.reason : 'superseded';
    if (!counts(release)) return giveUp(wanted, 'withdrawn');
    if (isRejected(release)) return giveUp(wanted, 'rejected');
    if (phase === 'active') {
      if (isLeaseOver && isCandidate(release)) return giveUp(base, 'lease-over');
      if (!place) return stay();
      if (isWanted(release))
        return leaseEndsAt < Infinity && wantsCandidate ? { ...stay(), dueAt: leaseEndsAt } : stay();
      if (release.sha256 !== base?.sha256) return giveUp(wanted, reason);
      // It serves until the candidate is there, and is what to go back to.
      return wanted && isCurrent ? begin(wanted) : stay('on-trial');
    }
    const isKept = isWanted(release) || (isOwn(release) && waiting.has(reason));
    if (place && !isKept) return giveUp(wanted, reason);
    if (place && !isWanted(release) && kept && counts(kept.release)) return rest();
  }

  if (kept && !counts(kept.release)) return leave(isLeaseOver ? base : wanted, 'withdrawn');
  if (!place || (kept && isWanted(kept.release))) return rest();
  if (kept && isCandidate(kept.release) && urgent.has(why.reason)) return leave(base, why.reason);
  if (!wanted) return rest();
  if (wantsCandidate && isLeaseOver) return stay('lease-over');
  const atHand = wantsCandidate ? undefined : findRefuge(behind, wanted);
  if (atHand) return { kind: 'revert', ...why, ...atHand };
  return isCurrent ? begin(wanted) : stay('expired');
}

function leaseEnd({ id, leaseS }: ResolvedPlan, { plan: seen }: SlotsView): number {
  return leaseS > 0 && seen?.id === id ? seen.verifiedAt + leaseS * 1000 : Infinity;
}
