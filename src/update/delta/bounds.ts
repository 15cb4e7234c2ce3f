/** What a patch may ask of a decoder, and how its payload is cut (docs/spec/idp.md). */

import { UpdateError } from '../../core/errors.ts';
import {
  BYTES_PER_BLOCK,
  NUMBERS_PER_BLOCK,
  UPDATES_PER_BLOCK,
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
export const MAX_HEAD_BYTES: number = 2 ** 24;
/** Most tables. */
export const MAX_TABLES = 64;
/** Most segments. */
export const MAX_SEGMENTS: number = 2 ** 20;
/** Most rows and columns, added up, of a segment with a side block: a decoder holds what it says of each. */
export const MAX_SIDE: number = 2 ** 20;
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
  return 'predictor' in segment && segment.predictor !== 'same';
}

/** Blocks of payload that a segment takes. */
export function blocksOf(segment: Segment): number {
  if (segment.mode === 'same') return 0;
  if (!isNumbers(segment)) return Math.ceil(segment.sizeBytes / BYTES_PER_BLOCK);
  const side = hasSide(segment) ? 1 : 0;
  const count = segment.rows * segment.columns;
  return segment.mode === 'update'
    ? side + Math.ceil(count / UPDATES_PER_BLOCK) * segment.layers.length
    : side + Math.ceil(count / NUMBERS_PER_BLOCK);
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
