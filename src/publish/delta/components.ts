/** Finds the few directions that a matrix is made of, where they are few. */
import { createRandom } from '../../stats/random.ts';
import { MAX_FACTORS, MAX_RANK } from '../../update/delta/bounds.ts';
import {
  combine,
  dot,
  eigenOf,
  gram,
  multiply,
  multiplyTransposed,
  orthonormalize,
  vectorsOf,
  type Matrix,
} from './thin.ts';

/** Vectors whose products of column and row add up to about a matrix. */
export interface Components {
  readonly rank: number;
  /** As long as columns, one after the other. */
  readonly left: Float64Array;
  /** As long as rows, one after the other; orthonormal. */
  readonly right: Float64Array;
  /** Mean square of what is left of each number. */
  readonly rest: number;
}

/** Vectors that are tried first. */
const LEAST_WIDTH = 8;
/** Vectors beyond the rank that is looked for. */
const SPARE = 8;
/** Bits of a number of a factor, besides those by which it exceeds what is left. */
const FACTOR_BITS = 6;
/** Bits of each number of the matrix that have to be saved: devices take about a nanosecond for each number and rank. */
export const LEAST_SAVED_BITS = 1;
/** Rows and columns that tell whether a matrix may be of exactly a low rank. */
const SAMPLE = 96;

/**
 * Finds the components that save more bits than they take: those of most energy (Halko, Martinsson, Tropp, "Finding
 * structure with randomness", SIAM Review 53, 2011, algorithms 4.4 and 5.1; the numbers are seeded).
 * @param floor - mean square that rounding leaves in any case.
 * @returns `undefined` if there are none.
 */
export function findComponents(matrix: Matrix, floor: number): Components | undefined {
  const { rows, columns, values } = matrix;
  const energy = dot(values, values);
  const most = Math.min(MAX_RANK, Math.floor(MAX_FACTORS / (rows + columns)), rows >> 1, columns >> 1);
  if (most === 0 || !(energy > 0 && energy < Infinity)) return undefined;
  const widest = Math.min(most + SPARE, rows, columns);
  const guessed = guessRank(matrix, most);
  let width = Math.min(widest, guessed === 0 ? LEAST_WIDTH : guessed + SPARE);
  for (;;) {
    const right = rangeOf(matrix, width);
    const left = multiply(matrix, right);
    const { values: squares, vectors } = eigenOf(gram(left, rows), width);
    const { rank, rest, savedBits } = rankOf(matrix, energy, squares.subarray(0, most), floor);
    if (savedBits < LEAST_SAVED_BITS * values.length) return undefined;
    if (rank + SPARE / 2 <= width || width === widest) {
      const chosen = vectors.subarray(0, rank * width);
      return { rank, rest, left: combine(left, rows, chosen), right: combine(right, columns, chosen) };
    }
    width = Math.min(widest, 2 * width);
  }
}

/** @returns orthonormal vectors, as long as rows, that span about what the rows of most energy do. */
function rangeOf(matrix: Matrix, width: number): Float64Array {
  const random = createRandom(1);
  const left = multiply(
    matrix,
    Float64Array.from({ length: width * matrix.columns }, () => random() - 0.5),
  );
  orthonormalize(left, matrix.rows);
  const right = multiplyTransposed(matrix, left);
  orthonormalize(right, matrix.columns);
  return right;
}

/** Weighs the bits that each further component takes off all numbers against those that it takes. */
function rankOf(
  { rows, columns }: Matrix,
  energy: number,
  squares: Float64Array,
  floor: number,
): { readonly rank: number; readonly rest: number; readonly savedBits: number } {
  const count = rows * columns;
  const bitsOf = (square: number): number => Math.log2(square + floor) / 2;
  const whole = count * bitsOf(energy / count);
  let best = { rank: 0, rest: energy / count, savedBits: 0 };
  let left = energy;
  let levels = 0;
  squares.forEach((square, k) => {
    left = Math.max(0, left - square);
    levels += bitsOf(square / count);
    const rest = left / count;
    const bits = count * bitsOf(rest) + (rows + columns) * (levels + (k + 1) * (FACTOR_BITS - bitsOf(rest)));
    if (whole - bits > best.savedBits) best = { rank: k + 1, rest, savedBits: whole - bits };
  });
  return best;
}

/**
 * Guesses the rank of a matrix that is exactly of a low one but for rounding: Gaussian elimination with complete pivoting
 * of some of its rows and columns falls off a cliff there.
 */
function guessRank({ rows, columns, values }: Matrix, most: number): number {
  const [height, width] = [Math.min(SAMPLE, rows), Math.min(SAMPLE, columns)];
  const a = vectorsOf(new Float64Array(height * width), width);
  a.forEach((row, i) => {
    const start = Math.floor((i * rows) / height) * columns;
    for (let j = 0; j < width; j += 1) row[j] = values[start + Math.floor((j * columns) / width)] as number;
  });
  let [rank, least, levels] = [0, Infinity, 0];
  const end = Math.min(most + 1, Math.floor((2 * Math.min(height, width)) / 3));
  for (let k = 0; k <= end; k += 1) {
    let [squares, top, p, q] = [0, 0, k, k];
    for (let i = k; i < height; i += 1) {
      for (let j = k; j < width; j += 1) {
        const value = (a[i] as Float64Array)[j] as number;
        squares += value * value;
        if (Math.abs(value) > top) [top, p, q] = [Math.abs(value), i, j];
      }
    }
    if (top === 0) return k;
    const level = Math.log2(squares / ((height - k) * (width - k))) / 2;
    const bits = rows * columns * level + (rows + columns) * (levels + k * (FACTOR_BITS - level));
    if (bits < least) [least, rank] = [bits, k];
    levels += level;
    eliminate(a, k, p, q);
  }
  return rank;
}

function eliminate(a: Float64Array[], k: number, p: number, q: number): void {
  const pivot = a[p] as Float64Array;
  [a[k], a[p]] = [pivot, a[k] as Float64Array];
  for (const row of a) [row[k], row[q]] = [row[q] as number, row[k] as number];
  for (const row of a.slice(k + 1)) {
    const factor = (row[k] as number) / (pivot[k] as number);
    for (let j = k; j < row.length; j += 1) row[j] = (row[j] as number) - factor * (pivot[j] as number);
  }
}
