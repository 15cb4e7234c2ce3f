/** Finds the grid that numbers, or an update of numbers, were rounded onto, if they were. */
import type { NumberKind } from '../../update/delta/head.ts';
import { exponentsOf, FEWEST_WEIGHTS, lastPlace, valuesOf, type Words } from './numbers.ts';

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

/** Numbers whose halfway points are further from them than this share of what they moved do not tell by how many steps. */
const TELLING = 1 / 8;

/**
 * Finds a step so that each number is `a + q * step` with a whole `q`, rounded to its kind. What rounds to a number lies
 * between its halfway points; so every number that moved far bounds the step from both sides, those that moved least
 * first. Whoever uses the step checks it.
 */
export function findStep(base: Words, next: Words, numbers: NumberKind): number | undefined {
  const { length } = base;
  if (length < FEWEST_WEIGHTS) return undefined;
  const [from, to] = [valuesOf(base, numbers), valuesOf(next, numbers)];
  const movedAt = (k: number): number => Math.abs((to[k] as number) - (from[k] as number));
  const exponents = exponentsOf(next, numbers);
  const halfAt = (k: number): number => lastPlace(exponents[k] as number) / 2;
  const sample: number[] = [];
  for (let k = 0; k < length; k += Math.max(1, Math.floor(length / SAMPLE))) {
    const moved = movedAt(k);
    if (!(moved < Infinity)) return undefined;
    if (halfAt(k) <= moved * TELLING) sample.push(k);
  }
  if (sample.length < LEAST_MOVED) return undefined;
  sample.sort((k, l) => movedAt(k) - movedAt(l));
  let bounds: Bounds | undefined = { low: 0, high: Infinity };
  for (const k of sample) {
    bounds = narrow(bounds, movedAt(k), halfAt(k));
    if (bounds === undefined) return undefined;
  }
  for (let k = 0; k < length && bounds; k += 1) {
    bounds = narrow(bounds, movedAt(k), halfAt(k));
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

/**
 * @param half - how far a number may have been rounded.
 * @returns `undefined` if no step is left.
 */
function narrow({ low, high }: Bounds, moved: number, half: number): Bounds | undefined {
  if (half > moved * TELLING) return { low, high };
  // The first one is a single step, and so are those about as far.
  const q = Math.round(moved / (high === Infinity ? moved : (low + high) / 2));
  if (!(q >= 1 && q <= MAX_STEPS)) return undefined;
  const bounds = { low: Math.max(low, (moved - half) / q), high: Math.min(high, (moved + half) / q) };
  return bounds.low > 0 && bounds.low <= bounds.high ? bounds : undefined;
}
