import { abortWith, assertNotAborted } from '../core/abort.ts';
import { toUtf8 } from '../core/bytes.ts';
import { closedError, ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { fullJitter, retry, retryAfterMs } from '../core/retry.ts';
import type { Blob, Store } from '../core/store.ts';
import { createTrustedMetadata, type TrustedMetadata } from '../trust/client.ts';
import { sha256Hex } from '../trust/keys.ts';
import { decide } from './decide.ts';
import { downloadTarget } from './download.ts';
import { intactBlob } from './intact.ts';
import type { Plan, PlanEntry } from './plan.ts';
import { refresh } from './refresh.ts';
import { resolvePlan } from './resolve.ts';
import { installId, neededBlobs, openState } from './state.ts';

/** Options of {@link createSync}. */
export interface SyncParts {
  readonly platform: Platform;
  readonly store: Store;
  /** Base URL of the sync server or of a static copy of its files. */
  readonly url: string;
  /** The root that came with the app: its text, its bytes, or the JSON object. */
  readonly root: string | Uint8Array | object;
  /** Channel to follow. Default `stable`. */
  readonly channel?: string;
  /** Milliseconds between two polls, at least 100. Default 3,600,000. */
  readonly pollMs?: number;
  /** Bytes of the largest release that is downloaded. Default: no limit. */
  readonly maxModelBytes?: number | undefined;
  /** Told of every check that fails. */
  readonly onError?: (error: unknown) => void;
}

/** A release whose verified content is in the store. */
export interface Release extends PlanEntry {
  readonly blob: Blob;
}

/** Hears how many bytes of a download have come in, and how many there are. */
export type DownloadListener = (loadedBytes: number, totalBytes: number) => void;

/** A download under way, for all that wait for it. */
interface Download {
  readonly blob: Promise<Blob>;
  readonly listeners: Set<DownloadListener>;
}

/** A release that does not work on this device. */
export interface Rejection {
  readonly model: string;
  readonly version: string;
  readonly reason: unknown;
}

/** State of a {@link Sync}, for `info()`. */
export interface SyncInfo {
  readonly url: string;
  readonly channel: string;
  /** Bytes of metadata and models that came over the network. */
  readonly bytesDownloaded: number;
  /** When the last check ended, milliseconds since 1970. */
  readonly lastCheckAt: number | undefined;
  /** Why the last check failed; `undefined` if it did not. */
  readonly lastError: unknown;
  /** Releases that were rejected in this process. */
  readonly rejected: readonly Rejection[];
  /** Versions of the verified metadata. */
  readonly metadata:
    | { readonly root: number; readonly timestamp: number | undefined; readonly targets: number | undefined }
    | undefined;
}

/** Follows one channel of a sync server. */
export interface Sync {
  /** Starts polling: first after a random part of the period, so that devices that boot together spread out. */
  start(): void;
  /**
   * Polls now. Concurrent calls share one poll.
   * @throws {@link NetworkError}, {@link TrustError} or {@link StoreError}; what was known before stays in force.
   */
  check(): Promise<void>;
  /**
   * Finds the release of a model that this device should run, and downloads it if need be.
   * @returns `undefined` while there is none: no metadata yet, no plan, not in this device's bucket, or rejected.
   * @param onProgress - told of every piece of the download: bytes that have come in, and all there are.
   * @throws {@link TrustError}: `ERR_INLAY_EXPIRED`, `ERR_INLAY_PLAN_INVALID`, `ERR_INLAY_LENGTH`, `ERR_INLAY_HASH`;
   * {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for one that is too large for this device; {@link NetworkError},
   * {@link StoreError}.
   */
  resolve(model: string, onProgress?: DownloadListener): Promise<Release | undefined>;
  /** Gives the release that was committed last, without any network; `undefined` if there is none. */
  committed(model: string): Promise<Release | undefined>;
  /** Remembers a release that was opened and runs: with it this device starts next time, also offline. */
  commit(model: string, entry: PlanEntry): Promise<void>;
  /** Stops offering a release until another rollout or another process; the rollout's base is offered instead. */
  reject(model: string, entry: PlanEntry, reason: unknown): void;
  /**
   * Calls `listener` after a check when there is something to do: another release is on offer, or what is on offer
   * cannot be used and {@link Sync.resolve} says why.
   * @param running gives the target path of the subscriber's release: two releases may have the same bytes. What is committed does not tell, since several
   * processes share it.
   * @returns unsubscribes.
   */
  subscribe(model: string, running: () => string | undefined, listener: () => void): () => void;
  info(): SyncInfo;
  /** Stops polling and ends what is under way. Safe to call twice. */
  stop(): Promise<void>;
}

interface Subscription {
  readonly running: () => string | undefined;
  readonly listener: () => void;
}

/** Stands in for the hash of an offer that failed; no release has it. */
const unusable = '';
/** How often one request is tried before it counts as failed. */
const attempts = { attempts: 3, baseMs: 500, capMs: 10_000 };
/** First bound of the wait after a failed check; it doubles up to the poll period. */
const backoffMs = 30_000;
/** Longest `Retry-After` that is honoured. */
const longestWaitMs = 86_400_000;

/**
 * Creates a follower of one channel. Nothing happens before one of its methods is called.
 * @throws `TypeError` or `RangeError` for malformed options.
 */
export function createSync(parts: SyncParts): Sync {
  const { platform, store, channel = 'stable', pollMs = 3_600_000, maxModelBytes = Infinity } = parts;
  const url = checkUrl(parts.url);
  const root = toBytes(parts.root);
  if (!/^[a-z0-9][a-z0-9._-]{0,127}$/.test(channel)) {
    throw new TypeError(
      `The channel ${JSON.stringify(channel)} is malformed; use a-z, 0-9, ".", "_" and "-".`,
    );
  }
  if (!(pollMs >= 100 && pollMs < 2 ** 31)) {
    throw new RangeError(`pollMs is ${pollMs}; use 100 to 2147483647 milliseconds.`);
  }
  // Apps of other servers may share the store and use the same names.
  const owner = `sync-${channel}-${sha256Hex(platform, toUtf8(url)).slice(0, 16)}`;
  const state = openState(store, owner);
  const controller = new AbortController();
  const { signal } = controller;
  const subscriptions = new Map<string, Set<Subscription>>();
  const rejections = new Map<string, Rejection & { readonly plan: string | undefined }>();
  const downloads = new Map<string, Download>();
  const underway = new Set<Promise<unknown>>();
  /** SHA-256 of what each model was offered last: it may be running, remembered or not. */
  const lastOffers = new Map<string, string>();
  let pinning: Promise<void> = Promise.resolve();
  let current: TrustedMetadata | undefined;
  let checking: Promise<void> | undefined;
  let cancelTimer: (() => void) | undefined;
  let forgetApp: (() => void) | undefined;
  /** When the next poll is due, wall clock. */
  let dueAt = Infinity;
  let failures = 0;
  let bytesDownloaded = 0;
  let lastCheckAt: number | undefined;
  let lastError: unknown;

  const onBytes = (count: number): void => {
    bytesDownloaded += count;
  };

  /** Runs a task unless stopped, and lets `stop` wait for it, since it may be using the store. */
  const run = async <Result>(task: () => Promise<Result>): Promise<Result> => {
    assertNotAborted(signal);
    const running = task();
    underway.add(running);
    try {
      return await running;
    } finally {
      underway.delete(running);
    }
  };

  const trusted = async (): Promise<TrustedMetadata> => {
    if (current) return current;
    const { metadata } = await state.read();
    const loaded = await createTrustedMetadata({ platform, root, stored: metadata.texts });
    // A check may have been faster, and knows better.
    return (current ??= loaded);
  };

  const isRejected = (model: string, plan: Plan, { sha256 }: PlanEntry): boolean =>
    rejections.get(`${model} ${sha256}`)?.plan === plan.id;

  /** What the verified plan wants this device to run. */
  const offer = async (model: string): Promise<PlanEntry | undefined> => {
    const set = await trusted();
    // Nothing was fetched yet: that is a beginning, not a failure.
    if (!set.timestamp) return undefined;
    set.assertCurrent(platform.now());
    const plan = resolvePlan(set, channel, model);
    if (!plan) return undefined;
    const choice = decide(platform, plan, await installId(platform, store));
    return [choice, plan.base].find(
      (entry): entry is PlanEntry => entry !== null && !isRejected(model, plan, entry),
    );
  };

  /** Keeps the store from evicting what runs, what ran before it, and what is on its way. */
  const pinNeeded = (): Promise<void> => {
    // In turn, so that what is written last was read last. What is evicted nevertheless is fetched again.
    pinning = pinning
      .then(async () => store.pin(owner, [...neededBlobs(await state.read()), ...lastOffers.values()]))
      .catch(() => {});
    return pinning;
  };

  const obtain = async (target: PlanEntry, onProgress?: DownloadListener): Promise<Blob> => {
    const { sha256, length } = target;
    if (length > maxModelBytes) throw tooLarge(target, maxModelBytes);
    let download = downloads.get(sha256);
    if (download === undefined) {
      const listeners = new Set<DownloadListener>();
      const fetchOnce = (): Promise<Blob> => {
        let loadedBytes = 0;
        const onPiece = (count: number): void => {
          onBytes(count);
          loadedBytes += count;
          for (const tell of listeners) tell(loadedBytes, length);
        };
        const onStart = (): void => {
          loadedBytes = 0;
        };
        return downloadTarget({ platform, store, url, target, signal, onStart, onBytes: onPiece });
      };
      const blob = retry(fetchOnce, { platform, signal, ...attempts }).finally(() =>
        downloads.delete(sha256),
      );
      download = { blob, listeners };
      downloads.set(sha256, download);
    }
    if (onProgress) download.listeners.add(onProgress);
    return download.blob;
  };

  const report = (error: unknown): void => {
    try {
      parts.onError?.(error);
    } catch {
      // A host that fails at hearing of failures must not end the poll loop.
    }
  };

  const notify = async (): Promise<void> => {
    for (const [model, set] of subscriptions) {
      const offered = await offer(model).then(
        (entry) => entry?.path,
        () => unusable,
      );
      if (offered === undefined) continue;
      for (const { running, listener } of [...set]) {
        if (offered === running()) continue;
        try {
          listener();
        } catch (error) {
          report(error);
        }
      }
    }
  };

  const checkOnce = async (): Promise<void> => {
    try {
      current = await retry(() => refresh({ platform, state, url, root, signal, onBytes }), {
        platform,
        signal,
        ...attempts,
      });
      lastError = undefined;
    } catch (error) {
      lastError = error;
      throw error;
    } finally {
      lastCheckAt = platform.now();
    }
    await notify();
  };

  const check = (): Promise<void> => {
    checking ??= run(checkOnce).finally(() => {
      checking = undefined;
    });
    return checking;
  };

  const schedule = (delayMs: number): void => {
    dueAt = platform.now() + delayMs;
    cancelTimer = platform.setTimer(pollIfSeen, delayMs);
  };

  /** An app that nobody sees is left alone; what fell due meanwhile is made up for when it comes back. */
  const pollIfSeen = (): void => {
    if (platform.isActive?.() === false) return;
    dueAt = Infinity;
    void poll();
  };

  const poll = async (): Promise<void> => {
    let delayMs = pollMs;
    try {
      await check();
      failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      const askedMs = Math.min(retryAfterMs(error), longestWaitMs);
      delayMs =
        askedMs + fullJitter(platform, failures, Math.min(pollMs, backoffMs), Math.max(pollMs, backoffMs));
      failures += 1;
      report(error);
    }
    if (!signal.aborted) schedule(delayMs);
  };

  return {
    start: () => {
      if (cancelTimer || signal.aborted) return;
      schedule(platform.random() * pollMs);
      forgetApp = platform.onActive?.(() => {
        if (platform.now() < dueAt) return;
        cancelTimer?.();
        pollIfSeen();
      });
    },
    check,
    resolve: (model, onProgress) =>
      run(async () => {
        const entry = await offer(model);
        if (entry === undefined) return undefined;
        lastOffers.set(model, entry.sha256);
        await pinNeeded();
        return { ...entry, blob: await obtain(entry, onProgress) };
      }),
    committed: (model) =>
      run(async () => {
        const { committed } = await state.read();
        const entry = Object.hasOwn(committed, model) ? committed[model] : undefined;
        // A blob that is gone is a normal state: browsers evict.
        const blob = entry && (await intactBlob(platform, store, entry));
        if (entry === undefined || blob === undefined) return undefined;
        void run(pinNeeded).catch(() => {});
        return { ...entry, blob };
      }),
    commit: (model, entry) =>
      run(async () => {
        await state.saveCommitted(model, entry);
        void run(pinNeeded).catch(() => {});
      }),
    reject: (model, { sha256, version }, reason) => {
      let plan: string | undefined;
      try {
        plan = current && resolvePlan(current, channel, model)?.id;
      } catch {
        // A plan that does not count offers nothing that could be rejected.
      }
      rejections.set(`${model} ${sha256}`, { model, version, reason, plan });
    },
    subscribe: (model, running, listener) => {
      const subscription = { running, listener };
      const set = subscriptions.get(model) ?? new Set();
      subscriptions.set(model, set.add(subscription));
      return () => {
        set.delete(subscription);
      };
    },
    info: () => ({
      url,
      channel,
      bytesDownloaded,
      lastCheckAt,
      lastError,
      rejected: [...rejections.values()].map(({ model, version, reason }) => ({ model, version, reason })),
      metadata: current && {
        root: current.root.version,
        timestamp: current.timestamp?.version,
        targets: current.targets?.version,
      },
    }),
    stop: async () => {
      cancelTimer?.();
      forgetApp?.();
      abortWith(controller, closedError('This sync'));
      await Promise.allSettled([...underway]);
    },
  };
}

function checkUrl(url: string): string {
  if (!/^https?:\/\/[^/]/.test(url))
    throw new TypeError(`The sync URL ${JSON.stringify(url)} is no http or https URL.`);
  return url.replace(/\/+$/, '');
}

function toBytes(root: string | Uint8Array | object): Uint8Array {
  if (root instanceof Uint8Array) return root;
  return toUtf8(typeof root === 'string' ? root : JSON.stringify(root));
}

function tooLarge({ path, length }: PlanEntry, maxModelBytes: number): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `The release ${path} has ${length} bytes, and this device takes ${maxModelBytes} at most; raise maxModelBytes, or publish a smaller one.`,
    { details: { path, length, maxModelBytes } },
  );
}
