import { isInlayError, type StoreError } from '../core/errors.ts';
import type { Hasher } from '../core/hash.ts';
import type { Logger } from '../core/logger.ts';
import type { PartialBlob, Store } from '../core/store.ts';
import { isFull } from './ledger.ts';
import { createMemoryStore } from './memory.ts';
import { isTakenOver } from './parts.ts';
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
 * Goes on in memory when a store on disk cannot be written: its folder is read-only, belongs to somebody else or cannot be
 * made; the browser refuses to keep anything. What can be read there is still read. Models and records go their own ways:
 * where a model does not fit, records still do, and who must not be led back to an old release relies on them.
 *
 * `info().degraded` says why from then on; the next process tries the disk again. Reading changes nothing of that: a
 * record that cannot be read, even at the second try, is an error and not an absent one; a blob is fetched again.
 * @param createSha256 hashes what is kept in memory.
 */
export function withMemoryFallback(
  disk: Store,
  createSha256?: () => Hasher,
  { whenFull = false, logger }: FallbackOptions = {},
): Store {
  let memoryOfBlobs: Store | undefined;
  let memoryOfRecords: Store | undefined;
  /** Blobs that were deleted, and that the disk did not let go of. */
  const hidden = new Set<string>();

  const mayDegrade = (error: unknown): error is StoreError =>
    isUnusable(error) || (whenFull && isFull(error));

  const openMemory = (what: string, error: StoreError): Store => {
    logger?.warn({ err: error }, `${what} kept in memory only.`);
    return createMemoryStore({
      ...(createSha256 && { createSha256 }),
      reason: `${what} kept in memory only and end with this process. ${error.message}`,
    });
  };
  const blobsAfter = (error: unknown): Store => {
    if (!mayDegrade(error)) throw error;
    return (memoryOfBlobs ??= openMemory('Models are', error));
  };

  /** A part that fails on the disk begins anew in memory when it is opened again. */
  const watch = (part: PartialBlob): PartialBlob => {
    const orFallBack = <Result>(step: Promise<Result>): Promise<Result> =>
      step.catch((error: unknown) => {
        if (!isTakenOver(error)) blobsAfter(error);
        throw error;
      });
    return {
      ...part,
      write: (offset, bytes) => orFallBack(part.write(offset, bytes)),
      read: (offset, length) => orFallBack(part.read(offset, length)),
      save: (note) => orFallBack(part.save(note)),
      finish: (digest) => orFallBack(part.finish(digest)),
    };
  };

  /** Failures pass: browsers close a connection, a network drive is away for a moment. */
  const readDisk = <T>(look: () => Promise<T>): Promise<T> =>
    look().catch((error: unknown) => {
      if (isUnusable(error)) return look();
      throw error;
    });

  /** What is in memory is newer. */
  const readRecord: Store['readRecord'] = async (name) => {
    const found = await memoryOfRecords?.readRecord(name);
    if (found !== undefined) return found;
    return readDisk(() => disk.readRecord(name)).catch((error: unknown) => {
      // Who may not even look has never been able to keep anything there.
      if (isInlayError(error) && error.code === 'ERR_INLAY_STORE_READ_ONLY') return undefined;
      throw error;
    });
  };

  return {
    info: () => {
      const infos = [memoryOfBlobs, memoryOfRecords].flatMap((memory) => memory?.info() ?? []);
      return infos.length > 0
        ? { kind: 'memory', degraded: infos.map(({ degraded }) => degraded).join(' ') }
        : disk.info();
    },

    blob: async (sha256) => {
      const found = await memoryOfBlobs?.blob(sha256);
      if (found !== undefined || hidden.has(sha256)) return found;
      return readDisk(() => disk.blob(sha256)).catch((error: unknown) => {
        if (isUnusable(error)) return undefined;
        throw error;
      });
    },

    putBlob: async (sha256, content) => {
      if (memoryOfBlobs) return memoryOfBlobs.putBlob(sha256, content);
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
        const instead = blobsAfter(error);
        // What was read of a stream is gone. Whoever has it asks again, and is served by the memory then.
        if (isTaken) throw error;
        return instead.putBlob(sha256, content);
      }
    },

    openPartial: async (sha256, sizeBytes) => {
      let store = memoryOfBlobs;
      try {
        if (store === undefined) return watch(await disk.openPartial(sha256, sizeBytes));
      } catch (error) {
        store = blobsAfter(error);
      }
      return store.openPartial(sha256, sizeBytes);
    },

    deleteBlob: async (sha256) => {
      await memoryOfBlobs?.deleteBlob(sha256);
      try {
        await disk.deleteBlob(sha256);
      } catch (error) {
        // What is put from now on must not be taken for what the disk still has: that may be damaged.
        blobsAfter(error);
        hidden.add(sha256);
      }
    },

    describeBlobs: async () => {
      const kept = (await memoryOfBlobs?.describeBlobs()) ?? [];
      const onDisk = await readDisk(() => disk.describeBlobs()).catch((error: unknown) => {
        if (isUnusable(error)) return [];
        throw error;
      });
      const names = new Set([...hidden, ...kept.map(({ sha256 }) => sha256)]);
      return [...kept, ...onDisk.filter(({ sha256 }) => !names.has(sha256))].sort((a, b) =>
        a.sha256 < b.sha256 ? -1 : 1,
      );
    },

    pin: async (owner, blobs) => {
      // Also where models go to memory: those on the disk are needed by the next process, and others evict there.
      await disk.pin(owner, blobs).catch(blobsAfter);
      await memoryOfBlobs?.pin(owner, blobs);
    },

    reserve: async (sizeBytes) => {
      if (!memoryOfBlobs) await disk.reserve(sizeBytes).catch(blobsAfter);
      await memoryOfBlobs?.reserve(sizeBytes);
    },

    persist: async () => (memoryOfBlobs ?? disk).persist(),

    readRecord,

    updateRecord: async (name, change) => {
      let refusal: StoreError | undefined;
      try {
        if (!memoryOfRecords) return await disk.updateRecord(name, change);
      } catch (error) {
        if (!mayDegrade(error)) throw error;
        refusal = error;
      }
      // Before the disk is given up: what cannot be read there must not count as absent from then on.
      const present = await readRecord(name);
      if (refusal) memoryOfRecords ??= openMemory('Records are', refusal);
      return memoryOfRecords?.updateRecord(
        name,
        (now) => change(now ?? present) ?? (now ? undefined : present),
      );
    },

    close: async () => {
      await Promise.all([disk.close(), memoryOfBlobs?.close(), memoryOfRecords?.close()]);
    },
  };
}

function isUnusable(error: unknown): error is StoreError {
  return (
    isInlayError(error) && (error.code === 'ERR_INLAY_STORE_READ_ONLY' || error.code === 'ERR_INLAY_STORE_IO')
  );
}
