/** Repeated numbers, packed or not, gathered into one typed array without an object per element. */
import { readDouble, readFloat, readVarint, type Cursor } from './wire.ts';

/** Kinds of numbers that come in bulk. */
export type NumberKind = 'int32' | 'int64' | 'uint64' | 'float' | 'double';
/** What each kind is gathered in. */
export type Numbers = Int32Array | BigInt64Array | BigUint64Array | Float32Array | Float64Array;

/** A growing list of numbers. */
export interface NumberList {
  readonly size: number;
  /** Reads one element. */
  readOne(cursor: Cursor): void;
  /** Reads elements up to the cursor's end. */
  readPacked(cursor: Cursor): void;
  /** Gives the elements. The list is not used afterwards. */
  finish(): Numbers;
}

type Words = Int32Array | Uint32Array | Float32Array | Float64Array;

interface Gathering {
  readonly words: new (length: number) => Words;
  /** Words per element: 64-bit integers are gathered as two halves, low one first, which spares a bigint each. */
  readonly lanes: 1 | 2;
  read(cursor: Cursor, into: Words, at: number): void;
  finish(words: Words): Numbers;
}

const readWhole = (cursor: Cursor, into: Words, at: number): void => {
  readVarint(cursor);
  into[at] = cursor.low;
  into[at + 1] = cursor.high;
};

const GATHERINGS: Readonly<Record<NumberKind, Gathering>> = {
  int32: {
    words: Int32Array,
    lanes: 1,
    read: (cursor, into, at) => {
      readVarint(cursor);
      into[at] = cursor.low;
    },
    finish: (words) => words as Int32Array,
  },
  int64: { words: Uint32Array, lanes: 2, read: readWhole, finish: ({ buffer }) => new BigInt64Array(buffer) },
  uint64: {
    words: Uint32Array,
    lanes: 2,
    read: readWhole,
    finish: ({ buffer }) => new BigUint64Array(buffer),
  },
  float: {
    words: Float32Array,
    lanes: 1,
    read: (cursor, into, at) => {
      into[at] = readFloat(cursor);
    },
    finish: (words) => words as Float32Array,
  },
  double: {
    words: Float64Array,
    lanes: 1,
    read: (cursor, into, at) => {
      into[at] = readDouble(cursor);
    },
    finish: (words) => words as Float64Array,
  },
};

/** Creates an empty list. */
export function createNumberList(kind: NumberKind): NumberList {
  const { words: Words, lanes, read, finish } = GATHERINGS[kind];
  let words = new Words(0);
  let filled = 0;

  const reserve = (elements: number): void => {
    const needed = filled + elements * lanes;
    if (needed <= words.length) return;
    // Exact for a packed list, which usually comes alone; doubling for one that goes on.
    const larger = new Words(filled === 0 ? needed : Math.max(needed, 2 * words.length));
    larger.set(words);
    words = larger;
  };
  const readOne = (cursor: Cursor): void => {
    reserve(1);
    read(cursor, words, filled);
    filled += lanes;
  };
  return {
    get size() {
      return filled / lanes;
    },
    readOne,
    readPacked: (cursor) => {
      reserve(countPacked(kind, cursor));
      while (cursor.at < cursor.end) readOne(cursor);
    },
    finish: () => finish(filled === words.length ? words : words.slice(0, filled)),
  };
}

function countPacked(kind: NumberKind, { bytes, at, end }: Cursor): number {
  if (kind === 'float') return Math.floor((end - at) / 4);
  if (kind === 'double') return Math.floor((end - at) / 8);
  let count = 0;
  for (let i = at; i < end; i += 1) if ((bytes[i] as number) < 0x80) count += 1;
  return count;
}
