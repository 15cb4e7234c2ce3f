/** What operators do with floats of 16 bits. */

import { DTYPES } from '../core/dtype.ts';
import { attributeOf, intOf, isStandardOp } from '../onnx/scope.ts';
import type { NodeProto } from '../onnx/messages.ts';

/**
 * Standard operators that stay float32: those that `float16.py` of onnxruntime's transformers tools blocks, and those
 * whose floats are float32 by their schema or by an attribute.
 */
const FLOAT32_ONLY: ReadonlySet<string> = /* @__PURE__ */ new Set([
  ...[
    'NonMaxSuppression',
    'TopK',
    'RoiAlign',
    'Range',
    'CumSum',
    'Min',
    'Max',
    'Upsample',
    'RandomUniformLike',
  ],
  ...[
    'DynamicQuantizeLinear',
    'MelWeightMatrix',
    'BlackmanWindow',
    'HannWindow',
    'HammingWindow',
    'DFT',
    'STFT',
  ],
  ...['StringNormalizer', 'TfIdfVectorizer', 'ImageDecoder'],
]);

/** Operators with scales, which may be float16 from this opset on (onnx Changelog, QuantizeLinear-19). */
const SCALED: ReadonlyMap<string, number> = /* @__PURE__ */ new Map([
  ['QuantizeLinear', 19],
  ['DequantizeLinear', 19],
  ['QLinearConv', Infinity],
  ['QLinearMatMul', 21],
]);

/** Inputs that are float32 whatever the others are. */
const FLOAT32_INPUTS: Readonly<Record<string, readonly number[]>> = {
  Resize: [2],
  GroupNorm: [1, 2],
  SkipGroupNorm: [1, 2],
};

/** Outputs that are float32 whatever the others are: statistics of normalizations. */
const FLOAT32_OUTPUTS: Readonly<Record<string, readonly number[]>> = {
  LayerNormalization: [1, 2],
  SimplifiedLayerNormalization: [1],
  SkipLayerNormalization: [1, 2],
  SkipSimplifiedLayerNormalization: [1, 2],
};

/** Operators that make floats of the type that `dtype` names. */
const TYPED_BY_ATTRIBUTE: ReadonlySet<string> = /* @__PURE__ */ new Set([
  ...[
    'RandomNormal',
    'RandomNormalLike',
    'RandomUniform',
    'EyeLike',
    'Bernoulli',
    'Multinomial',
    'SequenceEmpty',
  ],
]);

/** Those of them that make float32 where there is no `dtype`. */
const FLOAT32_BY_DEFAULT: ReadonlySet<string> = /* @__PURE__ */ new Set([
  ...['RandomNormal', 'RandomUniform', 'SequenceEmpty'],
]);

/** Why an operator stays float32, one clause; `undefined` if it need not. */
export function whyFloat32(node: NodeProto, opset: number): string | undefined {
  const { opType = '', domain = '' } = node;
  if (domain === 'com.microsoft') {
    return opType.startsWith('QLinear') ||
      opType.endsWith('IntegerToFloat') ||
      opType === 'DynamicQuantizeMatMul'
      ? 'it computes with integers and float32 scales'
      : undefined;
  }
  if (domain === 'ai.onnx.ml') return 'operators of classical machine learning take float32';
  if (!isStandardOp(node)) return `its domain "${domain}" may know no float16`;
  const from = SCALED.get(opType);
  if (from !== undefined && opset < from) return `its scales are float32 in opset ${opset}`;
  if (opType === 'Constant' && attributeOf(node, 'sparse_value') !== undefined)
    return 'its constant is sparse';
  return FLOAT32_ONLY.has(opType) ? 'it has no float16 kernel that all backends share' : undefined;
}

/** Whether an input of an operator is float32 even where the operator computes in float16. */
export function isFloat32Input({ opType = '' }: NodeProto, index: number): boolean {
  return FLOAT32_INPUTS[opType]?.includes(index) ?? false;
}

/** Whether an output of an operator is float32 even where the operator computes in float16. */
export function isFloat32Output({ opType = '' }: NodeProto, index: number): boolean {
  return FLOAT32_OUTPUTS[opType]?.includes(index) ?? false;
}

/** float32 in `TensorProto.DataType`. */
export const FLOAT: number = DTYPES.float32.onnx;
/** float16 in `TensorProto.DataType`. */
export const FLOAT16: number = DTYPES.float16.onnx;

/** The attribute that names the type of what an operator makes, if that has to change. */
export function typeAttributeOf(node: NodeProto): 'to' | 'dtype' | undefined {
  const { opType = '' } = node;
  if (!isStandardOp(node)) return undefined;
  if (opType === 'Cast') return intOf(node, 'to', 0) === FLOAT ? 'to' : undefined;
  if (!TYPED_BY_ATTRIBUTE.has(opType)) return undefined;
  return intOf(node, 'dtype', FLOAT32_BY_DEFAULT.has(opType) ? FLOAT : 0) === FLOAT ? 'dtype' : undefined;
}
