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

/** Rounds numbers to those of their own type. */
export type Settle = (values: Float32Array<ArrayBuffer>) => Float32Array<ArrayBuffer>;

/**
 * Rounds the update of a tensor of floats, rows along the first axis. The choice is between the two numbers that stand for
 * the grid on both sides, in proportion to where between them the trained one lies: their type may be coarser than the grid,
 * and that keeps unbiased rounding unbiased.
 * @param settle - rounds numbers to their type. Default: they are of float32.
 * @returns `undefined` where the tensor is better left as it is: nothing changes, something is not finite, or the largest
 * update is too far out.
 */
export function roundFloats(
  base: Float32Array,
  next: Float32Array,
  rows: number,
  { f, isStochastic, seed }: Rounding,
  settle: Settle = (values) => values,
): RoundedFloats | undefined {
  const gain = gainOf(base, next, rows);
  const predicted = predictor(base, gain, rows);
  const { rms, largest } = spreadOf(next, predicted);
  // Also false for what is not finite.
  if (!(rms > 0 && largest < Number.POSITIVE_INFINITY)) return undefined;
  const step = Math.max(f * rms, largest / (mostSteps - 1));
  if (step > f * rms && step > (isStochastic ? mostGrowth * f : 0.5) * rms) return undefined;
  const onGrid = (more: number): Float32Array<ArrayBuffer> =>
    settle(
      Float32Array.from(next, (value, k) => {
        const p = predicted(k);
        return p + (Math.floor((value - p) / step) + more) * step;
      }),
    );
  const [below, above] = [onGrid(0), onGrid(1)];
  const random = createRandom(seed);
  const values = below.slice();
  for (let k = 0; k < values.length; k += 1) {
    const [low, high] = [below[k] as number, above[k] as number];
    if (!Number.isFinite(low) || !Number.isFinite(high)) return undefined;
    const share = low === high ? 0 : ((next[k] as number) - low) / (high - low);
    if (share + (isStochastic ? random() : 0.5) >= 1) values[k] = high;
  }
  return { values, step, ...(gain && { gain }) };
}

/** What is expected of each number: that of the base, times the gain of its row. */
function predictor(base: Float32Array, gain: Float32Array | undefined, rows: number): (k: number) => number {
  if (gain === undefined) return (k) => base[k] as number;
  const columns = base.length / rows;
  return (k) => (base[k] as number) * (gain[Math.floor(k / columns)] as number);
}

/** How far numbers are from what was expected. */
function spreadOf(
  next: ArrayLike<number>,
  predicted: (k: number) => number,
): { readonly rms: number; readonly largest: number } {
  let energy = 0;
  let largest = 0;
  for (let k = 0; k < next.length; k += 1) {
    const apart = Math.abs((next[k] as number) - predicted(k));
    energy += apart * apart;
    if (!(apart <= largest)) largest = apart;
  }
  return { rms: Math.sqrt(energy / next.length), largest };
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
 * Rounds the update of 8-bit integers to whole multiples of a unit, which costs less in a lossless patch. The unit is not
 * above half of what they changed by where it is to the nearest, and not below all of it where rounding is unbiased.
 * @returns `undefined` where that changes nothing.
 */
export function roundIntegers<Numbers extends Int8Array | Uint8Array>(
  base: Numbers,
  next: Numbers,
  rows: number,
  { f, isStochastic, seed }: Rounding,
): { readonly values: Numbers; readonly unit: number } | undefined {
  const middle = base instanceof Uint8Array ? 128 : 0;
  const [from, to] = [base, next].map((numbers) => Float32Array.from(numbers, (one) => one - middle)) as [
    Float32Array,
    Float32Array,
  ];
  const { rms } = spreadOf(to, predictor(from, gainOf(from, to, rows), rows));
  const unit = isStochastic ? Math.max(Math.round(f * rms), Math.ceil(rms)) : Math.floor(f * rms);
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
