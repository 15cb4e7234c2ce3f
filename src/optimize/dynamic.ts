/** Weights of 8 bits, with activations that are quantized at each run. */

import { Tensor } from '../core/tensor.ts';
import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { opsetOf } from '../onnx/opset.ts';
import { labelOf } from '../onnx/scope.ts';
import { allNodes } from '../onnx/walk.ts';
import { rewriteConvolution } from './dynamic-convolution.ts';
import { createDynamicInputs, type DynamicInputs } from './dynamic-inputs.ts';
import { rewriteLstm } from './dynamic-lstm.ts';
import { addDequantized } from './dynamic-outputs.ts';
import { quantizeRows, readEmbedding, rewriteEmbedding } from './embedding.ts';
import { createEmitter, type Emitter } from './emitter.ts';
import { biasSteps, readProduct, type Product } from './products.ts';
import { assertQuantizable } from './refusals.ts';
import { isExcluded, type DynamicInt8, type Rewritten, type TechniqueOptions } from './technique.ts';
import { rewriteWeights, type Outcome, type WeightEdit } from './weight-rewrite.ts';
import { quantizeWeights, transposeBytes } from './weights.ts';

/** A technique with nothing left to default. */
type Settings = Required<DynamicInt8>;

/** Names of the constants that the weights of a product become. */
interface Matrix {
  readonly values: string;
  readonly zeroPoint: string;
  /** One scale, or one for each output. */
  readonly scales: Float32Array;
  readonly isScalar: boolean;
}

/**
 * Quantizes the weights of `MatMul`, `Gemm`, embeddings and, if asked for, `Conv`; activations are quantized at each
 * run. Products become `MatMulInteger` in the form that onnxruntime fuses; an activation with several readers is
 * quantized once.
 *
 * Weights keep one scalar zero point: kernels fail at run time with one for each channel. `alpha` is folded into the
 * scales, `beta` into the bias. Without calibration, since nothing is known beforehand of activations.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` as `assertQuantizable`, and for weights outside of the model;
 * `ERR_INLAY_MODEL_INVALID` for weights that hold NaN or infinities.
 */
export function quantizeDynamic(
  model: ModelProto,
  technique: DynamicInt8,
  options: TechniqueOptions = {},
): Rewritten {
  assertQuantizable(model, options);
  const settings: Settings = {
    mode: 'row',
    weights: 'int8',
    perChannel: true,
    reduceRange: false,
    embeddings: true,
    convolutions: false,
    ...technique,
  };
  const inputs = createDynamicInputs(opsetOf(model) ?? 0);
  const product = (node: NodeProto, edit: WeightEdit): Outcome =>
    rewriteProduct(node, edit, inputs, settings, options);
  const hasLstm =
    settings.mode === 'tensor' && Array.from(allNodes(model)).some(({ opType }) => opType === 'LSTM');
  const asked = 'convolutions gain only in WebAssembly; ask for them with convolutions: true';
  return rewriteWeights(
    model,
    {
      MatMul: product,
      Gemm: product,
      LSTM: (node, edit) => rewriteLstm(node, edit, settings),
      Gather: settings.embeddings ? rewriteEmbedding : undefined,
      Conv: (node, edit) =>
        settings.convolutions ? rewriteConvolution(node, edit, inputs, settings) : { kept: asked },
    },
    options,
    hasLstm ? { opsets: { 'com.microsoft': 1 } } : {},
  );
}

function rewriteProduct(
  node: NodeProto,
  edit: WeightEdit,
  inputs: DynamicInputs,
  settings: Settings,
  options: TechniqueOptions,
): Outcome {
  const product = readProduct(node, edit.scope);
  if (typeof product === 'string') return { kept: product };
  const { weights } = product;
  const emitter = createEmitter(edit, labelOf(node));
  const matrix = sharesRows(product, edit, settings, options)
    ? addSharedMatrix(product, emitter, edit)
    : addMatrix(product, edit, settings);
  let { input } = product;
  const rank = node.opType === 'Gemm' ? 2 : inputs.rankOf(input, edit.scope);
  if (weights.dtype !== 'float32') input = inputs.toFloat32(input, emitter, edit.scope);
  if (product.isInputTransposed) input = inputs.transpose(input, emitter, edit.scope);
  const x = inputs.quantize(input, settings.mode === 'row' ? [(rank ?? 0) - 1] : undefined, emitter, edit);
  const sums = emitter.add('MatMulInteger', [x.values, matrix.values, x.zeroPoint, matrix.zeroPoint]);
  addDequantized(
    sums,
    x,
    scaleOf(product, matrix, edit),
    weights.dtype,
    biasSteps(product, emitter, edit),
    emitter,
    node.output[0] ?? '',
  );
  return { nodes: emitter.nodes, reason: `MatMulInteger with ${settings.weights} weights` };
}

/** Weights as a constant of their own, laid out as `MatMulInteger` reads them. */
function addMatrix(
  { weights, isTransposed }: Product,
  edit: WeightEdit,
  { weights: dtype, perChannel, reduceRange }: Settings,
): Matrix {
  const { value, shape } = weights;
  return edit.once(weights, `${dtype} ${isTransposed ? 'rows, transposed' : 'columns'}`, (floats) => {
    const { values, scale, zeroPoint } = quantizeWeights(floats, {
      dtype,
      isReduced: reduceRange,
      ...(perChannel && { axis: isTransposed ? 0 : shape.length - 1 }),
    });
    return {
      values: edit.constant(`${value}_quantized`, isTransposed ? transposeBytes(values) : values),
      zeroPoint: edit.constant(`${value}_zero_point`, zeroPoint),
      scales: scale.data,
      isScalar: !perChannel,
    };
  });
}

/** Whether the weights are rows of an embedding as well, and can be stored once for both. */
function sharesRows(
  { weights, isTransposed }: Product,
  { scope }: WeightEdit,
  settings: Settings,
  options: TechniqueOptions,
): boolean {
  if (!isTransposed || !settings.embeddings || !settings.perChannel) return false;
  if (settings.weights !== 'int8' || settings.reduceRange) return false;
  return scope
    .readers(weights.value)
    .some((node) => typeof readEmbedding(node, scope) === 'object' && !isExcluded(node, options));
}

/** The rows of an embedding with their axes swapped: onnxruntime does so once, when it opens the model. */
function addSharedMatrix({ weights }: Product, { add }: Emitter, edit: WeightEdit): Matrix {
  const rows = quantizeRows(weights, edit);
  return {
    values: add('Transpose', [rows.values], { attributes: { perm: [1, 0] } }),
    zeroPoint: edit.derive('int8 zero', () =>
      edit.constant('int8_zero_point', new Tensor('int8', [], Int8Array.of(0))),
    ),
    scales: rows.scales,
    isScalar: false,
  };
}

function scaleOf(
  { weights, alpha, isTransposed }: Product,
  { scales, isScalar }: Matrix,
  edit: WeightEdit,
): string {
  return edit.derive(`scale ${alpha} ${isTransposed ? 0 : -1} ${weights.value}`, () => {
    const scaled = alpha === 1 ? scales : scales.map((scale) => scale * alpha);
    return edit.constant(
      `${weights.value}_scale`,
      new Tensor('float32', isScalar ? [] : [scaled.length], scaled),
    );
  });
}
