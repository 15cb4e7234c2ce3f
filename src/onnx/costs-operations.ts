/** How much arithmetic operators do, from the shapes of what they read and give. */

import type { NodeProto } from './messages.ts';
import { attributeOf, intOf, intsOf } from './scope.ts';

/** What one run of a node computes. */
export interface Work {
  /** Products that are added up. */
  readonly macs: number;
  /** Operations on numbers: two for each of those products, and one for each other step of an element. */
  readonly flops: number;
}

/** Lengths of axes; `undefined` if one is not known. */
export type Lengths = readonly number[] | undefined;

/** Shapes around one node. */
export interface Shapes {
  input(index: number): Lengths;
  output(index: number): Lengths;
}

type Rule = (node: NodeProto, shapes: Shapes) => Work | undefined;

/**
 * Work of one run of a node; `undefined` where a shape that matters or the operator itself is not known. Exact for
 * products and pools; for other operators the steps of the textbook form, a transcendental function counting as one.
 */
export function workOf(node: NodeProto, shapes: Shapes): Work | undefined {
  const { domain = '', opType = '' } = node;
  const isKnown = domain === '' || domain === 'ai.onnx' || domain === 'com.microsoft';
  return isKnown && Object.hasOwn(RULES, opType) ? RULES[opType]?.(node, shapes) : undefined;
}

/** Number of elements of a shape. */
export function sizeOf(lengths: Lengths): number | undefined {
  return lengths?.reduce((product, length) => product * length, 1);
}

const products = (macs: number | undefined): Work | undefined =>
  macs === undefined ? undefined : { macs, flops: 2 * macs };

const times = (...factors: readonly (number | undefined)[]): number | undefined => {
  let product = 1;
  for (const factor of factors) {
    if (factor === undefined) return undefined;
    product *= factor;
  }
  return product;
};

const steps = (count: number | undefined): Work | undefined =>
  count === undefined ? undefined : { macs: 0, flops: count };

/** One step more for each element of the result, if the node has a bias. */
function withBias(
  node: NodeProto,
  index: number,
  size: number | undefined,
  work: Work | undefined,
): Work | undefined {
  if ((node.input[index] ?? '') === '') return work;
  return work && size !== undefined ? { ...work, flops: work.flops + size } : undefined;
}

/** Steps for each element of the first output. */
const perOutput =
  (count: number): Rule =>
  (_, { output }) =>
    steps(times(count, sizeOf(output(0))));

/** Steps for each element of the first input. */
const perInput =
  (count: number): Rule =>
  (_, { input }) =>
    steps(times(count, sizeOf(input(0))));

/** Variadic operators: one step for each input beyond the first. */
const folded: Rule = ({ input }, { output }) => steps(times(input.length - 1, sizeOf(output(0))));

const matMul: Rule = (node, { input, output }) => {
  const inner = intOf(node, 'transA', 0) === 0 ? -1 : -2;
  return products(times(sizeOf(output(0)), input(0)?.at(inner)));
};

const gemm =
  (bias: number): Rule =>
  (node, { input, output }) => {
    const size = sizeOf(output(0));
    const inner = input(0)?.[intOf(node, 'transA', 0) === 0 ? 1 : 0];
    return withBias(node, bias, size, products(times(size, inner)));
  };

const matMulNBits: Rule = (node, { output }) => {
  const inner = intOf(node, 'K', 0);
  return inner > 0 ? products(times(sizeOf(output(0)), inner)) : undefined;
};

/** Each element of the result takes one channel group of one filter. */
const conv =
  (filter: number, bias: number): Rule =>
  (node, { input, output }) => {
    const size = sizeOf(output(0));
    return withBias(node, bias, size, products(times(size, sizeOf(input(filter)?.slice(1)))));
  };

/** Each element of the input goes into one filter's worth of the result. */
const convTranspose: Rule = (node, { input, output }) =>
  withBias(node, 2, sizeOf(output(0)), products(times(sizeOf(input(0)), sizeOf(input(1)?.slice(1)))));

/** Both products of each step and row, all gates and directions (onnx docs/Operators.md, LSTM, GRU, RNN). */
const recurrent: Rule = (_, { input }) => {
  const rows = sizeOf(input(0)?.slice(0, 2));
  const weights = sizeOf(input(1));
  const recurrence = sizeOf(input(2));
  return weights === undefined || recurrence === undefined
    ? undefined
    : products(times(rows, weights + recurrence));
};

const pool: Rule = (node, { output }) => {
  const kernel = intsOf(node, 'kernel_shape');
  return kernel && steps(times(sizeOf(output(0)), sizeOf(kernel)));
};

/** Nearest neighbours are moved; linear ones mix two for each axis that changes. */
const resize: Rule = (node, { input, output }) => {
  const mode = new TextDecoder().decode(attributeOf(node, 'mode')?.s);
  if (mode === '' || mode === 'nearest') return steps(0);
  const from = input(0);
  const changed = output(0)?.filter((length, axis) => length !== from?.[axis]).length;
  if (mode !== 'linear' || from === undefined || changed === undefined) return undefined;
  return steps(times(sizeOf(output(0)), 2 ** (changed + 1) - 1));
};

const moved: Rule = () => steps(0);

const GROUPS: readonly (readonly [string, Rule])[] = [
  ['MatMul MatMulInteger QLinearMatMul FusedMatMul', matMul],
  ['DynamicQuantizeMatMul MatMulIntegerToFloat', matMul],
  ['Gemm FusedGemm', gemm(2)],
  ['QGemm', gemm(6)],
  ['MatMulNBits', matMulNBits],
  ['Conv FusedConv', conv(1, 2)],
  ['ConvInteger', conv(1, 4)],
  ['QLinearConv', conv(3, 8)],
  ['ConvTranspose', convTranspose],
  ['LSTM GRU RNN DynamicQuantizeLSTM', recurrent],
  ['MaxPool AveragePool LpPool', pool],
  ['GlobalAveragePool GlobalMaxPool GlobalLpPool', perInput(1)],
  ['ReduceMax ReduceMin ReduceSum ReduceMean ReduceProd ReduceL1 ArgMax ArgMin CumSum', perInput(1)],
  ['ReduceL2 ReduceSumSquare ReduceLogSum', perInput(2)],
  ['ReduceLogSumExp', perInput(3)],
  // Largest, difference, exponential, sum, quotient.
  ['Softmax LogSoftmax', perInput(5)],
  // Mean, difference, square and its sum, quotient, scale and bias.
  ['LayerNormalization InstanceNormalization GroupNormalization SimplifiedLayerNormalization', perInput(7)],
  ['RMSNormalization', perInput(4)],
  ['BatchNormalization', perInput(2)],
  ['Add Sub Div Mul Pow Mod PRelu And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual', perOutput(1)],
  [
    'Relu LeakyRelu Clip Sigmoid Tanh Elu Selu Celu Softplus Softsign HardSigmoid ThresholdedRelu',
    perOutput(1),
  ],
  ['Exp Log Sqrt Reciprocal Erf Abs Neg Sign Ceil Floor Round Not Sin Cos Tan Asin Acos Atan', perOutput(1)],
  ['Sinh Cosh Asinh Acosh Atanh IsNaN IsInf Where QLinearLeakyRelu QLinearSigmoid', perOutput(1)],
  ['HardSwish Swish QuickGelu', perOutput(2)],
  ['Gelu FastGelu BiasGelu Mish', perOutput(4)],
  ['QuantizeLinear', perOutput(2)],
  ['DequantizeLinear', perOutput(2)],
  ['DynamicQuantizeLinear', perInput(4)],
  ['QLinearAdd QLinearMul', perOutput(4)],
  ['Sum Mean Max Min', folded],
  ['Resize Upsample', resize],
  ['Gather GatherElements GatherND GatherBlockQuantized ScatterElements ScatterND OneHot Trilu Range', moved],
  ['Reshape Flatten Transpose Squeeze Unsqueeze Identity Dropout Concat Split Slice Pad Expand Tile', moved],
  ['Cast CastLike Shape Size Constant ConstantOfShape DepthToSpace SpaceToDepth EyeLike NonZero', moved],
];

const RULES: Readonly<Record<string, Rule>> = /* @__PURE__ */ Object.fromEntries(
  /* @__PURE__ */ GROUPS.flatMap(([names, rule]) => names.split(' ').map((name) => [name, rule])),
);
