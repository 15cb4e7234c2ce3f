/**
 * One model on one device: decides what it runs, brings that, tries it, and goes back when it does not work. Whatever
 * happens, what ran before goes on until something else has answered.
 */

import { closedError } from '../core/errors.ts';
import type { Decision, Refuge } from './decide.ts';
import { entryOf } from './arms.ts';
import { createDecider, type Decided } from './decider.ts';
import type { NewUpdateEvent } from './events.ts';
import { failureOf, faultOf, heldBack, isOfHost, rejected, unavailable } from './fault.ts';
import { createFetcher } from './fetcher.ts';
import type { Embedded, Follower, Updater, UpdaterParts } from './follower.ts';
import type { ResolvedPlan } from './resolve.ts';
import { createJudge } from './judge.ts';
import { createMoment } from './moment.ts';
import { createRunner } from './runner.ts';
import { createShadow } from './shadow.ts';
import { startOrder } from './start-order.ts';
import { createTeller } from './role.ts';
import { keepProof, lendEmbedded } from './shipment.ts';
import { isWithdrawn, neededBlobs, rejectionOf, type Try } from './slots.ts';
import { isSameRelease, slotNames, type Slot, type SlotName, type SlotsState, type Trial } from './slot.ts';
import type { DownloadListener } from './transfer.ts';

/** Decisions in a row that each change something, before the next check has to bring order. */
const MOST_TURNS = 8;

/** Where to go back to, best first. */
const fallbacks = [{ name: 'committed' }, { name: 'previous' }, { name: 'embedded' }] as const;

/** Creates the updater of one model. Nothing happens before the first follower. */
export function createUpdater(parts: UpdaterParts): Updater {
  const { model, platform, store, sync, slots, events } = parts;
  const log = (event: Omit<NewUpdateEvent, 'model'>): void => {
    events.add({ model, ...event });
  };
  let embedded: Embedded | undefined;
  let lastError: unknown;
  let turn: Promise<unknown> = Promise.resolve();
  let starting: Promise<void> | undefined;
  let onDownload: DownloadListener | undefined;
  let forget = (): void => {};
  /** Files that could not be opened by this process. */
  const failed = new Set<string>();
  /** The app has said that what is staged may begin. */
  let isForced = false;
  /** Whether checks of the server are heard of. */
  let isFollowing = false;
  let isOver = false;

  const runner = createRunner({
    ...parts,
    log,
    onEnter: (slot) => tell(slot),
    onVerdict: () => judge.now(),
    onError: (error) => fail(error),
  });
  const { running, isClosing } = runner;
  const judge = createJudge({
    platform,
    slots,
    running,
    inTurn: (task) => inTurn(task).catch((error: unknown) => fail(error)),
    onPassed: async (state, slot) => {
      await pin(state);
      // Another process may have put something else on trial meanwhile.
      runner.rename(isSameRelease(state.committed, slot) ? 'committed' : 'previous');
    },
    onRejected: async (reason, detail) => {
      const { trial } = running() ?? {};
      try {
        if (!(await goBack())) fail(rejected(reason, detail));
      } finally {
        // Where there is nothing to go back to, it serves on, and is judged no more.
        if (trial !== undefined && running()?.trial === trial) runner.rename('previous');
      }
    },
    onSettled: () => step(),
  });
  const moment = createMoment({ ...parts, followers: runner.followers, onDue: () => void step() });
  const shadow = createShadow({
    ...parts,
    followers: runner.followers,
    closing: runner.closing,
    isClosing,
    inTurn: (task) => inTurn(task).catch((error: unknown) => fail(error)),
    onError: (error) => fail(error),
    onSettled: () => step(),
  });
  const decider = createDecider({ ...parts, log, onError: (error) => fail(error) });
  const fetcher = createFetcher({
    ...parts,
    log,
    onProgress: (loadedBytes, totalBytes) => onDownload?.(loadedBytes, totalBytes),
    lend: (sha256s) => lendEmbedded(store, embedded, sha256s),
    onBegin: async ({ sha256 }) => pin(await slots.read(), [sha256]),
    onArrived: async (slot, plan) => {
      const { sha256 } = slot.file;
      const wasLost = runner.isLost(sha256);
      runner.verified(sha256);
      if (wasLost && (await slots.read()).committed?.file.sha256 === sha256) {
        await inTurn(() => goBack());
        return;
      }
      const { id, trial: rules, retryNonce } = plan;
      const state = await slots.read();
      const isKnown = isSameRelease(state.committed, slot);
      // Another process that shares the store was faster.
      if (isKnown && rejectionOf(state, slot.release.sha256, slots.context(), retryNonce) === undefined)
        return;
      const proved = { ...slot, ...(await keepProof(parts)) };
      await pin(await slots.stage(proved, { plan: id, rules, retryNonce }));
      // What runs on trial serves on, and is judged no more.
      const present = running();
      if (present?.name === 'trial' && present.slot.release.path !== slot.release.path)
        runner.rename('previous');
    },
    onFailed: async (entry, plan, error, { reason, detail }) => {
      // Another try would bring the same: it waits for other conditions.
      const isRefused = reason === 'too-large';
      if (isRefused) await slots.refuse(entry, reason, detail, plan.retryNonce).catch(() => {});
      fail(error);
      return isRefused;
    },
    onEnded: (mayGoOn) => {
      if (mayGoOn) void step();
    },
  });

  const observer = createTeller(parts);
  /** Says what runs, or is about to, and as what it counts. */
  const tell = (slot: Slot | undefined = running()?.slot): void => {
    if (slot !== undefined) observer.runs(slot, decider.lastDecided());
  };

  /** One thing after the other. */
  const inTurn = <Result>(task: () => Promise<Result>): Promise<Result> => {
    const next = turn.then(() => sync.run(task));
    turn = next.catch(() => {});
    return next;
  };

  const fail = (error: unknown): void => {
    if (isClosing(error)) return;
    lastError = error;
    for (const follower of runner.followers) follower.failed(error);
  };

  /** What runs, what it can go back to, and what is on its way, are not evicted; else it is fetched again. */
  const pin = async (state: SlotsState, more: readonly string[] = []): Promise<void> => {
    await parts.anchors.hold(model, state);
    await store.pin(`${sync.owner}-${model}`, [...new Set([...neededBlobs(state), ...more])]).catch(() => {});
  };

  const enter = async (name: SlotName, slot: Slot): Promise<void> => {
    await runner.enter(name, slot, embedded);
    judge.watch();
  };

  /** Opens the best of what is known to work. @returns whether something does. */
  const goBack = async (order: readonly Pick<Try, 'name'>[] = fallbacks): Promise<boolean> => {
    for (const { name } of order) {
      const { [name]: slot, policy = {} } = await slots.read();
      if (slot === undefined) continue;
      const isRunning = isSameRelease(running()?.slot, slot);
      // What is withdrawn may serve on where nothing else can, and is not gone back to.
      if (!isRunning && running() !== undefined && isWithdrawn(policy, slot.release)) continue;
      if (isRunning) {
        runner.rename(name);
        return true;
      }
      try {
        await enter(name, slot);
        return true;
      } catch (error) {
        if (isClosing(error) || isOfHost(error)) throw error;
        lastError = error;
        failed.add(slot.file.sha256);
      }
    }
    return false;
  };

  /** Another process may have moved the slots on: what they say is to run here, too. @returns whether that has changed. */
  const comeAlong = async (plan: ResolvedPlan | undefined): Promise<boolean> => {
    const state = await slots.read();
    const name = state.trial?.phase === 'active' ? 'trial' : 'committed';
    const slot = state[name];
    const present = running()?.slot;
    if (slot === undefined || isSameRelease(present, slot) || failed.has(slot.file.sha256)) return false;
    const isRejected = ({ release: { sha256 } }: Slot): boolean =>
      rejectionOf(state, sha256, slots.context(), plan?.retryNonce) !== undefined;
    if (isRejected(slot)) return false;
    // What was given up elsewhere is left at once; otherwise the moment has to be convenient.
    const isHeld = present !== undefined && slotNames.some((one) => isSameRelease(state[one], present));
    if (isHeld && !isRejected(present) && !isForced && !moment.isConvenient()) return false;
    return goBack([{ name }]);
  };

  /** Does what the plan wants, until nothing is left to do now. What it decides when it is asked waits for no moment. */
  const step = (isAsked = false): Promise<void> =>
    inTurn(async () => {
      isForced ||= isAsked;
      for (let turns = 0; turns < MOST_TURNS && !isOver && runner.followers.size > 0; turns += 1) {
        const decided = await decider.decide();
        tell();
        if (!(await carryOut(decided)) && !(await leaveDropped(decided))) return;
      }
    }).catch(fail);

  /** @returns whether there may be more to do at once. */
  const carryOut = async ({ next, plan, state: { trial } }: Decided): Promise<boolean> => {
    moment.wait(next.dueAt);
    const beside = next.kind === 'stay' ? next.shadow : undefined;
    if (beside === undefined) await shadow.end();
    if (next.kind === 'stay') {
      if ((await comeAlong(plan)) || (await restore(plan))) return true;
      // Stores forget who has not come back for long, and the app may want other things than it did before.
      await pin(await slots.read());
      if (beside === undefined || trial === undefined || running() === undefined) return false;
      observer.shadows(trial, decider.lastDecided());
      return shadow.begin(trial, beside.sampleBp);
    }
    if (next.kind === 'fetch') {
      if (plan !== undefined) fetcher.begin(next.entry, plan);
      const { meanwhile } = next;
      return meanwhile !== undefined && running()?.name !== meanwhile && (await leaveFor(meanwhile));
    }
    fetcher.stop();
    if (next.kind === 'revert' && next.to !== 'base') return leaveFor(next.to);
    if (trial === undefined) return false;
    if (next.kind === 'activate' && running() !== undefined && !isForced && !moment.isConvenient()) {
      const { meanwhile } = next;
      return meanwhile !== undefined && running()?.name !== meanwhile && (await leaveFor(meanwhile));
    }
    isForced = false;
    if (plan !== undefined && trial.release.sha256 === entryOf(plan, next.armName).sha256)
      await decider.begin(plan, next.armName);
    return attempt(trial);
  };

  /** What runs may have been withdrawn, and dropped from its slot. @returns whether something else took its place. */
  const leaveDropped = async ({ state: { policy } }: Decided): Promise<boolean> => {
    const before = running()?.slot;
    if (before === undefined || policy === undefined || !isWithdrawn(policy, before.release)) return false;
    return (await goBack()) && !isSameRelease(running()?.slot, before);
  };

  /** Brings a file again that the store has lost. @returns whether there may be more to do at once. */
  const restore = async (plan: ResolvedPlan | undefined): Promise<boolean> => {
    const { committed, trial } = await slots.read();
    if (trial?.phase === 'active' && running()?.name !== 'trial' && runner.isLost(trial.file.sha256)) {
      // It begins anew.
      await slots.revert('committed');
      return true;
    }
    const isLost = committed !== undefined && runner.isLost(committed.file.sha256);
    // The variant that was lost does not suit this device any more: another one has come in its place.
    if (isLost && trial?.phase === 'staged' && trial.release.path === committed.release.path)
      return attempt(trial);
    if (isLost && plan?.isCurrent === true) fetcher.begin(committed.release, plan);
    else fetcher.stop();
    return false;
  };

  /** Goes back to a slot, or to the next one that opens. */
  const leaveFor = async (to: Refuge): Promise<boolean> => {
    if (to === 'committed') await slots.revert(to);
    // What is left behind goes only when something else has answered.
    const went = await goBack(fallbacks.slice(fallbacks.findIndex(({ name }) => name === to)));
    const name = running()?.name;
    if (went && (name === 'previous' || name === 'embedded')) await settleOn(name);
    await pin(await slots.read());
    return went;
  };

  /** What runs takes the place of what came after it. */
  const settleOn = async (name: 'previous' | 'embedded'): Promise<void> => {
    await slots.revert(name);
    if (name === 'previous') runner.rename('committed');
  };

  /** @returns whether there may be more to do: whatever the fault was, it is written down, and the next decision knows it. */
  const attempt = async (trial: Trial): Promise<boolean> => {
    try {
      if (trial.phase === 'staged') await observer.begins(trial, decider.lastDecided());
      await enter('trial', trial);
      lastError = undefined;
      return true;
    } catch (error) {
      fail(error);
      // It is fetched again.
      if (runner.isLost(trial.file.sha256)) await slots.revert('committed');
      return !isClosing(error) && !isOfHost(error);
    }
  };

  const start = async (openEmbedded: (() => Promise<Embedded>) | undefined): Promise<void> => {
    // A fix can always arrive, whatever a release does to this process.
    sync.start();
    isFollowing = true;
    forget();
    fetcher.forgive();
    forget = sync.onChecked(() => {
      fetcher.forgive();
      shadow.forgive();
      const { lastError: failure } = sync.info();
      if (failure !== undefined && !isClosing(failure)) log({ type: 'checked', ...failureOf(failure) });
      void step();
    });
    let embeddedError: unknown;
    let tries: readonly Try[] = [];
    await inTurn(async () => {
      embedded = await openEmbedded?.().catch((error: unknown) => {
        embeddedError = error;
        return undefined;
      });
      if (embedded) await slots.embed(embedded.slot);
      tries = await slots.boot();
      const decideNow = async (): Promise<Decision | undefined> => (await decider.decide().catch(fail))?.next;
      const order = await startOrder(
        tries.filter((one) => !one.isLastResort),
        slots,
        decideNow,
      );
      if (parts.activation === 'next-start' && order.hasStaged) isForced = true;
      await goBack(order.tries);
    });
    if (running() === undefined) {
      const failure = await sync.check().then(
        () => undefined,
        (error: unknown) => error,
      );
      await settled();
      // What was rejected here may still be better than nothing.
      if (running() === undefined) await inTurn(() => goBack(tries.filter((one) => one.isLastResort)));
      if (running() === undefined) {
        forget();
        if (isOver) throw closedError('This Inlay');
        const held = decider.last()?.reason === 'rejected' ? (await slots.read()).rejected.at(-1) : undefined;
        const cause = failure ?? lastError ?? (held && heldBack(held));
        throw unavailable(model, cause, embeddedError ?? (embedded && lastError), lastError);
      }
    } else if (running()?.name === 'embedded') {
      // Whoever has a version that came with the app does not wait for the network.
      void sync.check().catch(() => {});
    } else void step();
  };

  /** Nothing is tried while nobody could answer with it. */
  const remove = (follower: Follower): void => {
    const { token } = running() ?? {};
    const isLast = runner.remove(follower);
    if (shadow.follower() === follower) void inTurn(() => shadow.end()).catch(() => {});
    if (!isLast) return;
    rest();
    if (token) void inTurn(() => slots.closed(token)).catch(() => {});
  };

  const rest = (): void => {
    isFollowing = false;
    judge.stop();
    moment.wait(undefined);
    fetcher.stop();
    forget();
  };

  /** A trial that does not open in a further handle has failed. */
  const bringIn = async (follower: Follower): Promise<void> => {
    const present = running();
    try {
      await runner.bringIn(follower);
    } catch (error) {
      if (present?.name !== 'trial' || isOfHost(error) || isClosing(error)) throw error;
      await inTurn(async () => {
        if (!isSameRelease(running()?.slot, present.slot)) return;
        const { reason, detail } = faultOf(error);
        const { release, file } = present.slot;
        await slots.reject(release.sha256, reason, detail, file.sha256);
        await goBack();
      });
      await runner.bringIn(follower);
    }
  };

  /** Does what the plan wants, and waits until something runs, or nothing comes any more. */
  const settled = async (): Promise<void> => {
    await step();
    for (let round = 0; round < MOST_TURNS && running() === undefined; round += 1) {
      const task = fetcher.underway();
      if (task === undefined || !(await task)) return;
      // What has come is tried, and another release may be wanted after that.
      await turn;
    }
  };

  return {
    model,
    join: async (follower, openEmbedded, listener) => {
      if (isOver) throw closedError('This Inlay');
      runner.add(follower);
      try {
        if (running() === undefined || !isFollowing) {
          onDownload ??= listener;
          starting ??= start(openEmbedded).finally(() => {
            starting = undefined;
            onDownload = undefined;
          });
          await starting;
        }
        await bringIn(follower);
      } catch (error) {
        remove(follower);
        throw error;
      }
    },
    leave: remove,
    activate: async () => {
      const { trial, committed } = await slots.read();
      const next = trial ?? committed;
      if (next === undefined || isSameRelease(running()?.slot, next)) return false;
      await step(true);
      isForced = false;
      return isSameRelease(running()?.slot, next);
    },
    state: async () => ({
      ...(await slots.read()),
      running: running()?.name,
      decision: decider.last(),
      lastError,
    }),
    close: async () => {
      isOver = true;
      runner.close();
      rest();
      await fetcher.underway();
      await inTurn(async () => {
        await shadow.end();
        const { token } = running() ?? {};
        if (token) await slots.closed(token);
      }).catch(() => {});
      // The marks of those who left meanwhile are still to be taken away.
      await turn;
      await slots.close();
    },
  };
}
