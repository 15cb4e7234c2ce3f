/** Two thin matrices of whole numbers, whose product is added to a tensor (docs/spec/idp.md §2). */
import { MAX_FACTOR_BYTES } from '../../update/delta/bounds.ts';
import type { Components } from './components.ts';
import { dot, vectorsOf } from './thin.ts';

/** Both matrices, the left one first, in C order. */
export interface LowRank {
  readonly rank: number;
  /** Bytes of a number. */
  readonly width: number;
  readonly rows: number;
  readonly columns: number;
  /** Of each product of a column of the left one and a row of the right one. */
  readonly scales: Float32Array;
  readonly factors: Int32Array;
}

/** Largest number of a factor. */
const MOST: number = 2 ** (8 * MAX_FACTOR_BYTES - 1) - 1;

/**
 * Rounds components to whole numbers.
 * @param error - about how far each of the two roundings moves a number of the product, steps from one to the next.
 * @returns `undefined` if a scale has no float32.
 */
export function toFactors({ rank, left, right }: Components, error: number): LowRank | undefined {
  const [rows, columns] = [left.length / rank, right.length / rank];
  const scales = new Float32Array(rank);
  const factors = new Int32Array(rank * (rows + columns));
  const rights = vectorsOf(right, columns);
  let most = 0;
  const round = (value: number): number => {
    const whole = Math.max(-MOST, Math.min(MOST, Math.round(value)));
    most = Math.max(most, whole < 0 ? -whole - 1 : whole);
    return whole;
  };
  vectorsOf(left, rows).forEach((vector, k) => {
    const other = rights[k] as Float64Array;
    const step = stepOf(vector, other, error);
    const scale = Math.fround(step * stepOf(other, vector, error));
    scales[k] = scale;
    vector.forEach((value, i) => {
      factors[i * rank + k] = round(value / step);
    });
    other.forEach((value, j) => {
      factors[rank * rows + k * columns + j] = round(value * (step / scale));
    });
  });
  if (!scales.every((scale) => scale > 0 && scale < Infinity)) return undefined;
  return { rank, width: Math.floor((40 - Math.clz32(most)) / 8), rows, columns, scales, factors };
}

/** A step that moves products as asked, or the finest that leaves whole numbers of four bytes. */
function stepOf(vector: Float64Array, other: Float64Array, error: number): number {
  const top = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return Math.max((error * Math.sqrt(other.length)) / Math.sqrt(dot(other, other)), top / MOST);
}

/** The bytes of both matrices: the highest of each number first, then the next ones. */
export function planesOf({ width, factors }: LowRank): readonly Uint8Array[] {
  return Array.from(
    { length: width },
    (_, plane) => new Uint8Array(factors.map((value) => value >> (8 * (width - 1 - plane)))),
  );
}

/** Adds the product to a run of numbers of the base that begins at `from`, as decoders do. */
export function addProduct(
  { rank, rows, columns, scales, factors }: LowRank,
  from: number,
  run: Float32Array,
): void {
  const sums = new Float64Array(run.length);
  for (let start = 0; start < run.length;) {
    const row = Math.floor((from + start) / columns);
    const end = Math.min(run.length, (row + 1) * columns - from);
    for (let k = 0; k < rank; k += 1) {
      const left = (factors[row * rank + k] as number) * (scales[k] as number);
      const right = rank * rows + k * columns + from - row * columns;
      for (let i = start; i < end; i += 1) {
        sums[i] = (sums[i] as number) + left * (factors[right + i] as number);
      }
    }
    start = end;
  }
  for (let i = 0; i < run.length; i += 1) run[i] = (run[i] as number) + (sums[i] as number);
}
