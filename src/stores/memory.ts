/**
 * A store that lives as long as the process.
 * @module inlay/stores/memory
 */
import { concatBytes, toHex } from '../core/bytes.ts';
import { closedError } from '../core/errors.ts';
import { createSha256 as createPortableSha256, type Hasher } from '../core/hash.ts';
import type { Blob, Store } from '../core/store.ts';
import { openLedger } from './ledger.ts';
import {
  assertBlobName,
  assertBlobNames,
  assertRecordName,
  assertSameHash,
  isIterable,
  skip,
} from './rules.ts';

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
interface Kept {
  readonly pieces: readonly Uint8Array[];
  readonly sizeBytes: number;
  readonly writtenAt: number;
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
  let closed = false;

  const assertOpen = (): void => {
    if (closed) throw closedError('This memory store');
  };

  const blobOf = (sha256: string, { pieces, sizeBytes }: Kept): Blob => ({
    sha256,
    sizeBytes,
    bytes: async () => concatBytes(pieces),
  });

  const updateRecord: Store['updateRecord'] = async (name, change) => {
    const present = records.get(name);
    const changed = change(present && new Uint8Array(present));
    if (changed !== undefined) records.set(name, new Uint8Array(changed));
    const content = records.get(name);
    return content && new Uint8Array(content);
  };

  const ledger = openLedger({
    list: async () => [...blobs].map(([sha256, kept]) => ({ sha256, ...kept })),
    remove: async (sha256) => void blobs.delete(sha256),
    readRecord: async (name) => records.get(name),
    updateRecord,
    freeBytes: async () => Infinity,
    quotaBytes,
    now,
  });

  return {
    info: () => ({ kind: 'memory', degraded: reason }),

    blob: async (sha256) => {
      assertOpen();
      assertBlobName(sha256);
      const kept = blobs.get(sha256);
      if (kept) ledger.touch({ sha256, ...kept });
      return kept && blobOf(sha256, kept);
    },

    putBlob: async (sha256, content) => {
      assertOpen();
      assertBlobName(sha256);
      const present = blobs.get(sha256);
      if (present && (isIterable(content) || content.length === present.sizeBytes)) {
        await skip(content);
        return blobOf(sha256, present);
      }
      return ledger.put(content, async () => {
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
        const kept = { pieces, sizeBytes, writtenAt: now() };
        blobs.set(sha256, kept);
        return blobOf(sha256, kept);
      });
    },

    deleteBlob: async (sha256) => {
      assertOpen();
      assertBlobName(sha256);
      blobs.delete(sha256);
    },

    listBlobs: async () => {
      assertOpen();
      return [...blobs.keys()].sort();
    },

    describeBlobs: async () => {
      assertOpen();
      return ledger.describeBlobs();
    },

    pin: async (owner, names) => {
      assertOpen();
      assertBlobNames(names);
      await ledger.pin(owner, names);
    },

    reserve: async (sizeBytes) => {
      assertOpen();
      await ledger.reserve(sizeBytes);
    },

    persist: async () => {
      assertOpen();
      return false;
    },

    readRecord: async (name) => {
      assertOpen();
      assertRecordName(name);
      const present = records.get(name);
      return present && new Uint8Array(present);
    },

    updateRecord: async (name, change) => {
      assertOpen();
      assertRecordName(name);
      return updateRecord(name, change);
    },

    close: async () => {
      closed = true;
    },
  };
}
