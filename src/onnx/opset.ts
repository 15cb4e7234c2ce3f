/**
 * Carries models of older operator sets over to a newer one. What changed between two versions of an operator is taken
 * from the change log of ONNX (onnx docs/Changelog.md).
 */

import { dtypeFromOnnx, type DType } from '../core/dtype.ts';
import { ModelError } from '../core/errors.ts';
import { Tensor, tensorFrom } from '../core/tensor.ts';
import { toAttribute, type AttributeValue } from './attributes.ts';
import type { ModelProto, NodeProto, TensorType } from './messages.ts';
import { rewriteModel, type Edit } from './rewrite.ts';
import { attributeOf, floatOf, intOf, isStandardOp, labelOf, type Scope } from './scope.ts';
import { fromTensorProto } from './tensors.ts';

/** The operator set that models are carried over to: the first in which scales may be per channel. */
export const RAISED_OPSET = 13;

/** The lowest operator set that {@link raiseOpset} takes: before it, operators broadcast by attributes. */
export const OLDEST_OPSET = 7;

/** Nodes in place of one, or why it has no newer form. */
type Raise = (node: NodeProto, edit: Edit, from: number) => readonly NodeProto[] | string;

/** Operators whose later versions take more types or axes, and mean the same. */
const SAME: ReadonlySet<string> = /* @__PURE__ */ new Set(
  /* @__PURE__ */ [
    'Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BitShift Cast Ceil Celu Compress Concat',
    'Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Det Div',
    'DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND',
    'Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity If',
    'InstanceNormalization IsInf IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log Loop LpNormalization LpPool MatMul',
    'MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Multinomial Neg',
    'NonMaxSuppression NonZero Not OneHot Or PRelu Pow QLinearConv QLinearMatMul QuantizeLinear RNN RandomNormal',
    'RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum',
    'ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu Reshape ReverseSequence RoiAlign',
    'Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Softplus Softsign SpaceToDepth Sqrt',
    'Sub Sum Tan Tanh ThresholdedRelu Tile Transpose Trilu Unique Where Xor',
  ].flatMap((line) => line.split(' ')),
);

/** Operators that changed, with the version that brought the change. */
const CHANGED: Readonly<Record<string, { readonly at: number; readonly raise: Raise }>> = {
  BatchNormalization: { at: 9, raise: raiseBatchNormalization },
  Clip: { at: 11, raise: raiseClip },
  Dropout: { at: 12, raise: raiseDropout },
  Hardmax: { at: 13, raise: raiseOverRows },
  LogSoftmax: { at: 13, raise: raiseOverRows },
  Pad: { at: 11, raise: raisePad },
  ReduceSum: { at: 13, raise: raiseAxes },
  Resize: { at: 11, raise: raiseResize },
  Scan: { at: 9, raise: () => 'it was another operator then' },
  Scatter: { at: 11, raise: (node) => [{ ...node, opType: 'ScatterElements' }] },
  Slice: { at: 10, raise: raiseSlice },
  Softmax: { at: 13, raise: raiseOverRows },
  Split: { at: 13, raise: raiseSplit },
  Squeeze: { at: 13, raise: raiseAxes },
  TopK: { at: 10, raise: raiseTopK },
  Unsqueeze: { at: 13, raise: raiseAxes },
  Upsample: { at: 10, raise: raiseUpsample },
};

/** Version of the standard operators that a model uses; `undefined`: it uses none. */
export function opsetOf(model: ModelProto): number | undefined {
  return model.opsetImport.find(({ domain = '' }) => domain === '' || domain === 'ai.onnx')?.version;
}

/**
 * Carries a model over to operator set {@link RAISED_OPSET}; one that is there already is returned as it is. Its answers
 * stay the same. Constants that a model before IR version 4 had to list as inputs are no inputs any more.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for operator sets before 7, models with local functions, and
 * nodes without a newer form; the message names them.
 */
export function raiseOpset(model: ModelProto): ModelProto {
  const from = opsetOf(model) ?? RAISED_OPSET;
  if (from >= RAISED_OPSET) return model;
  if (from < OLDEST_OPSET)
    throw unsupported(`it is of operator set ${from}, and ${OLDEST_OPSET} is the oldest`);
  if ((model.functions ?? []).length > 0) throw unsupported('it has local functions');
  const problems: string[] = [];
  const raised = rewriteModel(
    model,
    (node, edit) => {
      const { opType = '' } = node;
      if (!isStandardOp(node) || SAME.has(opType)) return undefined;
      const change = Object.hasOwn(CHANGED, opType) ? CHANGED[opType] : undefined;
      if (change !== undefined && from >= change.at) return undefined;
      const nodes = change?.raise(node, edit, from) ?? 'it is not known';
      if (typeof nodes !== 'string') return nodes;
      problems.push(`${opType} "${labelOf(node)}": ${nodes}`);
      return undefined;
    },
    { opsets: { '': RAISED_OPSET } },
  );
  if (problems.length > 0) {
    const more = problems.length > 1 ? `, and ${problems.length - 1} more` : '';
    throw unsupported(`${problems[0]}${more}`);
  }
  return withConstants({ ...raised, opsetImport: atLeast(raised) });
}

/** Models that had nothing to rewrite need the new version all the same. */
function atLeast({ opsetImport }: ModelProto): ModelProto['opsetImport'] {
  return opsetImport.map((opset) =>
    opset.domain === undefined || opset.domain === '' || opset.domain === 'ai.onnx'
      ? { ...opset, version: RAISED_OPSET }
      : opset,
  );
}

/** From IR version 4 on, a constant that is an input may be overridden, and is no constant to whoever fuses nodes. */
function withConstants(model: ModelProto): ModelProto {
  if ((model.irVersion ?? 0) >= 4) return model;
  const constants = new Set(model.graph.initializer.map(({ name }) => name));
  return {
    ...model,
    irVersion: 4,
    graph: { ...model.graph, input: model.graph.input.filter(({ name }) => !constants.has(name)) },
  };
}

function unsupported(why: string): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `The model cannot be carried over to operator set ${RAISED_OPSET}: ${why}; export it again with a newer one.`,
  );
}

/** As they are: "to the end" is the largest integer, which no number holds. */
const int64sOf = (node: NodeProto, name: string): BigInt64Array | undefined => attributeOf(node, name)?.ints;
const int64 = (values: BigInt64Array): Tensor => new Tensor('int64', [values.length], values);
const float32 = (values: readonly number[], shape: readonly number[] = [values.length]): Tensor =>
  new Tensor('float32', shape, Float32Array.from(values));

/** The node without some attributes, and with others. */
function withAttributes(
  node: NodeProto,
  without: readonly string[],
  attributes: Readonly<Record<string, AttributeValue>> = {},
): NodeProto {
  const replaced = new Set([...without, ...Object.keys(attributes)]);
  return {
    ...node,
    attribute: [
      ...node.attribute.filter(({ name = '' }) => !replaced.has(name)),
      ...Object.entries(attributes).map(([name, value]) => toAttribute(name, value)),
    ],
  };
}

/** Makes a list of integers the input after the first. */
function attributeToInput(node: NodeProto, edit: Edit, name: string): readonly NodeProto[] {
  const values = int64sOf(node, name);
  const raised = withAttributes(node, [name]);
  if (values === undefined) return [raised];
  return [
    { ...raised, input: [node.input[0] ?? '', edit.constant(`${labelOf(node)}_${name}`, int64(values))] },
  ];
}

function raiseAxes(node: NodeProto, edit: Edit): readonly NodeProto[] {
  return attributeToInput(node, edit, 'axes');
}

function raiseSplit(node: NodeProto, edit: Edit): readonly NodeProto[] {
  return attributeToInput(node, edit, 'split');
}

function raiseSlice(node: NodeProto, edit: Edit): readonly NodeProto[] | string {
  const [starts, ends, axes] = ['starts', 'ends', 'axes'].map((name) => int64sOf(node, name));
  if (starts === undefined || ends === undefined) return 'it has no starts or no ends';
  const constant = (name: string, values: BigInt64Array): string =>
    edit.constant(`${labelOf(node)}_${name}`, int64(values));
  const { input, ...rest } = withAttributes(node, ['starts', 'ends', 'axes']);
  const places = [constant('starts', starts), constant('ends', ends)];
  if (axes !== undefined) places.push(constant('axes', axes));
  return [{ ...rest, input: [input[0] ?? '', ...places] }];
}

function raiseTopK(node: NodeProto, edit: Edit): readonly NodeProto[] {
  const k = edit.constant(`${labelOf(node)}_k`, int64(BigInt64Array.of(BigInt(intOf(node, 'k', 1)))));
  return [{ ...withAttributes(node, ['k']), input: [node.input[0] ?? '', k] }];
}

function raiseClip(node: NodeProto, edit: Edit): readonly NodeProto[] {
  const bound = (name: 'min' | 'max'): string => {
    const { f } = attributeOf(node, name) ?? {};
    return f === undefined
      ? ''
      : edit.constant(`${labelOf(node)}_${name}`, tensorFrom(dtypeAround(edit.scope, node), f));
  };
  return [
    { ...withAttributes(node, ['min', 'max']), input: [node.input[0] ?? '', bound('min'), bound('max')] },
  ];
}

function raisePad(node: NodeProto, edit: Edit): readonly NodeProto[] | string {
  const pads = int64sOf(node, 'pads');
  if (pads === undefined) return 'it has no pads';
  const inputs = [node.input[0] ?? '', edit.constant(`${labelOf(node)}_pads`, int64(pads))];
  const value = floatOf(node, 'value', 0);
  if (value !== 0)
    inputs.push(edit.constant(`${labelOf(node)}_value`, tensorFrom(dtypeAround(edit.scope, node), value)));
  return [{ ...withAttributes(node, ['pads', 'value']), input: inputs }];
}

/** Without training, it gives what it takes, whatever its ratio. */
function raiseDropout(node: NodeProto, { scope }: Edit): readonly NodeProto[] | string {
  const [, mask = ''] = node.output;
  if (mask !== '' && (scope.readers(mask).length > 0 || scope.isOutput(mask))) return 'its mask is read';
  return [{ ...withAttributes(node, ['ratio']), output: node.output.slice(0, 1) }];
}

function raiseBatchNormalization(node: NodeProto): readonly NodeProto[] | string {
  if (intOf(node, 'spatial', 1) !== 1) return 'it normalizes each element';
  return [withAttributes(node, ['spatial'])];
}

/** Up to version 12 the axes from `axis` on are one row. */
function raiseOverRows(node: NodeProto, edit: Edit): readonly NodeProto[] {
  const axis = intOf(node, 'axis', 1);
  const [value = ''] = node.input;
  const rank = rankOf(edit.scope, value) ?? rankOf(edit.scope, node.output[0] ?? '');
  if (axis === -1 || axis + 1 === rank) return [withAttributes(node, [], { axis })];
  const name = labelOf(node);
  const [shape, rows, answers] = ['shape', 'rows', 'answers'].map((stem) =>
    edit.fresh(`${name}_${stem}`),
  ) as [string, string, string];
  const own = (opType: string, input: readonly string[], output: string): NodeProto => ({
    opType,
    name: edit.fresh(`${name}_${opType}`),
    input,
    output: [output],
    attribute: [],
  });
  return [
    own('Shape', [value], shape),
    withAttributes(own('Flatten', [value], rows), [], { axis }),
    { ...withAttributes(node, [], { axis: -1 }), input: [rows], output: [answers] },
    own('Reshape', [answers, shape], node.output[0] ?? ''),
  ];
}

function raiseResize(node: NodeProto, { scope }: Edit): readonly NodeProto[] | string {
  const [value = '', scales = ''] = node.input;
  const constant = scope.constant(scales);
  // Where it made something smaller, the place that it took had no name in later versions.
  if (constant === undefined || floatsOf(constant).some((scale) => scale < 1))
    return 'it may make its input smaller';
  return [resized(node, [value, '', scales])];
}

function raiseUpsample(node: NodeProto, edit: Edit, from: number): readonly NodeProto[] | string {
  const [value = '', given = ''] = node.input;
  const floats = attributeOf(node, 'scales')?.floats;
  if (from < 9 && floats === undefined) return 'it has no scales';
  const scales = from >= 9 ? given : edit.constant(`${labelOf(node)}_scales`, float32([...(floats ?? [])]));
  return [{ ...resized(node, [value, '', scales]), opType: 'Resize' }];
}

/** The rule by which versions before 11 found their places. */
function resized(node: NodeProto, input: readonly string[]): NodeProto {
  const rule = { coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' };
  return { ...withAttributes(node, ['scales'], rule), input };
}

function floatsOf(constant: Parameters<typeof fromTensorProto>[0]): readonly number[] {
  const { dtype, data } = fromTensorProto(constant);
  return dtype === 'float32' ? [...(data as Float32Array)] : [];
}

/** Axes of a value, where the graph says. */
function rankOf(scope: Scope, value: string): number | undefined {
  return declaredOf(scope, value)?.shape?.dim.length ?? scope.constant(value)?.dims.length;
}

/** Dtype of what a node takes and gives alike, where the graph says; float32 otherwise. */
function dtypeAround(scope: Scope, { input, output }: NodeProto): DType {
  const types = [input[0], output[0]].map((value = '') => declaredOf(scope, value)?.elemType);
  return dtypeFromOnnx(types.find((type) => type !== undefined) ?? 0) ?? 'float32';
}

function declaredOf({ graph }: Scope, value: string): TensorType | undefined {
  const values = [...graph.input, ...graph.output, ...(graph.valueInfo ?? [])];
  return values.find(({ name }) => name === value)?.type?.tensorType;
}
