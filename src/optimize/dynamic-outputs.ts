/** Sums of integers back to floats. */

import { DTYPES, type DType } from '../core/dtype.ts';
import type { QuantizedInput } from './dynamic-inputs.ts';
import { addSteps, type Emitter, type Step } from './emitter.ts';
import type { WeightDType } from './weights.ts';

/**
 * Adds the nodes that turn int32 sums into floats of the type that the weights had, and give `output` after the steps
 * that follow.
 * @param weightScale - a float32 constant.
 */
export function addDequantized(
  sums: string,
  { scale, isScalar }: QuantizedInput,
  weightScale: string,
  dtype: WeightDType,
  following: readonly Step[],
  { add }: Emitter,
  output: string,
): void {
  const cast =
    (to: DType): Step =>
    (value, name) =>
      add('Cast', [value], { attributes: { to: DTYPES[to].onnx }, output: name });
  const times =
    (factor: string): Step =>
    (value, name) =>
      add('Mul', [value, factor], { output: name });
  // onnxruntime fuses the product of the scales, and takes it to be that of one scale for all rows whatever its shape.
  const factors = isScalar ? [add('Mul', [scale, weightScale])] : [weightScale, scale];
  addSteps(sums, output, [
    cast('float32'),
    ...factors.map(times),
    ...(dtype === 'float32' ? [] : [cast(dtype)]),
    ...following,
  ]);
}
