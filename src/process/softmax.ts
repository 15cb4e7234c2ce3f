import { toFloat16Bits } from '../core/float.ts';
import { InputError } from '../core/errors.ts';
import type { DTypeStorage } from '../core/dtype.ts';
import { Tensor } from '../core/tensor.ts';
import { eachLane, lanesOf, numbersOf } from './elements.ts';

/** Which axis a function works along. */
export interface AxisOptions {
  /** Negative numbers count from the end. Default -1: the last. */
  readonly axis?: number;
}

/**
 * Turns scores into shares that sum to 1 along an axis, whatever their size: the largest is subtracted first.
 *
 * float16 is computed in float64 and rounded once. A lane that holds NaN or +∞, or nothing but −∞, gives NaN.
 * @returns a new tensor of the same dtype and shape.
 * @throws {@link InputError} `ERR_INLAY_FEED_DTYPE` for other dtypes, `RangeError` for an axis that there is not.
 * @example
 * import { softmax } from 'inlay/process';
 * const shares = softmax(new Tensor('float32', [1, 3], new Float32Array([1, 2, 3])));
 */
export function softmax<D extends 'float32' | 'float64' | 'float16'>(
  tensor: Tensor<D>,
  { axis = -1 }: AxisOptions = {},
): Tensor<D> {
  const values = numbersOf(tensor);
  const { dtype, shape } = tensor;
  if (dtype !== 'float32' && dtype !== 'float64' && dtype !== 'float16') {
    throw new InputError(
      'ERR_INLAY_FEED_DTYPE',
      `softmax takes float16, float32 or float64, got ${String(dtype)}.`,
      {
        details: { dtype },
      },
    );
  }
  const lanes = lanesOf(shape, axis);
  const { length, inner } = lanes;
  const shares = new Float64Array(values.length);
  eachLane(lanes, (first) => {
    const end = first + length * inner;
    let most = -Infinity;
    for (let at = first; at < end; at += inner) most = Math.max(most, values[at] as number);
    let sum = 0;
    for (let at = first; at < end; at += inner) {
      const power = Math.exp((values[at] as number) - most);
      shares[at] = power;
      sum += power;
    }
    for (let at = first; at < end; at += inner) shares[at] = (shares[at] as number) / sum;
  });
  const data =
    dtype === 'float16'
      ? Uint16Array.from(shares, toFloat16Bits)
      : dtype === 'float32'
        ? Float32Array.from(shares)
        : shares;
  return new Tensor<D>(tensor.dtype, shape, data as DTypeStorage[D]);
}
