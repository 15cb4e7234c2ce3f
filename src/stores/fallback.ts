import { isInlayError, type StoreError } from '../core/errors.ts';
import type { Hasher } from '../core/hash.ts';
import type { Logger } from '../core/logger.ts';
import type { Store } from '../core/store.ts';
import { isFull } from './ledger.ts';
import { createMemoryStore } from './memory.ts';
import { isIterable } from './rules.ts';

/** Options of {@link withMemoryFallback}. */
export interface FallbackOptions {
  /**
   * Whether to go on in memory also when there is no room, after all that may be evicted was. Default: a full disk stays
   * an error, since it passes, and a device that is short of everything may not have the memory for models instead.
   */
  readonly whenFull?: boolean;
  readonly logger?: Pick<Logger, 'warn'> | undefined;
}

/**
 * Goes on in memory when a store on disk cannot be used: its folder is read-only, belongs to somebody else or cannot be
 * made; the browser refuses to keep anything. What can be read there is still read.
 *
 * `info().degraded` says why from then on; the next process tries the disk again.
 * @param createSha256 hashes what is kept in memory.
 */
export function withMemoryFallback(
  disk: Store,
  createSha256?: () => Hasher,
  { whenFull = false, logger }: FallbackOptions = {},
): Store {
  let memory: Store | undefined;
  /** Blobs that were deleted, whether or not the disk let go of them. */
  const hidden = new Set<string>();

  const degrade = (error: unknown): Store => {
    if (!isUnusable(error) && !(whenFull && isFull(error))) throw error;
    if (memory === undefined) {
      const { message } = error as StoreError;
      memory = createMemoryStore({
        ...(createSha256 && { createSha256 }),
        reason: `Models and state are kept in memory only and end with this process. ${message}`,
      });
      logger?.warn({ err: error }, 'Models and state are kept in memory only.');
    }
    return memory;
  };

  /** What is in memory is newer. */
  const read = async <T>(look: (store: Store) => Promise<T | undefined>): Promise<T | undefined> => {
    const found = memory && (await look(memory));
    if (found !== undefined) return found;
    try {
      return await look(disk);
    } catch (error) {
      return look(degrade(error));
    }
  };

  const write = async (change: (store: Store) => Promise<void>): Promise<void> => {
    try {
      await change(memory ?? disk);
    } catch (error) {
      if (memory) throw error;
      await change(degrade(error));
    }
  };

  return {
    info: () => (memory ?? disk).info(),

    blob: (sha256) =>
      read(async (store) => (store === disk && hidden.has(sha256) ? undefined : store.blob(sha256))),

    putBlob: async (sha256, content) => {
      if (memory) return memory.putBlob(sha256, content);
      let isTaken = false;
      const watched = isIterable(content)
        ? {
            [Symbol.asyncIterator]: () => {
              isTaken = true;
              return content[Symbol.asyncIterator]();
            },
          }
        : content;
      try {
        return await disk.putBlob(sha256, watched);
      } catch (error) {
        // Whoever gives a stream asks for room first, and that is the moment to give up on the disk.
        if (isTaken && isFull(error)) throw error;
        const instead = degrade(error);
        // What was read of a stream is gone. Whoever has it asks again, and is served by the memory then.
        if (isTaken) throw error;
        return instead.putBlob(sha256, content);
      }
    },

    deleteBlob: async (sha256) => {
      try {
        if (!memory) return await disk.deleteBlob(sha256);
      } catch (error) {
        degrade(error);
      }
      hidden.add(sha256);
      return memory?.deleteBlob(sha256);
    },

    describeBlobs: async () => {
      const kept = (await memory?.describeBlobs()) ?? [];
      const onDisk = await disk.describeBlobs().catch((error: unknown) => {
        degrade(error);
        return [];
      });
      const names = new Set([...hidden, ...kept.map(({ sha256 }) => sha256)]);
      return [...kept, ...onDisk.filter(({ sha256 }) => !names.has(sha256))].sort((a, b) =>
        a.sha256 < b.sha256 ? -1 : 1,
      );
    },

    pin: (owner, blobs) => write((store) => store.pin(owner, blobs)),
    reserve: (sizeBytes) => write((store) => store.reserve(sizeBytes)),
    persist: async () => (memory ?? disk).persist(),

    readRecord: (name) => read((store) => store.readRecord(name)),

    updateRecord: async (name, change) => {
      try {
        if (!memory) return await disk.updateRecord(name, change);
      } catch (error) {
        degrade(error);
      }
      const present = await read((store) => store.readRecord(name));
      return memory?.updateRecord(name, (now) => change(now ?? present) ?? (now ? undefined : present));
    },

    close: async () => {
      await Promise.all([disk.close(), memory?.close()]);
    },
  };
}

function isUnusable(error: unknown): error is StoreError {
  return (
    isInlayError(error) && (error.code === 'ERR_INLAY_STORE_READ_ONLY' || error.code === 'ERR_INLAY_STORE_IO')
  );
}
