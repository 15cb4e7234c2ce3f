/** LSTMs over integers. */

import { Tensor } from '../core/tensor.ts';
import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { intOf, type Scope } from '../onnx/scope.ts';
import { readWeightUse, type WeightUse } from './products.ts';
import type { DynamicInt8, Int8, Rewritten, TechniqueOptions } from './technique.ts';
import { rewriteWeights, type Outcome, type WeightEdit } from './weight-rewrite.ts';
import { quantizeWeights, transposeBytes, type Weights } from './weights.ts';

type Settings = Required<Pick<DynamicInt8, 'mode' | 'weights' | 'perChannel' | 'reduceRange'>>;

/** Names of the constants that one of the two weights becomes. */
type Constants = Record<'values' | 'scale' | 'zeroPoint', string>;

/**
 * Rewrites an `LSTM` to `com.microsoft::DynamicQuantizeLSTM` (onnxruntime docs/ContribOperators.md). It takes one scale
 * for a whole batch, so that in row mode it stays as it is.
 */
export function rewriteLstm(node: NodeProto, edit: WeightEdit, settings: Settings): Outcome {
  if (settings.mode === 'row') return { kept: 'its integer form makes rows depend on those beside them' };
  if (intOf(node, 'layout', 0) !== 0) return { kept: 'its batch comes first' };
  const uses = [node.input[1] ?? '', node.input[2] ?? ''].map((value) => readFloats(value, edit.scope));
  const [inputUse = '', recurrentUse = ''] = uses;
  if (typeof inputUse === 'string') return { kept: inputUse };
  if (typeof recurrentUse === 'string') return { kept: recurrentUse };
  const [input, recurrent] = [addGates(inputUse, edit, settings), addGates(recurrentUse, edit, settings)];
  const others = Array.from({ length: 5 }, (_, at) => node.input[3 + at] ?? '');
  return {
    nodes: [
      {
        ...node,
        opType: 'DynamicQuantizeLSTM',
        domain: 'com.microsoft',
        attribute: node.attribute.filter(({ name }) => name !== 'layout'),
        input: [
          node.input[0] ?? '',
          input.values,
          recurrent.values,
          ...others,
          ...[input.scale, input.zeroPoint, recurrent.scale, recurrent.zeroPoint],
        ],
      },
    ],
    reason: `DynamicQuantizeLSTM with ${settings.weights} weights`,
  };
}

/** Rewrites the LSTMs of a model as {@link rewriteLstm} does, and nothing else. */
export function quantizeLstms(
  model: ModelProto,
  settings: Pick<Settings, 'reduceRange'>,
  options: TechniqueOptions,
): Rewritten {
  const tensors: Settings = { mode: 'tensor', weights: 'int8', perChannel: true, ...settings };
  const rewriters = { LSTM: (node: NodeProto, edit: WeightEdit) => rewriteLstm(node, edit, tensors) };
  return rewriteWeights(model, rewriters, options, { opsets: { 'com.microsoft': 1 } });
}

function readFloats(value: string, scope: Scope): WeightUse | string {
  const use = readWeightUse(value, scope);
  if (typeof use === 'string') return use;
  return use.dtype === 'float32' && use.shape.length === 3 ? use : 'its weights are not float32';
}

/** Adds weights `[directions, gates, inputs]` as integers `[directions, inputs, gates]`. */
function addGates(
  use: WeightUse,
  edit: WeightEdit,
  { weights: dtype, perChannel, reduceRange }: Settings,
): Constants {
  return edit.once(use, `${dtype} gates`, ({ data, ...rest }: Weights) => {
    const [directions = 0, gates = 0, inputs = 0] = use.shape;
    const bytes = new Uint8Array(data.length);
    const scales: number[] = [];
    const zeroPoints: number[] = [];
    const size = gates * inputs;
    for (let at = 0; at < directions; at += 1) {
      const matrix = { ...rest, shape: [gates, inputs], data: data.subarray(at * size, (at + 1) * size) };
      const { values, scale, zeroPoint } = quantizeWeights(matrix, {
        dtype,
        isReduced: reduceRange,
        ...(perChannel && { axis: 0 }),
      });
      const { buffer } = transposeBytes(values).data;
      bytes.set(new Uint8Array(buffer), at * size);
      scales.push(...scale.data);
      for (const _ of scale.data) zeroPoints.push(zeroPoint.data[0] as number);
    }
    const each = perChannel ? [directions, gates] : [directions];
    return {
      values: edit.constant(`${use.value}_quantized`, int8Tensor(dtype, [directions, inputs, gates], bytes)),
      scale: edit.constant(`${use.value}_scale`, new Tensor('float32', each, Float32Array.from(scales))),
      zeroPoint: edit.constant(
        `${use.value}_zero_point`,
        int8Tensor(dtype, each, Uint8Array.from(zeroPoints)),
      ),
    };
  });
}

function int8Tensor(dtype: Int8, shape: readonly number[], bytes: Uint8Array<ArrayBuffer>): Tensor<Int8> {
  return dtype === 'int8'
    ? new Tensor('int8', shape, new Int8Array(bytes.buffer))
    : new Tensor('uint8', shape, bytes);
}
