/**
 * A store that lives as long as the process.
 * @module inlay/stores/memory
 */
import { concatBytes, toHex } from '../core/bytes.ts';
import { closedError } from '../core/errors.ts';
import { createSha256 as createPortableSha256, type Hasher } from '../core/hash.ts';
import type { Blob, Store } from '../core/store.ts';
import { assertBlobName, assertRecordName, assertSameHash, isIterable, skip } from './rules.ts';

/** Options of {@link createMemoryStore}. */
export interface MemoryStoreOptions {
  /** Why nothing is kept on disk, for `info()`. */
  readonly reason?: string;
  /** A faster SHA-256 where the platform has one. */
  readonly createSha256?: () => Hasher;
}

/** Creates a store that lives and ends with the process: for tests, and where nothing can be kept. */
export function createMemoryStore(options: MemoryStoreOptions = {}): Store {
  const {
    reason = 'Models and state are kept in memory only and end with this process.',
    createSha256 = createPortableSha256,
  } = options;
  const blobs = new Map<string, readonly Uint8Array[]>();
  const records = new Map<string, Uint8Array<ArrayBuffer>>();
  let closed = false;

  const assertOpen = (): void => {
    if (closed) throw closedError('This memory store');
  };

  const blobOf = (sha256: string, pieces: readonly Uint8Array[]): Blob => ({
    sha256,
    sizeBytes: pieces.reduce((sum, piece) => sum + piece.length, 0),
    bytes: async () => concatBytes(pieces),
  });

  return {
    info: () => ({ kind: 'memory', degraded: reason }),

    blob: async (sha256) => {
      assertOpen();
      assertBlobName(sha256);
      const pieces = blobs.get(sha256);
      return pieces && blobOf(sha256, pieces);
    },

    putBlob: async (sha256, content) => {
      assertOpen();
      assertBlobName(sha256);
      const present = blobs.get(sha256);
      if (present) {
        const blob = blobOf(sha256, present);
        if (isIterable(content) || content.length === blob.sizeBytes) {
          await skip(content);
          return blob;
        }
      }
      const hash = createSha256();
      const pieces: Uint8Array[] = [];
      const append = (piece: Uint8Array): void => {
        const copy = new Uint8Array(piece);
        hash.update(copy);
        pieces.push(copy);
      };
      if (isIterable(content)) for await (const piece of content) append(piece);
      else append(content);
      const blob = blobOf(sha256, pieces);
      assertSameHash(sha256, toHex(hash.digest()), blob.sizeBytes);
      blobs.set(sha256, pieces);
      return blob;
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

    readRecord: async (name) => {
      assertOpen();
      assertRecordName(name);
      const present = records.get(name);
      return present && new Uint8Array(present);
    },

    updateRecord: async (name, change) => {
      assertOpen();
      assertRecordName(name);
      const present = records.get(name);
      const changed = change(present && new Uint8Array(present));
      if (changed !== undefined) records.set(name, new Uint8Array(changed));
      const content = records.get(name);
      return content && new Uint8Array(content);
    },

    close: async () => {
      closed = true;
    },
  };
}
