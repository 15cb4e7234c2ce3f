/**
 * A store that lives as long as the process.
 * @module inlay/stores/memory
 */
import { toHex } from '../core/bytes.ts';
import { StoreError } from '../core/errors.ts';
import { createSha256 as createPortableSha256, type Hasher } from '../core/hash.ts';
import type { Blob, Store } from '../core/store.ts';
import { assembleStore } from './assemble.ts';
import type { BlobFile } from './ledger.ts';
import { hashInTurns, type OpenPart } from './parts.ts';
import { assertRange, assertSameHash, isIterable } from './rules.ts';

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

/** A part and when it was opened last. */
interface KeptPart {
  readonly sha256: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly openedAt: number;
  readonly note: Uint8Array<ArrayBuffer> | undefined;
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
  const parts = new Map<string, KeptPart>();
  const records = new Map<string, Uint8Array<ArrayBuffer>>();

  const blobOf = ({ sha256, pieces, sizeBytes }: Kept): Blob => ({
    sha256,
    sizeBytes,
    bytes: async () => cut(pieces, 0, sizeBytes),
    read: async (offset, length) => {
      assertRange(offset, length, sizeBytes);
      return cut(pieces, offset, length);
    },
  });

  const openPart = async (sha256: string, sizeBytes: number): Promise<OpenPart> => {
    const present = parts.get(sha256);
    const { bytes, note } = present?.note ? present : { bytes: allocate(sizeBytes), note: undefined };
    let kept: KeptPart = { sha256, bytes, note, openedAt: now() };
    parts.set(sha256, kept);
    const drop = async (): Promise<void> => {
      if (parts.get(sha256) === kept) parts.delete(sha256);
    };
    return {
      note: note && new Uint8Array(note),
      write: async (offset, piece) => bytes.set(piece, offset),
      read: async (offset, length) => bytes.slice(offset, offset + length),
      save: async (next) => {
        kept = { ...kept, note: next };
        parts.set(sha256, kept);
      },
      hash: () =>
        hashInTurns(createSha256(), bytes.length, async (at, length) => bytes.subarray(at, at + length)),
      place: async () => {
        const blob = { sha256, pieces: [bytes], sizeBytes, writtenAt: now() };
        blobs.set(sha256, blob);
        await drop();
        return blobOf(blob);
      },
      drop,
      close: async () => {},
    };
  };

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
    listParts: async () =>
      [...parts.values()].map(({ sha256, bytes, openedAt }) => ({
        sha256,
        sizeBytes: bytes.length,
        storedBytes: bytes.length,
        openedAt,
        isOpen: false,
      })),
    removePart: async (sha256) => void parts.delete(sha256),
    openPart,
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

/** Bytes of what is in pieces. */
function cut(pieces: readonly Uint8Array[], offset: number, length: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    const [from, to] = [Math.max(0, offset - at), Math.min(piece.length, offset + length - at)];
    if (from < to) out.set(piece.subarray(from, to), at + from - offset);
    at += piece.length;
  }
  return out;
}

function allocate(sizeBytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(sizeBytes);
  } catch (cause) {
    throw new StoreError(
      'ERR_INLAY_STORE_FULL',
      `There is no memory for ${sizeBytes} bytes; free some, or keep models on a disk.`,
      { details: { sizeBytes }, cause },
    );
  }
}
