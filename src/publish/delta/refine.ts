/** Fits components to numbers that were rounded: those near 0, whose last place is a small one, tell most. */
import type { Components } from './components.ts';
import { lastPlace } from './numbers.ts';
import { combine, dot, eigenOf, gram, orthonormalize, type Matrix } from './thin.ts';

/** What the noise is taken for in each turn, times what it is: less and less, which ends sooner. */
const TURNS: readonly number[] = [64, 8];
/** Numbers of a row that are looked at, of those that tell most: for each unknown, but not many in all; then fewer. */
const NUMBERS_EACH = 16;
const MANY_NUMBERS = 256;
const LEAST_EACH = 4;

/**
 * Fits the components to a matrix again, each number weighed by how finely it was rounded (weighted least squares, the
 * left and the right vectors in turns).
 * @param exponents - exponent fields of float32 numbers whose last places are those that it was rounded to.
 * @param noise - mean square of what else than their rounding is in the numbers.
 */
export function refine(
  matrix: Matrix,
  exponents: Uint8ClampedArray,
  components: Components,
  noise: number,
): Components {
  const { rows, columns } = matrix;
  const upright = { matrix, exponents };
  const turned = {
    matrix: { rows: columns, columns: rows, values: transpose(matrix.values, rows, columns) },
    exponents: transpose(exponents, rows, columns),
  };
  let { left, right } = components;
  let weights = new Float64Array(256);
  for (const times of TURNS) {
    weights = weights.map((_, exponent) => 1 / Math.sqrt(lastPlace(exponent) ** 2 + times * noise));
    left = solve(upright, weights, right);
    orthonormalize(left, rows);
    right = solve(turned, weights, left);
    orthonormalize(right, columns);
  }
  left = solve(upright, weights, right);
  const { vectors } = eigenOf(gram(left, rows), components.rank);
  return {
    ...components,
    left: combine(left, rows, vectors),
    right: combine(right, columns, vectors),
  };
}

interface Weighed {
  readonly matrix: Matrix;
  readonly exponents: Uint8ClampedArray;
}

/** @returns for each row the factors of the vectors that come nearest to it. */
function solve(
  { matrix: { rows, columns, values }, exponents }: Weighed,
  weights: Float64Array,
  vectors: Float64Array,
): Float64Array {
  const rank = vectors.length / columns;
  const found = new Float64Array(rows * rank);
  const normal = new Float64Array(rank * rank);
  const unknowns = new Float64Array(rank);
  const points = new Float64Array(rank * columns);
  const goals = new Float64Array(columns);
  const places = new Uint32Array(columns);
  const wanted = Math.max(LEAST_EACH * rank, Math.min(NUMBERS_EACH * rank, MANY_NUMBERS));
  for (let i = 0, start = 0; i < rows; i += 1, start += columns) {
    const count = pickFinest(exponents.subarray(start, start + columns), wanted, places);
    for (let c = 0; c < count; c += 1) {
      const j = places[c] as number;
      const weight = weights[exponents[start + j] as number] as number;
      goals[c] = weight * (values[start + j] as number);
      for (let k = 0; k < rank; k += 1)
        points[k * columns + c] = weight * (vectors[k * columns + j] as number);
    }
    for (let k = 0; k < rank; k += 1) {
      unknowns[k] = dot(points, goals, k * columns, 0, count);
      for (let l = 0; l <= k; l += 1) {
        normal[k * rank + l] = dot(points, points, k * columns, l * columns, count);
      }
    }
    solveNormal(normal, unknowns);
    for (let k = 0; k < rank; k += 1) found[k * rows + i] = unknowns[k] as number;
  }
  return found;
}

/** Finds the numbers of the smallest exponents, `least` of them or some more. @returns how many. */
function pickFinest(exponents: Uint8ClampedArray, least: number, places: Uint32Array): number {
  const counts = new Uint32Array(256);
  for (const exponent of exponents) counts[exponent] = (counts[exponent] as number) + 1;
  let [most, seen] = [0, counts[0] as number];
  while (seen < least && most < 255) seen += counts[(most += 1)] as number;
  let count = 0;
  for (let j = 0; j < exponents.length; j += 1) {
    if ((exponents[j] as number) > most) continue;
    places[count] = j;
    count += 1;
  }
  return count;
}

/** Solves a symmetric system in place (Cholesky). What is not determined becomes 0. */
function solveNormal(a: Float64Array, x: Float64Array): void {
  const size = x.length;
  const at = (i: number, j: number): number => a[i * size + j] as number;
  for (let i = 0; i < size; i += 1) {
    const own = at(i, i);
    for (let j = 0; j <= i; j += 1) {
      let sum = at(i, j);
      for (let k = 0; k < j; k += 1) sum -= at(i, k) * at(j, k);
      if (j < i) a[i * size + j] = sum * at(j, j);
      // The diagonal holds what is divided by.
      else a[i * size + i] = sum > own * 1e-14 ? 1 / Math.sqrt(sum) : 0;
    }
  }
  for (let i = 0; i < size; i += 1) {
    let sum = x[i] as number;
    for (let k = 0; k < i; k += 1) sum -= at(i, k) * (x[k] as number);
    x[i] = sum * at(i, i);
  }
  for (let i = size - 1; i >= 0; i -= 1) {
    let sum = x[i] as number;
    for (let k = i + 1; k < size; k += 1) sum -= at(k, i) * (x[k] as number);
    x[i] = sum * at(i, i);
  }
}

function transpose<Values extends Float64Array | Uint8ClampedArray>(
  values: Values,
  rows: number,
  columns: number,
): Values {
  const turned = values.slice() as Values;
  for (let i = 0, at = 0; i < rows; i += 1) {
    for (let j = 0, to = i; j < columns; j += 1, at += 1, to += rows) turned[to] = values[at] as number;
  }
  return turned;
}
