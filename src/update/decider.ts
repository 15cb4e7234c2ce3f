/** Asks what a device is to do about one model now: reads the plan, remembers it, and decides. */

import type { Platform } from '../core/platform.ts';
import { CANDIDATE_ARM, entryOf } from './arms.ts';
import { breaksPromise } from './decide-place.ts';
import { decide, type Decision } from './decide.ts';
import type { NewUpdateEvent } from './events.ts';
import type { Install } from './plan.ts';
import type { ResolvedPlan } from './resolve.ts';
import { isWithdrawn, joinPolicies, type Slots } from './slots.ts';
import type { SeenPlan, SlotsState } from './slot.ts';
import type { Sync } from './sync.ts';

/** What {@link createDecider} works with. */
export interface DeciderParts {
  readonly model: string;
  readonly platform: Pick<Platform, 'now'>;
  readonly sync: Sync;
  readonly slots: Slots;
  readonly install: () => Promise<Install>;
  readonly log: (event: Omit<NewUpdateEvent, 'model'>) => void;
  /** Hears why a plan does not count. */
  readonly onError: (error: unknown) => void;
}

/** What is to be done, and by which plan. */
export interface Decided {
  readonly plan: ResolvedPlan | undefined;
  readonly next: Decision;
  readonly state: SlotsState;
}

/** Decides for one model. */
export interface Decider {
  decide(): Promise<Decided>;
  /**
   * Remembers that this device begins with the candidate: it stays with it, whatever rules say later.
   * @param armName - that of the decision.
   */
  begin(plan: ResolvedPlan, armName: string | undefined): Promise<void>;
  /** What was decided last. */
  last(): Decision | undefined;
  /** The same, with the plan. */
  lastDecided(): Decided | undefined;
}

/** Creates the decider of one model. */
export function createDecider(parts: DeciderParts): Decider {
  const { model, platform, sync, slots, log } = parts;
  let last: Decided | undefined;

  /** The plan in force; `undefined` where there is none that counts. */
  const planNow = async (): Promise<ResolvedPlan | undefined> => {
    try {
      const plan = await sync.plan(model);
      sync.setPollWish(model, plan?.pollS === undefined ? undefined : plan.pollS * 1000);
      return plan;
    } catch (error) {
      parts.onError(error);
      return undefined;
    }
  };

  const remember = async (plan: ResolvedPlan, begun: Pick<SeenPlan, 'isIn' | 'arm'>): Promise<SlotsState> => {
    const { id, bp, salt, cand, retryNonce } = plan;
    const { plan: seen } = await slots.read();
    // Another process, or an earlier one, may have heard of it later than this one; a clock that was ahead has not.
    const earlierAt = seen?.id === id && seen.verifiedAt <= platform.now() ? seen.verifiedAt : 0;
    const verifiedAt = Math.max(sync.confirmedAt(), earlierAt);
    return slots.seen({ id, bp, salt, cand: cand.sha256, retryNonce, ...begun, verifiedAt });
  };

  /** What is withdrawn goes as soon as something else could run: an app without a model is no better off. */
  const leaveWithdrawn = async (state: SlotsState): Promise<SlotsState> => {
    const policy = await sync.policy(model).catch(() => undefined);
    if (policy === undefined) return state;
    const remains = [state.trial, state.committed, state.previous, state.embedded].some(
      (slot) => slot !== undefined && !isWithdrawn(policy, slot.release),
    );
    return remains
      ? slots.forgetWithdrawn(policy)
      : { ...state, policy: joinPolicies(state.policy ?? {}, policy) };
  };

  return {
    decide: async () => {
      const plan = await planNow();
      let state = await slots.read();
      if (plan !== undefined && !breaksPromise(plan, state)) state = await remember(plan, { isIn: false });
      state = await leaveWithdrawn(state);
      const next = decide(plan, await parts.install(), platform.now(), state);
      if (next.reason !== last?.next.reason) log({ type: 'offered', reason: next.reason, detail: next.kind });
      last = { plan, next, state };
      return last;
    },
    begin: async (plan, armName) => {
      const { sha256 } = entryOf(plan, armName);
      await remember(plan, { isIn: true, arm: { name: armName ?? CANDIDATE_ARM, sha256 } });
    },
    last: () => last?.next,
    lastDecided: () => last,
  };
}
