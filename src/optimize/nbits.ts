/** Weights of 4 or 8 bits in blocks: less to read from memory where one row is multiplied at a time. */

import { DTYPES } from '../core/dtype.ts';
import { fromFloat16Bits, toFloat16Bits } from '../core/float.ts';
import { Tensor } from '../core/tensor.ts';
import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { labelOf } from '../onnx/scope.ts';
import { rewriteEmbedding } from './embedding.ts';
import { addSteps, createEmitter, type Emitter, type Step } from './emitter.ts';
import { sizeOfBlocks, toBlocks } from './nbits-blocks.ts';
import { biasSteps, readProduct, type Product } from './products.ts';
import { assertQuantizable } from './refusals.ts';
import type { BlockQuantized, Rewritten, TechniqueOptions } from './technique.ts';
import { rewriteWeights, type Outcome, type WeightEdit } from './weight-rewrite.ts';

/** A technique with nothing left to default. */
type Settings = Required<BlockQuantized>;

const DOMAIN = 'com.microsoft';

/**
 * Quantizes the weights of `MatMul` and `Gemm` in blocks along their inputs, to nodes of `MatMulNBits`; a bias is added
 * by a node that follows. Activations stay as they are, and so do weights that blocks would make larger.
 * @throws RangeError if the block size is no power of two of at least 16; {@link ModelError}
 * `ERR_INLAY_MODEL_UNSUPPORTED` as `assertQuantizable`, and for weights outside of the model; `ERR_INLAY_MODEL_INVALID`
 * for weights that hold NaN or infinities.
 */
export function quantizeBlocks(
  model: ModelProto,
  technique: BlockQuantized,
  options: TechniqueOptions = {},
): Rewritten {
  const settings: Settings = {
    blockSize: technique.bits === 4 ? 32 : 128,
    isSymmetric: false,
    accuracyLevel: 4,
    embeddings: true,
    ...technique,
  };
  const { bits, blockSize } = settings;
  if (bits !== 4 && bits !== 8) throw new RangeError(`Blocks are of 4 or 8 bits, got ${String(bits)}.`);
  if (blockSize < 16 || !Number.isInteger(Math.log2(blockSize))) {
    throw new RangeError(`The size of a block is a power of two, at least 16, got ${blockSize}.`);
  }
  assertQuantizable(model, options);
  const product = (node: NodeProto, edit: WeightEdit): Outcome => rewriteProduct(node, edit, settings);
  return rewriteWeights(
    model,
    { MatMul: product, Gemm: product, Gather: settings.embeddings ? rewriteEmbedding : undefined },
    options,
    { opsets: { [DOMAIN]: 1 } },
  );
}

function rewriteProduct(node: NodeProto, edit: WeightEdit, settings: Settings): Outcome {
  const product = readProduct(node, edit.scope);
  if (typeof product === 'string') return { kept: product };
  const { weights } = product;
  const { shape, dtype } = weights;
  if (shape.slice(0, -2).some((length) => length !== 1)) return { kept: 'its weights are several matrices' };
  const [first = 0, second = 0] = shape.slice(-2);
  const [inputs, outputs] = product.isTransposed ? [second, first] : [first, second];
  const sizeBytes = (inputs * outputs * DTYPES[dtype].bits) / 8;
  if (sizeOfBlocks(inputs, outputs, settings) >= sizeBytes) return { kept: 'blocks would make it larger' };

  const emitter = createEmitter(edit, labelOf(node));
  const { nodes, add } = emitter;
  const { bits, blockSize, accuracyLevel } = settings;
  // The kernels know no bfloat16.
  const isCast = dtype === 'bfloat16';
  const cast =
    (to: 'float32' | 'bfloat16'): Step =>
    (value, output) =>
      add('Cast', [value], { attributes: { to: DTYPES[to].onnx }, output });
  let { input } = product;
  if (product.isInputTransposed) input = add('Transpose', [input], { attributes: { perm: [1, 0] } });
  if (isCast) input = cast('float32')(input, undefined);
  const attributes = { K: inputs, N: outputs, bits, block_size: blockSize, accuracy_level: accuracyLevel };
  const constants = addBlocks(product, edit, settings);
  addSteps(input, node.output[0] ?? '', [
    (value, output) => add('MatMulNBits', [value, ...constants], { attributes, domain: DOMAIN, output }),
    ...rankSteps(shape.length, emitter, edit),
    ...(isCast ? [cast('bfloat16')] : []),
    ...biasSteps(product, emitter, edit),
  ]);
  return { nodes, reason: `MatMulNBits with ${bits} bits in blocks of ${blockSize}` };
}

/** Adds the constants of a product: values, scales, and zero points if there are any. */
function addBlocks(
  { weights, isTransposed, alpha }: Product,
  edit: WeightEdit,
  settings: Settings,
): string[] {
  const { value } = weights;
  const form = `blocks${isTransposed ? ', transposed' : ''}`;
  const { values, scales, zeroPoints } = edit.once(weights, form, (floats) => {
    const blocks = toBlocks(floats, { ...settings, isTransposed });
    return {
      values: edit.constant(`${value}_blocks`, blocks.values),
      scales: blocks.scales,
      zeroPoints: blocks.zeroPoints && edit.constant(`${value}_zero_points`, blocks.zeroPoints),
    };
  });
  const scaled = edit.derive(`${form} ${alpha} ${value}`, () =>
    edit.constant(`${value}_scales`, alpha === 1 ? scales : scaledBy(alpha, scales)),
  );
  return zeroPoints === undefined ? [values, scaled] : [values, scaled, zeroPoints];
}

function scaledBy(
  alpha: number,
  { dtype, shape, data }: Tensor<'float32' | 'float16'>,
): Tensor<'float32' | 'float16'> {
  return data instanceof Float32Array
    ? new Tensor(
        'float32',
        shape,
        data.map((scale) => scale * alpha),
      )
    : new Tensor(
        dtype,
        shape,
        data.map((bits) => toFloat16Bits(fromFloat16Bits(bits) * alpha)),
      );
}

/** `MatMul` gives at least as many axes as its weights have, `MatMulNBits` as many as its input. */
function rankSteps(rank: number, { add }: Emitter, edit: WeightEdit): Step[] {
  if (rank === 2) return [];
  const ones = edit.derive(`ones ${rank}`, () =>
    edit.constant('ones', new Tensor('int64', [rank], new BigInt64Array(rank).fill(1n))),
  );
  return [(value, output) => add('Expand', [value, ones], { output })];
}
