/** What to look for in an optimised graph: one finder for each way in which a fusion fails. */

import { DTYPES } from '../core/dtype.ts';
import type { NodeProto } from '../onnx/messages.ts';
import { attributeOf, intOf, labelOf, type Scope } from '../onnx/scope.ts';
import type { Finding } from './audit.ts';

/** A finding about a node of the optimised graph. */
export type Found = Omit<Finding, 'node' | 'op'> & { readonly node: NodeProto };

/** Looks at one graph. */
export type Finder = (scope: Scope) => Iterable<Found>;

/** All finders, those that explain most first. */
export const FINDERS: readonly Finder[] = [
  findWeights,
  findFloats,
  findConvInteger,
  findProducts,
  findBlocks,
  findCasts,
];

const PRODUCTS = /^(Fused)?(Conv|ConvTranspose|MatMul|Gemm)$/;

/** Constants that are dequantized at every run: onnxruntime does not fold DequantizeLinear. */
function* findWeights(scope: Scope): Iterable<Found> {
  const read = new Map<NodeProto, { readonly name: string; readonly elements: number }>();
  for (const node of scope.graph.node) {
    if (node.opType !== 'DequantizeLinear') continue;
    const constant = scope.constant(node.input[0] ?? '');
    const elements = constant?.dims.reduce((product, length) => product * length, 1) ?? 0;
    // A scalar costs nothing.
    if (constant === undefined || elements < 2) continue;
    for (const reader of scope.readers(node.output[0] ?? '')) {
      if ((read.get(reader)?.elements ?? 0) < elements)
        read.set(reader, { name: node.input[0] ?? '', elements });
    }
  }
  for (const [node, { name, elements }] of read) {
    const why = explainFloat(node, scope);
    yield {
      node,
      kind: 'weight-dequantize',
      isSlow: true,
      reason: `dequantizes "${name}" (${elements.toLocaleString('en')} elements) at every run, since ${why.reason}`,
      remedy: why.remedy,
    };
  }
}

/** Operators in float32 whose inputs were dequantized and whose output is quantized again. */
function* findFloats(scope: Scope): Iterable<Found> {
  for (const node of scope.graph.node) {
    const { opType = '' } = node;
    if (opType === 'QuantizeLinear' || opType === 'DequantizeLinear') continue;
    const takesQuantized = node.input.some(
      (value) => scope.producer(value)?.opType === 'DequantizeLinear' && !isConstantDequantize(value, scope),
    );
    if (!takesQuantized) continue;
    const isProduct = PRODUCTS.test(opType);
    const givesQuantized = node.output.some((value) =>
      scope.readers(value).some((reader) => reader.opType === 'QuantizeLinear'),
    );
    if (!isProduct && !givesQuantized) continue;
    const why = explainFloat(node, scope);
    yield {
      node,
      kind: isProduct ? 'float-product' : 'float-island',
      isSlow: isProduct,
      reason: `runs in float32 between quantized values, since ${why.reason}`,
      remedy: why.remedy,
    };
  }
}

function isConstantDequantize(value: string, scope: Scope): boolean {
  return scope.constant(scope.producer(value)?.input[0] ?? '') !== undefined;
}

interface Explanation {
  readonly reason: string;
  readonly remedy: string;
}

/** Why a node between DequantizeLinear and QuantizeLinear did not get a quantized kernel. */
function explainFloat(node: NodeProto, scope: Scope): Explanation {
  const { opType = '', input, output } = node;
  const quantizers = output.flatMap((value) =>
    scope.readers(value).filter((reader) => reader.opType === 'QuantizeLinear'),
  );
  const isSigned = (one: NodeProto): boolean =>
    scope.constant(one.input[2] ?? '')?.dataType === DTYPES.int8.onnx;
  const dequantizers = input
    .map((value) => scope.producer(value))
    .filter((one) => one?.opType === 'DequantizeLinear')
    .filter((one) => one !== undefined);
  const sources = dequantizers
    .filter((one) => scope.constant(one.input[0] ?? '') === undefined)
    .map((one) => scope.producer(one.input[0] ?? ''))
    .filter((one) => one !== undefined);
  const shared = [...sources, ...quantizers].find(
    (one) =>
      one.opType === 'QuantizeLinear' && isSigned(one) && scope.readers(one.output[0] ?? '').length > 1,
  );
  if (shared !== undefined) {
    return {
      reason: `"${labelOf(shared)}" gives int8 to several readers, which x64 takes only as uint8`,
      remedy: 'quantize activations as uint8',
    };
  }
  if (sources.length === 0) {
    return {
      reason: 'the value that it is combined with is not quantized',
      remedy: PRODUCTS.test(opType)
        ? 'quantize its input and output too, or use dynamic quantization'
        : 'leave the constant as float32',
    };
  }
  if (quantizers.length === 0) {
    const isPublic = output.some((value) => scope.isOutput(value));
    return {
      reason: isPublic ? 'its result is an output of the model as it is' : 'its result is not quantized',
      remedy: 'put QuantizeLinear and DequantizeLinear behind it, or leave it as float32',
    };
  }
  if (output.some((value) => scope.readers(value).length > 1 || scope.isOutput(value))) {
    return {
      reason: 'its result is also read as float32',
      remedy: 'let all of its readers take the quantized value',
    };
  }
  const activation = opType.startsWith('Fused') ? attributeOf(node, 'activation')?.s : undefined;
  if (activation !== undefined) {
    return {
      reason:
        'the activation behind it reaches below what its QuantizeLinear can hold, or is cut by it elsewhere',
      remedy: 'take the range of the activation, so that its least value is the least of the quantized type',
    };
  }
  return PRODUCTS.test(opType)
    ? {
        reason: 'there is no kernel for these types, scales or shapes',
        remedy: 'use uint8 activations, int8 weights and constant scales',
      }
    : {
        reason: `there is no quantized kernel for ${opType}`,
        remedy: 'nothing if it is small; otherwise exclude it',
      };
}

function* findConvInteger({ graph, constant }: Scope): Iterable<Found> {
  for (const node of graph.node) {
    if (node.opType !== 'ConvInteger') continue;
    const isSigned = constant(node.input[1] ?? '')?.dataType === DTYPES.int8.onnx;
    yield {
      node,
      kind: 'conv-integer',
      isSlow: isSigned,
      reason: isSigned
        ? 'has no fast kernel for int8 weights, and its Cast and Mul stay'
        : 'does not fuse: its Cast and Mul stay, so that it is about as fast as in float32',
      remedy: 'use static quantization for convolutions',
    };
  }
}

/** Fused ones are DynamicQuantizeMatMul and MatMulIntegerToFloat. */
function* findProducts(scope: Scope): Iterable<Found> {
  for (const node of scope.graph.node) {
    if (node.opType !== 'MatMulInteger') continue;
    const isDynamic = scope.producer(node.input[0] ?? '')?.opType === 'DynamicQuantizeLinear';
    yield isDynamic
      ? {
          node,
          kind: 'dynamic-product',
          isSlow: false,
          reason: 'does not fuse with the Cast and Mul behind it',
          remedy: 'let nothing else read what is between it and its last Mul',
        }
      : {
          node,
          kind: 'row-product',
          isSlow: false,
          reason: 'has a scale for each row: Cast and Mul stay, as no kernel fuses them',
          remedy: 'nothing where rows have to be independent of their batch; otherwise use mode "tensor"',
        };
  }
}

/** Inputs of MatMulNBits: A, B, scales, zero_points, g_idx, bias (onnxruntime docs/ContribOperators.md). */
const BLOCK_BIAS = 5;

function* findBlocks(scope: Scope): Iterable<Found> {
  for (const node of scope.graph.node) {
    if (node.opType !== 'MatMulNBits') continue;
    const level = intOf(node, 'accuracy_level', 0);
    if (level < 2) {
      yield {
        node,
        kind: 'block-float',
        isSlow: true,
        reason: `computes in float32 (accuracy_level ${level}), mostly slower than with weights of float32`,
        remedy: 'write MatMulNBits with accuracy_level 4',
      };
      continue;
    }
    const readers = scope.readers(node.output[0] ?? '');
    const [add] = readers;
    const isAdded =
      readers.length === 1 &&
      add?.opType === 'Add' &&
      add.input.some((value) => scope.constant(value) !== undefined);
    if (!isAdded || (node.input[BLOCK_BIAS] ?? '') !== '') continue;
    yield {
      node,
      kind: 'block-bias',
      isSlow: false,
      reason: `does not take the bias in: "${labelOf(add)}" stays`,
      remedy: 'give the bias as a vector in the sixth input',
    };
  }
}

/** How onnxruntime calls a conversion that it puts in. */
const INSERTED = /^InsertedPrecisionFreeCast_/;

/** Conversions that run because the processor has few kernels of float16; those of inputs and outputs are wanted. */
function* findCasts(scope: Scope): Iterable<Found> {
  const { float16, float32 } = DTYPES;
  const halves = new Set<string>();
  for (const { name = '', type } of [...scope.graph.input, ...(scope.graph.valueInfo ?? [])]) {
    if (type?.tensorType?.elemType === float16.onnx) halves.add(name);
  }
  for (const { name = '', dataType } of scope.graph.initializer)
    if (dataType === float16.onnx) halves.add(name);
  for (const node of scope.graph.node) {
    if (node.opType !== 'Cast') continue;
    const [from = '', to = ''] = [node.input[0], node.output[0]];
    const target = intOf(node, 'to', 0);
    if (target === float16.onnx) halves.add(to);
    const isUp = target === float32.onnx && (halves.has(from) || INSERTED.test(node.name ?? ''));
    if ((!isUp && target !== float16.onnx) || scope.isOutput(to) || scope.isInput(from)) continue;
    // The neighbour on the side of float32 is what has no kernel of float16.
    const neighbour = isUp ? scope.readers(to)[0] : scope.producer(from);
    yield {
      node: neighbour ?? node,
      kind: 'float16-cast',
      isSlow: false,
      reason: 'runs in float32 between float16, with a Cast on the way',
      remedy: 'use float16 on processors for size only, or leave the node as float32',
    };
  }
}
