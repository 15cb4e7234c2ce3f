/** Everything that comes over the network for models: shared, held back by policies, paused, told of. */

import { abortWith, assertNotAborted, reasonOf } from '../core/abort.ts';
import { isInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { retry } from '../core/retry.ts';
import type { Blob, Store } from '../core/store.ts';
import type { Chunks } from './chunks.ts';
import { discardPart, downloadTarget } from './download.ts';
import { usualAttempts, type Attempts } from './download-file.ts';
import type { FileContent, FileRef, Way } from './manifest.ts';
import type { Patcher } from './patcher.ts';
import type { NetworkRules } from './plan.ts';
import { heldError, holdReason, type DownloadPolicy, type HoldReason } from './transfer-policy.ts';
import { waitFor } from './transfer-wait.ts';
import { buildFile, deleteUnpinned, type Fallback, type Obtained, type Span } from './transfer-ways.ts';

/** Hears how many bytes of a download are there, and how many there are. */
export type DownloadListener = (loadedBytes: number, totalBytes: number) => void;

/** A file that a device needs. */
export interface Want extends FileRef {
  /** How it is cut: then it goes on where it ended. Default: it comes in one piece. */
  readonly chunks?: Chunks | undefined;
  /** Other ways to it than the whole file. */
  readonly ways?: readonly Way[] | undefined;
  /** What patches to come start from: it stays if it was made on the way. */
  readonly anchor?: FileContent | undefined;
  /** Whether another file of the model was there before; see `patch-base-missing`. Default false. */
  readonly isUpdate?: boolean | undefined;
  /** When the rollout wants it to be downloaded. Default: at any time. */
  readonly net?: Partial<NetworkRules> | undefined;
  /** Ends the wait of this caller. The download ends with the last one, and what is there stays for the next. */
  readonly signal?: AbortSignal | undefined;
  /** `fail`: throws instead of waiting for a policy. Default `wait`. */
  readonly whenHeld?: 'wait' | 'fail' | undefined;
}

/** What a download is doing. */
export interface TransferState {
  readonly sha256: string;
  readonly path: string;
  /** `waiting`: to begin, or to try again. `held`: for a policy, or for {@link Transfers.resume}. */
  readonly phase: 'waiting' | 'held' | 'downloading' | 'patching' | 'verifying';
  /** Why it is held. */
  readonly heldBy?: HoldReason;
  /** Of what travels: a patch is smaller than its file. Where there are several, of all of them. */
  readonly loadedBytes: number;
  readonly totalBytes: number;
  /** Over the last seconds; absent until that is known. */
  readonly bytesPerSecond?: number;
}

/** Options of {@link createTransfers}. */
export interface TransferParts {
  readonly platform: Platform;
  readonly store: Store;
  /** Base URL of the sync server, without a slash at its end. */
  readonly url: string;
  readonly patchers?: readonly Patcher[] | undefined;
  readonly policy?: DownloadPolicy | undefined;
  /** See `DownloadOptions.rangeBytes`. */
  readonly rangeBytes?: number | undefined;
  readonly attempts?: Attempts | undefined;
  /** Longest silence of the server, milliseconds. */
  readonly timeoutMs?: number | undefined;
  /** Ends everything; what is there stays for the next time. */
  readonly signal?: AbortSignal | undefined;
  /** Told of what comes over the network. */
  readonly onBytes?: (count: number, file: FileRef) => void;
  /** Told of each new phase, and of progress a few times a second. */
  readonly onState?: (state: TransferState) => void;
  /**
   * Gives up what is kept for updates to come only, but not this file, when there is no room.
   * @returns whether there may be some now.
   */
  readonly spare?: ((base: string | undefined) => Promise<boolean>) | undefined;
  /** Told of each way that did not lead to its file. */
  readonly onFallback?: (file: FileRef, fallback: Fallback) => void;
}

/** The downloads of one server. */
export interface Transfers {
  /**
   * Brings a file into the store, verified. Requests for the same content share one download.
   * @throws {@link TrustError}, {@link NetworkError} or {@link StoreError} of the last way; {@link UpdateError}
   * `ERR_INLAY_UPDATE_HELD` for who does not wait; `signal.reason`; an `AbortError` after {@link Transfers.cancel}.
   */
  obtain(want: Want, onProgress?: DownloadListener): Promise<Obtained>;
  /** Holds everything that uses the network; what is there stays. */
  pause(): void;
  /** Goes on after {@link Transfers.pause}, and asks the policies again. */
  resume(): void;
  /** Ends a download and forgets what is there of it. */
  cancel(sha256: string): Promise<void>;
  /** What is under way, in the order in which it was asked for. */
  list(): readonly TransferState[];
  /** Resolves when nothing uses the store any more, after all was aborted. */
  settled(): Promise<void>;
}

interface Job {
  readonly file: FileRef;
  readonly controller: AbortController;
  readonly listeners: Set<DownloadListener>;
  /** Reject the calls of those who do not wait. */
  readonly impatient: Set<(error: unknown) => void>;
  readonly result: Promise<Obtained>;
  callers: number;
  state: TransferState;
  /** What is on its way: the file, or what it is made of. */
  target?: FileRef;
  /** SHA-256 of what is there only to make the next file. */
  readonly made: Set<string>;
  /** Ends the requests under way, but not the download. */
  run?: AbortController | undefined;
}

/** How often policies are asked. */
const recheckMs = 30_000;
const stateMs = 250;
const speedMs = 1000;

/** Creates the downloads of one server. Nothing happens before they are asked for something. */
export function createTransfers(parts: TransferParts): Transfers {
  const { platform, store, url, attempts = usualAttempts, policy } = parts;
  const jobs = new Map<string, Job>();
  const running = new Set<Promise<unknown>>();
  const wakers = new Set<() => void>();
  /** Whether a download that may begin may have to stop. */
  const mayChange = typeof policy === 'function' || platform.conditions !== undefined;
  let isPaused = false;
  let resumes = 0;

  const onWake = (wake: () => void): (() => void) => {
    const forget = platform.onActive?.(wake);
    wakers.add(wake);
    return () => {
      forget?.();
      wakers.delete(wake);
    };
  };

  const heldBy = async (file: FileRef, net: Want['net']): Promise<HoldReason | undefined> =>
    isPaused ? 'paused' : holdReason(platform, { net, policy }, file);

  const show = (job: Job, change: Partial<TransferState>): void => {
    const { heldBy: _, ...state } = job.state;
    job.state = { ...state, ...change };
    parts.onState?.(job.state);
  };

  const untilAllowed = async (job: Job, target: FileRef, net: Want['net']): Promise<void> => {
    const { signal } = job.controller;
    for (;;) {
      const asked = resumes;
      const reason = await heldBy(target, net);
      assertNotAborted(signal);
      if (reason === undefined) return;
      // Nobody listened yet when that was.
      if (asked !== resumes) continue;
      if (job.state.heldBy !== reason) show(job, { phase: 'held', heldBy: reason });
      for (const refuse of job.impatient) refuse(heldError(job.file, reason));
      await waitFor(platform, { delayMs: recheckMs, signal, onWake });
    }
  };

  /** Ends a run for which the conditions do not hold any more. */
  const watch = async (run: AbortController, target: FileRef, net: Want['net']): Promise<void> => {
    while (!run.signal.aborted) {
      await waitFor(platform, { delayMs: recheckMs, signal: run.signal, onWake });
      if ((await heldBy(target, net)) !== undefined) run.abort();
    }
  };

  const download = async (
    job: Job,
    target: FileRef,
    chunks: Chunks | undefined,
    { before, after }: Span,
    net: Want['net'],
  ): Promise<Blob> => {
    const { signal } = job.controller;
    const totalBytes = before + target.length + after;
    // A policy that asks for the size hears of all that is to come.
    const asked = { ...target, length: target.length + after };
    job.target = target;
    let since = { at: platform.monotonicMs(), bytes: 0 };
    let shownAt = -Infinity;
    const onBytes = (count: number): void => {
      parts.onBytes?.(count, target);
      since.bytes += count;
    };
    const onLoaded = (loaded: number): void => {
      const loadedBytes = before + loaded;
      const now = platform.monotonicMs();
      const passedMs = now - since.at;
      const { bytesPerSecond } = job.state;
      const isDone = loaded === target.length;
      job.state = { ...job.state, loadedBytes };
      if (passedMs >= speedMs) {
        const rate = (since.bytes / passedMs) * 1000;
        job.state = { ...job.state, bytesPerSecond: Math.round(((bytesPerSecond ?? rate) + rate) / 2) };
        since = { at: now, bytes: 0 };
      }
      if (isDone || now - shownAt >= stateMs) {
        shownAt = now;
        show(job, { phase: isDone ? 'verifying' : 'downloading' });
      }
      for (const tell of job.listeners) tell(loadedBytes, totalBytes);
    };
    for (;;) {
      show(job, { phase: 'waiting', loadedBytes: before, totalBytes });
      await untilAllowed(job, asked, net);
      assertNotAborted(signal);
      if (isPaused) continue;
      const run = new AbortController();
      const end = (): void => {
        abortWith(run, reasonOf(signal));
      };
      signal.addEventListener('abort', end, { once: true });
      job.run = run;
      const fetchOnce = (): Promise<Blob> =>
        downloadTarget({
          platform,
          store,
          url,
          target,
          chunks,
          attempts,
          rangeBytes: parts.rangeBytes,
          timeoutMs: parts.timeoutMs,
          signal: run.signal,
          onStart: () => show(job, { phase: 'downloading' }),
          onBytes,
          onLoaded,
          onRetry: () => show(job, { phase: 'waiting' }),
        });
      if (mayChange) watch(run, asked, net).catch(() => {});
      try {
        return await (chunks ? fetchOnce() : retry(fetchOnce, { platform, signal: run.signal, ...attempts }));
      } catch (error) {
        const goesOn = run.signal.aborted || (target === job.file && (await makesRoom(error)));
        if (signal.aborted || !goesOn) throw error;
      } finally {
        job.run = undefined;
        signal.removeEventListener('abort', end);
        run.abort();
      }
    }
  };

  /** @returns whether there may be room now for what there was none for. */
  const makesRoom = async (error: unknown, base?: string): Promise<boolean> =>
    isInlayError(error) && error.code === 'ERR_INLAY_STORE_FULL' && (await parts.spare?.(base)) === true;

  const start = (want: Want, earlier: Promise<unknown> | undefined): Job => {
    const { path, sha256, length, chunks, ways = [], anchor, isUpdate = false, net } = want;
    const file = { path, sha256, length };
    const controller = new AbortController();
    const { signal } = controller;
    const end = (): void => {
      abortWith(controller, reasonOf(parts.signal));
    };
    const run = async (): Promise<Obtained> => {
      await earlier?.catch(() => {});
      try {
        return await buildFile({
          platform,
          store,
          patchers: parts.patchers ?? [],
          file,
          chunks,
          ways,
          isUpdate,
          made: job.made,
          kept: anchor?.sha256,
          signal,
          download: (target, cut, span) => download(job, target, cut, span, net),
          reserve: async (sizeBytes, base) => {
            try {
              await store.reserve(sizeBytes);
            } catch (error) {
              if (!(await makesRoom(error, base))) throw error;
              await store.reserve(sizeBytes);
            }
          },
          onPhase: (phase) => show(job, { phase }),
          onFallback: (fallback) => parts.onFallback?.(file, fallback),
        });
      } finally {
        parts.signal?.removeEventListener('abort', end);
        if (jobs.get(sha256) === job) jobs.delete(sha256);
      }
    };
    const job: Job = {
      file,
      controller,
      listeners: new Set(),
      impatient: new Set(),
      made: new Set(),
      callers: 0,
      state: { sha256, path, phase: 'waiting', loadedBytes: 0, totalBytes: length },
      // Whoever asked has joined by then.
      result: Promise.resolve().then(run),
    };
    parts.signal?.addEventListener('abort', end, { once: true });
    jobs.set(sha256, job);
    const settled = job.result.then(ignore, ignore);
    running.add(settled);
    void settled.then(() => running.delete(settled));
    return job;
  };

  const join = (job: Job, want: Want, onProgress?: DownloadListener): Promise<Obtained> =>
    new Promise((resolve, reject) => {
      const { signal } = want;
      let isIn = true;
      const leave = (settle: () => void): void => {
        if (!isIn) return;
        isIn = false;
        signal?.removeEventListener('abort', abort);
        job.impatient.delete(refuse);
        if (onProgress) job.listeners.delete(onProgress);
        job.callers -= 1;
        if (job.callers === 0) job.controller.abort();
        settle();
      };
      const refuse = (error: unknown): void => {
        leave(() => reject(error));
      };
      const abort = (): void => {
        refuse(reasonOf(signal));
      };
      job.callers += 1;
      if (onProgress) job.listeners.add(onProgress);
      signal?.addEventListener('abort', abort, { once: true });
      job.result.then((obtained) => leave(() => resolve(obtained)), refuse);
      if (want.whenHeld !== 'fail') return;
      job.impatient.add(refuse);
      if (job.state.heldBy !== undefined) refuse(heldError(job.file, job.state.heldBy));
    });

  return {
    obtain: async (want, onProgress) => {
      assertNotAborted(parts.signal);
      assertNotAborted(want.signal);
      const present = jobs.get(want.sha256);
      // One that ends has to let go of the store first.
      const job = present?.controller.signal.aborted === false ? present : start(want, present?.result);
      return join(job, want, onProgress);
    },
    pause: () => {
      isPaused = true;
      for (const { run } of jobs.values()) run?.abort();
    },
    resume: () => {
      isPaused = false;
      resumes += 1;
      for (const wake of [...wakers]) wake();
    },
    cancel: async (sha256) => {
      const job = jobs.get(sha256);
      if (job === undefined) return;
      job.controller.abort();
      await job.result.then(ignore, ignore);
      if (job.target) await discardPart(store, job.target);
      for (const made of job.made) await deleteUnpinned(store, made);
    },
    list: () => [...jobs.values()].map(({ state }) => state),
    settled: async () => {
      await Promise.all(running);
    },
  };
}

function ignore(): void {}
