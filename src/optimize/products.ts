/** Nodes that multiply an activation by constant weights: what `MatMul` and `Gemm` amount to. */

import { tensorFrom } from '../core/tensor.ts';
import type { NodeProto, TensorProto } from '../onnx/messages.ts';
import type { Edit } from '../onnx/rewrite.ts';
import { floatOf, intOf, intsOf, isStandardOp, type Scope } from '../onnx/scope.ts';
import { elementsOf } from '../onnx/tensors.ts';
import type { Emitter, Step } from './emitter.ts';
import { weightDTypeOf, type WeightDType } from './weights.ts';

/** A constant that a node uses as weights. */
export interface WeightUse {
  /** The value by which graphs know it. */
  readonly value: string;
  readonly proto: TensorProto;
  readonly dtype: WeightDType;
  /** The shape as it is stored. */
  readonly shape: readonly number[];
}

/** `alpha · input · weights + beta · bias`. */
export interface Product {
  readonly input: string;
  /** The input's axes are swapped first. */
  readonly isInputTransposed: boolean;
  readonly weights: WeightUse;
  /** The weights are stored as `[outputs, inputs]`. */
  readonly isTransposed: boolean;
  readonly alpha: number;
  /** `''`: none. */
  readonly bias: string;
  readonly beta: number;
}

/** Reads a constant that a node takes as weights, or says why it cannot be quantized. */
export function readWeightUse(value: string, scope: Scope): WeightUse | string {
  const proto = scope.constant(value);
  if (proto === undefined) return 'its weights are no constant';
  const dtype = weightDTypeOf(proto);
  if (dtype === undefined) return 'its weights are of a type that is not quantized';
  if (elementsOf(proto) === 0) return 'its weights are empty';
  return { value, proto, dtype, shape: proto.dims };
}

/** Reads a `MatMul` or `Gemm`, or says why it cannot be quantized. */
export function readProduct(node: NodeProto, scope: Scope): Product | string {
  const [input = '', second = '', bias = ''] = node.input;
  const source = transposedSource(second, scope);
  const weights = readWeightUse(source ?? second, scope);
  if (typeof weights === 'string') return weights;
  if (weights.shape.length < 2) return 'its weights are a vector';
  const isGemm = node.opType === 'Gemm';
  const flips = isGemm && intOf(node, 'transB', 0) !== 0;
  const alpha = isGemm ? Math.fround(floatOf(node, 'alpha', 1)) : 1;
  const beta = isGemm ? Math.fround(floatOf(node, 'beta', 1)) : 1;
  if (alpha === 0 || !Number.isFinite(alpha)) return `its alpha is ${alpha}`;
  return {
    input,
    isInputTransposed: isGemm && intOf(node, 'transA', 0) !== 0,
    weights,
    isTransposed: flips !== (source !== undefined),
    alpha,
    bias: isGemm && beta !== 0 ? bias : '',
    beta,
  };
}

/** The matrix that a `Transpose` swaps the axes of, if a value is one. */
export function transposedSource(value: string, scope: Scope): string | undefined {
  const producer = scope.producer(value);
  if (producer?.opType !== 'Transpose' || !isStandardOp(producer)) return undefined;
  const [source = ''] = producer.input;
  if (scope.constant(source)?.dims.length !== 2) return undefined;
  const [first = 1] = intsOf(producer, 'perm') ?? [];
  return first === 1 ? source : undefined;
}

/** Adds `beta · bias` to a value, if there is a bias. The nodes are of the type of the weights. */
export function biasSteps(
  { bias, beta, weights }: Pick<Product, 'bias' | 'beta' | 'weights'>,
  { add }: Emitter,
  edit: Edit,
): readonly Step[] {
  if (bias === '') return [];
  const scaled =
    beta === 1 ? bias : add('Mul', [bias, edit.constant(`${bias}_beta`, tensorFrom(weights.dtype, beta))]);
  return [(value, output) => add('Add', [value, scaled], { output })];
}
