/** Follows one channel of a sync server: polls, verifies, remembers. What is done with it is up to each model. */

import { abortWith, assertNotAborted } from '../core/abort.ts';
import { toUtf8 } from '../core/bytes.ts';
import { closedError, isInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { fullJitter, retry, retryAfterMs } from '../core/retry.ts';
import type { Store } from '../core/store.ts';
import { createTrustedMetadata, type TrustedMetadata } from '../trust/client.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { ModelPolicy, TargetFile, Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import { verifySignatures } from '../trust/verify.ts';
import { refresh } from './refresh.ts';
import { policyOf, resolvePlan, type ResolvedPlan } from './resolve.ts';
import { isNewer, openMetadata, versionsOf } from './state.ts';

/** Options of {@link createSync}. */
export interface SyncParts {
  readonly platform: Platform;
  readonly store: Store;
  /** Base URL of the sync server or of a static copy of its files. */
  readonly url: string;
  /** The root that came with the app: its text, its bytes, or the JSON object. */
  readonly root: string | Uint8Array | object;
  /** Channel to follow. Default `stable`. */
  readonly channel?: string | undefined;
  /** Milliseconds between two polls, at least 100. Default 3,600,000. */
  readonly pollMs?: number | undefined;
  /** Told of every check that fails. */
  readonly onError?: (error: unknown) => void;
}

/** State of a {@link Sync}, for `info()`. */
export interface SyncInfo {
  readonly url: string;
  readonly channel: string;
  /** Bytes of metadata that came over the network. */
  readonly bytesDownloaded: number;
  /** When the last check ended, milliseconds since 1970. */
  readonly lastCheckAt: number | undefined;
  /** Why the last check failed; `undefined` if it did not. */
  readonly lastError: unknown;
  /** Whether polls are held back; see {@link Sync.pause}. */
  readonly isPaused: boolean;
  /** Versions of the verified metadata, and when the first of them expires, milliseconds since 1970. */
  readonly metadata:
    | { readonly root: number; readonly timestamp: number | undefined; readonly targets: number | undefined }
    | undefined;
}

/** Follows one channel of a sync server. */
export interface Sync {
  /** Names what belongs to this channel of this server in the store: apps of several servers may share one. */
  readonly owner: string;
  /** Base URL, without a slash at its end. */
  readonly url: string;
  readonly channel: string;
  /** Starts polling: first after a random part of the period, so that devices that boot together spread out. */
  start(): void;
  /**
   * Polls now. Concurrent calls share one poll.
   * @throws {@link NetworkError}, {@link TrustError} or {@link StoreError}; what was known before stays in force.
   */
  check(): Promise<void>;
  /**
   * Reads the plan of a model out of the verified metadata.
   * @returns `undefined` while there is none.
   * @throws {@link TrustError} `ERR_INLAY_PLAN_INVALID` or `ERR_INLAY_WITHDRAWN`; {@link StoreError}.
   */
  plan(model: string): Promise<ResolvedPlan | undefined>;
  /** What the offline-signed targets say of a path; `undefined` where they do not list it. */
  target(path: string): Promise<TargetFile | undefined>;
  /** The targets in force as they were signed; `undefined` before the first. */
  targetsText(): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /**
   * Tells whether the offline key signed a file as one of a model: in the targets in force, or in earlier ones. Whether
   * they have expired does not matter, since that stops no inference.
   * @param proof - the earlier ones, as they were signed.
   */
  isSigned(
    model: string,
    file: { readonly sha256: string; readonly length: number },
    proof: Uint8Array | undefined,
  ): Promise<boolean>;
  /** Which releases of a model are withdrawn. It holds also where no plan counts. */
  policy(model: string): Promise<Required<ModelPolicy>>;
  /** When the metadata that is in force was last confirmed by the server, milliseconds since 1970; 0 for never. */
  confirmedAt(): number;
  /**
   * Calls `listener` after each check, also after one that failed.
   * @returns unsubscribes.
   */
  onChecked(listener: () => void): () => void;
  /** Asks for polls that are no further apart than this, milliseconds; `undefined` for no wish. */
  setPollWish(model: string, pollMs: number | undefined): void;
  /** Holds polls back until {@link Sync.resume}; {@link Sync.check} still works. */
  pause(): void;
  resume(): void;
  /** Runs a task that {@link Sync.stop} waits for, since it may be using the store. */
  run<Result>(task: () => Promise<Result>): Promise<Result>;
  /** Aborted by {@link Sync.stop}. */
  readonly signal: AbortSignal;
  info(): SyncInfo;
  /** Stops polling and ends what is under way. Safe to call twice. */
  stop(): Promise<void>;
}

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
  const { platform, store, channel = 'stable', pollMs = 3_600_000 } = parts;
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
  const owner = `sync-${channel}-${sha256Hex(platform, toUtf8(url)).slice(0, 16)}`;
  const record = openMetadata(store, owner);
  const controller = new AbortController();
  const { signal } = controller;
  const listeners = new Set<() => void>();
  const wishes = new Map<string, number>();
  const underway = new Set<Promise<unknown>>();
  let current: TrustedMetadata | undefined;
  let confirmedAt = 0;
  let checking: Promise<void> | undefined;
  let cancelTimer: (() => void) | undefined;
  let forgetApp: (() => void) | undefined;
  /** When the next poll is due, wall clock. */
  let dueAt = Infinity;
  let failures = 0;
  let isPaused = false;
  let bytesDownloaded = 0;
  let lastCheckAt: number | undefined;
  let lastError: unknown;

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

  /** What is in force. Another process of this app may have heard of something newer: nothing older decides. */
  const trusted = async (): Promise<TrustedMetadata> => {
    const stored = await record.read();
    if (current && !isNewer(stored, versionsOf(current))) return current;
    const loaded = await createTrustedMetadata({ platform, root, stored: stored.texts });
    // A check may have been faster, and what is stored may be damaged.
    if (!current || isNewer(versionsOf(loaded), versionsOf(current))) current = loaded;
    return current;
  };

  const checkOnce = async (): Promise<void> => {
    try {
      current = await retry(
        () =>
          refresh({
            platform,
            record,
            known: current,
            url,
            root,
            signal,
            onBytes: (count) => {
              bytesDownloaded += count;
            },
          }),
        { platform, signal, ...attempts },
      );
      confirmedAt = Math.floor(platform.now());
      lastError = undefined;
    } catch (error) {
      lastError = error;
      throw error;
    } finally {
      lastCheckAt = platform.now();
      for (const tell of [...listeners]) tell();
    }
  };

  const check = (): Promise<void> => {
    checking ??= run(checkOnce).finally(() => {
      checking = undefined;
    });
    return checking;
  };

  const periodMs = (): number => Math.max(100, Math.min(pollMs, ...wishes.values()));

  const schedule = (delayMs: number): void => {
    dueAt = platform.now() + delayMs;
    cancelTimer = platform.setTimer(pollIfSeen, delayMs);
  };

  /** An app that nobody sees is left alone; what fell due meanwhile is made up for when it comes back. */
  const pollIfSeen = (): void => {
    if (isPaused || platform.isActive?.() === false) {
      // It is due whatever the clock says when the app comes back.
      dueAt = -Infinity;
      return;
    }
    dueAt = Infinity;
    void poll();
  };

  const pollIfDue = (): void => {
    if (platform.now() < dueAt) return;
    cancelTimer?.();
    pollIfSeen();
  };

  const poll = async (): Promise<void> => {
    let delayMs: number | undefined;
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
    if (!signal.aborted) schedule(delayMs ?? periodMs());
  };

  const report = (error: unknown): void => {
    try {
      parts.onError?.(error);
    } catch {
      // A host that fails at hearing of failures must not end the poll loop.
    }
  };

  return {
    owner,
    url,
    channel,
    signal,
    run,
    check,
    start: () => {
      if (cancelTimer || signal.aborted) return;
      schedule(platform.random() * periodMs());
      forgetApp = platform.onActive?.(pollIfDue);
    },
    plan: (model) =>
      run(async () => {
        const set = await trusted();
        // Nothing was fetched yet: that is a beginning, not a failure.
        return set.timestamp && resolvePlan(set, channel, model, platform.now());
      }),
    target: (path) =>
      run(async () => {
        const { targets = {} } = (await trusted()).targets ?? {};
        return Object.hasOwn(targets, path) ? targets[path] : undefined;
      }),
    targetsText: () =>
      run(async () => {
        const { targets } = (await trusted()).export();
        return targets === undefined ? undefined : toUtf8(targets);
      }),
    isSigned: (model, file, proof) =>
      run(async () => {
        const set = await trusted();
        if (set.targets && listsFile(set.targets, model, file)) return true;
        if (proof === undefined) return false;
        try {
          const envelope = parseEnvelope(proof, 'targets');
          const { keys, roles } = set.root;
          await verifySignatures(platform, envelope, 'targets', keys, roles.targets);
          return listsFile(envelope.signed, model, file);
        } catch (error) {
          if (isInlayError(error) && error.name === 'TrustError') return false;
          throw error;
        }
      }),
    policy: (model) => run(async () => policyOf((await trusted()).targets ?? {}, model)),
    confirmedAt: () => confirmedAt,
    onChecked: (listener) => {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    setPollWish: (model, wishMs) => {
      if (wishes.get(model) === wishMs) return;
      if (wishMs === undefined) wishes.delete(model);
      else wishes.set(model, wishMs);
      // It counts from now on, and devices that hear of it together spread out.
      const isLate = dueAt < Infinity && dueAt > platform.now() + periodMs();
      if (!isLate) return;
      cancelTimer?.();
      schedule(platform.random() * periodMs());
    },
    pause: () => {
      isPaused = true;
    },
    resume: () => {
      isPaused = false;
      pollIfDue();
    },
    info: () => ({
      url,
      channel,
      bytesDownloaded,
      lastCheckAt,
      lastError,
      isPaused,
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

function listsFile(
  { targets }: Targets,
  model: string,
  { sha256, length }: { readonly sha256: string; readonly length: number },
): boolean {
  return Object.values(targets).some(
    (target) =>
      target.hashes['sha256']?.toLowerCase() === sha256 &&
      target.length === length &&
      target.custom?.['model'] === model,
  );
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
