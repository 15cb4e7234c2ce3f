/** Convolutions over integers. */

import { Tensor } from '../core/tensor.ts';
import type { NodeProto } from '../onnx/messages.ts';
import { intOf, labelOf, type Scope } from '../onnx/scope.ts';
import type { DynamicInputs } from './dynamic-inputs.ts';
import { addDequantized } from './dynamic-outputs.ts';
import { createEmitter, type Step } from './emitter.ts';
import { readWeightUse, type WeightUse } from './products.ts';
import type { DynamicInt8 } from './technique.ts';
import type { Outcome, WeightEdit } from './weight-rewrite.ts';
import { quantizeWeights } from './weights.ts';

/**
 * Rewrites a `Conv` to `ConvInteger`. Weights are uint8 with one zero point, since onnxruntime has neither a fast kernel
 * for others nor one for a zero point per channel. In row mode the rows are whole samples.
 */
export function rewriteConvolution(
  node: NodeProto,
  edit: WeightEdit,
  inputs: DynamicInputs,
  { mode, perChannel, reduceRange }: Required<Pick<DynamicInt8, 'mode' | 'perChannel' | 'reduceRange'>>,
): Outcome {
  const weights = readConvolution(node, edit.scope);
  if (typeof weights === 'string') return { kept: weights };
  const { value, shape, dtype } = weights;
  const spatial = shape.slice(2).map(() => 1);
  const constants = edit.once(weights, perChannel ? 'uint8 channels' : 'uint8', (floats) => {
    const { values, scale, zeroPoint } = quantizeWeights(floats, {
      dtype: 'uint8',
      isReduced: reduceRange,
      ...(perChannel && { axis: 0 }),
    });
    const factors = perChannel ? new Tensor('float32', [...scale.shape, ...spatial], scale.data) : scale;
    return {
      values: edit.constant(`${value}_quantized`, values),
      scale: edit.constant(`${value}_scale`, factors),
      zeroPoint: edit.constant(`${value}_zero_point`, zeroPoint),
    };
  });
  const emitter = createEmitter(edit, labelOf(node));
  const [given = '', , bias = ''] = node.input;
  const input = dtype === 'float32' ? given : inputs.toFloat32(given, emitter, edit.scope);
  const axes = mode === 'row' ? shape.slice(1).map((_, at) => at + 1) : undefined;
  const x = inputs.quantize(input, axes, emitter, edit);
  const sums = emitter.add('ConvInteger', [x.values, constants.values, x.zeroPoint, constants.zeroPoint]);
  const convolution = emitter.nodes.pop();
  if (convolution !== undefined) emitter.nodes.push({ ...convolution, attribute: node.attribute });
  const following: Step[] = [];
  if (bias !== '') {
    const dims = edit.derive(`bias shape ${spatial.length}`, () =>
      edit.constant(
        'bias_shape',
        new Tensor('int64', [spatial.length + 2], BigInt64Array.from([1, -1, ...spatial], BigInt)),
      ),
    );
    const shaped = emitter.add('Reshape', [bias, dims]);
    following.push((sum, output) => emitter.add('Add', [sum, shaped], { output }));
  }
  addDequantized(sums, x, constants.scale, dtype, following, emitter, node.output[0] ?? '');
  return { nodes: emitter.nodes, reason: 'ConvInteger with weights of 8 bits' };
}

function readConvolution(node: NodeProto, scope: Scope): WeightUse | string {
  const weights = readWeightUse(node.input[1] ?? '', scope);
  if (typeof weights === 'string') return weights;
  const { shape } = weights;
  if (shape.length < 3) return `its weights have ${shape.length} axes`;
  return intOf(node, 'group', 1) > 1 && shape[1] === 1
    ? 'it is depthwise, which is faster in float'
    : weights;
}
