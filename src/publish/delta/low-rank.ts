/** Finds the low rank of an update, as merged adapters have it (LoRA: E. Hu et al., arXiv:2106.09685). */
import { findComponents, LEAST_SAVED_BITS } from './components.ts';
import { ownBits, toCounts, type Counts } from './counts.ts';
import { planesOf, toFactors, type LowRank } from './factors.ts';
import { exponentsOf, lastPlace, valuesOf } from './numbers.ts';
import { refine } from './refine.ts';
import { createSource, type Scratch, type SourceParts } from './source.ts';
import { dot, type Matrix } from './thin.ts';

/** Fewest rows, and fewest columns. */
const LEAST_SIDE = 16;
/** Most numbers of a tensor: larger ones would take too long. */
const MOST_NUMBERS: number = 2 ** 22;
/** Numbers that ways to round the factors are compared by. */
const SAMPLE = 65_536;
/** An update is of a low rank but for rounding if the mean square of what is left is below that of rounding, times this. */
const EXACT = 4;
/** How fine factors are at first, of what is left: numbers are foretold to a fraction of the last place, or to no more than is left. */
const FINE_EXACT = 1 / 64;
const FINE = 1 / 16;
/** Ways to round the factors, each half as fine as the one before, that are worse before the best is taken. */
const WORSE = 2;
/** Share by which products of float32 matrices are off. */
const PRODUCT_ERROR: number = 2 ** -24;

/**
 * Finds the factors that save most of the bits of an update of floats, those that they take themselves included.
 * @returns `undefined` if none save much, or some numbers are not finite.
 */
export function findLowRank(parts: SourceParts, scratch: Scratch): LowRank | undefined {
  const { numbers, base, next, columns } = parts;
  const rows = next.length / columns;
  if (!base || rows < LEAST_SIDE || columns < LEAST_SIDE || next.length > MOST_NUMBERS) return undefined;
  const matrix: Matrix = {
    rows,
    columns,
    values: differences(valuesOf(base, numbers), valuesOf(next, numbers)),
  };
  const exponents = exponentsOf(next, numbers);
  const rounding = roundingOf(exponents);
  const found = findComponents(matrix, rounding);
  if (found === undefined) return undefined;
  const energy = dot(matrix.values, matrix.values) / next.length;
  const isExact = found.rest < EXACT * rounding;
  let best: LowRank | undefined;
  let least = bitsOf(parts, undefined, scratch) - LEAST_SAVED_BITS * next.length;
  let worse = 0;
  const noise = energy * PRODUCT_ERROR ** 2;
  const components = isExact ? refine(matrix, exponents, found, noise) : found;
  const finest = Math.sqrt(found.rest) * (isExact ? FINE_EXACT : FINE);
  for (let error = Math.max(finest, Math.sqrt(noise)); worse < WORSE && error * error < energy; error *= 2) {
    const factors = toFactors(components, error);
    const bits = factors ? bitsOf(parts, factors, scratch) : Infinity;
    if (bits < least) [least, best, worse] = [bits, factors, 0];
    else if (best) worse += 1;
  }
  return best;
}

function differences(base: ArrayLike<number>, next: ArrayLike<number>): Float64Array {
  const values = new Float64Array(next.length);
  for (let k = 0; k < values.length; k += 1) values[k] = (next[k] as number) - (base[k] as number);
  return values;
}

/** Mean square of what rounding adds: a twelfth of the square of the last place. */
function roundingOf(exponents: Uint8ClampedArray): number {
  const counts = new Float64Array(256);
  for (const exponent of exponents) counts[exponent] = (counts[exponent] as number) + 1;
  const squares = counts.map((count, exponent) => count * lastPlace(exponent) ** 2);
  return squares.reduce((sum, square) => sum + square, 0) / (12 * exponents.length);
}

/** Bits that an update takes, about, by some of its rows. */
function bitsOf(parts: SourceParts, lowRank: LowRank | undefined, scratch: Scratch): number {
  const { columns, next } = parts;
  const { alphabet, rawBits, ...source } = createSource({ ...parts, lowRank }, scratch);
  const cells = new Uint32Array(64 * alphabet);
  const step = columns * Math.max(1, Math.floor(next.length / SAMPLE));
  let [count, bits] = [0, 0];
  for (let from = 0; from < next.length; from += step) {
    source.read(from, from + columns);
    for (let k = 0; k < columns; k += 1) {
      const symbol = source.symbols[k] as number;
      const cell = (((source.lowered[k] as number) >> 1) & 63) * alphabet + symbol;
      cells[cell] = (cells[cell] as number) + 1;
      bits += rawBits[symbol] as number;
    }
    count += columns;
  }
  bits += ownBits(toCounts(cells), alphabet);
  return (bits * next.length) / count + (lowRank ? factorBits(lowRank) : 0);
}

/** Bits of factors and their scales. */
export function factorBits(lowRank: LowRank): number {
  return 32 * lowRank.rank + ownBits(planeCounts(lowRank), 256);
}

/** Counts the bytes of factors, with a context for each byte of a number. */
export function planeCounts(lowRank: LowRank): Counts {
  const cells = new Uint32Array(256 * lowRank.width);
  planesOf(lowRank).forEach((plane, context) => {
    for (const byte of plane) cells[256 * context + byte] = (cells[256 * context + byte] as number) + 1;
  });
  return toCounts(cells);
}
