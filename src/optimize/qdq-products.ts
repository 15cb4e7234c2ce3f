/** Operators that sum products with constant weights: what can be quantized of them, and the integers. */

import { Tensor } from '../core/tensor.ts';
import type { NodeProto, TensorProto } from '../onnx/messages.ts';
import { floatOf, intOf, type Scope } from '../onnx/scope.ts';
import { roundHalfEven } from './arithmetic.ts';
import { roleOf } from './qdq-rules.ts';
import { isExcluded, type StaticInt8, type TechniqueOptions } from './technique.ts';
import {
  applyScales,
  readWeights,
  scalesOf,
  weightDTypeOf,
  type QuantizedWeights,
  type WeightScales,
} from './weights.ts';

/** Constants of a node that sums products. */
export interface Product {
  readonly weights: string;
  /** Axis of the weights along which each index has a scale of its own. */
  readonly axis?: number;
  readonly bias?: string;
  /** Products that are summed for each element of the result. */
  readonly terms: number;
}

/** Finds the constants of a node that is to be quantized; `undefined` for all others. */
export function plannedProduct(
  node: NodeProto,
  scope: Scope,
  technique: StaticInt8,
  options: TechniqueOptions,
): Product | undefined {
  if (roleOf(node) !== 'product' || isExcluded(node, options)) return undefined;
  const product = productOf(node, scope, technique);
  return typeof product === 'object' ? product : undefined;
}

/** Finds the constants of a node, or says why it stays float. */
export function productOf(
  { input: [data = '', weights = '', bias = ''], ...node }: NodeProto,
  scope: Scope,
  { perChannel = true, depthwise = true }: StaticInt8,
): Product | string {
  if (scope.constant(data) !== undefined) return 'its input is constant';
  const constant = scope.constant(weights);
  if (constant === undefined) return 'its weights are not constant';
  const dtype = weightDTypeOf(constant);
  if (dtype !== 'float32') return `its weights are ${dtype ?? 'no floats'}`;
  const { dims } = constant;
  if (dims.includes(0)) return 'its weights are empty';
  const whole: NodeProto = { ...node, input: [data, weights, bias] };
  const group = intOf(whole, 'group', 1);
  switch (node.opType) {
    case 'ConvTranspose':
      return 'onnxruntime has no kernel with 8 bits for it';
    case 'Conv':
      if (!depthwise && group > 1 && dims[1] === 1) return 'it is depthwise, and those are to stay float';
      break;
    case 'MatMul':
      if (dims.length < 2) return 'its weights are a vector';
      break;
    default:
      if (intOf(whole, 'transA', 0) !== 0) return 'its input is transposed';
      if (floatOf(whole, 'alpha', 1) !== 1) return 'alpha is not 1';
      if (bias !== '' && floatOf(whole, 'beta', 1) !== 1) return 'beta is not 1';
  }
  const axis = channelAxis(whole, dims);
  if (bias !== '') {
    const reason = biasFault(scope.constant(bias), dims[axis ?? 0] ?? 0);
    if (reason !== undefined) return reason;
  }
  return {
    weights,
    terms:
      axis === undefined
        ? (dims.at(-2) ?? 1)
        : dims.reduce((terms, length, i) => (i === axis ? terms : terms * length), 1),
    ...(perChannel && axis !== undefined && { axis }),
    ...(bias !== '' && { bias }),
  };
}

/** Axis of the output channels; none where weights are stacks of matrices. */
function channelAxis(node: NodeProto, { length: rank }: readonly number[]): number | undefined {
  if (node.opType === 'Conv') return 0;
  if (rank !== 2) return undefined;
  return node.opType === 'Gemm' && intOf(node, 'transB', 0) !== 0 ? 0 : 1;
}

function biasFault(constant: TensorProto | undefined, channels: number): string | undefined {
  if (constant === undefined) return 'its bias is not constant';
  if (weightDTypeOf(constant) !== 'float32') return 'its bias is not float32';
  return constant.dims.length === 1 && constant.dims[0] === channels
    ? undefined
    : 'its bias is not one number for each channel';
}

/** A bias as integers of 32 bits, with zero point 0. */
export interface QuantizedBias {
  readonly values: Tensor<'int32'>;
  /** float32 `[]`, or `[channels]` where the weights have channels. */
  readonly scale: Tensor<'float32'>;
  readonly zeroPoint: Tensor<'int32'>;
}

const INT32_MAX = 2 ** 31 - 1;

/** Weights of a product as integers, and its bias if it has one. */
export interface QuantizedProduct {
  readonly weights: QuantizedWeights;
  readonly bias?: QuantizedBias;
  /** Scales of weights had to grow, since the bias would not fit otherwise. */
  readonly isAdjusted: boolean;
}

/**
 * Quantizes weights, and the bias in units of what the products are in: scale of the input times scale of the weights.
 * A scale of symmetric weights grows where the bias would not fit into 32 bits.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` for NaN and infinity.
 */
export function quantizeProduct(
  weights: TensorProto,
  bias: TensorProto | undefined,
  inputScale: number,
  { dtype, axis, isReduced }: { dtype: 'int8' | 'uint8'; axis?: number; isReduced: boolean },
): QuantizedProduct {
  const options = { dtype, isReduced, ...(axis !== undefined && { axis }) };
  const floats = readWeights(weights);
  const found = scalesOf(floats, options);
  if (bias === undefined) return { weights: applyScales(floats, found, options), isAdjusted: false };
  const { data: terms } = readWeights(bias);
  // Checks for NaN and infinity.
  scalesOf(readWeights(bias), { dtype: 'int8' });
  const isSymmetric = dtype === 'int8' || axis !== undefined;
  const scales = isSymmetric ? grown(found, terms, inputScale) : found.scales;
  const isAdjusted = scales !== found.scales;
  return {
    weights: applyScales(floats, isAdjusted ? { ...found, scales } : found, options),
    bias: quantizeBias(terms, scales, inputScale, axis !== undefined),
    isAdjusted,
  };
}

/** Scales that let each term of the bias fit into 32 bits; the same array if all do. */
function grown({ scales }: WeightScales, terms: Float32Array, inputScale: number): Float32Array {
  const largest = (channel: number): number =>
    scales.length > 1
      ? Math.abs(terms[channel] as number)
      : terms.reduce((most, term) => Math.max(most, Math.abs(term)), 0);
  const result = scales.map((scale, channel) => {
    const product = inputScale * scale;
    // A little more than needed, since the scale is rounded.
    const least = (1.0001 * largest(channel)) / INT32_MAX;
    return product > 0 && product < least ? scale * (least / product) : scale;
  });
  return result.every((scale, i) => scale === scales[i]) ? scales : result;
}

function quantizeBias(
  terms: Float32Array,
  scales: Float32Array,
  inputScale: number,
  isPerChannel: boolean,
): QuantizedBias {
  const scale = scales.map((one) => Math.fround(inputScale * one));
  const values = Int32Array.from(terms, (term, channel) => {
    const q = roundHalfEven(term / (scale[isPerChannel ? channel : 0] as number));
    return Math.min(Math.max(q, -INT32_MAX - 1), INT32_MAX);
  });
  const shape = isPerChannel ? [scale.length] : [];
  return {
    values: new Tensor('int32', [values.length], values),
    scale: new Tensor('float32', shape, scale),
    zeroPoint: new Tensor('int32', shape, new Int32Array(scale.length)),
  };
}
