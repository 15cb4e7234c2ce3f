/** How far answers of another precision lie from those of the reference. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES } from '../core/dtype.ts';
import { readElements, type Tensor } from '../core/tensor.ts';

/** How far answers lie from those that are expected. */
export interface Deviation {
  /** Why they cannot be compared, or which decisions differ, in words. */
  readonly mismatch: string | undefined;
  /** Largest error of an output of floats, taken as one vector: ‖expected − actual‖ / ‖expected‖. */
  readonly relative: number;
  /** The output with that error. */
  readonly output: string | undefined;
  /** Smallest absolute tolerance that lets every element pass beside a relative one, a ratio. */
  absoluteBeside(relative: number): number;
}

/** Measures how far answers lie from those that are expected. Elements that are no floats have to be the same. */
export function deviationOf(expected: TensorMap, actual: TensorMap): Deviation {
  let mismatch: string | undefined;
  let relative = 0;
  let output: string | undefined;
  const pairs: (readonly [readonly number[], readonly number[]])[] = [];
  for (const [name, before] of Object.entries(expected)) {
    const after = actual[name];
    if (after?.dtype !== before.dtype || after.shape.join() !== before.shape.join()) {
      const has = after === undefined ? 'is missing' : `is ${show(after)}`;
      mismatch ??= `output "${name}" ${has}, not ${show(before)}`;
    } else if (isFloat(before)) {
      const [a, b] = [numbersOf(before), numbersOf(after)];
      const error = relativeError(a, b);
      if (error > relative || Number.isNaN(error)) [relative, output] = [error, name];
      pairs.push([a, b]);
    } else {
      const differing = countDiffering(before, after);
      if (differing > 0) mismatch ??= `${differing} of ${before.size} elements of output "${name}" differ`;
    }
  }
  const absoluteBeside = (ratio: number): number =>
    largestOf(pairs, (a, b) => Math.abs(a - b) - ratio * Math.abs(a));
  return { mismatch, relative, output, absoluteBeside };
}

/** Formats a number for people. */
export function format(value: number): string {
  return String(Number(value.toPrecision(2)));
}

function isFloat({ dtype }: Tensor): boolean {
  const { kind, bits } = DTYPES[dtype];
  // Floats of 8 bits have no plain number form; they are compared bit by bit.
  return kind === 'complex' || (kind === 'float' && bits >= 16);
}

function numbersOf({ dtype, data, size }: Tensor): readonly number[] {
  return readElements(dtype, data, size) as readonly number[];
}

function countDiffering(a: Tensor, b: Tensor): number {
  const left = readElements(a.dtype, a.data, a.size);
  const right = readElements(b.dtype, b.data, b.size);
  return left.filter((element, i) => element !== right[i]).length;
}

function isSame(a: number, b: number): boolean {
  return a === b || (Number.isNaN(a) && Number.isNaN(b));
}

function relativeError(a: readonly number[], b: readonly number[]): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i += 1) {
    const [x, y] = [a[i] as number, b[i] as number];
    if (Number.isFinite(x)) norm += x * x;
    if (isSame(x, y)) continue;
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Infinity;
    error += (x - y) ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / norm);
}

function largestOf(
  pairs: readonly (readonly [readonly number[], readonly number[]])[],
  measure: (a: number, b: number) => number,
): number {
  let largest = 0;
  for (const [a, b] of pairs) {
    for (let i = 0; i < a.length; i += 1) {
      const [x, y] = [a[i] as number, b[i] as number];
      if (isSame(x, y)) continue;
      if (!Number.isFinite(x) || !Number.isFinite(y)) return Infinity;
      largest = Math.max(largest, measure(x, y));
    }
  }
  return largest;
}

function show({ dtype, shape }: Tensor): string {
  return `${dtype} [${shape.join(', ')}]`;
}
