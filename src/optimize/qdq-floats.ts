/** Nodes that stay float beside nodes that compute with integers: which they are, and what they read. */

import { Tensor } from '../core/tensor.ts';
import type { NodeProto } from '../onnx/messages.ts';
import type { Edit } from '../onnx/rewrite.ts';
import { isStandardOp, type Scope } from '../onnx/scope.ts';
import { INT8_RANGES } from './arithmetic.ts';
import type { Mark, Plan } from './qdq-plan.ts';
import { poolFault, roleOf } from './qdq-rules.ts';
import type { Int8 } from './technique.ts';

/**
 * Finds the nodes that no product comes after: there integers gain nothing, and what is computed from the answers of
 * the last product, as boxes are, loses accuracy. A bias that is added to them belongs to the product. Linear in the
 * size of the graph.
 */
export function tailOf(scope: Scope, isProduct: (node: NodeProto) => boolean): ReadonlySet<NodeProto> {
  const isBias = ({ opType, input }: NodeProto): boolean => {
    const [sum = '', ...others] = input.filter((value) => scope.constant(value) === undefined);
    const producer = scope.producer(sum);
    return opType === 'Add' && others.length === 0 && producer !== undefined && isProduct(producer);
  };
  const leading = new Set<string>();
  const tail = new Set<NodeProto>();
  for (const node of [...scope.graph.node].reverse()) {
    if (isProduct(node) || isBias(node) || node.output.some((value) => leading.has(value))) {
      for (const value of node.input) leading.add(value);
    } else tail.add(node);
  }
  return tail;
}

/** What a float node reads in the place of values that were rounded. */
export interface FloatReads {
  /** Remembers that nodes read `rounded` where they would read `value`. */
  add(value: string, rounded: string): void;
  /** Inputs of a float node, and the nodes to put before it. */
  of(node: NodeProto): { readonly input: readonly string[]; readonly before: readonly NodeProto[] };
}

/**
 * Lets float nodes read what other float nodes gave before it was rounded, and keeps onnxruntime from quantizing their
 * weights: it takes each Conv, ConvTranspose and Gemm behind a DequantizeLinear for a quantized one whose weights were
 * forgotten, and rounds them with one scale for all channels (core/optimizer/qdq_transformer/weight_bias_quantization.cc).
 * It also takes pools between rounded values for quantized ones. A Clip to what the integers can say changes no value and
 * makes it pass by.
 */
export function createFloatReads(
  { marks, integers }: Plan,
  { scope, constant, derive, fresh }: Edit,
  activations: Int8,
): FloatReads {
  const unrounded = new Map<string, string>();
  const originals = new Map<string, string>();

  const isInteger = (value: string): boolean =>
    marks.has(value) && integers.has(scope.producer(value)?.output[0] ?? '');
  /** The scale by which a value was rounded; onnxruntime carries DequantizeLinear past what only moves elements. */
  const markBehind = (value: string): Mark | undefined => {
    for (let at = value; ;) {
      if (isInteger(at)) return marks.get(at);
      const producer = scope.producer(at);
      if (producer === undefined || roleOf(producer) !== 'follower') return undefined;
      if (MAKES_VALUES.has(producer.opType ?? '')) return undefined;
      at = producer.input[0] ?? '';
    }
  };
  const guard = (value: string, mark: Mark): { output: string; node?: NodeProto } => {
    let node: NodeProto | undefined;
    const output = derive(`clip of ${value}`, () => {
      const [min, max] = derive(`ends of ${mark.root}`, () =>
        endsOf(mark, activations).map((end, i) =>
          constant(`${mark.root}_${i === 0 ? 'least' : 'most'}`, end),
        ),
      ) as [string, string];
      const name = fresh(`${value}_Clip`);
      node = {
        input: [value, min, max],
        output: [fresh(`${value}_Clip_Output`)],
        name,
        opType: 'Clip',
        attribute: [],
      };
      return node.output[0] as string;
    });
    return { output, ...(node && { node }) };
  };

  return {
    add: (value, rounded) => {
      originals.set(rounded, value);
      if (!isInteger(value)) unrounded.set(rounded, value);
    },
    of: (node) => {
      const input = node.input.map((value) => unrounded.get(value) ?? value);
      const [data = '', weights = ''] = input;
      const isProduct = REQUANTIZED.has(node.opType ?? '') && scope.constant(weights) !== undefined;
      const isTaken = isStandardOp(node) && (isProduct || poolFault(node) !== undefined);
      const mark = isTaken ? markBehind(originals.get(data) ?? data) : undefined;
      if (mark === undefined) return { input, before: [] };
      const { output, node: clip } = guard(data, mark);
      return { input: [output, ...input.slice(1)], before: clip === undefined ? [] : [clip] };
    },
  };
}

const REQUANTIZED: ReadonlySet<string> = /* @__PURE__ */ new Set(['Conv', 'ConvTranspose', 'Gemm']);

/** What may give numbers beyond those that it reads. */
const MAKES_VALUES: ReadonlySet<string> = /* @__PURE__ */ new Set(['Pad', 'Resize']);

/** The smallest and the largest number that DequantizeLinear gives, computed as it does. */
function endsOf({ scale, zeroPoint }: Mark, activations: Int8): readonly Tensor<'float32'>[] {
  const { min, max } = INT8_RANGES[activations];
  return [min, max].map(
    (end) => new Tensor('float32', [], Float32Array.of(Math.fround(scale) * (end - zeroPoint))),
  );
}
