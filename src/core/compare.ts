import type { TensorMap } from './backend.ts';
import type { DType } from './dtype.ts';
import { fromBfloat16Bits, fromFloat16Bits } from './float.ts';
import type { Tensor } from './tensor.ts';

/** How far two floats may lie apart and still count as equal: |a − b| ≤ absolute · max(1, largest) + relative · |a|. */
export interface Tolerance {
  readonly absolute: number;
  readonly relative: number;
}

/** What arithmetic in another order may change of float32 results. */
const ROUNDING: Tolerance = { absolute: 1e-4, relative: 1e-3 };

/**
 * Compares results with what was expected.
 * @param tolerance - for floats; other values have to be equal. NaN equals NaN.
 * @returns `undefined` if they agree, otherwise the first difference in words.
 */
export function difference(
  expected: TensorMap,
  actual: TensorMap,
  tolerance: Tolerance = ROUNDING,
): string | undefined {
  for (const name of Object.keys(expected)) {
    const found = differenceOf(expected[name] as Tensor, actual[name], tolerance);
    if (found !== undefined) return `output "${name}" ${found}`;
  }
  return undefined;
}

function differenceOf(
  expected: Tensor,
  actual: Tensor | undefined,
  tolerance: Tolerance,
): string | undefined {
  if (actual === undefined) return 'is missing';
  if (expected.dtype !== actual.dtype) return `is ${actual.dtype}, not ${expected.dtype}`;
  if (expected.shape.join() !== actual.shape.join())
    return `has shape [${actual.shape.join(', ')}], not [${expected.shape.join(', ')}]`;
  const a: ArrayLike<unknown> = expected.data;
  const b: ArrayLike<unknown> = actual.data;
  const read = FLOATS[expected.dtype];
  if (read === undefined) {
    for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return `differs at element ${i}`;
    return undefined;
  }
  let largest = 1;
  for (let i = 0; i < a.length; i += 1) {
    const size = Math.abs(read(a[i] as number));
    if (size > largest && size < Infinity) largest = size;
  }
  for (let i = 0; i < a.length; i += 1) {
    const [x, y] = [read(a[i] as number), read(b[i] as number)];
    if (Object.is(x, y) || x === y) continue;
    const allowed = tolerance.absolute * largest + tolerance.relative * Math.abs(x);
    if (!(Math.abs(x - y) <= allowed)) return `differs at element ${i} by ${Math.abs(x - y).toPrecision(2)}`;
  }
  return undefined;
}

const same = (value: number): number => value;
const FLOATS: Readonly<Partial<Record<DType, (stored: number) => number>>> = {
  float32: same,
  float64: same,
  complex64: same,
  complex128: same,
  float16: fromFloat16Bits,
  bfloat16: fromBfloat16Bits,
};
