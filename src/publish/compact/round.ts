/** Rounding the update of one tensor onto a grid around the base (docs/spec/idp.md, modes 4 and 5). */

import { fromBfloat16Bits, fromFloat16Array, toBfloat16Bits, toFloat16Array } from '../../core/float.ts';
import { createRandom } from '../../stats/random.ts';
import type { UpdateStep } from '../delta/steps.ts';
import type { HalfDType } from './weights.ts';

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

/** A tensor of 16-bit floats whose update was rounded. */
export interface RoundedHalves {
  /** Bit patterns. */
  readonly values: Uint16Array<ArrayBuffer>;
  readonly step: number;
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
  const predicted = predictor(base, gain, rows);
  const { rms, largest } = spreadOf(next, predicted);
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
 * Rounds the update of a tensor of 16-bit floats to numbers of the same type that lie next to the grid around the base.
 * Their own spacing may be wider than a step, so the choice is between the two numbers that the grid has on both sides,
 * in proportion to where between them the trained one lies: that keeps unbiased rounding unbiased. Patches have no gains
 * for this type: they only take off the step what a row was scaled by.
 * @returns `undefined` where nothing changes, or something is not finite.
 */
export function roundHalves(
  base: Uint16Array,
  next: Uint16Array,
  { dtype, rows }: { readonly dtype: HalfDType; readonly rows: number },
  { f, isStochastic, seed }: Rounding,
): RoundedHalves | undefined {
  const { decode, encode } = halves[dtype];
  const [from, to] = [decode(base), decode(next)];
  const { rms, largest } = spreadOf(to, predictor(from, gainOf(from, to, rows), rows));
  if (!(rms > 0 && largest < Number.POSITIVE_INFINITY)) return undefined;
  const step = f * rms;
  const onGrid = (more: number): Uint16Array<ArrayBuffer> =>
    encode(from.map((p, k) => p + (Math.floor(((to[k] as number) - p) / step) + more) * step));
  const [below, above] = [onGrid(0), onGrid(1)];
  const [low, high] = [decode(below), decode(above)];
  const random = createRandom(seed);
  const values = next.slice();
  for (let k = 0; k < values.length; k += 1) {
    const [least, most] = [low[k] as number, high[k] as number];
    const share = ((to[k] as number) - least) / (most - least);
    const isUp = share > (isStochastic ? random() : 0.5);
    // Neither between equal numbers nor next to infinity is there anything to choose.
    if (Number.isFinite(share) && Number.isFinite(least) && Number.isFinite(most))
      values[k] =
        (isUp ? most : least) === from[k] ? (base[k] as number) : ((isUp ? above : below)[k] as number);
  }
  return { values, step };
}

/** Reads and writes the bit patterns of 16-bit floats. */
const halves: Readonly<
  Record<
    HalfDType,
    {
      readonly decode: (bits: Uint16Array) => Float32Array<ArrayBuffer>;
      readonly encode: (values: Float32Array) => Uint16Array<ArrayBuffer>;
    }
  >
> = {
  float16: { decode: fromFloat16Array, encode: toFloat16Array },
  bfloat16: {
    decode: (bits) => Float32Array.from(bits, fromBfloat16Bits),
    encode: (values) => Uint16Array.from(values, toBfloat16Bits),
  },
};

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
