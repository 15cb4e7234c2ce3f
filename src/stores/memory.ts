/**
 * A store that lives as long as the process.
 * @module inlay/stores/memory
 */
import { concatBytes, toHex } from '../core/bytes.ts';
import { createSha256 as createPortableSha256, type Hasher } from '../core/hash.ts';
import type { Blob, Store } from '../core/store.ts';
import { assembleStore } from './assemble.ts';
import type { BlobFile } from './ledger.ts';
import { assertSameHash, isIterable } from './rules.ts';

/** Options of {@link createMemoryStore}. */
export interface MemoryStoreOptions {
  /** Why nothing is kept on disk, for `info()`. */
  readonly reason?: string;
  /** A faster SHA-256 where the platform has one. */
  readonly createSha256?: () => Hasher;
  /** Most bytes of blobs to hold, see {@link Store.reserve}. Default: no limit. */
  readonly quotaBytes?: number;
  /** Wall clock, milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
}

/** A blob and when it was put. */
interface Kept extends BlobFile {
  readonly pieces: readonly Uint8Array[];
}

/** Creates a store that lives and ends with the process: for tests, and where nothing can be kept. */
export function createMemoryStore(options: MemoryStoreOptions = {}): Store {
  const {
    reason = 'Models and state are kept in memory only and end with this process.',
    createSha256 = createPortableSha256,
    quotaBytes,
    now = () => Date.now(),
  } = options;
  const blobs = new Map<string, Kept>();
  const records = new Map<string, Uint8Array<ArrayBuffer>>();

  const blobOf = ({ sha256, pieces, sizeBytes }: Kept): Blob => ({
    sha256,
    sizeBytes,
    bytes: async () => concatBytes(pieces),
  });

  const recordOf = (name: string): Uint8Array<ArrayBuffer> | undefined => {
    const present = records.get(name);
    return present && new Uint8Array(present);
  };

  return assembleStore<Kept>({
    what: 'This memory store',
    info: () => ({ kind: 'memory', degraded: reason }),
    list: async () => [...blobs.values()],
    find: async (sha256) => blobs.get(sha256),
    blobOf,
    write: async (sha256, content) => {
      const hash = createSha256();
      const pieces: Uint8Array[] = [];
      let sizeBytes = 0;
      const append = (piece: Uint8Array): void => {
        const copy = new Uint8Array(piece);
        hash.update(copy);
        pieces.push(copy);
        sizeBytes += copy.length;
      };
      if (isIterable(content)) for await (const piece of content) append(piece);
      else append(content);
      assertSameHash(sha256, toHex(hash.digest()), sizeBytes);
      const kept = { sha256, pieces, sizeBytes, writtenAt: now() };
      blobs.set(sha256, kept);
      return blobOf(kept);
    },
    remove: async (sha256) => void blobs.delete(sha256),
    persist: async () => false,
    readRecord: async (name) => recordOf(name),
    updateRecord: async (name, change) => {
      const changed = change(recordOf(name));
      if (changed !== undefined) records.set(name, new Uint8Array(changed));
      return recordOf(name);
    },
    freeBytes: async () => Infinity,
    quotaBytes,
    now,
    close: () => {},
  });
}
