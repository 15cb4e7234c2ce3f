/** Whether two releases answer a call alike, where nobody knows the right answer. */

import type { TensorMap } from '../core/backend.ts';
import { readElements, type Tensor } from '../core/tensor.ts';
import { compareGolden } from './golden.ts';
import type { GoldenTolerance } from './manifest.ts';

/** How far floats of two releases may be apart where the release brings no tolerance of its own. */
export const USUAL_TOLERANCE: GoldenTolerance = { absoluteE6: 10_000, relativeE6: 50_000 };

/**
 * Compares what a release gave with what another one answered.
 *
 * - Floats of one axis or two, `[classes]` or `[batch, classes]` with two classes or more, count as class scores: in each
 *   row the largest has to be the same, whatever the scores are. A number that is not finite is alike to nothing else.
 * - Other floats may differ as golden outputs may, and everything else is exact.
 * - An output that is missing, or has another dtype or shape, is not alike; one that only `actual` has does not count.
 */
export function isAlike(actual: TensorMap, expected: TensorMap, tolerance: GoldenTolerance): boolean {
  return Object.entries(expected).every(([name, want]) => {
    const got = Object.hasOwn(actual, name) ? actual[name] : undefined;
    if (got === undefined) return false;
    return areScores(want) && areScores(got) && isSameForm(got, want)
      ? haveSameClasses(got, want)
      : compareGolden({ [name]: got }, { [name]: want }, tolerance) === undefined;
  });
}

const scoreTypes: ReadonlySet<string> = new Set(['float16', 'bfloat16', 'float32', 'float64']);

function areScores({ dtype, shape }: Tensor): boolean {
  return scoreTypes.has(dtype) && shape.length >= 1 && shape.length <= 2 && (shape.at(-1) ?? 0) >= 2;
}

function isSameForm(a: Tensor, b: Tensor): boolean {
  return a.dtype === b.dtype && a.shape.join() === b.shape.join();
}

function haveSameClasses(got: Tensor, want: Tensor): boolean {
  const [a, b] = [got, want].map(({ dtype, data, size }) => readElements(dtype, data, size).map(Number));
  const classes = want.shape.at(-1) ?? 1;
  if (a === undefined || b === undefined) return false;
  for (let row = 0; row < b.length; row += classes) {
    let best = row;
    let other = row;
    for (let i = row; i < row + classes; i += 1) {
      const [x = Number.NaN, y = Number.NaN] = [a[i], b[i]];
      if (Number.isFinite(x) !== Number.isFinite(y)) return false;
      if (x > (a[other] ?? x)) other = i;
      if (y > (b[best] ?? y)) best = i;
    }
    if (best !== other) return false;
  }
  return true;
}
