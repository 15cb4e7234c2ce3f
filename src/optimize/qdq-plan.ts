/** Which values of a graph are quantized, by which scales, and what becomes of each node. */

import type { GraphProto, ModelProto, NodeProto } from '../onnx/messages.ts';
import { opsetOf } from '../onnx/opset.ts';
import { attributeOf, intOf, labelOf, openScope, type Scope } from '../onnx/scope.ts';
import { fromTensorProto } from '../onnx/tensors.ts';
import { bodiesOf } from '../onnx/walk.ts';
import { affineOf, INT8_RANGES, type Affine } from './arithmetic.ts';
import { readEmbedding } from './embedding.ts';
import { tailOf } from './qdq-floats.ts';
import { plannedProduct, productOf, type Product } from './qdq-products.ts';
import { poolFault, roleOf } from './qdq-rules.ts';
import {
  isExcluded,
  type NodeNote,
  type Range,
  type Ranges,
  type StaticInt8,
  type TechniqueOptions,
  type ValueTypes,
} from './technique.ts';
import { readWeights, weightDTypeOf } from './weights.ts';

/** A value that is rounded to integers and back where it comes from. */
export interface Mark extends Affine {
  /** The value whose scale it is: itself, or one further up. */
  readonly root: string;
  /** The range that the scale was made for. */
  readonly range: Range;
}

/** What static quantization does to a graph. Nodes are known by their first output. */
export interface Plan {
  readonly marks: ReadonlyMap<string, Mark>;
  readonly products: ReadonlyMap<string, Product>;
  /** Nodes that read and give integers, the products included. */
  readonly integers: ReadonlySet<string>;
  /** Nodes that look rows up in a constant. */
  readonly tables: ReadonlySet<string>;
  /** Nodes that read float constants as if they were activations. */
  readonly operands: ReadonlySet<string>;
  /** Clamps that go, since rounding does their work. */
  readonly absorbed: ReadonlySet<string>;
  /** Values that get the name of what a clamp made of them. */
  readonly renamed: ReadonlyMap<string, string>;
  readonly changed: readonly NodeNote[];
  readonly kept: readonly NodeNote[];
}

/** What {@link planStatic} goes by. */
export interface PlanOptions extends TechniqueOptions {
  readonly types?: ValueTypes;
}

/** Why a node stays as it is; `undefined`: nobody expects otherwise, or it was planned. */
type Refusal = string | undefined;

const EXCLUDED = 'it is excluded';
const LATE = 'it comes after the last product, where integers gain nothing';

/** Decides for each node of the graph; linear in its size. Bodies of control flow stay as they are. */
export function planStatic(
  model: ModelProto,
  technique: StaticInt8,
  ranges: Ranges,
  options: PlanOptions = {},
): Plan {
  const scope = openScope(model);
  const ends = INT8_RANGES[technique.activations ?? 'uint8'];
  const marks = new Map<string, Mark>();
  const products = new Map<string, Product>();
  const integers = new Set<string>();
  const tables = new Set<string>();
  const operands = new Set<string>();
  const absorbed = new Set<string>();
  const renamed = new Map<string, string>();
  const changed: NodeNote[] = [];
  const kept: NodeNote[] = [];

  const tail = tailOf(scope, (node) => plannedProduct(node, scope, technique, options) !== undefined);
  const change = (node: NodeProto, reason: string): void => {
    integers.add(node.output[0] ?? '');
    changed.push(noteOf(node, reason));
  };
  const isConstant = (value: string): boolean => scope.constant(value) !== undefined;
  const rangeOf = (value: string): Range | undefined => {
    const dtype = options.types?.get(value)?.dtype ?? 'float32';
    return marks.get(value)?.range ?? (dtype === 'float32' ? ranges.get(value) : undefined);
  };
  const markOf = (root: string, range: Range): Mark => ({ root, range, ...affineOf(range, ends, false) });
  const mark = (value: string, range = rangeOf(value)): void => {
    if (!marks.has(value) && range !== undefined) marks.set(value, markOf(value, range));
  };
  const unknown = (values: readonly string[]): Refusal => {
    const value = values.find((one) => rangeOf(one) === undefined);
    return value === undefined ? undefined : `no range is known of "${value}"`;
  };

  /** The clamp that is the only reader of a value and whose work rounding would do. */
  const clampAfter = (value: string): NodeProto | undefined => {
    const [reader, ...others] = scope.readers(value);
    if (reader === undefined || others.length > 0 || scope.isOutput(value)) return undefined;
    if (roleOf(reader) !== 'clamp' || reader.input[0] !== value || isExcluded(reader, options))
      return undefined;
    // Bodies have outputs of their own.
    if (scope.producer(reader.output[0] ?? '') !== reader) return undefined;
    const limits = limitsOf(reader, scope);
    const range = rangeOf(reader.output[0] ?? '');
    if (limits === undefined || range === undefined) return undefined;
    const { scale, zeroPoint } = markOf('', range);
    const low = (ends.min - zeroPoint) * scale;
    const high = (ends.max - zeroPoint) * scale;
    return low >= limits.min - scale / 2 && high <= limits.max + scale / 2 ? reader : undefined;
  };

  /** Marks what a node gives, or what a clamp after it makes of that. */
  const finish = (node: NodeProto): Refusal => {
    const [output = ''] = node.output;
    const clamp = clampAfter(output);
    const value = clamp?.output[0] ?? output;
    const refusal = unknown([value]);
    if (refusal !== undefined) return refusal;
    if (clamp !== undefined) {
      absorbed.add(value);
      renamed.set(output, value);
    }
    mark(value);
    return undefined;
  };

  const planProduct = (node: NodeProto): Refusal => {
    const [data = ''] = node.input;
    const product = productOf(node, scope, technique);
    if (typeof product === 'string') return product;
    const refusal = unknown([data]) ?? finish(node);
    if (refusal !== undefined) return refusal;
    mark(data);
    products.set(node.output[0] ?? '', product);
    change(node, `weights of 8 bits${product.axis === undefined ? '' : ', a scale for each channel'}`);
    return undefined;
  };

  const planOperands = (node: NodeProto, finishNode: (node: NodeProto) => Refusal): Refusal => {
    const inputs = node.input.filter((value) => value !== '');
    const values = inputs.filter((value) => !isConstant(value));
    if (!values.some((value) => marks.has(value))) return undefined;
    const constants = inputs.filter(isConstant).map((value) => scope.constant(value));
    const isFloat = constants.every(
      (constant) => constant && weightDTypeOf(constant) === 'float32' && !constant.dims.includes(0),
    );
    if (!isFloat) return 'it reads a constant that is not of float32';
    if (constants.some((constant) => constant && !readWeights(constant).data.every(Number.isFinite))) {
      return 'it reads a constant that is not finite';
    }
    const refusal = poolFault(node) ?? unknown(values) ?? finishNode(node);
    if (refusal !== undefined) return refusal;
    for (const value of values) mark(value);
    if (constants.length > 0) operands.add(node.output[0] ?? '');
    change(node, 'computes with integers of 8 bits');
    return undefined;
  };

  const planFollower = (node: NodeProto): Refusal => {
    const source = marks.get(node.input[0] ?? '');
    if (source === undefined) return undefined;
    const refusal = followerFault(node, model, scope);
    if (refusal !== undefined) return refusal;
    for (const value of node.output) if (value !== '') marks.set(value, source);
    change(node, 'moves integers of 8 bits');
    return undefined;
  };

  const planClamp = (node: NodeProto): Refusal => {
    const [data = ''] = node.input;
    const [output = ''] = node.output;
    if (absorbed.has(output)) {
      change(node, 'rounding to integers does its work');
      return undefined;
    }
    if (!marks.has(data)) return undefined;
    const refusal = unknown([output]);
    if (refusal !== undefined) return refusal;
    mark(output);
    change(node, 'reads and gives integers of 8 bits');
    return undefined;
  };

  const planShare = (node: NodeProto): Refusal => {
    const [output = ''] = node.output;
    if (!marks.has(node.input[0] ?? '')) return undefined;
    if (scope.isOutput(output)) return 'its shares are an output of the model, where 8 bits are few';
    mark(output, { min: 0, max: 1 });
    change(node, 'computes with integers of 8 bits');
    return undefined;
  };

  const planTable = (node: NodeProto): Refusal => {
    const table = readEmbedding(node, scope);
    if (typeof table !== 'object') return table;
    tables.add(node.output[0] ?? '');
    changed.push(noteOf(node, 'rows of 8 bits, a scale for each'));
    return undefined;
  };

  const joinRanges = (node: NodeProto): Refusal => {
    const found = node.input.flatMap((value) => {
      const constant = scope.constant(value);
      return constant
        ? [extentOf(readWeights(constant).data)]
        : [rangeOf(value)].flatMap((range) => range ?? []);
    });
    const [output = ''] = node.output;
    if (options.types?.has(output) && options.types.get(output)?.dtype !== 'float32')
      return 'it joins no float32';
    mark(output, {
      min: Math.min(0, ...found.map(({ min }) => min)),
      max: Math.max(0, ...found.map(({ max }) => max)),
    });
    return undefined;
  };

  const plan = (node: NodeProto): Refusal => {
    const role = roleOf(node);
    if (role !== undefined && isExcluded(node, options)) return EXCLUDED;
    const isLate = tail.has(node) && role !== 'product' && role !== 'table';
    if (isLate && !absorbed.has(node.output[0] ?? '')) {
      return role !== undefined && node.input.some((value) => marks.has(value)) ? LATE : undefined;
    }
    switch (role) {
      case 'product':
        return planProduct(node);
      case 'table':
        return planTable(node);
      case 'elementwise':
        return planOperands(node, finish);
      case 'joiner':
        return planOperands(node, joinRanges);
      case 'follower':
        return planFollower(node);
      case 'clamp':
        return planClamp(node);
      case 'share':
        return planShare(node);
      default:
        return undefined;
    }
  };

  for (const node of model.graph.node) {
    const refusal = plan(node);
    if (refusal !== undefined) kept.push(noteOf(node, refusal));
    for (const body of bodiesOf(node)) {
      for (const inner of productsWithin(body))
        kept.push(noteOf(inner, 'it is inside of a body of control flow'));
    }
  }
  return { marks, products, integers, tables, operands, absorbed, renamed, changed, kept };
}

/** Values that a clamp lets through; `undefined` if they are not constant. */
function limitsOf(node: NodeProto, scope: Scope): Range | undefined {
  if (node.opType === 'Relu') return { min: 0, max: Number.POSITIVE_INFINITY };
  const limitOf = (value = '', otherwise: number): number | undefined => {
    if (value === '') return otherwise;
    const constant = scope.constant(value);
    return constant && weightDTypeOf(constant) === 'float32' ? readWeights(constant).data[0] : undefined;
  };
  const min = limitOf(node.input[1], Number.NEGATIVE_INFINITY);
  const max = limitOf(node.input[2], Number.POSITIVE_INFINITY);
  return min === undefined || max === undefined ? undefined : { min, max };
}

/** Why a node that only moves elements would not do so with integers. */
function followerFault(node: NodeProto, model: ModelProto, scope: Scope): Refusal {
  switch (node.opType) {
    case 'MaxPool':
      if ((opsetOf(model) ?? 0) < 12) return 'its kernel takes integers from opset 12 on';
      return node.output.length > 1 && node.output[1] !== '' ? 'it gives indices as well' : undefined;
    case 'Pad': {
      const value = node.input[2] ?? '';
      if (value === '') return undefined;
      const constant = scope.constant(value);
      const isZero = constant !== undefined && Number(fromTensorProto(constant).data[0]) === 0;
      return isZero ? undefined : 'it pads with something else than 0';
    }
    case 'Resize': {
      const mode = attributeOf(node, 'mode')?.s;
      // The kernel with 8 bits knows no cubic interpolation.
      if (mode !== undefined && mode[0] === CUBIC) return 'it interpolates cubically';
      return intOf(node, 'antialias', 0) === 0 ? undefined : 'it smooths what it shrinks';
    }
    default:
      return undefined;
  }
}

/** First letter of the mode. */
const CUBIC = 99;

function* productsWithin(body: GraphProto): Generator<NodeProto, void, undefined> {
  for (const node of body.node) {
    if (roleOf(node) === 'product') yield node;
    for (const inner of bodiesOf(node)) yield* productsWithin(inner);
  }
}

/** Smallest and largest element, and 0. */
export function extentOf(data: Float32Array): Range {
  return data.reduce(({ min, max }, value) => ({ min: Math.min(min, value), max: Math.max(max, value) }), {
    min: 0,
    max: 0,
  });
}

function noteOf(node: NodeProto, reason: string): NodeNote {
  return { node: labelOf(node), op: node.opType ?? '', reason };
}
