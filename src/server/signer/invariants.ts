import { ServerError } from '../../core/errors.ts';
import { readSigned } from '../../publish/rollout.ts';
import { isName } from '../../publish/release.ts';
import type { Targets } from '../../trust/metadata.ts';
import { firstMoved } from '../../update/arms.ts';
import type { Plan, PlanState, SignedPlan } from '../../update/plan.ts';
import { plansOf, type Channels } from '../channels.ts';
import { releasesOf, sameEntry, type Releases } from '../policy.ts';

/** States that may follow a state within one rollout. `rolledback` is its end. */
const followers: Readonly<Record<PlanState, readonly PlanState[]>> = {
  ramp: ['ramp', 'paused', 'halted', 'rolledback', 'complete'],
  paused: ['paused', 'ramp', 'halted', 'rolledback', 'complete'],
  halted: ['halted', 'ramp', 'rolledback'],
  rolledback: ['rolledback'],
  complete: ['complete', 'rolledback'],
};

/** Most entries of `allow` and of `deny`. */
const maxListed = 500;
/** Seconds between two polls of an app that does not choose. */
const usualPollS = 3600;
/** Largest number of channels, and of plans in one: more would not fit the metadata that devices read. */
const maxPlans = 1000;

/**
 * Checks what every device relies on. A running release is one that the offline key signed and did not withdraw.
 * Within one rollout model, candidate, base, salt and units stay, the share only rises unless it is halted or rolled
 * back, its stage only rises, arms keep their release and every bucket that the share has reached, and its state goes where
 * it may; what has ended does not begin again, and nothing takes the place of what is pinned.
 * @param before plans that are in force.
 * @param ended identifiers of rollouts that are over.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT`, or `ERR_INLAY_REFUSED` for what is malformed in itself.
 */
export function assertPlans(
  before: Channels,
  after: Channels,
  targets: Targets,
  ended: ReadonlySet<string> = new Set(),
): void {
  const releases = releasesOf(targets);
  const ids = new Set<string>();
  if (Object.keys(after).length > maxPlans) refuseShape('there are too many channels');
  for (const channel of Object.keys(before)) {
    if (!Object.hasOwn(after, channel)) refuseShape(`channel ${channel} is missing`);
  }
  for (const [channel, signed] of Object.entries(after)) {
    if (!isName(channel))
      refuseShape(`the channel name ${JSON.stringify(channel.slice(0, 80))} is malformed`);
    if (signed.length > maxPlans) refuseShape(`channel ${channel} has too many plans`);
    const models = new Set<string>();
    const present = plansOf(before, channel);
    for (const raw of signed) {
      const plan = readSigned(raw);
      const refuse = refusalOf(channel, plan);
      const key = `${channel} ${plan.id}`;
      if (models.has(plan.model)) refuse('the channel has two plans for it; keep one');
      models.add(plan.model);
      if (ids.has(key) || ended.has(key))
        refuse('its identifier is that of another rollout; start a new one');
      ids.add(key);
      assertShape(plan, refusalOf(channel, plan, 'ERR_INLAY_REFUSED'));
      const pinned = present.find((one) => one.model === plan.model && one.id !== plan.id && one.pinned);
      if (pinned && pinned.state !== 'rolledback')
        refuse(`version ${pinned.cand.version} is pinned; take that back before another one is rolled out`);
      const old = present.find(({ id }) => id === plan.id);
      assertReleases(plan, releases, old, refuse);
      if (old) assertStep(readSigned(old), plan, releases, refuse);
    }
    const lost = present.find(({ model }) => !models.has(model));
    if (lost) refuseShape(`the plan of ${lost.model} in channel ${channel} is missing; roll it back instead`);
  }
}

/** Names of the rollouts of `before` that are over in `after`, as `assertPlans` takes them in `ended`. */
export function endedIn(before: Channels, after: Channels): string[] {
  return Object.entries(before).flatMap(([channel, plans]) => {
    const going = new Set(plansOf(after, channel).map(({ id }) => id));
    return plans.filter(({ id }) => !going.has(id)).map(({ id }) => `${channel} ${id}`);
  });
}

type Refuse = (problem: string) => never;

function assertShape(plan: Plan, refuse: Refuse): void {
  const { bp, fromBp, state, allow, deny, leaseS, pollS = usualPollS, durationS, startAt } = plan;
  if (fromBp > bp) refuse(`it begins at ${fromBp} basis points, above its share of ${bp}`);
  if (state === 'complete' && bp !== 10_000) refuse(`a share of ${bp} basis points is not complete`);
  if (durationS > 0 && startAt === undefined) refuse('it has a duration and no time at which it starts');
  if (allow.length > maxListed || deny.length > maxListed) {
    refuse(`it names more than ${maxListed} devices; use rules or a channel for more`);
  }
  if (leaseS !== 0 && leaseS < 2 * pollS) {
    refuse(`a lease of ${leaseS} s ends before the second poll of ${pollS} s; use at least twice the period`);
  }
}

function assertReleases(plan: Plan, releases: Releases, old: SignedPlan | undefined, refuse: Refuse): void {
  const { model, state, cand, base } = plan;
  // No device runs the candidate of a rollout that was taken back, so that its release may go.
  if (!releases.isListed(model, cand) && (state !== 'rolledback' || !old)) {
    refuse(`the signed targets do not list version ${cand.version}; roll out one they list first`);
  }
  if (state !== 'rolledback' && releases.isWithdrawn(model, cand)) {
    refuse(`version ${cand.version} is withdrawn; roll out one that is not`);
  }
  assertArms(plan, releases, old, refuse);
  if (!base) return;
  const isBaseListed = releases.isListed(model, base);
  if (!old && (!isBaseListed || releases.isWithdrawn(model, base))) {
    refuse(`its base, version ${base.version}, is not among the releases that count`);
  }
  // Once complete, only devices on which the candidate fails run the base, and its release may go.
  if (state !== 'complete' && !isBaseListed) {
    refuse(`the signed targets do not list version ${base.version}, ${reasonToKeep(plan)}`);
  }
}

/** An arm that was there before may be withdrawn: its devices run the base, and the others need not suffer for it. */
function assertArms(
  { model, state, base, arms }: Plan,
  releases: Releases,
  old: SignedPlan | undefined,
  refuse: Refuse,
): void {
  for (const { name, entry } of arms) {
    const isKnown = old?.arms?.some((arm) => arm.name === name) === true;
    const isWithdrawn = releases.isWithdrawn(model, entry);
    if (isWithdrawn && !isKnown)
      refuse(`version ${entry.version} of arm ${name} is withdrawn; choose another one`);
    if (!releases.isListed(model, entry) && !isWithdrawn && state !== 'rolledback')
      refuse(`the signed targets do not list version ${entry.version} of arm ${name}`);
    if (base && sameEntry(entry, base))
      refuse(`arm ${name} runs the base, version ${base.version}; that is what the control is for`);
  }
}

/** Who runs the base of a rollout that is not complete, and how it is freed. */
function reasonToKeep({ state, cand }: Plan): string {
  if (state === 'rolledback') {
    return `which devices run since ${cand.version} was rolled back; roll another version out to all of them first`;
  }
  if (state === 'halted') return 'which other devices run; resume and complete the rollout first';
  return 'which other devices run; complete it first';
}

function assertStep(old: Plan, plan: Plan, releases: Releases, refuse: Refuse): void {
  const { state, bp, base } = plan;
  if (old.salt !== plan.salt || old.model !== plan.model || !sameEntry(old.cand, plan.cand)) {
    refuse('its salt, model or candidate changed; start a new rollout');
  }
  if (old.bucketBy !== plan.bucketBy) refuse('what it places in buckets changed; start a new rollout');
  const isBaseGone =
    base === null &&
    old.base !== null &&
    (releases.isWithdrawn(plan.model, old.base) || !releases.isListed(plan.model, old.base));
  if (!isBaseGone && (old.base === null ? base !== null : base === null || !sameEntry(old.base, base))) {
    refuse('its base changed; start a new rollout');
  }
  if (!followers[old.state].includes(state)) refuse(`it cannot go from ${old.state} to ${state}`);
  if (bp < old.bp && state !== 'halted' && state !== 'rolledback') {
    refuse('its share fell; halt it or roll it back instead');
  }
  if (plan.retryNonce < old.retryNonce) refuse('its retry counter fell');
  if (plan.stage < old.stage) refuse(`its stage fell from ${old.stage} to ${plan.stage}`);
  assertArmsStay(old, plan, refuse);
}

/** Whoever has begun in an arm keeps it. A rollout that is complete has none any more. */
function assertArmsStay(old: Plan, plan: Plan, refuse: Refuse): void {
  if (plan.state === 'complete') return;
  for (const { name, entry } of old.arms) {
    const arm = plan.arms.find((one) => one.name === name);
    if (!arm) refuse(`its arm ${name} is gone; complete the rollout, or start a new one`);
    if (!sameEntry(arm.entry, entry))
      refuse(`the release of its arm ${name} changed; add another arm for it`);
  }
  const hasArms = old.arms.length > 0 || plan.arms.length > 0;
  if (hasArms && plan.bp < old.bp) refuse('its share fell, and with it arms lost buckets');
  const moved = firstMoved(old.arms, plan.arms, old.bp);
  if (moved !== undefined) refuse(`bucket ${moved}, which its share has reached, changed its arm`);
}

function refusalOf(
  channel: string,
  { id, model }: Plan,
  code: 'ERR_INLAY_CONFLICT' | 'ERR_INLAY_REFUSED' = 'ERR_INLAY_CONFLICT',
): Refuse {
  return (problem) => {
    throw new ServerError(code, `The rollout of ${model} in channel ${channel} would break: ${problem}.`, {
      details: { channel, model, rollout: id },
    });
  };
}

function refuseShape(problem: string): never {
  throw new ServerError('ERR_INLAY_REFUSED', `The plans cannot be signed: ${problem}.`);
}
