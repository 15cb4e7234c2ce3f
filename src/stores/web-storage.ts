/** What stores in browsers share: the browser's quota, its locks, and its failures in our words. */

import { StoreError } from '../core/errors.ts';

/** The part of `navigator.storage` that stores use. Each member is missing in some browser. */
interface StorageManagerLike {
  estimate?(): Promise<{ readonly quota?: number; readonly usage?: number }>;
  persist?(): Promise<boolean>;
  persisted?(): Promise<boolean>;
  getDirectory?(): Promise<FileSystemDirectoryHandle>;
}

/** `navigator.storage`; empty where there is none, as on pages without TLS. */
export function storageManager(): StorageManagerLike {
  return (globalThis.navigator as { storage?: StorageManagerLike } | undefined)?.storage ?? {};
}

/**
 * Bytes that the browser says this origin may still store; `Infinity` where it does not tell. Chromium says 10 GiB whatever
 * is left, so that pages cannot tell devices apart: a write may fail all the same.
 */
export async function freeBytes(): Promise<number> {
  const { quota = Infinity, usage = 0 } = (await storageManager().estimate?.()) ?? {};
  return Math.max(0, quota - usage);
}

/** Asks the browser not to evict this origin. Workers cannot ask, only see whether a page did. */
export async function persist(): Promise<boolean> {
  const storage = storageManager();
  if (storage.persist) return storage.persist();
  return (await storage.persisted?.()) ?? false;
}

/**
 * Takes a Web Lock; where there are none, nothing keeps tabs apart.
 * @param patienceMs how long to wait for it. Default: without end.
 * @returns frees it. Rejects with a `TimeoutError` when somebody else still had it.
 */
export function holdLock(name: string, patienceMs?: number): Promise<() => void> {
  const locks = webLocks();
  if (locks === undefined) return Promise.resolve(() => {});
  const options = patienceMs === undefined ? {} : { signal: AbortSignal.timeout(patienceMs) };
  return new Promise((resolve, reject) => {
    const held = locks.request(name, options, () => new Promise<void>(resolve));
    held.catch(reject);
  });
}

/** Runs a task under a Web Lock that nobody else holds at the moment, and not at all if somebody does. */
export async function ifUnlocked(name: string, task: () => Promise<void>): Promise<void> {
  await webLocks()?.request(name, { ifAvailable: true }, async (lock) => {
    if (lock !== null) await task();
  });
}

/** Lets the page paint and answer before the next stretch of work. Timers would be slow in tabs in the background. */
export function nextTurn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

/** Names of the Web Locks that somebody holds; none where that cannot be told. */
export async function heldLocks(): Promise<ReadonlySet<string>> {
  const { held = [] } = (await webLocks()?.query()) ?? {};
  return new Set(held.map(({ name = '' }) => name));
}

/** `navigator.locks`, which pages without TLS do not have. */
export function webLocks(): LockManager | undefined {
  return (globalThis.navigator as { locks?: LockManager } | undefined)?.locks;
}

/**
 * Runs a step, and tells failures of the browser in the words of stores.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL` or `ERR_INLAY_STORE_IO`; what is no `DOMException` as it is.
 */
export async function guard<Result>(
  store: string,
  step: string,
  task: () => Result | PromiseLike<Result>,
): Promise<Result> {
  try {
    return await task();
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw storeError(store, step, error.name, error);
  }
}

/** The error of a store that the browser refuses something. */
export function storeError(store: string, step: string, reason: string, cause?: unknown): StoreError {
  const parts = { details: { store, step, reason }, ...(cause !== undefined && { cause }) };
  return reason === 'QuotaExceededError'
    ? new StoreError(
        'ERR_INLAY_STORE_FULL',
        `The browser gives ${store} no more space (at ${step}); free some, or ask for more with persist().`,
        parts,
      )
    : new StoreError(
        'ERR_INLAY_STORE_IO',
        `The browser refuses ${store} (${reason} at ${step}); allow this site to store data, or pass the option \`store\`.`,
        parts,
      );
}
