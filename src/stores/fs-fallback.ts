import { isInlayError, type StoreError } from '../core/errors.ts';
import type { Hasher } from '../core/hash.ts';
import type { Store } from '../core/store.ts';
import { createMemoryStore } from './memory.ts';
import { isIterable } from './rules.ts';

/**
 * Goes on in memory when a store on disk cannot be used: its folder is read-only, belongs to somebody else or cannot be
 * made. What can be read there is still read. A full disk stays an error: it passes, and a device that is short of
 * everything may not have the memory for models instead.
 *
 * `info().degraded` says why from then on; the next process tries the disk again.
 * @param createSha256 hashes what is kept in memory.
 */
export function withMemoryFallback(disk: Store, createSha256: () => Hasher): Store {
  let memory: Store | undefined;
  /** Blobs that were deleted, whether or not the disk let go of them. */
  const hidden = new Set<string>();

  const degrade = (error: unknown): Store => {
    if (!isUnusable(error)) throw error;
    memory ??= createMemoryStore({
      createSha256,
      reason: `Models and state are kept in memory only and end with this process. ${error.message}`,
    });
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

    listBlobs: async () => {
      const kept = (await memory?.listBlobs()) ?? [];
      const onDisk = await disk.listBlobs().catch((error: unknown) => {
        degrade(error);
        return [];
      });
      return [...new Set([...kept, ...onDisk.filter((sha256) => !hidden.has(sha256))])].sort();
    },

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
