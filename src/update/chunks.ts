/** What is known of a file that comes in pieces: which of them are there, and how that is written down. */

import { fromHex, fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import { isFields } from '../trust/parse.ts';

/** How a file is cut. Without hashes its pieces are not checked one by one, only the whole at the end. */
export interface Chunks {
  /** Bytes of each piece; the last one may be shorter. */
  readonly size: number;
  /** SHA-256 of each, as one text of lower-case hex digits. */
  readonly sha256?: string;
}

/** A set of pieces. */
export interface ChunkSet {
  /** How many pieces there are in all. */
  readonly count: number;
  has(index: number): boolean;
  add(index: number): void;
  clear(): void;
  /** The first piece from `from` on that is not in the set; `count` if all are. */
  missing(from: number): number;
  /** The first piece from `from` on that is; `count` if none is. */
  present(from: number): number;
  /** One bit each, the first piece lowest. */
  toBytes(): Uint8Array<ArrayBuffer>;
}

/** Creates a set of pieces. @param bits - as {@link ChunkSet.toBytes} gives them. Default: none is in it. */
export function createChunkSet(count: number, bits?: Uint8Array): ChunkSet {
  const set = new Uint8Array(Math.ceil(count / 8));
  if (bits !== undefined) set.set(bits.subarray(0, set.length));
  const has = (index: number): boolean => (((set[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
  const first = (from: number, wanted: boolean): number => {
    let index = from;
    while (index < count && has(index) !== wanted) index += 1;
    return index;
  };
  return {
    count,
    has,
    add: (index) => {
      set[index >> 3] = (set[index >> 3] ?? 0) | (1 << (index & 7));
    },
    clear: () => {
      set.fill(0);
    },
    missing: (from) => first(from, false),
    present: (from) => first(from, true),
    toBytes: () => set.slice(),
  };
}

/** What is kept beside a part of a file. */
export interface Note {
  /** Strong validator of what the server sent (RFC 9110 §8.8.1). */
  readonly etag: string | undefined;
  readonly done: ChunkSet;
}

/** Writes a note down. */
export function encodeNote({ size }: Chunks, { etag, done }: Note): Uint8Array<ArrayBuffer> {
  return toUtf8(JSON.stringify({ v: 1, size, etag, done: toHex(done.toBytes()) }));
}

/** Reads a note. One of other pieces, and anything that is none, counts as a beginning. */
export function decodeNote({ size }: Chunks, count: number, bytes: Uint8Array | undefined): Note {
  try {
    const value: unknown = bytes && JSON.parse(fromUtf8(bytes));
    if (isFields(value) && value['v'] === 1 && value['size'] === size) {
      const { etag, done } = value;
      const bits = typeof done === 'string' ? fromHex(done) : undefined;
      if (bits?.length === Math.ceil(count / 8)) {
        return { etag: strongTag(typeof etag === 'string' ? etag : null), done: createChunkSet(count, bits) };
      }
    }
  } catch {
    // It was damaged; everything can be had again.
  }
  return { etag: undefined, done: createChunkSet(count) };
}

/** A tag that may be sent in `If-Range`: weak ones may not (RFC 9110 §13.1.5). */
export function strongTag(etag: string | null): string | undefined {
  return etag !== null && /^"[!#-~]{0,256}"$/.test(etag) ? etag : undefined;
}

/** Reads a `Content-Range` of one range (RFC 9110 §14.4). @returns `undefined` for anything else. */
export function parseContentRange(
  header: string | null,
): { readonly first: number; readonly last: number; readonly total: number | undefined } | undefined {
  const [, first, last, total] =
    /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(header?.trim() ?? '') ?? [];
  if (first === undefined || Number(last) < Number(first)) return undefined;
  return { first: Number(first), last: Number(last), total: total === '*' ? undefined : Number(total) };
}
