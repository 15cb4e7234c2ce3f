/** What can be done to a model to make it smaller or faster, and what came of it. */

import type { ModelProto } from '../onnx/messages.ts';

export type { ValueType, ValueTypes } from '../onnx/types.ts';

/** Types of weights of 8 bits. */
export type Int8 = 'int8' | 'uint8';

/**
 * Weights of 8 bits; activations are quantized at each run, so that no calibration is needed.
 *
 * `tensor` takes one scale for a whole batch: what a row gets depends on the rows beside it. `row` takes one for each
 * row, with standard operators: a row alone gets bit for bit what it gets in a batch.
 */
export interface DynamicInt8 {
  readonly kind: 'dynamic';
  /** Default `row`. */
  readonly mode?: 'tensor' | 'row';
  /** Default `int8`; convolutions always take `uint8`, since onnxruntime has no fast kernel for the other. */
  readonly weights?: Int8;
  /** One scale for each output channel. Default true. */
  readonly perChannel?: boolean;
  /** Weights of 7 bits, for processors whose 8-bit products saturate. Default false. */
  readonly reduceRange?: boolean;
  /** Rows of embeddings as well. Default true. */
  readonly embeddings?: boolean;
  /** Convolutions as well. Default false: they are faster only in WebAssembly. */
  readonly convolutions?: boolean;
}

/** Weights and activations of 8 bits between QuantizeLinear and DequantizeLinear, by ranges that calibration found. */
export interface StaticInt8 {
  readonly kind: 'static';
  /** Default `uint8`: onnxruntime fuses it on x64, also where a value has several readers. */
  readonly activations?: Int8;
  /** Default `int8`. `uint8` weights go with `uint8` activations only. */
  readonly weights?: Int8;
  /** Default true. */
  readonly perChannel?: boolean;
  /** Default false. */
  readonly reduceRange?: boolean;
  /**
   * Depthwise convolutions as well. Default true: alone they are slower with 8 bits, but less so than the way to floats
   * and back between the layers around them.
   */
  readonly depthwise?: boolean;
  /** LSTMs over integers as well, quantized at each run: their rows depend on those beside them. Default false. */
  readonly lstms?: boolean;
}

/** Weights of 4 or 8 bits in blocks along the inner axis (`com.microsoft::MatMulNBits`); activations stay float. */
export interface BlockQuantized {
  readonly kind: 'nbits';
  readonly bits: 4 | 8;
  /** Weights that share a scale: a power of two, at least 16. Default 32 with 4 bits, 128 with 8. */
  readonly blockSize?: number;
  /** Without zero points. Default false. */
  readonly isSymmetric?: boolean;
  /** How exact products are: 0 as the kernel likes, 1 float32, 2 float16, 3 bfloat16, 4 int8. Default 4. */
  readonly accuracyLevel?: 0 | 1 | 2 | 3 | 4;
  /** Rows of embeddings as well, at 8 bits. Default true. */
  readonly embeddings?: boolean;
}

/** Floats of 16 bits, but for operators that have no such kernel. */
export interface Float16 {
  readonly kind: 'float16';
  /** Inputs and outputs stay float32. Default true. */
  readonly keepsIo?: boolean;
}

/** Weights of the smallest magnitude become zero. Smaller when compressed; not faster. */
export interface MagnitudePruning {
  readonly kind: 'prune';
  /** Share of each weight's elements that become zero, in [0, 1). */
  readonly sparsity: number;
}

/** A way to make a model smaller or faster. */
export type Technique = DynamicInt8 | StaticInt8 | BlockQuantized | Float16 | MagnitudePruning;

/** Smallest and largest element that a value took. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Ranges of values by name. */
export type Ranges = ReadonlyMap<string, Range>;

/** What every technique takes. */
export interface TechniqueOptions {
  /** Nodes that stay as they are: names of nodes or of their outputs, whole or as patterns. */
  readonly exclude?: readonly (string | RegExp)[];
  /** Quantizes also what is quantized already. Default false: such models are refused. */
  readonly isForced?: boolean;
}

/** What became of one node. */
export interface NodeNote {
  /** Name of the node, or of its first output. */
  readonly node: string;
  /** Operator. */
  readonly op: string;
  /** What was done, or why nothing was, for people: one clause. */
  readonly reason: string;
}

/** A model after a technique. */
export interface Rewritten {
  readonly model: ModelProto;
  /** Nodes that were rewritten. */
  readonly changed: readonly NodeNote[];
  /** Nodes that the technique is for and that stay as they were, each with the reason. */
  readonly kept: readonly NodeNote[];
  /** What the publisher should know: an input that can no longer be overridden, weights that are stored twice. */
  readonly warnings: readonly string[];
}

/** Tells whether a node is among those that stay as they are. */
export function isExcluded(
  { name = '', output }: { readonly name?: string; readonly output: readonly string[] },
  { exclude = [] }: TechniqueOptions,
): boolean {
  const names = [name, ...output].filter((one) => one !== '');
  return exclude.some((pattern) =>
    names.some((one) => (typeof pattern === 'string' ? one === pattern : new RegExp(pattern).test(one))),
  );
}
