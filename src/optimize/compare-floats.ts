/** Figures of two arrays of floats. */

import type { DType } from '../core/dtype.ts';
import { fromBfloat16Bits, fromFloat16Bits } from '../core/float.ts';
import type { Tensor } from '../core/tensor.ts';

/** How far floats are apart. */
export interface FloatFigures {
  readonly sqnrDb: number;
  readonly cosine: number;
  readonly maxAbs: number;
}

/** What one pair of tensors showed. */
export interface FloatsSeen {
  /** Rows along a last axis of two or more elements. */
  readonly rows: number;
  /** Those whose largest element, the first of equal ones, is in the same place. */
  readonly agreeing: number;
  readonly isIdentical: boolean;
}

/** Sums over pairs of tensors of equal shape. */
export interface Floats {
  add(expected: Tensor, actual: Tensor): FloatsSeen;
  figures(): FloatFigures;
}

/**
 * Starts sums. Elements that are NaN on both sides, or infinite and equal, say nothing; a float that only one of the
 * models gives makes the ratio `-Infinity`.
 */
export function createFloats(find: (kind: 'not-finite', message: string) => void): Floats {
  let signal = 0;
  let other = 0;
  let product = 0;
  let noise = 0;
  let maxAbs = 0;
  let broken = 0;
  return {
    add: (expected, actual) => {
      const a = readFloats(expected);
      const b = readFloats(actual);
      let isIdentical = true;
      let lost = 0;
      for (let i = 0; i < a.length; i += 1) {
        const x = a[i] as number;
        const y = b[i] as number;
        if (!Object.is(x, y)) isIdentical = false;
        if (!Number.isFinite(x) || !Number.isFinite(y)) {
          if (x !== y && !(Number.isNaN(x) && Number.isNaN(y))) lost += 1;
          continue;
        }
        const apart = Math.abs(x - y);
        signal += x * x;
        other += y * y;
        product += x * y;
        noise += apart * apart;
        if (apart > maxAbs) maxAbs = apart;
      }
      if (lost > 0)
        find('not-finite', `has ${lost} elements of ${a.length} that are finite in one model only`);
      broken += lost;
      const width = expected.shape.at(-1) ?? 1;
      const rows = width > 1 ? a.length / width : 0;
      let agreeing = 0;
      for (let row = 0; row < rows; row += 1) {
        if (largestIn(a, row * width, width) === largestIn(b, row * width, width)) agreeing += 1;
      }
      return { rows, agreeing, isIdentical };
    },
    figures: () => ({
      sqnrDb: broken > 0 ? Number.NEGATIVE_INFINITY : sqnrOf(signal, noise),
      cosine: signal === 0 && other === 0 ? 1 : product / Math.sqrt(signal * other) || 0,
      maxAbs: broken > 0 ? Number.POSITIVE_INFINITY : maxAbs,
    }),
  };
}

/** dB of a signal over noise, both as sums of squares; `Infinity` without noise. */
export function sqnrOf(signal: number, noise: number): number {
  return noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(signal / noise);
}

const READ: Readonly<Partial<Record<DType, (bits: number) => number>>> = {
  float16: fromFloat16Bits,
  bfloat16: fromBfloat16Bits,
};

/** Elements of a tensor of floats; 16-bit ones are unpacked. */
function readFloats({ dtype, data }: Tensor): ArrayLike<number> {
  const read = READ[dtype];
  const stored = data as ArrayLike<number>;
  return read === undefined ? stored : Float32Array.from(stored, read);
}

/** Place of the largest element, the first of equal ones; -1 where there is NaN only. */
function largestIn(values: ArrayLike<number>, from: number, width: number): number {
  let place = -1;
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < width; i += 1) {
    const value = values[from + i] as number;
    if (value > largest || (place < 0 && value === largest)) {
      largest = value;
      place = i;
    }
  }
  return place;
}
