/**
 * Quantizing an activation row by row, with standard operators: what a row becomes does not depend on the rows beside
 * it, where `DynamicQuantizeLinear` takes one scale for all.
 */

import { Tensor, tensorFrom } from '../core/tensor.ts';
import type { Edit } from '../onnx/rewrite.ts';
import type { QuantizedInput } from './dynamic-inputs.ts';
import type { Emitter } from './emitter.ts';

/** Largest magnitude of a quantized activation: the same on both sides of the zero point. */
const LARGEST = 127;
/** Rows of zeros are divided by it. */
const SMALLEST_SCALE = 1e-12;
const ZERO_POINT = 128;
/** From this opset on, `ReduceMax` takes its axes as an input. */
const AXES_AS_INPUT = 18;

/**
 * Adds the nodes that quantize a float32 value by one scale for each row: `s = max(max|x| / 127, 1e-12)` over the axes,
 * `q = round(x / s) + 128`.
 */
export function addRowInput(
  value: string,
  axes: readonly number[],
  { add }: Emitter,
  edit: Pick<Edit, 'constant' | 'derive'>,
  opset: number,
): QuantizedInput {
  const constant = (stem: string, make: () => Tensor): string =>
    edit.derive(`row ${stem}`, () => edit.constant(stem, make()));
  const float = (stem: string, number: number): string => constant(stem, () => tensorFrom('float32', number));
  const list = (stem: string, numbers: readonly number[]): string =>
    constant(`${stem}_${numbers.join('_')}`, () => tensorFrom('int64', numbers.map(BigInt)));
  const zeroPoint = constant('row_zero_point', () => tensorFrom('uint8', ZERO_POINT));
  const magnitude = add('Abs', [value]);
  const largest =
    opset >= AXES_AS_INPUT
      ? add('ReduceMax', [magnitude, list('row_axes', axes)])
      : add('ReduceMax', [magnitude], { attributes: { axes } });
  // Counted from the end, an axis of a batch without rows keeps its length in onnxruntime 1.30.
  const kept = axes.some((axis) => axis < 0)
    ? add('Slice', [
        largest,
        list(
          'row_start',
          axes.map(() => 0),
        ),
        list(
          'row_end',
          axes.map(() => 1),
        ),
        list('row_axes', axes),
      ])
    : largest;
  const ratio = add('Div', [kept, float('row_largest', LARGEST)]);
  const scale = add('Max', [ratio, float('row_smallest_scale', SMALLEST_SCALE)]);
  const scaled = add('Div', [value, scale]);
  const values = add('QuantizeLinear', [scaled, float('row_unit', 1), zeroPoint]);
  return { values, scale, zeroPoint, isScalar: false };
}
