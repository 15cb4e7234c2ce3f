/**
 * The rules by which slots change: each takes a state and gives the next one, together with what it means to the log.
 * A transition that has nothing to do gives the state that it was given.
 */

import type { ModelPolicy } from '../trust/metadata.ts';
import type { NewUpdateEvent } from './events.ts';
import type { PlanEntry } from './plan.ts';
import { isWithdrawn, joinPolicies } from './resolve.ts';
import { addRejection, rejectionOf, type SlotsContext } from './slots-rejections.ts';
import {
  ownRelease,
  slotNames,
  type Marker,
  type RejectReason,
  type SeenPlan,
  type Slot,
  type SlotName,
  type SlotsState,
  type Trial,
} from './slot.ts';

/** What happened; the model is filled in where it is written down. */
export type SlotEvent = Omit<NewUpdateEvent, 'model'>;

/** Outcome of a transition. */
export interface Step {
  readonly state: SlotsState;
  readonly events: readonly SlotEvent[];
}

/** A release to start with. */
export interface Try {
  readonly name: SlotName;
  readonly slot: Slot;
  /**
   * It is rejected on this device, and is here because it may still be better than nothing. Opening it may end the
   * process: look for an update first.
   */
  readonly isLastResort: boolean;
}

/** What rejections and the log name of a release. */
export type NamedRelease = Pick<PlanEntry, 'sha256' | 'version' | 'seq'>;

/** Why a release is rejected. */
export interface Grounds {
  readonly reason: RejectReason;
  /** For people: the message of the error. */
  readonly detail: string;
  /** That of the plan which offers it, where that is neither the last one seen nor that of the trial. */
  readonly retryNonce?: number;
}

/** Strikes at which a release that is not on trial is stepped over. */
const strikeLimit = 2;

/** Files whose strikes are remembered. */
const strikesKept = 50;

/** Reasons that may be bad luck: they take as many strikes as the trial's rules say. */
const mayBeLuck: readonly RejectReason[] = ['crash', 'hang'];

const unchanged = (state: SlotsState): Step => ({ state, events: [] });

/**
 * Lists what to start with, best first: trial, committed, previous, embedded; then, as a last resort, those of them that
 * are rejected here, except for the trial. What is withdrawn is not among them.
 */
export function listTries(state: SlotsState, context: SlotsContext): readonly Try[] {
  const tries = slotNames.flatMap((name): readonly Try[] => {
    const slot = state[name];
    if (slot === undefined || isWithdrawn(state.policy ?? {}, slot.release)) return [];
    const retryNonce = name === 'trial' ? state.trial?.retryNonce : 0;
    const isLastResort = rejectionOf(state, slot.release.sha256, context, retryNonce) !== undefined;
    return name === 'trial' && isLastResort ? [] : [{ name, slot, isLastResort }];
  });
  return [...tries.filter((one) => !one.isLastResort), ...tries.filter((one) => one.isLastResort)];
}

/**
 * Draws the conclusions from markers of runs that have ended. One that was loading a release died of it; otherwise one
 * that had just begun with a release did. A run counts once per file, however often it had it open.
 */
export function buryRuns(state: SlotsState, dead: ReadonlySet<string>, context: SlotsContext): Step {
  const left = state.markers.filter(({ run }) => dead.has(run));
  if (left.length === 0) return unchanged(state);
  let step = unchanged({ ...state, markers: state.markers.filter(({ run }) => !dead.has(run)) });
  for (const run of dead) {
    const open = left.filter((marker) => marker.run === run && marker.isSettled !== true);
    const loading = open.filter(({ phase }) => phase === 'loading');
    const blamed = new Map((loading.length > 0 ? loading : open).map((marker) => [marker.sha256, marker]));
    for (const marker of blamed.values()) {
      const when = marker.phase === 'loading' ? 'while it was opened' : 'right after its first answer';
      step = then(step, (present) => {
        const sha256 = holderOf(present, marker)?.slot.release.sha256;
        const isNew = present.rejected.some((one) => one.sha256 === sha256 && !state.rejected.includes(one));
        // Deaths from before it was rejected must not count after.
        if (isNew) return unchanged(present);
        return strike(present, marker, 'crash', `The process ended ${when}.`, context);
      });
    }
  }
  return step;
}

/** Puts a release on trial, in place of another one. The same one again goes on where it was. */
export function stageTrial(
  state: SlotsState,
  slot: Slot,
  terms: Pick<Trial, 'plan' | 'rules' | 'retryNonce'>,
): Step {
  const { trial } = state;
  const { plan, rules, retryNonce } = terms;
  const isSame =
    trial?.release.path === slot.release.path &&
    // Another process may have brought another variant of it.
    (trial.file.sha256 === slot.file.sha256 || trial.phase === 'active') &&
    trial.plan === plan;
  if (isSame) return unchanged(state);
  const staged: Trial = { ...bare(slot), plan, rules, retryNonce, phase: 'staged', inferences: 0, errors: 0 };
  // What has answered is something to go back to, where nothing has proved itself.
  const isKept = trial?.phase === 'active' && state.committed === undefined;
  return {
    state: { ...state, trial: staged, ...(isKept && { previous: bare(trial) }) },
    events: [about(slot.release, 'staged', { slot: 'trial' })],
  };
}

/** Empties a slot that names what was never signed. */
export function discardSlot(state: SlotsState, name: Exclude<SlotName, 'embedded'>): Step {
  const { [name]: slot, ...rest } = state;
  if (slot === undefined) return unchanged(state);
  return { state: rest, events: [about(slot.release, 'record-lost', { slot: name, reason: 'unsigned' })] };
}

/** Names what came with the app. */
export function embed(state: SlotsState, slot: Slot): Step {
  const embedded = bare(slot);
  const isSame = state.embedded !== undefined && JSON.stringify(state.embedded) === JSON.stringify(embedded);
  return unchanged(isSame ? state : { ...state, embedded });
}

/** Marks that a release is about to be opened. */
export function beginLoad(state: SlotsState, marker: Marker): Step {
  const slot = holderOf(state, marker)?.slot;
  return {
    state: { ...state, markers: [...without(state.markers, marker), marker] },
    events: [
      slot
        ? about(slot.release, 'load-started', { slot: marker.slot })
        : { type: 'load-started', sha256: marker.sha256, slot: marker.slot },
    ],
  };
}

/** Takes note of the first good answer. A trial begins; any other release is good again. */
export function firstAnswer(state: SlotsState, marker: Marker, { now }: SlotsContext): Step {
  // A load that was settled while it went on stays so.
  const { isSettled } = state.markers.find(({ id }) => id === marker.id) ?? marker;
  const running: Marker = { ...marker, phase: 'running', at: now, ...(isSettled && { isSettled }) };
  const marked = { ...state, markers: [...without(state.markers, marker), running] };
  const holder = holderOf(state, marker);
  if (holder === undefined) return unchanged(marked);
  const { name, slot } = holder;
  const events = [about(slot.release, 'activated', { slot: name })];
  const { trial } = state;
  if (name !== 'trial' || trial === undefined) {
    return { state: { ...marked, strikes: withoutKey(state.strikes, marker.sha256) }, events };
  }
  // A clock that was ahead when the trial began would make it last until it is as late again.
  const since = Math.min(trial.since ?? now, now);
  const { plan } = state;
  const isOffered = plan?.id === trial.plan && ownRelease(plan) === trial.release.sha256;
  return {
    state: {
      ...marked,
      trial: { ...trial, phase: 'active', since },
      ...(plan && isOffered && { plan: { ...plan, isIn: true } }),
    },
    events,
  };
}

/** Takes note that a load has outlived its grace period. */
export function settleLoad(state: SlotsState, { id }: Marker): Step {
  if (!state.markers.some((marker) => marker.id === id && marker.isSettled !== true)) return unchanged(state);
  const markers = state.markers.map((marker) => (marker.id === id ? { ...marker, isSettled: true } : marker));
  return unchanged({ ...state, markers });
}

/** Takes note that how these runs end says nothing of what they have open now. */
export function settleRuns(state: SlotsState, runs: ReadonlySet<string>): Step {
  const isOpen = ({ run, isSettled }: Marker): boolean => runs.has(run) && isSettled !== true;
  if (!state.markers.some(isOpen)) return unchanged(state);
  const markers = state.markers.map((marker) => (isOpen(marker) ? { ...marker, isSettled: true } : marker));
  return unchanged({ ...state, markers });
}

/** Takes note that a release was closed as it should be. */
export function endLoad(state: SlotsState, marker: Marker): Step {
  const markers = without(state.markers, marker);
  return unchanged(markers.length === state.markers.length ? state : { ...state, markers });
}

/** Takes note that a load has failed while the process lives on. A load counts once. */
export function failLoad(
  state: SlotsState,
  marker: Marker,
  reason: RejectReason,
  detail: string,
  context: SlotsContext,
): Step {
  const ended = endLoad(state, marker).state;
  return ended === state ? unchanged(state) : strike(ended, marker, reason, detail, context);
}

/** Adds to the calls of the trial, if it is still this one. */
export function countCalls(state: SlotsState, sha256: string, inferences: number, errors: number): Step {
  const { trial } = state;
  if (trial?.file.sha256 !== sha256 || inferences + errors === 0) return unchanged(state);
  const counted = { inferences: trial.inferences + inferences, errors: trial.errors + errors };
  return unchanged({ ...state, trial: { ...trial, ...counted } });
}

/**
 * Ends the trial of a release well: it is committed, and what was committed before is kept as previous, unless it is
 * rejected here or has the same bytes.
 */
export function commitTrial(state: SlotsState, sha256: string, context: SlotsContext, file?: string): Step {
  const { trial, committed, previous, ...rest } = state;
  if (trial?.release.sha256 !== sha256 || (file !== undefined && trial.file.sha256 !== file))
    return unchanged(state);
  const isKept =
    committed !== undefined &&
    committed.file.sha256 !== trial.file.sha256 &&
    rejectionOf(state, committed.release.sha256, context) === undefined;
  const before = isKept ? committed : previous;
  return {
    state: {
      ...rest,
      committed: bare(trial),
      ...(before && { previous: before }),
      strikes: withoutKey(state.strikes, trial.file.sha256),
      rejected: state.rejected.filter((one) => one.sha256 !== sha256),
    },
    events: [about(trial.release, 'trial-passed', { slot: 'committed' })],
  };
}

/**
 * Rejects a release; on trial, only the file that is tried. In another slot, it is stepped over while the rejection holds,
 * but for a variant in `committed`: where something else can run meanwhile, it goes, and the release may come as another.
 * @param file - SHA-256 of what failed. Where no slot has it any more, since another process has moved on to another
 * variant, it alone is rejected.
 */
export function rejectRelease(
  state: SlotsState,
  release: NamedRelease,
  { reason, detail, retryNonce = 0 }: Grounds,
  context: SlotsContext,
  file?: string,
): Step {
  const { sha256 } = release;
  const { trial, committed, ...others } = state;
  const isMeant = (slot: Slot | undefined): boolean =>
    slot?.release.sha256 === sha256 && (file === undefined || slot.file.sha256 === file);
  const name = slotNames.find((one) => isMeant(state[one]));
  const failed = (name && state[name]?.file.sha256) ?? file;
  const canRun = (slot: Slot | undefined): boolean =>
    slot !== undefined && !isWithdrawn(state.policy ?? {}, slot.release);
  const hasRefuge = [others.previous, others.embedded].some(canRun);
  const isGone = name === 'committed' && failed !== sha256 && hasRefuge;
  const isAlone = name === 'trial' || name === undefined || isGone;
  const refused = isAlone && failed !== undefined ? { ...release, sha256: failed } : release;
  const seen = state.plan && ownRelease(state.plan) === sha256 ? (state.plan.retryNonce ?? 0) : 0;
  const nonce = Math.max(retryNonce, seen, trial?.release.sha256 === sha256 ? trial.retryNonce : 0);
  const isOnly = !hasRefuge && !canRun(committed) && mayBeLuck.includes(reason);
  const rest: SlotsState = {
    ...others,
    ...(trial && name !== 'trial' && { trial }),
    ...(committed && !isGone && { committed }),
  };
  const rejected = addRejection(rest, refused, { reason, detail, retryNonce: nonce, isOnly }, context);
  return {
    state:
      name === undefined || failed === undefined
        ? rejected
        : { ...rejected, strikes: withoutKey(rejected.strikes, failed) },
    events: [about(refused, 'rejected', { ...(name && { slot: name }), reason, detail })],
  };
}

/**
 * Goes back without a rejection: to `committed` ends the trial, to `previous` or `embedded` drops what came after it.
 * Where there is no `previous`, `embedded` serves; where there is neither, what is committed stays.
 */
export function revertTo(state: SlotsState, to: Exclude<SlotName, 'trial'>): Step {
  const { trial, committed, previous, ...rest } = state;
  const ended = trial ? [about(trial.release, 'reverted', { slot: 'trial' })] : [];
  const target = to === 'previous' && previous === undefined ? 'embedded' : to;
  const isDropped = target === 'previous' || (target === 'embedded' && state.embedded !== undefined);
  if (!isDropped) {
    if (trial === undefined) return unchanged(state);
    return {
      state: { ...rest, ...(committed && { committed }), ...(previous && { previous }) },
      events: ended,
    };
  }
  if (target === 'embedded' && !trial && !committed && !previous) return unchanged(state);
  return {
    state: target === 'previous' && previous ? { ...rest, committed: previous } : rest,
    events: [
      ...ended,
      ...(committed ? [about(committed.release, 'rolled-back', { slot: 'committed' })] : []),
    ],
  };
}

/** Remembers a plan. Within one rollout the share never falls, salt, candidate and arm stay, and who is in stays in. */
export function seePlan(state: SlotsState, plan: SeenPlan): Step {
  const before = state.plan?.id === plan.id ? state.plan : undefined;
  const seen: SeenPlan = before
    ? {
        ...before,
        ...plan,
        bp: Math.max(before.bp, plan.bp),
        salt: before.salt,
        cand: before.cand,
        isIn: before.isIn || plan.isIn,
        ...(before.arm && { arm: before.arm }),
      }
    : plan;
  const isSame = before !== undefined && JSON.stringify(seen) === JSON.stringify(before);
  return unchanged(isSame ? state : { ...state, plan: seen });
}

/** Drops what is withdrawn, and remembers it. Nothing that was ever withdrawn comes back. */
export function applyPolicy(state: SlotsState, policy: ModelPolicy): Step {
  const before = state.policy ?? {};
  const merged = joinPolicies(before, policy);
  const isSame =
    merged.floorSeq === (before.floorSeq ?? 0) && merged.revoked?.length === (before.revoked ?? []).length;
  const { trial, committed, previous, ...rest } = state;
  const stays = (slot: Slot | undefined): boolean => slot !== undefined && !isWithdrawn(merged, slot.release);
  const events = slotNames.flatMap((name) => {
    const slot = state[name];
    if (slot === undefined || stays(slot)) return [];
    // What came with the app stays in its slot, so it is news only once.
    const isNews = name !== 'embedded' || !isWithdrawn(before, slot.release);
    return isNews ? [about(slot.release, 'withdrawn', { slot: name })] : [];
  });
  if (isSame && events.length === 0) return unchanged(state);
  const runs = stays(committed) ? committed : stays(previous) ? previous : undefined;
  return {
    state: {
      ...rest,
      ...(trial && stays(trial) && { trial }),
      ...(runs && { committed: runs }),
      ...(previous && runs === committed && stays(previous) && { previous }),
      policy: merged,
    },
    events,
  };
}

/**
 * Forgets strikes of files that no slot has any more, the oldest first, once there are many. Not at once: a rollout that
 * goes on and off must not make a release clean.
 */
export function tidy(state: SlotsState): SlotsState {
  const entries = Object.entries(state.strikes);
  if (entries.length <= strikesKept) return state;
  const files = new Set(slotNames.map((name) => state[name]?.file.sha256));
  const idle = entries.filter(([sha256]) => !files.has(sha256)).slice(0, entries.length - strikesKept);
  return { ...state, strikes: Object.fromEntries(entries.filter((entry) => !idle.includes(entry))) };
}

function strike(
  state: SlotsState,
  marker: Marker,
  reason: RejectReason,
  detail: string,
  context: SlotsContext,
): Step {
  const holder = holderOf(state, marker);
  if (holder === undefined) return unchanged(state);
  const { name, slot } = holder;
  const facts = { slot: name, reason, detail };
  // A file that has proved itself and is damaged now says nothing of the release: it is fetched again.
  if (name !== 'trial' && reason === 'hash')
    return { state, events: [about(slot.release, 'degraded', facts)] };
  const count = (state.strikes[marker.sha256] ?? 0) + 1;
  const limit = name === 'trial' && state.trial ? state.trial.rules.strikes : strikeLimit;
  const events = [about(slot.release, 'strike', facts)];
  if (count >= limit || (name === 'trial' && !mayBeLuck.includes(reason))) {
    return then({ state, events }, (present) =>
      rejectRelease(present, slot.release, { reason, detail }, context, marker.sha256),
    );
  }
  return { state: { ...state, strikes: { ...state.strikes, [marker.sha256]: count } }, events };
}

/** The slot that has a marker's file now: a trial may have been committed, and what was committed, moved on. */
function holderOf(
  state: SlotsState,
  { slot: named, sha256 }: Marker,
): { readonly name: SlotName; readonly slot: Slot } | undefined {
  for (const name of [named, ...slotNames]) {
    const slot = state[name];
    if (slot?.file.sha256 === sha256) return { name, slot };
  }
  return undefined;
}

function withoutKey(strikes: SlotsState['strikes'], sha256: string): SlotsState['strikes'] {
  const { [sha256]: _, ...rest } = strikes;
  return rest;
}

function without(markers: readonly Marker[], { id }: Marker): readonly Marker[] {
  return markers.filter((marker) => marker.id !== id);
}

/** A release without what only counts while it is on trial. */
function bare({ release, file, variant, golden, profile, proof, anchor }: Slot): Slot {
  return {
    release,
    file,
    ...(variant !== undefined && { variant }),
    ...(proof !== undefined && { proof }),
    ...(golden && { golden }),
    ...(profile && { profile }),
    ...(anchor && { anchor }),
  };
}

function about(
  { version, sha256 }: NamedRelease,
  type: SlotEvent['type'],
  more: Pick<SlotEvent, 'slot' | 'reason' | 'detail'>,
): SlotEvent {
  return { type, version, sha256, ...more };
}

function then(step: Step, next: (state: SlotsState) => Step): Step {
  const { state, events } = next(step.state);
  return { state, events: [...step.events, ...events] };
}
