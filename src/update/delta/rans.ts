/** Two interleaved rANS states (J. Duda, arXiv:1311.2540) with probabilities of 12 bits: what decoders need. */

import { BLOCK_PREFIX_BYTES, LOW, MAX_CONTEXTS, patchError, SCALE, SCALE_BITS } from './bounds.ts';
import type { FrequencyTable } from './head.ts';

/** Frequencies made ready for coding. Contexts that a table does not have are there, and do not occur. */
export interface Coding {
  readonly symbols: number;
  /** Symbol of each slot: `context << 12 | slot`. */
  readonly symbolOf: Uint8Array;
  /** `first slot << 16 | frequency` of each symbol: `context * symbols + symbol`; 0 if it does not occur. */
  readonly stepOf: Int32Array;
}

/** Where a coding of all contexts may lie, one at a time. */
export type CodingRoom = Pick<Coding, 'symbolOf' | 'stepOf'>;

/**
 * Makes a table ready.
 * @param contexts - how many contexts are looked up. Default: as many as there may be.
 * @param room - where it is made, until the next is.
 */
export function createCoding(
  { symbols, frequencies }: FrequencyTable,
  contexts: number = MAX_CONTEXTS,
  room?: CodingRoom,
): Coding {
  const symbolOf = room?.symbolOf.fill(0) ?? new Uint8Array(contexts << SCALE_BITS);
  const stepOf = room?.stepOf.fill(0) ?? new Int32Array(contexts * symbols);
  const end = Math.min(stepOf.length, frequencies.length);
  for (let at = 0, slot = 0; at < end; at += 1) {
    const symbol = at % symbols;
    // A context without frequencies leaves its slots to the next.
    if (symbol === 0) slot = (at / symbols) << SCALE_BITS;
    const frequency = frequencies[at] as number;
    if (frequency === 0) continue;
    symbolOf.fill(symbol, slot, slot + frequency);
    stepOf[at] = ((slot & (SCALE - 1)) << 16) | frequency;
    slot += frequency;
  }
  return { symbols, symbolOf, stepOf };
}

/** Coded symbols of a block, and how far they were decoded. */
export interface Cursor {
  /** State of the next symbol, and that of the one after it. */
  next: number;
  after: number;
  /** Words of 16 bits that were read. */
  word: number;
  /** Raw bits that were read. */
  bit: number;
  /** Negative if a symbol was decoded that does not occur. */
  fault: number;
  readonly words: Uint16Array;
  /** Raw bits, from the lowest of the first on, and 32 more that are 0. */
  readonly raw: Int32Array;
  readonly rawBytes: number;
}

/**
 * Opens a block of coded symbols.
 * @param symbols - how many the block has.
 * @param start - where it begins in `block`.
 * @param room - where it is copied to if it fits there, until the next is.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function openBlock(
  block: Uint8Array,
  symbols: number,
  start = 0,
  room: Uint8Array = new Uint8Array(0),
): Cursor {
  const wordsAt = start + BLOCK_PREFIX_BYTES;
  // A block that is too short for them begins with states of 0, which there are not.
  const prefix = new Uint32Array(3);
  new Uint8Array(prefix.buffer).set(block.subarray(start, wordsAt));
  const [next = 0, after = 0, wordCount = 0] = prefix;
  const rawBytes = block.length - wordsAt - 2 * wordCount;
  const outside = Math.min(next, after) < LOW || Math.max(next, after) >= 2 ** 31;
  if (outside || wordCount > symbols || rawBytes < 0)
    throw patchError('A block of the patch begins with states or a length that cannot be');
  const rawAt = (2 * wordCount + 3) & ~3;
  const rawInts = (rawBytes >> 2) + 2;
  const sizeBytes = rawAt + 4 * rawInts;
  const { buffer, byteOffset } = sizeBytes <= room.length ? room : new Uint8Array(sizeBytes);
  const words = new Uint16Array(buffer, byteOffset, wordCount);
  const raw = new Int32Array(buffer, byteOffset + rawAt, rawInts);
  const copy = new Uint8Array(buffer, byteOffset, sizeBytes);
  copy.set(block.subarray(wordsAt, wordsAt + 2 * wordCount));
  raw.fill(0, -2);
  copy.set(block.subarray(block.length - rawBytes), rawAt);
  return { next, after, word: 0, bit: 0, fault: 0, words, raw, rawBytes };
}

/**
 * Checks that a block ended where its symbols did.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function assertEnded({ next, after, word, bit, words, raw, rawBytes }: Cursor): void {
  const rest = (raw[bit >> 5] ?? 0) >>> (bit & 31);
  if (next !== LOW || after !== LOW || word !== words.length || (bit + 7) >> 3 !== rawBytes || rest !== 0) {
    throw patchError('A block of the patch does not end where its symbols do');
  }
}

/**
 * Checks, after each stretch, that all its symbols occur, and that no more was read than the block has: what is read beyond
 * it is 0 or no part of it.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function assertWithin({ word, bit, fault, words, rawBytes }: Cursor): void {
  if (fault < 0 || word > words.length || bit > 8 * rawBytes)
    throw patchError('A block of the patch ends before its symbols do, or has some that do not occur');
}

/** Decodes symbols, each in its context, until `symbols` is full. */
export function decodeSymbols(
  { symbolOf, stepOf, symbols: alphabet }: Coding,
  cursor: Cursor,
  contexts: Uint8Array,
  symbols: Uint8Array,
): void {
  const { words } = cursor;
  let { next, after, word, fault } = cursor;
  for (let k = 0; k < symbols.length; k += 1) {
    const context = contexts[k] as number;
    const slot = next & 4095;
    const symbol = symbolOf[(context << 12) | slot] as number;
    const step = stepOf[context * alphabet + symbol] as number;
    const frequency = step & 0xffff;
    fault |= frequency - 1;
    let x = Math.imul(frequency, next >>> 12) + slot - (step >>> 16);
    if (x < 32768) {
      x = (x << 16) | (words[word] as number);
      word += 1;
    }
    next = after;
    after = x;
    symbols[k] = symbol;
  }
  Object.assign(cursor, { next, after, word, fault });
}
