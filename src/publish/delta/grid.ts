/** Finds the grid that numbers, or an update of numbers, were rounded onto, if they were. */
import { FEWEST_WEIGHTS } from './numbers.ts';

/** Numbers that are looked at before all of them are. */
const SAMPLE = 2048;
/** Fewest of a sample that have to have moved. */
const LEAST_MOVED = 16;
/** Most steps that a number moves. */
const MAX_STEPS = 127;

/** A step lies between these. */
interface Bounds {
  readonly low: number;
  readonly high: number;
}

/**
 * Finds a step so that each number is `fround(a + q * step)` with a whole `q`. What rounds to a float32 lies between
 * its halfway points; so every number that moved bounds the step from both sides, those that moved least first. Whoever
 * uses the step checks it.
 */
export function findStep(base: Float32Array, next: Float32Array): number | undefined {
  const { length } = base;
  if (length < FEWEST_WEIGHTS) return undefined;
  const bits = new Int32Array(next.buffer, next.byteOffset, length);
  const sample: number[] = [];
  for (let k = 0; k < length; k += Math.max(1, Math.floor(length / SAMPLE))) {
    const moved = Math.abs((next[k] as number) - (base[k] as number));
    if (!(moved < Infinity)) return undefined;
    if (moved > 0) sample.push(k);
  }
  if (sample.length < LEAST_MOVED) return undefined;
  const movedAt = (k: number): number => Math.abs((next[k] as number) - (base[k] as number));
  sample.sort((k, l) => movedAt(k) - movedAt(l));
  let bounds: Bounds | undefined = { low: 0, high: Infinity };
  for (const k of sample) {
    bounds = narrow(bounds, base[k] as number, next[k] as number, bits[k] as number);
    if (bounds === undefined) return undefined;
  }
  for (let k = 0; k < length && bounds; k += 1) {
    if (next[k] !== base[k]) bounds = narrow(bounds, base[k] as number, next[k] as number, bits[k] as number);
  }
  return bounds && (bounds.low + bounds.high) / 2;
}

/** Bits of the whole multiples that patches hold. */
const MULTIPLE_BITS = 24;

/**
 * Finds the largest power of two that all numbers are whole multiples of.
 * @param bits - bit patterns of float32 numbers.
 * @returns its exponent field, 1 to 254; `undefined` if multiples have more than 24 bits, all numbers are 0, or some are
 * -0, denormal or not finite.
 */
export function findExponent(bits: Int32Array): number | undefined {
  let [least, most] = [Infinity, 0];
  for (const pattern of bits) {
    if (pattern === 0) continue;
    const exponent = (pattern >>> 23) & 255;
    if (exponent === 0 || exponent === 255) return undefined;
    const mantissa = pattern | 0x80_0000;
    const lowest = exponent - 23 + 31 - Math.clz32(mantissa & -mantissa);
    if (lowest < least) least = lowest;
    if (exponent > most) most = exponent;
    if (most - least >= MULTIPLE_BITS) return undefined;
  }
  return least >= 1 && least <= 254 ? least : undefined;
}

/** @returns `undefined` if no step is left. */
function narrow({ low, high }: Bounds, a: number, b: number, bits: number): Bounds | undefined {
  const moved = Math.abs(b - a);
  // The first one is a single step, and so are those about as far.
  const q = Math.round(moved / (high === Infinity ? moved : (low + high) / 2));
  if (!(q >= 1 && q <= MAX_STEPS)) return undefined;
  const exponent = (bits >>> 23) & 255;
  const half = 2 ** (Math.max(1, exponent) - 151);
  // Below a power of two, numbers are twice as dense.
  const inward = exponent > 1 && (bits & 0x7f_ffff) === 0 ? half / 2 : half;
  const isOutward = b > a === b > 0;
  const from = (moved - (isOutward ? inward : half)) / q;
  const to = (moved + (isOutward ? half : inward)) / q;
  if (from <= low && to >= high) return { low, high };
  const bounds = { low: Math.max(low, from), high: Math.min(high, to) };
  return bounds.low > 0 && bounds.low <= bounds.high ? bounds : undefined;
}
