/** What a patch may ask of a decoder, and how its payload is cut (docs/spec/idp.md). */

import { UpdateError } from '../../core/errors.ts';
import {
  BYTES_PER_BLOCK,
  NUMBERS_PER_BLOCK,
  UPDATES_PER_BLOCK,
  type Factors,
  type FrequencyTable,
  type NumberKind,
  type NumberSegment,
  type NumberShape,
  type Segment,
} from './head.ts';

/** `IDP1`. */
export const MAGIC: Uint8Array = /* @__PURE__ */ Uint8Array.of(0x49, 0x44, 0x50, 0x31);
/** Bytes before the head: magic and length. */
export const PREFIX_BYTES = 8;
/** Largest head, bytes. */
export const MAX_HEAD_BYTES: number = 2 ** 20;
/** Most tables. */
export const MAX_TABLES = 64;
/** Most frequencies of all tables together. */
export const MAX_FREQUENCIES: number = 2 ** 18;
/** Most segments. */
export const MAX_SEGMENTS: number = 2 ** 16;
/** Most rows and columns, added up, of a segment with a side block: a decoder holds what it says of each. */
export const MAX_SIDE: number = 2 ** 20;
/** Highest rank of a product of thin matrices. */
export const MAX_RANK = 64;
/** Most bytes of a number of such a matrix. */
export const MAX_FACTOR_BYTES = 4;
/** Most numbers in both matrices, which a decoder holds; nor are they more than the numbers that they foretell. */
export const MAX_FACTORS: number = 2 ** 17;
/** Most layers of an update. */
export const MAX_LAYERS = 16;
/** Contexts that a table may have. */
export const MAX_CONTEXTS = 64;
/** Symbols that a table may have. */
export const MAX_SYMBOLS = 256;
/** Symbols of whole multiples: with 24 bits, each of them is a float32. */
const GRID_SYMBOLS = 48;
/** Bits of a probability. */
export const SCALE_BITS = 12;
/** Sum of the frequencies of a context. */
export const SCALE: number = 2 ** SCALE_BITS;
/** States of the coder lie in [2^15, 2^31). */
export const LOW: number = 2 ** 15;
/** Bytes before the words of a block of coded symbols: both states and the number of words. */
export const BLOCK_PREFIX_BYTES = 12;

/** Bits of a number. */
export const NUMBER_BITS: Readonly<Record<NumberKind, number>> = {
  float32: 32,
  float16: 16,
  bfloat16: 16,
  int8: 8,
  int4: 4,
};

/** @returns the error of a patch that cannot be used. @param what - a sentence without its full stop. */
export function patchError(what: string): UpdateError {
  return new UpdateError('ERR_INLAY_PATCH', `${what}. The whole file is needed.`);
}

/** Tells whether a segment is one of numbers. */
export function isNumbers(segment: Segment): segment is NumberSegment {
  return 'numbers' in segment;
}

/** Bytes that numbers take. */
export function bytesOfShape({ numbers, rows, columns }: NumberShape): number {
  return (rows * columns * NUMBER_BITS[numbers]) / 8;
}

/** Bytes of the target that a segment makes. */
export function bytesOf(segment: Segment): number {
  return isNumbers(segment) ? bytesOfShape(segment) : segment.sizeBytes;
}

/** Tells whether rows, or rows and columns, are described by a block of their own. */
export function hasSide(segment: NumberSegment): boolean {
  return segment.context.kind === 'scales' || hasGains(segment);
}

/** Tells whether each row has a gain. */
export function hasGains(segment: NumberSegment): boolean {
  return 'predictor' in segment && segment.predictor !== 'same' && segment.predictor !== 'low-rank';
}

/** @returns the thin matrices whose product is added to a segment's base. */
export function factorsOf(segment: Segment): Factors | undefined {
  return segment.mode === 'delta' ? segment.factors : undefined;
}

/** Blocks of payload that a segment takes. */
export function blocksOf(segment: Segment): number {
  return [...blockLimits(segment)].length;
}

/** Gives the most bytes that each block of a segment may have, in their order. */
export function* blockLimits(segment: Segment): Generator<number> {
  if (segment.mode === 'same') return;
  if (!isNumbers(segment)) {
    for (const [, count] of runs(segment.sizeBytes, BYTES_PER_BLOCK))
      yield segment.mode === 'raw' ? count : codedLimit(count, 0);
    return;
  }
  const { mode, rows, columns, context } = segment;
  const factors = factorsOf(segment);
  if (factors !== undefined)
    yield 4 * factors.rank + codedLimit(factors.width * factors.rank * (rows + columns), 0);
  if (hasSide(segment))
    yield (
      (hasGains(segment) ? 4 * rows : 0) + (context.kind === 'scales' ? codedLimit(rows + columns, 0) : 0)
    );
  const layers = mode === 'update' ? segment.layers.length : 1;
  for (const [, count] of runs(rows * columns, mode === 'update' ? UPDATES_PER_BLOCK : NUMBERS_PER_BLOCK))
    for (let layer = 0; layer < layers; layer += 1) yield codedLimit(count, rawBitsOf(segment));
}

/** Each symbol takes a word at most. */
function codedLimit(symbols: number, rawBits: number): number {
  return BLOCK_PREFIX_BYTES + 2 * symbols + Math.ceil((symbols * rawBits) / 8);
}

/** Most raw bits of a number. */
function rawBitsOf({ mode, numbers }: NumberSegment): number {
  const bits = NUMBER_BITS[numbers];
  return bits > 8 ? bits - { self: 8, delta: 1, grid: 9, update: bits }[mode] : 0;
}

/** Gives offset and length of each run of `size`; the last may be shorter. */
export function* runs(total: number, size: number): Generator<readonly [number, number]> {
  for (let at = 0; at < total; at += size) yield [at, Math.min(size, total - at)];
}

/** Symbols that the numbers of a segment may be coded with: those of a table beyond them never occur. */
export function symbolsFor(segment: Exclude<Segment, { mode: 'same' | 'raw' }>): number {
  if (segment.mode === 'packed' || segment.mode === 'update') return MAX_SYMBOLS;
  if (segment.mode === 'grid') return GRID_SYMBOLS;
  const bits = NUMBER_BITS[segment.numbers];
  if (segment.mode === 'delta' && bits > 8) return 2 * bits;
  return Math.min(2 ** bits, MAX_SYMBOLS);
}

/** Contexts of a table. */
export function contextsOf({ symbols, frequencies }: FrequencyTable): number {
  return frequencies.length / symbols;
}
