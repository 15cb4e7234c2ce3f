/** What the parts of a model weigh and compute. */

import { sizeBytesOf, type DType } from '../core/dtype.ts';
import type { Dimension } from '../core/signature.ts';
import { sizeOf, workOf, type Lengths, type Shapes } from './costs-operations.ts';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from './messages.ts';
import { labelOf, openBody, openScope, type Scope } from './scope.ts';
import { dtypeOf } from './tensors.ts';
import { declaredTypes, type ValueType, type ValueTypes } from './types.ts';
import { bodiesOf } from './walk.ts';

/** One node. What cannot be told from the shapes is `null`, never 0. */
export interface NodeCost {
  /** Name of the node, or of its first output. */
  readonly node: string;
  /** Operator; of other domains as `domain::Name`. */
  readonly op: string;
  /** Products that one run adds up. */
  readonly macs: number | null;
  /** Operations on numbers that one run takes: two for each of those products. */
  readonly flops: number | null;
  /** Bytes of the constants that it reads, those that other nodes share included. */
  readonly weightBytes: number;
  /** Bytes of what it gives. */
  readonly outputBytes: number | null;
  /** Whether it is inside of a body, which runs any number of times. */
  readonly isInBody: boolean;
}

/** One value. */
export interface TensorCost {
  readonly name: string;
  readonly role: 'constant' | 'input' | 'output' | 'value';
  readonly dtype: DType | null;
  readonly shape: readonly Dimension[] | null;
  readonly elements: number | null;
  readonly sizeBytes: number | null;
  /** Nodes that read it. */
  readonly readers: number;
}

/** All nodes of one operator, each run once, also those inside of bodies. */
export interface OperatorCost {
  readonly op: string;
  readonly nodes: number;
  /** Sum over nodes whose work is known. */
  readonly macs: number;
  readonly flops: number;
  /** Nodes whose work is not known. */
  readonly unknown: number;
  /** Bytes of the constants that its nodes read, each counted once. */
  readonly weightBytes: number;
}

/** What {@link costsOf} finds. */
export interface CostReport {
  /** In order of the model, bodies after the node that carries them. */
  readonly nodes: readonly NodeCost[];
  /** Largest first; those of unknown size last. */
  readonly tensors: readonly TensorCost[];
  /** Most arithmetic first. */
  readonly operators: readonly OperatorCost[];
  /** One run of the graph; bodies are not in it, since nobody knows how often they run. */
  readonly total: {
    readonly macs: number;
    readonly flops: number;
    /** Nodes whose work is not known, those with bodies included. */
    readonly unknown: number;
    /** Bytes of all constants, each counted once. */
    readonly weightBytes: number;
  };
}

/** What {@link costsOf} may use besides the model. */
export interface CostOptions {
  /** Types of values; default: those that the model declares in its inputs, outputs and `value_info`. */
  readonly types?: ValueTypes;
  /** Lengths of symbolic axes by name: `{ batch: 8 }`. */
  readonly lengths?: Readonly<Record<string, number>>;
}

/**
 * Tells what each node computes and what each tensor takes. Local functions are not looked into: nodes that call them
 * are of unknown work.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for a constant of unknown dtype.
 */
export function costsOf(
  model: ModelProto,
  { types = new Map(), lengths = {} }: CostOptions = {},
): CostReport {
  const nodes: NodeCost[] = [];
  const tensors: TensorCost[] = [];
  const operators = createOperatorTable();
  const visit = (graph: GraphProto, scope: Scope, outer: TypeLookup | undefined): void => {
    const declared = declaredTypes(graph);
    // Types that are given are of the model's graph; a body may use the same name for something else.
    const typeOf: TypeLookup = (name) => {
      const constant = scope.constant(name);
      if (constant !== undefined) return { dtype: dtypeOf(constant), shape: constant.dims };
      if (outer === undefined) return informed(types.get(name), declared.get(name));
      return scope.definer(name) === scope ? declared.get(name) : outer(name);
    };
    const lengthsOf = (name: string): Lengths => known(typeOf(name)?.shape, lengths);
    for (const { name, role } of valuesOf(graph, scope)) {
      const type = typeOf(name);
      const constant = scope.constant(name);
      const elements = sizeOf(known(type?.shape, lengths)) ?? null;
      tensors.push({
        name,
        role,
        dtype: type?.dtype ?? null,
        shape: type?.shape ?? null,
        elements,
        sizeBytes: constant ? weightOf(constant) : bytesOf(type, elements),
        readers: scope.readers(name).length,
      });
    }
    for (const { values, indices, dims } of graph.sparseInitializer ?? []) {
      const name = values?.name ?? '';
      const parts = [values, indices].flatMap((part) => part ?? []).map(weightOf);
      tensors.push({
        name,
        role: 'constant',
        dtype: values ? dtypeOf(values) : null,
        shape: dims,
        elements: sizeOf(dims) ?? null,
        sizeBytes: sum(parts),
        readers: scope.readers(name).length,
      });
    }
    for (const node of graph.node) {
      const shapes: Shapes = {
        input: (index) => lengthsIn(node.input[index], lengthsOf),
        output: (index) => lengthsIn(node.output[index], lengthsOf),
      };
      const bodies = bodiesOf(node);
      const work = workOf(node, shapes);
      const weights = constantsReadBy(node, scope);
      const cost: NodeCost = {
        node: labelOf(node),
        op: operatorOf(node),
        macs: work?.macs ?? null,
        flops: work?.flops ?? null,
        weightBytes: weights.reduce((total, weight) => total + weightOf(weight), 0),
        outputBytes: sum(
          node.output
            .filter((name) => name !== '')
            .map((name) => bytesOf(typeOf(name), sizeOf(lengthsOf(name)) ?? null)),
        ),
        isInBody: outer !== undefined,
      };
      nodes.push(cost);
      operators.add(cost, weights);
      for (const body of bodies) visit(body, openBody(body, scope), typeOf);
    }
  };
  visit(model.graph, openScope(model), undefined);
  const run = nodes.filter(({ isInBody }) => !isInBody);
  return {
    nodes,
    tensors: tensors.sort((a, b) => (b.sizeBytes ?? -1) - (a.sizeBytes ?? -1)),
    operators: operators.finish(),
    total: {
      macs: run.reduce((total, { macs }) => total + (macs ?? 0), 0),
      flops: run.reduce((total, { flops }) => total + (flops ?? 0), 0),
      unknown: run.filter(({ flops }) => flops === null).length,
      weightBytes: tensors.reduce(
        (total, { role, sizeBytes }) => total + (role === 'constant' ? (sizeBytes ?? 0) : 0),
        0,
      ),
    },
  };
}

type TypeLookup = (name: string) => ValueType | undefined;

/** Every dense value that a graph itself defines, once. */
function valuesOf(graph: GraphProto, scope: Scope): readonly Pick<TensorCost, 'name' | 'role'>[] {
  const roles = new Map<string, TensorCost['role']>();
  const add = (name: string, role: TensorCost['role']): void => {
    if (name !== '' && !roles.has(name)) roles.set(name, scope.constant(name) ? 'constant' : role);
  };
  for (const { name = '' } of graph.initializer) add(name, 'constant');
  for (const { name = '' } of graph.input) add(name, 'input');
  for (const { output } of graph.node) {
    for (const name of output) add(name, scope.isOutput(name) ? 'output' : 'value');
  }
  return Array.from(roles, ([name, role]) => ({ name, role }));
}

function constantsReadBy(node: NodeProto, scope: Scope): readonly TensorProto[] {
  const read = [...new Set(node.input)].filter((name) => name !== '').map((name) => scope.constant(name));
  return read.filter((constant) => constant !== undefined);
}

function weightOf(constant: TensorProto): number {
  const dtype = dtypeOf(constant);
  if (dtype !== 'string') return sizeBytesOf(dtype, sizeOf(constant.dims) ?? 0);
  return constant.stringData?.reduce((total, text) => total + text.length, 0) ?? 0;
}

/** A given type, with what only the declared one says. */
function informed(given: ValueType | undefined, declared: ValueType | undefined): ValueType | undefined {
  const shape = given?.shape ?? null;
  if (given === undefined || shape === null) return declared?.shape ? declared : (given ?? declared);
  return { ...given, shape: shape.map((axis, i) => axis ?? declared?.shape?.[i] ?? null) };
}

function known(
  shape: readonly Dimension[] | null | undefined,
  lengths: Readonly<Record<string, number>>,
): Lengths {
  const axes = shape?.map((axis) => {
    if (typeof axis !== 'string') return axis;
    return Object.hasOwn(lengths, axis) ? (lengths[axis] ?? null) : null;
  });
  return axes?.every((axis) => axis !== null) ? axes : undefined;
}

function lengthsIn(name: string | undefined, lengthsOf: (name: string) => Lengths): Lengths {
  return name ? lengthsOf(name) : undefined;
}

function bytesOf(type: ValueType | undefined, elements: number | null): number | null {
  if (type === undefined || type.dtype === 'string' || elements === null) return null;
  return sizeBytesOf(type.dtype, elements);
}

function sum(parts: readonly (number | null)[]): number | null {
  return parts.reduce<number | null>(
    (total, part) => (total === null || part === null ? null : total + part),
    0,
  );
}

function operatorOf({ domain, opType = '' }: NodeProto): string {
  return domain && domain !== 'ai.onnx' ? `${domain}::${opType}` : opType;
}

function createOperatorTable(): {
  add(cost: NodeCost, weights: readonly TensorProto[]): void;
  finish(): readonly OperatorCost[];
} {
  const table = new Map<string, { nodes: NodeCost[]; weights: Set<TensorProto> }>();
  return {
    add: (cost, weights) => {
      const row = table.get(cost.op) ?? { nodes: [], weights: new Set() };
      row.nodes.push(cost);
      for (const weight of weights) row.weights.add(weight);
      table.set(cost.op, row);
    },
    finish: () =>
      Array.from(table, ([op, { nodes, weights }]): OperatorCost => ({
        op,
        nodes: nodes.length,
        macs: nodes.reduce((total, { macs }) => total + (macs ?? 0), 0),
        flops: nodes.reduce((total, { flops }) => total + (flops ?? 0), 0),
        unknown: nodes.filter(({ flops }) => flops === null).length,
        weightBytes: [...weights].reduce((total, weight) => total + weightOf(weight), 0),
      })).sort((a, b) => b.flops - a.flops || b.weightBytes - a.weightBytes || b.nodes - a.nodes),
  };
}
