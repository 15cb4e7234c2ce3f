/** Scales, zero points and rounding: r = scale · (q − zeroPoint), as onnxruntime's own quantization tools reckon. */

import type { Int8, Range } from './technique.ts';

/** Integers that quantized values may take. */
export type IntegerRange = Range;

/** How integers stand for reals. */
export interface Affine {
  /** A float32 number, positive. */
  readonly scale: number;
  /** The integer that stands for 0. */
  readonly zeroPoint: number;
}

/** Smallest normal float32. */
const TINY = 2 ** -126;
/** Adding it leaves float64 no bits for fractions: the processor rounds, ties to even. */
const ROUNDER = 1.5 * 2 ** 52;

/** All that a type holds. */
export const INT8_RANGES: Readonly<Record<Int8, IntegerRange>> = {
  int8: { min: -128, max: 127 },
  uint8: { min: 0, max: 255 },
};

/** Integers that the ends of a range are mapped to; `isReduced` leaves a bit to spare, for sums of 16 bits. */
export function integersOf(
  dtype: Int8,
  { isSymmetric = false, isReduced = false }: { isSymmetric?: boolean; isReduced?: boolean } = {},
): IntegerRange {
  if (isReduced) return dtype === 'int8' ? { min: -64, max: 64 } : { min: 0, max: 127 };
  return dtype === 'int8' && isSymmetric ? { min: -127, max: 127 } : INT8_RANGES[dtype];
}

/**
 * Scale and zero point by which a range of reals, widened to hold 0, is mapped to integers. Symmetric: the zero point
 * is the middle of the integers. A range too small for a float32 scale gives scale 1 and zero point 0.
 */
export function affineOf({ min, max }: Range, integers: IntegerRange, isSymmetric: boolean): Affine {
  const low = Math.min(min, 0);
  const high = Math.max(max, 0);
  const [from, to] = isSymmetric ? [-Math.max(-low, high), Math.max(-low, high)] : [low, high];
  // The reference takes the difference in float32, where that of huge weights overflows.
  const rounded = Math.fround(to - from);
  const scale = (Number.isFinite(rounded) ? rounded : to - from) / (integers.max - integers.min);
  if (scale < TINY) return { scale: 1, zeroPoint: 0 };
  const zeroPoint = isSymmetric ? (integers.min + integers.max) / 2 : integers.min - from / scale;
  return { scale: Math.fround(scale), zeroPoint: roundHalfEven(zeroPoint) };
}

/** Rounds to the nearest integer, ties to even. Magnitudes up to 2^51. */
export function roundHalfEven(value: number): number {
  return value + ROUNDER - ROUNDER;
}
