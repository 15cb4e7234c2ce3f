/** Pure steps from the plans of a channel to the next ones, as `inlay rollout` takes them. Nothing is signed here. */

import { ServerError } from '../core/errors.ts';
import type { Plan, PlanEntry, PlanState, SignedPlan } from '../update/plan.ts';
import { armsFor } from './arms.ts';
import { toBasisPoints, whole, withOptions, type RolloutOptions } from './rollout-options.ts';
import { normal, reachedBp, readSigned } from './signed-plan.ts';

export { weightOf, type ArmOption } from './arms.ts';
export type { RolloutOptions } from './rollout-options.ts';
export { reachedBp, readSigned, toSignedPlan } from './signed-plan.ts';

/** What can be done to a rollout besides setting its share. */
export type RolloutAction = 'pause' | 'resume' | 'halt' | 'rollback' | 'promote' | 'retry';

/** Names of the actions. */
export const rolloutActions: readonly RolloutAction[] = [
  'pause',
  'resume',
  'halt',
  'rollback',
  'promote',
  'retry',
];

/** States from which each action goes, and the state that it leads to; `retry` changes none. */
const moves: Readonly<
  Record<RolloutAction, { readonly from: readonly PlanState[]; readonly to?: PlanState }>
> = {
  pause: { from: ['ramp'], to: 'paused' },
  resume: { from: ['paused', 'halted'], to: 'ramp' },
  halt: { from: ['ramp', 'paused'], to: 'halted' },
  rollback: { from: ['ramp', 'paused', 'halted', 'complete'], to: 'rolledback' },
  promote: { from: ['ramp', 'paused'], to: 'complete' },
  retry: { from: ['ramp', 'paused', 'complete'] },
};

/** Parts into which a share that is reached bucket by bucket is cut, so that its arms begin side by side. */
const armBlocks = 4;

/**
 * Starts, raises or completes the rollout of a release. Pure: the present plans are left alone.
 *
 * Within one rollout the share only rises, so that a device that has the candidate keeps it, and so does one that has an
 * arm: only buckets that the rollout wins are shared out anew. Another candidate starts a new rollout that supersedes an
 * open one, unless that is pinned. Devices outside the share run the last release that was completed; to go
 * back to that from an open rollout, it is rolled back.
 * @param percent share in (0, 100], at most two decimals, or 0 with a shadow; 100 at once completes the rollout, whose arms
 * end with it.
 * @param newSalt gives 16 random hex digits; called once per new rollout.
 * @returns plans as they are signed, without what is at its default.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if the share falls or is none, the release is what the other devices
 * run, or an option is out of range,
 * `ERR_INLAY_CONFLICT` if the rollout is paused or halted, or another one is pinned; `RangeError` if the salt is none.
 */
export function setRollout(
  plans: readonly SignedPlan[],
  release: PlanEntry & { readonly model: string },
  percent: number,
  newSalt: () => string,
  options: RolloutOptions = {},
): SignedPlan[] {
  const { model, version } = release;
  const signed = plans.find((plan) => plan.model === model);
  const present = signed && readSigned(signed);
  const going =
    present && sameContent(present.cand, release) && present.state !== 'rolledback' ? present : undefined;
  const hasShadow = options.shadow === undefined ? going?.shadow !== undefined : options.shadow > 0;
  const bp = toBasisPoints(percent, hasShadow ? 0 : 1);
  const { durationS = 0, now, startAt = now, control = 0 } = options;
  if (toBasisPoints(control, 0) > whole - bp && control > 0) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `A control of ${control} % does not fit beside a share of ${percent} %; ` +
        `${bp === whole ? 'nothing is left for one' : `use ${(whole - bp) / 100} % at most`}.`,
      { details: { model, version, percent, control } },
    );
  }
  if (durationS > 0 && startAt === undefined)
    throw new RangeError('A rollout over a duration needs the time.');
  const isAtOnce = durationS === 0 && options.startAt === undefined;
  const isComplete = bp === whole && isAtOnce;
  const base = going ? going.base : present ? baseAfter(present, now) : null;
  const stage = {
    bp,
    state: isComplete ? 'complete' : 'ramp',
    arms: isComplete
      ? []
      : armsFor(
          going,
          { bp: Math.max(bp, going?.bp ?? 0), base },
          options.arms,
          durationS > 0 ? armBlocks : 1,
        ),
    ...(!isAtOnce && startAt !== undefined && { startAt: toTime(startAt), durationS }),
  } as const;

  if (signed && present && going) {
    if (present.state === 'paused' || present.state === 'halted') {
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        `The rollout of ${model} ${version} is ${present.state}; resume it before its share is set.`,
        { details: { model, version } },
      );
    }
    if (bp < present.bp || (present.state === 'complete' && stage.state !== 'complete')) {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        `The share of ${model} ${version} cannot fall from ${present.bp / 100} % to ${percent} %; ` +
          'to go back, roll it back.',
        { details: { model, version, percent } },
      );
    }
    const isSameStage = bp === present.bp && isAtOnce && stage.state === present.state;
    const next = isSameStage
      ? { ...signed, arms: stage.arms }
      : { ...atOnce(signed), fromBp: isAtOnce ? bp : reachedBp(present, now), ...stage };
    return replace(plans, signed, withOptions(next, options));
  }

  if (present?.pinned && present.state !== 'rolledback') throw isPinned(present, options.channel);
  const salt = newSalt();
  if (!/^[0-9a-f]{16}$/.test(salt))
    throw new RangeError('The salt of a rollout is 16 lower-case hex digits.');
  // After a rollback its base may be completed, which ends what is left of the rollout.
  if (present && base && sameContent(base, release) && !(present.state === 'rolledback' && bp === whole)) {
    throw isBaseAlready(present, version, options.channel);
  }
  const started: SignedPlan = {
    id: `r-${salt}`,
    model,
    salt,
    base,
    cand: toEntry(release),
    fromBp: durationS > 0 ? 0 : bp,
    ...stage,
  };
  const next = withOptions(started, options);
  return signed ? replace(plans, signed, next) : [...plans, next];
}

/**
 * Takes one of the actions on the rollout of a model. Pure.
 * @param now wall clock, milliseconds since 1970: a share that is being reached stops where it is when paused, and goes
 * on from there when resumed.
 * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if the model has no rollout, `ERR_INLAY_CONFLICT` if its state
 * does not allow the action.
 */
export function changeRollout(
  plans: readonly SignedPlan[],
  model: string,
  action: RolloutAction,
  now: number,
): SignedPlan[] {
  const signed = plans.find((plan) => plan.model === model);
  if (!signed) {
    throw new ServerError(
      'ERR_INLAY_NOT_FOUND',
      `Model ${model} has no rollout in this channel; start one with \`inlay rollout set\`.`,
      { details: { model } },
    );
  }
  const plan = readSigned(signed);
  const { from, to } = moves[action];
  if (!from.includes(plan.state)) {
    if (plan.state === to) return [...plans];
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      `The rollout of ${model} ${plan.cand.version} is ${plan.state} and takes no ${action}; ${adviceFor(plan.state)}.`,
      { details: { model, state: plan.state, action } },
    );
  }
  return replace(plans, signed, normal(act(signed, action, to ?? plan.state, now)));
}

function act(signed: SignedPlan, action: RolloutAction, state: PlanState, now: number): SignedPlan {
  const plan = readSigned(signed);
  const { durationS, startAt, bp } = plan;
  if (action === 'retry') return { ...signed, retryNonce: plan.retryNonce + 1 };
  if (action === 'promote') return { ...atOnce(signed), state, bp: whole, arms: [], shadow: undefined };
  if (durationS === 0 || startAt === undefined || state === 'rolledback') return { ...signed, state };
  // While it stands still, `startAt` is when it stopped, and the rest of the time is still to come.
  if (action === 'resume') return { ...signed, state, startAt: toTime(now) };
  if (plan.state !== 'ramp') return { ...signed, state };
  const fromBp = reachedBp(plan, now);
  const leftS = Math.min(durationS, Math.ceil((Date.parse(startAt) + durationS * 1000 - now) / 1000));
  return fromBp >= bp || leftS <= 0
    ? { ...atOnce(signed), state }
    : { ...signed, state, fromBp, startAt: toTime(now), durationS: leftS };
}

/**
 * Says what a step of `setRollout` does that may not have been meant: that it ends another rollout, goes back, or leaves
 * devices without a model. One sentence each, none for what goes without saying.
 * @param before plan of the model that was in force.
 * @param now wall clock, milliseconds since 1970.
 */
export function noticesOf(before: SignedPlan | undefined, after: SignedPlan, now: number): readonly string[] {
  const notices: string[] = [];
  const { base, cand, state } = readSigned(after);
  const present = before && before.id !== after.id ? readSigned(before) : undefined;
  const isOpen =
    present && present.state !== 'rolledback' && !(base !== null && sameContent(base, present.cand));
  if (isOpen && present.state !== 'complete') {
    const share = `${standingBp(present, now) / 100} %`;
    const how = present.state === 'ramp' ? `ran on ${share}` : `was ${present.state} at ${share}`;
    notices.push(`It takes the place of ${present.cand.version}, which ${how}.`);
  }
  const newer = [isOpen ? present.cand : null, present ? base : null].find(
    (entry) => entry !== null && entry.seq > cand.seq,
  );
  if (newer) notices.push(`This goes back: ${cand.version} was published before ${newer.version}.`);
  if (!present && base === null && state !== 'complete') {
    notices.push('It is the first release here: the other devices have no model, unless the app brings one.');
  }
  return notices;
}

/** Share that a rollout has reached, basis points; while it stands still, that is where it began to. */
function standingBp(plan: Plan, now: number): number {
  const { state, durationS, fromBp, startAt } = plan;
  return state !== 'ramp' && durationS > 0 && startAt !== undefined ? fromBp : reachedBp(plan, now);
}

function isBaseAlready({ model, state, cand }: Plan, version: string, channel = 'stable'): ServerError {
  const where = channel === 'stable' ? '' : ` --channel ${channel}`;
  return new ServerError(
    'ERR_INLAY_REFUSED',
    state === 'rolledback'
      ? `${model} ${version} is what all devices run since ${cand.version} was rolled back; it takes no share below 100 %.`
      : `${model} ${version} is what the other devices run; to go back to it, use ` +
          `\`inlay rollout rollback ${model}${where}\`.`,
    { details: { model, version } },
  );
}

function isPinned({ model, cand, bp }: Plan, channel = 'stable'): ServerError {
  const where = channel === 'stable' ? '' : ` --channel ${channel}`;
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `${model} is pinned to ${cand.version}; take that back with \`inlay rollout set ${model} ${cand.version}${where} --percent ${bp / 100} --unpin\`.`,
    { details: { model, version: cand.version } },
  );
}

/** A plan whose share is reached at once. */
function atOnce(plan: SignedPlan): SignedPlan {
  const { startAt: _, durationS: __, fromBp: ___, ...rest } = plan;
  return rest;
}

function adviceFor(state: PlanState): string {
  if (state === 'rolledback') return 'it has ended: start a new one with `inlay rollout set`';
  if (state === 'halted') return 'resume it, or roll it back';
  if (state === 'complete') return 'roll it back, or roll another version out';
  return '`inlay rollout show` says where it stands';
}

/**
 * Takes every rollout back whose candidate does not count any more. Its base stays if that counts.
 * @param counts tells whether a release may run.
 */
export function withdrawRollouts(
  plans: readonly SignedPlan[],
  counts: (entry: PlanEntry) => boolean,
): SignedPlan[] {
  return plans.map((plan) =>
    counts(plan.cand) || plan.state === 'rolledback'
      ? plan
      : { ...plan, state: 'rolledback', base: plan.base && counts(plan.base) ? plan.base : null },
  );
}

/** What devices outside a new rollout run: the last release that everybody was to run. */
function baseAfter(present: Plan, now: number | undefined): PlanEntry | null {
  const { state, bp, cand, base, arms } = present;
  const isReached = state === 'ramp' && bp === whole && reachedBp(present, now) === whole;
  const isDone = state === 'complete' || (isReached && arms.length === 0);
  return isDone ? cand : base;
}

function replace(plans: readonly SignedPlan[], old: SignedPlan | undefined, next: SignedPlan): SignedPlan[] {
  return plans.map((plan) => (plan === old ? next : plan));
}

function sameContent(a: PlanEntry, b: PlanEntry): boolean {
  return a.path === b.path && a.sha256 === b.sha256;
}

function toEntry({ path, sha256, length, seq, version }: PlanEntry): PlanEntry {
  return { path, sha256, length, seq, version };
}

/** Formats a time as metadata writes it. */
function toTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}
