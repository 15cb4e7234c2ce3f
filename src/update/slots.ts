/**
 * Keeps the slots of one model, so that an app always starts with something that works.
 *
 * A life: `boot` lists what to start with → `beginLoad` before a release is opened → `loaded` at its first good answer,
 * or `failedLoad` → `progress` → `commit` or `reject` → `closed`. Each is on disk before it resolves. A process that
 * dies in between leaves a marker, from which the next `boot` tells what killed it.
 */

import { toHex } from '../core/bytes.ts';
import { isInlayError, TrustError, UpdateError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import type { ModelPolicy } from '../trust/metadata.ts';
import type { EventLog } from './events.ts';
import { isWithdrawn } from './resolve.ts';
import { decodeSlots, encodeSlots, noSlots, slotsRecord } from './slots-record.ts';
import { rejectionOf, type SlotsContext } from './slots-rejections.ts';
import {
  applyPolicy,
  beginLoad,
  buryRuns,
  commitTrial,
  countCalls,
  discardSlot,
  embed,
  endLoad,
  failLoad,
  firstAnswer,
  listTries,
  rejectRelease,
  revertTo,
  seePlan,
  settleLoad,
  settleRuns,
  stageTrial,
  tidy,
  type NamedRelease,
  type Step,
  type Try,
} from './slots-transitions.ts';
import {
  neededBlobs,
  slotNames,
  type Marker,
  type RejectReason,
  type SeenPlan,
  type Slot,
  type SlotName,
  type SlotsState,
  type Trial,
} from './slot.ts';

export { isWithdrawn, joinPolicies } from './resolve.ts';
export { rejectionOf, type SlotsContext } from './slots-rejections.ts';
export { neededBlobs } from './slot.ts';
export type { NamedRelease, Try } from './slots-transitions.ts';

/** What {@link openSlots} needs. */
export interface SlotsParts {
  readonly store: Pick<Store, 'readRecord' | 'updateRecord'>;
  /** Who keeps the slots: channel and server. */
  readonly owner: string;
  readonly model: string;
  readonly platform: Pick<Platform, 'now' | 'randomBytes' | 'createSha256' | 'setTimer' | 'instance'>;
  /** Version of Inlay. */
  readonly sdk: string;
  /** Version of the app. */
  readonly app?: string | undefined;
  /** Where every transition is written down. */
  readonly events?: Pick<EventLog, 'add' | 'flush'>;
}

/** One load of one release by this process. */
export type LoadToken = Marker;

/** The slots of one model. Concurrent calls take effect in order; several processes may share a store. */
export interface Slots {
  /** Reads the state, with everything that this process has done. */
  read(): Promise<SlotsState>;
  /** Names the release that came with the app, at every start. It is never removed. */
  embed(slot: Slot): Promise<SlotsState>;
  /**
   * Draws the conclusions from runs that have died, and lists what to start with, best first. Call it once per start,
   * after {@link Slots.embed}. Empty only if there is no release at all that may run.
   */
  boot(): Promise<readonly Try[]>;
  /**
   * Puts a release on trial, whose file is verified and in the store. The same one again goes on where it was.
   * @throws {@link UpdateError} `ERR_INLAY_UPDATE_REJECTED` while a rejection of it holds; {@link TrustError}
   * `ERR_INLAY_WITHDRAWN`.
   */
  stage(slot: Slot, terms: Pick<Trial, 'plan' | 'rules' | 'retryNonce'>): Promise<SlotsState>;
  /** Writes down that a release is about to be opened, before it is. */
  beginLoad(name: SlotName, slot: Slot): Promise<LoadToken>;
  /** Writes down its first good answer. From now on it has the grace period to survive. */
  loaded(token: LoadToken): Promise<SlotsState>;
  /** Ends the grace period: how the process ends says nothing of the release any more. */
  settled(token: LoadToken): Promise<SlotsState>;
  /**
   * Settles everything that this process has open, loads under way included, when people stop seeing the app. A load
   * that begins afterwards counts: a release that crashes an app which nobody ever sees must not do so for ever.
   */
  hidden(): Promise<SlotsState>;
  /** Writes down that it was closed as it should be. Safe to call twice. */
  closed(token: LoadToken): Promise<SlotsState>;
  /**
   * Writes down that it did not open, or did not answer. On trial, `crash` and `hang` are strikes, and everything else
   * rejects it at once. In the other slots, all are strikes but `hash`, after which the file is to be fetched again.
   * @param detail - for people: the message of the error.
   */
  failedLoad(token: LoadToken, reason: RejectReason, detail: string): Promise<SlotsState>;
  /** Adds to the calls of a trial. They are written every 5 seconds, and before the trial ends. */
  progress(token: LoadToken, inferences: number, errors: number): void;
  /**
   * Ends a trial well. Without effect if another process has done so, or another release is on trial.
   * @param file - SHA-256 of the file that has proved itself: another variant on trial has not.
   */
  commit(sha256: string, file?: string): Promise<SlotsState>;
  /**
   * Rejects a release that is in a slot. On trial, it ends; elsewhere, it is stepped over while the rejection holds: the
   * first for 24 hours, the next for 72, and then until `retryNonce`, Inlay or the app changes.
   * @param file - SHA-256 of the file that failed: another variant, which another process has put in its place, did not.
   */
  reject(sha256: string, reason: RejectReason, detail: string, file?: string): Promise<SlotsState>;
  /** Rejects a release in whatever slot, or in none: then it is not staged while the rejection holds. */
  refuse(
    release: NamedRelease,
    reason: RejectReason,
    detail: string,
    retryNonce?: number,
  ): Promise<SlotsState>;
  /**
   * Goes back without a rejection: to `committed` ends the trial; to `previous` or `embedded` also drops what came after
   * it. Where there is no `previous`, `embedded` serves; where there is neither, what is committed stays.
   */
  revert(to: Exclude<SlotName, 'trial'>): Promise<SlotsState>;
  /** Remembers a verified plan. Within one rollout the share never falls, and who is in stays in. */
  seen(plan: SeenPlan): Promise<SlotsState>;
  /** Empties a slot that names what was never signed: something else has written to the store. */
  discard(name: Exclude<SlotName, 'embedded'>): Promise<SlotsState>;
  /** Drops what is withdrawn, and remembers it for starts without network. */
  forgetWithdrawn(policy: ModelPolicy): Promise<SlotsState>;
  /** Names the files that must not be evicted. */
  neededBlobs(): Promise<readonly string[]>;
  /** What rejections depend on now, for {@link rejectionOf}. */
  context(): SlotsContext;
  /** Writes what is pending, and ends its timers. What is open stays marked. Safe to call twice. */
  close(): Promise<void>;
}

type Change = (state: SlotsState) => Step;

const progressMs = 5000;
/** Grace period of releases that have proved themselves, as a plan's own default. */
const graceS = 10;
/** Changes that are made up for when the store can be written again; with more of them, what is in memory counts. */
const pendingLimit = 200;

/**
 * Opens the slots of one model. Nothing is read or written before the first call.
 *
 * A damaged record counts as empty; verified files are found again in the store. Where the record cannot be written, the
 * slots go on in memory, the log says so once, and what happened meanwhile is written when that works again.
 */
export function openSlots({ store, owner, model, platform, sdk, app, events }: SlotsParts): Slots {
  const record = slotsRecord(platform, owner, model);
  const run = platform.instance?.id ?? randomId(platform);
  let turn: Promise<unknown> = Promise.resolve();
  /** What counts while the store cannot be written, and what made it so. */
  let inMemory: SlotsState | undefined;
  let pending: readonly Change[] = [];
  let known = noSlots;
  const calls = new Map<string, { inferences: number; errors: number }>();
  const graces = new Map<string, () => void>();
  let cancelProgress: (() => void) | undefined;

  const context = (): SlotsContext => ({ now: Math.floor(platform.now()), sdk, app });

  const inTurn = <Result>(task: () => Promise<Result>): Promise<Result> => {
    const result = turn.then(task);
    turn = result.catch(() => {});
    return result;
  };

  /** @param isPassing - not worth doing later, where it cannot be written now. */
  const write = async (change: Change, isPassing: boolean): Promise<SlotsState> => {
    let step: Step | undefined;
    let isLost = false;
    try {
      await store.updateRecord(record, (bytes) => {
        const decoded = bytes && decodeSlots(bytes);
        isLost = bytes !== undefined && decoded === undefined;
        const present =
          pending.length < pendingLimit || inMemory === undefined
            ? pending.reduce((state, earlier) => tidy(earlier(state).state), decoded ?? noSlots)
            : inMemory;
        step = change(present);
        step = { ...step, state: tidy(step.state) };
        return step.state === decoded ? undefined : encodeSlots(step.state);
      });
      inMemory = undefined;
      pending = [];
    } catch (error) {
      if (isInlayError(error) && error.code === 'ERR_INLAY_CLOSED') throw error;
      if (inMemory === undefined) {
        events?.add({
          model,
          type: 'record-unwritable',
          ...(error instanceof Error && { detail: error.message }),
        });
      }
      if (inMemory !== undefined || step === undefined) step = change(inMemory ?? known);
      inMemory = tidy(step.state);
      if (!isPassing && pending.length < pendingLimit) pending = [...pending, change];
    }
    const { state, events: happened } = step ?? { state: known, events: [] };
    known = state;
    if (isLost) events?.add({ model, type: 'record-lost' });
    for (const event of happened) events?.add({ model, ...event });
    return known;
  };

  const apply = (change: Change): Promise<SlotsState> => inTurn(() => write(change, false));

  const read = (): Promise<SlotsState> =>
    inTurn(async () => {
      if (inMemory !== undefined) return inMemory;
      const bytes = await store.readRecord(record).catch((error: unknown) => {
        if (isInlayError(error) && error.code === 'ERR_INLAY_CLOSED') throw error;
        return encodeSlots(known);
      });
      known = (bytes && decodeSlots(bytes)) ?? noSlots;
      return known;
    });

  const writeProgress = async (): Promise<void> => {
    cancelProgress?.();
    cancelProgress = undefined;
    const counted = [...calls];
    calls.clear();
    for (const [sha256, { inferences, errors }] of counted) {
      await inTurn(() => write((state) => countCalls(state, sha256, inferences, errors), true));
    }
  };

  const applyCounted = async (change: Change): Promise<SlotsState> => {
    await writeProgress();
    return apply(change);
  };

  const endGrace = ({ id }: LoadToken): void => {
    graces.get(id)?.();
    graces.delete(id);
  };

  const settled = (token: LoadToken): Promise<SlotsState> => {
    endGrace(token);
    return apply((state) => settleLoad(state, token));
  };

  return {
    read,
    embed: (slot) => apply((state) => embed(state, slot)),
    boot: async () => {
      const { markers } = await read();
      const others = new Set(markers.map((marker) => marker.run).filter((id) => id !== run));
      const dead = new Set<string>();
      for (const id of others) {
        // Where it cannot be found out, a neighbour gets the benefit of the doubt.
        const isAlive = platform.instance && (await platform.instance.isAlive(id).catch(() => true));
        if (isAlive !== true) dead.add(id);
      }
      const at = context();
      const left = new Set([...dead].filter((id) => platform.instance?.wasLeft?.(id)));
      const state = await apply((present) => buryRuns(settleRuns(present, left).state, dead, at));
      await events?.flush();
      return listTries(state, at);
    },
    stage: async (slot, terms) => {
      const at = context();
      let refusal: Error | undefined;
      const state = await apply((present) => {
        refusal = refusalOf(present, slot, terms.retryNonce, at);
        return refusal ? { state: present, events: [] } : stageTrial(present, slot, terms);
      });
      if (refusal) throw refusal;
      return state;
    },
    beginLoad: async (name, { file: { sha256 } }) => {
      const token: LoadToken = {
        id: randomId(platform),
        run,
        sha256,
        slot: name,
        phase: 'loading',
        at: context().now,
      };
      await apply((state) => beginLoad(state, token));
      await events?.flush();
      return token;
    },
    loaded: async (token) => {
      const at = context();
      const state = await apply((present) => firstAnswer(present, token, at));
      const seconds = state.trial?.file.sha256 === token.sha256 ? state.trial.rules.graceS : graceS;
      endGrace(token);
      const cancel = platform.setTimer(() => void settled(token).catch(() => {}), seconds * 1000);
      graces.set(token.id, cancel);
      return state;
    },
    settled,
    hidden: () => applyCounted((state) => settleRuns(state, new Set([run]))),
    closed: (token) => {
      endGrace(token);
      return applyCounted((state) => endLoad(state, token));
    },
    failedLoad: async (token, reason, detail) => {
      endGrace(token);
      const at = context();
      const state = await applyCounted((present) => failLoad(present, token, reason, detail, at));
      await events?.flush();
      return state;
    },
    progress: ({ sha256 }, inferences, errors) => {
      const count = calls.get(sha256) ?? { inferences: 0, errors: 0 };
      calls.set(sha256, { inferences: count.inferences + inferences, errors: count.errors + errors });
      cancelProgress ??= platform.setTimer(() => void writeProgress().catch(() => {}), progressMs);
    },
    commit: (sha256, file) => {
      const at = context();
      return applyCounted((state) => commitTrial(state, sha256, at, file));
    },
    reject: (sha256, reason, detail, file) => {
      const at = context();
      return applyCounted((state) => {
        const slot = slotNames.map((name) => state[name]).find((one) => one?.release.sha256 === sha256);
        if (slot === undefined) return { state, events: [] };
        return rejectRelease(state, slot.release, { reason, detail }, at, file);
      });
    },
    refuse: (release, reason, detail, retryNonce = 0) => {
      const at = context();
      return applyCounted((state) => rejectRelease(state, release, { reason, detail, retryNonce }, at));
    },
    revert: (to) => applyCounted((state) => revertTo(state, to)),
    seen: (plan) => apply((state) => seePlan(state, plan)),
    discard: (name) => apply((state) => discardSlot(state, name)),
    forgetWithdrawn: (policy) => apply((state) => applyPolicy(state, policy)),
    neededBlobs: async () => neededBlobs(await read()),
    context,
    close: async () => {
      for (const cancel of graces.values()) cancel();
      graces.clear();
      await writeProgress();
    },
  };
}

function refusalOf(
  state: SlotsState,
  { release }: Slot,
  retryNonce: number,
  context: SlotsContext,
): Error | undefined {
  const { path, seq, sha256, version } = release;
  if (isWithdrawn(state.policy ?? {}, release)) {
    return new TrustError(
      'ERR_INLAY_WITHDRAWN',
      `The release ${path} is withdrawn by its publisher; roll out another one.`,
      { details: { path, seq } },
    );
  }
  const rejection = rejectionOf(state, sha256, context, retryNonce);
  if (rejection === undefined) return undefined;
  const { reason, detail, until } = rejection;
  return new UpdateError(
    'ERR_INLAY_UPDATE_REJECTED',
    `The release ${version} did not work on this device (${reason}) and is not tried again yet; publish another one, or raise retryNonce.`,
    { details: { sha256, reason, detail, until } },
  );
}

function randomId(platform: Pick<Platform, 'randomBytes'>): string {
  return toHex(platform.randomBytes(8));
}
