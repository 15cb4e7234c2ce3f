/**
 * One model on one device: decides what it runs, brings that, tries it, and goes back when it does not work. Whatever
 * happens, what ran before goes on until something else has answered.
 */

import type { ModelSource } from '../core/backend.ts';
import { abortWith, orAbort } from '../core/abort.ts';
import { closedError, isInlayError, StoreError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Blob, Store } from '../core/store.ts';
import { breaksPromise } from './decide-place.ts';
import { decide, type Decision, type Refuge } from './decide.ts';
import type { EventLog, NewUpdateEvent } from './events.ts';
import { readGolden } from './golden.ts';
import { createTrialWatch, type TrialBaseline, type TrialWatch } from './guards.ts';
import { intactBlob } from './intact.ts';
import { baselineOf, observe } from './observe.ts';
import { DEFAULT_TRIAL, type Install, type PlanEntry, type TrialRules } from './plan.ts';
import type { ResolvedPlan } from './resolve.ts';
import { createFetcher } from './fetcher.ts';
import type { ShipmentParts } from './shipment.ts';
import { faultOf, isOfHost, rejected, unavailable } from './fault.ts';
import type { Embedded, Follower, Opened, Target } from './follower.ts';
import { isWithdrawn, neededBlobs, type LoadToken, type Slots, type Try } from './slots.ts';
import type { SeenPlan, Slot, SlotName, SlotsState, Trial } from './slot.ts';
import type { Sync } from './sync.ts';
import type { DownloadListener } from './transfer.ts';

/** When a release that is there and verified begins to answer calls. */
export type Activation =
  /** As soon as it has proved itself beside the present one. */
  | 'now'
  /** When the model has not been called for two seconds. */
  | 'idle'
  /** With the next start of the app. */
  | 'next-start'
  /** When the app says so. */
  | 'manual';

/** What an updater works with. */
export interface UpdaterParts extends Omit<ShipmentParts, 'lend' | 'target'> {
  readonly model: string;
  readonly platform: Platform;
  readonly store: Store;
  readonly sync: Sync;
  readonly slots: Slots;
  readonly events: EventLog;
  readonly install: () => Promise<Install>;
  readonly activation: Activation;
  /** Tries a release where it can do no harm. @throws when it does not work there. */
  readonly prove: (target: Target) => Promise<void>;
}

/** What an updater says of itself. */
export interface UpdaterState extends SlotsState {
  /** What answers calls now. */
  readonly running: SlotName | undefined;
  /** What was decided last, and why. */
  readonly decision: Decision | undefined;
  /** Why the last attempt to update failed, until one does not. */
  readonly lastError: unknown;
}

/** Keeps one model up to date. */
export interface Updater {
  readonly model: string;
  /**
   * Has a follower answer calls with what this device runs; the first one starts the updater.
   * @param onDownload - hears of the first download.
   * @throws when there is nothing to run: why.
   */
  join(
    follower: Follower,
    embedded: (() => Promise<Embedded>) | undefined,
    onDownload: DownloadListener | undefined,
  ): Promise<void>;
  leave(follower: Follower): void;
  /** Begins with the release that waits, whatever the policy says. @returns whether one did. */
  activate(): Promise<boolean>;
  state(): Promise<UpdaterState>;
  /** Says that what runs was left in good order. */
  close(): Promise<void>;
}

/** How often a model that waits for a quiet moment is looked at, and for how long it has to be quiet, milliseconds. */
const LOOK_MS = 250;
const QUIET_MS = 2000;
/** How often a trial is judged when no call does so, milliseconds. */
const JUDGE_MS = 500;
/** Decisions in a row that each change something, before the next check has to bring order. */
const MOST_TURNS = 8;

/** Where to go back to, best first. */
const fallbacks: readonly Refuge[] = ['committed', 'previous', 'embedded'];

interface Running {
  readonly name: SlotName;
  readonly slot: Slot;
  readonly target: Target;
  readonly token: LoadToken;
  readonly trial: TrialWatch | undefined;
  /** Run times of its latest calls, milliseconds. */
  readonly times: readonly number[];
}

/** Creates the updater of one model. Nothing happens before the first follower. */
export function createUpdater(parts: UpdaterParts): Updater {
  const { model, platform, store, sync, slots, events } = parts;
  const followers = new Set<Follower>();
  const log = (event: Omit<NewUpdateEvent, 'model'>): void => {
    events.add({ model, ...event });
  };
  let embedded: Embedded | undefined;
  let running: Running | undefined;
  let decision: Decision | undefined;
  let lastError: unknown;
  let turn: Promise<unknown> = Promise.resolve();
  let starting: Promise<void> | undefined;
  let onDownload: DownloadListener | undefined;
  let cancelJudge = (): void => {};
  let cancelWait = (): void => {};
  let forget = (): void => {};
  /** Files of slots that were not there, or damaged. */
  const lost = new Set<string>();
  /** Files that were verified in this process and not opened yet. */
  const fresh = new Set<string>();
  /** Followers that answer calls with what runs. */
  const inside = new Set<Follower>();
  const closes = new AbortController();
  /** The app has said that what is staged may begin. */
  let isForced = false;
  let isOver = false;

  const fetcher = createFetcher({
    ...parts,
    log,
    onProgress: (loadedBytes, totalBytes) => onDownload?.(loadedBytes, totalBytes),
    lend: async (sha256s) => {
      const sha256 = embedded?.slot.file.sha256;
      if (embedded === undefined || sha256 === undefined || !sha256s.includes(sha256)) return;
      if ((await store.blob(sha256)) === undefined) await store.putBlob(sha256, await embedded.bytes());
    },
    onBegin: async ({ sha256 }) => pin(await slots.read(), [sha256]),
    onArrived: async (slot, plan) => {
      const { sha256 } = slot.file;
      fresh.add(sha256);
      if (lost.delete(sha256) && (await slots.read()).committed?.file.sha256 === sha256) {
        await inTurn(() => goBack());
        return;
      }
      const { id, trial: rules, retryNonce } = plan;
      await pin(await slots.stage(slot, { plan: id, rules, retryNonce }));
      // What runs on trial serves on, and is judged no more.
      if (running?.name === 'trial' && running.slot.release.path !== slot.release.path)
        running = { ...running, name: 'previous', trial: undefined };
    },
    onFailed: async (entry, plan, error, { reason, detail }) => {
      // Another try would bring the same: it waits for other conditions.
      if (reason === 'too-large') await slots.refuse(entry, reason, detail, plan.retryNonce).catch(() => {});
      fail(error);
    },
    onEnded: (isBrought) => {
      if (isBrought) void step();
    },
  });

  /** One thing after the other. */
  const inTurn = <Result>(task: () => Promise<Result>): Promise<Result> => {
    const next = turn.then(() => sync.run(task));
    turn = next.catch(() => {});
    return next;
  };

  const isClosing = (error: unknown): boolean =>
    isOver || (isInlayError(error) && error.code === 'ERR_INLAY_CLOSED');

  const fail = (error: unknown): void => {
    if (isClosing(error)) return;
    lastError = error;
    for (const follower of followers) follower.failed(error);
  };

  /** What runs, what it can go back to, and what is on its way, are not evicted. */
  const pin = async (state: SlotsState, more: readonly string[] = []): Promise<void> => {
    // What is evicted nevertheless is fetched again.
    await store.pin(`${sync.owner}-${model}`, [...new Set([...neededBlobs(state), ...more])]).catch(() => {});
  };

  const sourceOf = (blob: Blob): Promise<ModelSource> | ModelSource =>
    blob.path === undefined ? blob.bytes().then((bytes) => ({ bytes })) : { path: blob.path };

  /** @returns `undefined` when the file is gone or damaged, which a store may always do. */
  const targetOf = async (name: SlotName, slot: Slot): Promise<Omit<Running, 'token'> | undefined> => {
    const ofApp = name === 'embedded' ? embedded : undefined;
    // What has just been verified need not be read again.
    const isFresh = fresh.delete(slot.file.sha256);
    const blob =
      ofApp === undefined
        ? await (isFresh ? store.blob(slot.file.sha256) : intactBlob(platform, store, slot.file))
        : undefined;
    if (ofApp === undefined && blob === undefined) {
      lost.add(slot.file.sha256);
      log({ type: 'record-lost', slot: name, version: slot.release.version, sha256: slot.file.sha256 });
      return undefined;
    }
    const trial = name === 'trial' ? (slot as Trial) : undefined;
    const rules = trial?.rules ?? DEFAULT_TRIAL;
    const isNew = trial?.phase === 'staged';
    const golden = isNew && slot.golden ? await intactBlob(platform, store, slot.golden) : undefined;
    if (isNew && slot.golden !== undefined && golden === undefined) {
      // Without them, nobody knows whether it works.
      lost.add(slot.file.sha256);
      return undefined;
    }
    const begin = trial?.since === undefined ? undefined : { ...trial, at: trial.since };
    const watch = trial && createTrialWatch(rules, baseline(), begin);
    const times: number[] = [];
    return {
      name,
      slot,
      times,
      trial: watch,
      target: {
        slot: name,
        version: slot.release.version === '' ? undefined : slot.release.version,
        variant: slot.variant,
        source: ofApp ? await ofApp.source() : await sourceOf(blob as Blob),
        golden:
          golden && slot.golden
            ? { cases: readGolden(await golden.bytes()), tolerance: slot.golden.tolerance }
            : undefined,
        rules,
        isNew,
        watch: observe({
          platform,
          times,
          trial: () => (isOver || running?.trial !== watch ? undefined : watch),
          onVerdict: judgeTrial,
        }),
      },
    };
  };

  /** Run times of what runs now: what the next release is measured by. */
  const baseline = (): TrialBaseline => baselineOf(running?.times ?? [], platform.memoryBytes?.());

  /** Opens what a slot holds in all followers, and sends their calls there; or else leaves everything as it was. */
  const enter = async (name: SlotName, slot: Slot): Promise<void> => {
    const found = await targetOf(name, slot);
    if (found === undefined) {
      throw new StoreError(
        'ERR_INLAY_STORE_MISSING',
        `The file of version ${slot.release.version} of model "${model}" is no longer in the store; it is fetched again.`,
      );
    }
    const { target } = found;
    const token = await slots.beginLoad(name, slot);
    const opened = new Map<Follower, Opened>();
    try {
      if (target.isNew) await orAbort(parts.prove(target), closes.signal);
      for (const follower of followers) opened.set(follower, await openIn(follower, target));
    } catch (error) {
      for (const one of opened.values()) await one.discard().catch(() => {});
      if (isOfHost(error) || isClosing(error)) await slots.closed(token);
      else {
        const { reason, detail } = faultOf(error);
        await slots.failedLoad(token, reason, detail);
      }
      throw error;
    }
    await slots.loaded(token);
    for (const [follower, one] of opened) {
      one.enter();
      inside.add(follower);
    }
    const before = running;
    running = { ...found, token };
    if (before) await slots.closed(before.token);
    // Whoever joined meanwhile has what ran before.
    for (const follower of followers) {
      if (inside.has(follower) && !opened.has(follower)) await catchUp(follower, running).catch(fail);
    }
    watchTrial();
  };

  /** Nobody waits for a release that opens slowly when everything is being closed. */
  const openIn = (follower: Follower, target: Target): Promise<Opened> =>
    orAbort(follower.open(target), closes.signal, (late) => void late.discard().catch(() => {}));

  const catchUp = async (follower: Follower, present: Running): Promise<void> => {
    const opened = await openIn(follower, present.target);
    if (running !== present || !followers.has(follower)) {
      await opened.discard();
      return;
    }
    opened.enter();
    inside.add(follower);
  };

  /** Judges a trial also when no call comes. */
  const watchTrial = (): void => {
    cancelJudge();
    if (running?.trial === undefined || isOver) return;
    cancelJudge = platform.setTimer(() => {
      void judgeTrial().finally(watchTrial);
    }, JUDGE_MS);
  };

  const judgeTrial = async (): Promise<void> => {
    let isSettled = false;
    await inTurn(async () => {
      const trial = running?.trial;
      if (trial === undefined || running === undefined) return;
      const { token, slot } = running;
      const { sha256 } = slot.release;
      const memoryBytes = platform.memoryBytes?.();
      if (memoryBytes !== undefined) trial.measured(memoryBytes);
      const { inferences, errors } = trial.takeCounts();
      slots.progress(token, inferences, errors);
      const verdict = trial.verdict(platform.now());
      if (verdict === 'going-on') return;
      if (verdict === 'passed') {
        await pin(await slots.commit(sha256));
        running = { ...running, name: 'committed', trial: undefined };
        isSettled = true;
        return;
      }
      await slots.reject(sha256, verdict.reason, verdict.detail);
      if (!(await goBack())) fail(rejected(verdict.reason, verdict.detail));
      isSettled = true;
    }).catch(fail);
    if (isSettled) await step();
  };

  /** Opens the best of what is known to work. @returns whether something does. */
  const goBack = async (order: readonly SlotName[] = fallbacks): Promise<boolean> => {
    for (const name of order) {
      const slot = (await slots.read())[name];
      if (slot === undefined) continue;
      if (running?.slot.release.path === slot.release.path && running.slot.file.sha256 === slot.file.sha256) {
        running = { ...running, name, trial: undefined };
        return true;
      }
      try {
        await enter(name, slot);
        return true;
      } catch (error) {
        if (isClosing(error) || isOfHost(error)) throw error;
        lastError = error;
      }
    }
    return false;
  };

  /** The plan in force; `undefined` where there is none that counts. */
  const currentPlan = async (): Promise<ResolvedPlan | undefined> => {
    try {
      const plan = await sync.plan(model);
      sync.setPollWish(model, plan?.pollS === undefined ? undefined : plan.pollS * 1000);
      return plan;
    } catch (error) {
      fail(error);
      return undefined;
    }
  };

  const decideNow = async (): Promise<{ plan: ResolvedPlan | undefined; next: Decision }> => {
    const plan = await currentPlan();
    let state = await slots.read();
    if (plan !== undefined && !breaksPromise(plan, state)) state = await slots.seen(seenOf(plan, false));
    state = await leaveWithdrawn(state);
    const next = decide(plan, await parts.install(), platform.now(), state);
    if (next.reason !== decision?.reason) log({ type: 'offered', reason: next.reason, detail: next.kind });
    decision = next;
    return { plan, next };
  };

  const seenOf = ({ id, bp, salt, cand, retryNonce }: ResolvedPlan, isIn: boolean): SeenPlan => ({
    id,
    bp,
    salt,
    cand: cand.sha256,
    retryNonce,
    isIn,
    verifiedAt: sync.confirmedAt(),
  });

  /** What is withdrawn goes as soon as something else could run: an app without a model is no better off. */
  const leaveWithdrawn = async (state: SlotsState): Promise<SlotsState> => {
    const policy = await sync.policy(model).catch(() => undefined);
    const remains = [state.committed, state.previous, state.embedded].some(
      (slot) => slot !== undefined && policy !== undefined && !isWithdrawn(policy, slot.release),
    );
    return policy !== undefined && remains ? slots.forgetWithdrawn(policy) : state;
  };

  /** Does what the plan wants, until there is nothing left to do now. */
  const step = (): Promise<void> =>
    inTurn(async () => {
      for (let turns = 0; turns < MOST_TURNS && !isOver && followers.size > 0; turns += 1) {
        const { plan, next } = await decideNow();
        if (!(await carryOut(next, plan))) return;
      }
    }).catch(fail);

  /** @returns whether there may be more to do at once. */
  const carryOut = async (next: Decision, plan: ResolvedPlan | undefined): Promise<boolean> => {
    wait(next.dueAt);
    if (next.kind === 'stay') return restore(plan);
    if (next.kind !== 'fetch') fetcher.stop();
    switch (next.kind) {
      case 'fetch':
        if (plan !== undefined) fetcher.begin(next.entry, plan);
        if (next.meanwhile === undefined || running?.name === next.meanwhile) return false;
        return leaveFor(next.meanwhile);
      case 'activate':
      case 'revert': {
        if (next.kind === 'revert' && next.to !== 'base') return leaveFor(next.to);
        const { trial } = await slots.read();
        if (trial === undefined) return false;
        if (next.kind === 'activate' && running !== undefined && !isForced && !mayActivate()) {
          const { meanwhile } = next;
          return meanwhile !== undefined && running.name !== meanwhile && (await leaveFor(meanwhile));
        }
        isForced = false;
        if (plan !== undefined && trial.release.sha256 === plan.cand.sha256)
          await slots.seen(seenOf(plan, true));
        return attempt(trial);
      }
    }
  };

  /** Brings the file of what is committed again, where the store has lost it. */
  const restore = async (plan: ResolvedPlan | undefined): Promise<false> => {
    const { committed } = await slots.read();
    const isLost = committed !== undefined && lost.has(committed.file.sha256);
    if (isLost && plan?.isCurrent === true) fetcher.begin(committed.release, plan);
    else fetcher.stop();
    return false;
  };

  /** Goes back to a slot, or to the next one that opens. */
  const leaveFor = async (to: Refuge): Promise<boolean> => {
    await slots.revert(to);
    const went = await goBack();
    await pin(await slots.read());
    return went;
  };

  /** Decides again when something changes by itself, or when the model may have a quiet moment. */
  const wait = (dueAt: number | undefined): void => {
    cancelWait();
    if (dueAt === undefined) return;
    cancelWait = platform.setTimer(() => void step(), Math.max(0, dueAt - platform.now()));
  };

  /** @returns whether there may be more to do: whatever the fault was, it is written down, and the next decision knows it. */
  const attempt = async (trial: Trial): Promise<boolean> => {
    try {
      await enter('trial', trial);
      lastError = undefined;
      return true;
    } catch (error) {
      fail(error);
      // It is fetched again.
      if (lost.has(trial.file.sha256)) await slots.revert('committed');
      return !isClosing(error) && !isOfHost(error);
    }
  };

  const mayActivate = (): boolean => {
    if (parts.activation !== 'idle') return parts.activation === 'now';
    const isQuiet = [...followers].every((follower) => follower.idleMs() >= QUIET_MS);
    if (isQuiet && platform.conditions?.().isIdle !== false) return true;
    wait(platform.now() + LOOK_MS);
    return false;
  };

  const start = async (openEmbedded: (() => Promise<Embedded>) | undefined): Promise<void> => {
    // A fix can always arrive, whatever a release does to this process.
    sync.start();
    forget();
    forget = sync.onChecked(() => void step());
    let embeddedError: unknown;
    let tries: readonly Try[] = [];
    await inTurn(async () => {
      embedded = await openEmbedded?.().catch((error: unknown) => {
        embeddedError = error;
        return undefined;
      });
      if (embedded) await slots.embed(embedded.slot);
      tries = await slots.boot();
      await goBack(namesOf(await startable(tries.filter((one) => !one.isLastResort))));
    });
    if (running === undefined) {
      const failure = await sync.check().then(
        () => undefined,
        (error: unknown) => error,
      );
      await settled();
      // What was rejected here may still be better than nothing.
      if (running === undefined) await inTurn(() => goBack(namesOf(tries.filter((one) => one.isLastResort))));
      if (running === undefined) {
        forget();
        throw unavailable(model, failure ?? lastError, embeddedError ?? (embedded && lastError));
      }
    } else if (running.name === 'embedded') {
      // Whoever has a version that came with the app does not wait for the network.
      void sync.check().catch(() => {});
    } else void step();
  };

  /** A trial that has answered goes on first, unless the plan that is known says otherwise; another one comes beside the rest. */
  const startable = async (tries: readonly Try[]): Promise<readonly Try[]> => {
    if (!tries.some(({ name }) => name === 'trial')) return tries;
    const { next } = await decideNow();
    if (next.kind === 'revert' && next.to !== 'base') await slots.revert(next.to);
    const { trial } = await slots.read();
    const others = tries.filter(({ name }) => name !== 'trial');
    if (trial === undefined) return others;
    if (trial.phase === 'active') return tries;
    if (parts.activation === 'next-start') isForced = true;
    return others;
  };

  /** Nothing is tried while nobody could answer with it. */
  const rest = (): void => {
    cancelJudge();
    cancelWait();
    fetcher.stop();
    forget();
    const { token } = running ?? {};
    running = undefined;
    if (token && !isOver) void inTurn(() => slots.closed(token)).catch(() => {});
  };

  /** Waits until nothing is decided, downloaded or opened any more. */
  const settled = async (): Promise<void> => {
    await step();
    for (let task = fetcher.underway(); task !== undefined; task = fetcher.underway()) {
      await task;
      await step();
    }
  };

  return {
    model,
    join: async (follower, openEmbedded, listener) => {
      if (isOver) throw closedError('This Inlay');
      followers.add(follower);
      try {
        if (running === undefined) {
          onDownload ??= listener;
          starting ??= start(openEmbedded).finally(() => {
            starting = undefined;
            onDownload = undefined;
          });
          await starting;
        }
        // It does not wait for a release that is being tried.
        while (running !== undefined && !inside.has(follower)) await catchUp(follower, running);
      } catch (error) {
        followers.delete(follower);
        if (followers.size === 0) rest();
        throw error;
      }
    },
    leave: (follower) => {
      followers.delete(follower);
      inside.delete(follower);
      if (followers.size === 0) rest();
    },
    activate: async () => {
      const { trial } = await slots.read();
      if (trial?.phase !== 'staged') return false;
      isForced = true;
      await step();
      return running?.slot.release.path === trial.release.path;
    },
    state: async () => ({ ...(await slots.read()), running: running?.name, decision, lastError }),
    close: async () => {
      isOver = true;
      abortWith(closes, closedError('This Inlay'));
      cancelJudge();
      cancelWait();
      forget();
      fetcher.stop();
      await fetcher.underway();
      await turn;
      if (running) await slots.closed(running.token).catch(() => {});
      await slots.close();
    },
  };
}

function namesOf(tries: readonly Try[]): readonly SlotName[] {
  return tries.map(({ name }) => name);
}
