/** Rounding the update of one tensor onto a grid around the base (docs/spec/idp.md, mode 5). */

import { createRandom } from '../../stats/random.ts';
import type { UpdateStep } from '../delta/steps.ts';

/** How an update is rounded. */
export interface Rounding {
  /** Step as a share of the root mean square of the tensor's update. */
  readonly f: number;
  /** Whether the rounding is unbiased: up with the probability of the fraction. Otherwise to the nearest. */
  readonly isStochastic: boolean;
  /** Of the random numbers of unbiased rounding. */
  readonly seed: number;
}

/** A tensor whose update was rounded. */
export interface RoundedFloats extends UpdateStep {
  readonly values: Float32Array<ArrayBuffer>;
}

/** Largest multiple of a step that a patch holds. */
const mostSteps = 127;
/** Steps may grow by so much, so that the largest update fits, before the tensor is rather left as it is. */
const mostGrowth = 4;
/** Gains are looked for in tensors of so many rows. */
const fewestRows = 8;
/** Bits of a gain. */
const gainBits = 32;

/**
 * Rounds the update of a tensor of floats, rows along the first axis.
 * @returns `undefined` where the tensor is better left as it is: nothing changes, something is not finite, or the largest
 * update is too far out.
 */
export function roundFloats(
  base: Float32Array,
  next: Float32Array,
  rows: number,
  { f, isStochastic, seed }: Rounding,
): RoundedFloats | undefined {
  const gain = gainOf(base, next, rows);
  const columns = base.length / rows;
  const predicted = (k: number): number =>
    (base[k] as number) * (gain === undefined ? 1 : (gain[Math.floor(k / columns)] as number));
  let energy = 0;
  let largest = 0;
  for (let k = 0; k < next.length; k += 1) {
    const apart = Math.abs((next[k] as number) - predicted(k));
    energy += apart * apart;
    if (!(apart <= largest)) largest = apart;
  }
  const rms = Math.sqrt(energy / next.length);
  // Also false for what is not finite.
  if (!(rms > 0 && largest < Number.POSITIVE_INFINITY)) return undefined;
  const step = Math.max(f * rms, largest / (mostSteps - 1));
  if (step > f * rms && step > (isStochastic ? mostGrowth * f : 0.5) * rms) return undefined;
  const random = createRandom(seed);
  const values = new Float32Array(next.length);
  for (let k = 0; k < next.length; k += 1) {
    const p = predicted(k);
    const q = Math.floor(((next[k] as number) - p) / step + (isStochastic ? random() : 0.5));
    values[k] = p + q * step;
    if (!Number.isFinite(values[k])) return undefined;
  }
  return { values, step, ...(gain && { gain }) };
}

/**
 * Gains of rows by least squares, as batch normalization leaves them where it is folded into a convolution.
 * @returns `undefined` unless what they save at a given step is more than what they cost.
 */
export function gainOf(
  base: Float32Array,
  next: Float32Array,
  rows: number,
): Float32Array<ArrayBuffer> | undefined {
  if (rows < fewestRows) return undefined;
  const columns = base.length / rows;
  const gain = new Float32Array(rows);
  let without = 0;
  let left = 0;
  for (let row = 0, k = 0; row < rows; row += 1) {
    let product = 0;
    let square = 0;
    for (const end = k + columns; k < end; k += 1) {
      product += (base[k] as number) * (next[k] as number);
      square += (base[k] as number) ** 2;
    }
    const g = Math.fround(product / square);
    gain[row] = Number.isFinite(g) ? g : 1;
    for (let at = k - columns; at < k; at += 1) {
      without += ((next[at] as number) - (base[at] as number)) ** 2;
      left += ((next[at] as number) - (base[at] as number) * (gain[row] as number)) ** 2;
    }
  }
  const savedBits = (base.length * Math.log2(without / left)) / 2;
  return savedBits > gainBits * rows ? gain : undefined;
}

/**
 * Rounds the update of 8-bit integers to whole multiples of a unit, which costs less in a lossless patch.
 * @returns `undefined` where that changes nothing.
 */
export function roundIntegers<Numbers extends Int8Array | Uint8Array>(
  base: Numbers,
  next: Numbers,
  { f, isStochastic, seed }: Rounding,
): { readonly values: Numbers; readonly unit: number } | undefined {
  let energy = 0;
  for (let k = 0; k < next.length; k += 1) energy += ((next[k] as number) - (base[k] as number)) ** 2;
  const unit = Math.round(f * Math.sqrt(energy / next.length));
  if (unit < 2) return undefined;
  const random = createRandom(seed);
  const values = next.slice() as Numbers;
  for (let k = 0; k < next.length; k += 1) {
    const a = base[k] as number;
    const q = Math.floor(((next[k] as number) - a) / unit + (isStochastic ? random() : 0.5));
    // Numbers at the edge of their range stay what they are, rather than wrap around.
    values[k] = a + q * unit;
    if (values[k] !== a + q * unit) values[k] = next[k] as number;
  }
  return { values, unit };
}
