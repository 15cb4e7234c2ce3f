import type { Logger } from '../core/logger.ts';
import type { Store } from '../core/store.ts';
import { withMemoryFallback } from './fallback.ts';
import { openIndexedDbStore } from './indexeddb.ts';
import { createMemoryStore } from './memory.ts';
import { openOpfsStore, type OpfsStoreOptions } from './opfs.ts';

/** Options of {@link openWebStore}. Apps that need others than the defaults open a store of `inlay/stores/opfs` themselves. */
export interface WebStoreOptions {
  /** Names everything that is kept. Default `inlay`. */
  readonly name?: string;
  /** As in {@link OpfsStoreOptions}. */
  readonly worker?: OpfsStoreOptions['worker'];
  /** Told when models and state are kept in memory only. */
  readonly logger?: Pick<Logger, 'warn'> | undefined;
}

/** Some browsers have opened a database never, rather than late. */
const patienceMs = 5_000;

/**
 * Opens the best store that works here: the origin private file system, else IndexedDB, else memory. A store that the
 * browser gives no more space, even after blobs without pins were evicted, goes on in memory with a warning.
 */
export async function openWebStore(options: WebStoreOptions = {}): Promise<Store> {
  const { name = 'inlay', worker, logger } = options;
  const candidates = [
    () => openOpfsStore({ directory: name, ...(worker !== undefined && { worker }) }),
    () => openIndexedDbStore({ database: name }),
  ];
  let refusal: unknown;
  for (const open of candidates) {
    const store = open();
    try {
      await inTime(works(store));
      return withMemoryFallback(store, undefined, { whenFull: true, logger });
    } catch (error) {
      refusal = error;
      void store.close();
    }
  }
  logger?.warn({ err: refusal }, 'Models and state are kept in memory only.');
  const why = refusal instanceof Error ? refusal.message : String(refusal);
  return createMemoryStore({
    reason: `Models and state are kept in memory only and end with this page. ${why}`,
  });
}

/** Reads a blob's name and a record, the two things that a store keeps apart. */
async function works(store: Store): Promise<void> {
  await Promise.all([store.blob('0'.repeat(64)), store.readRecord('install')]);
}

async function inTime(task: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`The browser took more than ${patienceMs} ms to open a store.`));
    }, patienceMs);
  });
  try {
    await Promise.race([task, late]);
  } finally {
    clearTimeout(timer);
  }
}
