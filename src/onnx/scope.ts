/** What the values of a model's graphs are, and who reads them. */

import type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto } from './messages.ts';
import { definitionsOf } from './names.ts';
import { bodiesOf } from './walk.ts';

/** A graph with the graphs around it: a body sees what they define (onnx docs/IR.md, "Names Within a Graph"). */
export interface Scope {
  readonly graph: GraphProto;
  /** The graph whose node carries this one; absent for that of the model. */
  readonly outer: Scope | undefined;
  /** The scope that defines a value, from here outwards. */
  definer(value: string): Scope | undefined;
  /** The node that gives a value, from here outwards. */
  producer(value: string): NodeProto | undefined;
  /**
   * Nodes that read a value of this graph or of one around it, in order: those inside of bodies, and those whose body
   * gives it back, included.
   */
  readers(value: string): readonly NodeProto[];
  /** Whether a value is an output of the graph that defines it. */
  isOutput(value: string): boolean;
  /** Whether a value is an input of the graph that defines it, constants that callers may override included. */
  isInput(value: string): boolean;
  /** The constant that a value is: an initializer, or what a `Constant` node holds as a tensor. */
  constant(value: string): TensorProto | undefined;
}

/** Describes the graph of a model. Linear in the number of its nodes; nothing is copied. */
export function openScope(model: ModelProto): Scope {
  return createScope(model.graph, undefined);
}

/** Describes the body that a node of `outer` carries. */
export function openBody(body: GraphProto, outer: Scope): Scope {
  return createScope(body, outer);
}

/** The attribute of that name. */
export function attributeOf(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((attribute) => attribute.name === name);
}

/** An integer attribute, or what the operator takes without it. */
export function intOf(node: NodeProto, name: string, otherwise: number): number {
  const { i } = attributeOf(node, name) ?? {};
  return i === undefined ? otherwise : Number(i);
}

/** A float attribute, or what the operator takes without it. */
export function floatOf(node: NodeProto, name: string, otherwise: number): number {
  return attributeOf(node, name)?.f ?? otherwise;
}

/** A list of integers, or `undefined`. */
export function intsOf(node: NodeProto, name: string): readonly number[] | undefined {
  const { ints } = attributeOf(node, name) ?? {};
  return ints && Array.from(ints, Number);
}

/** Whether a node is of the standard operators. */
export function isStandardOp({ domain = '' }: NodeProto): boolean {
  return domain === '' || domain === 'ai.onnx';
}

/** What people and options call a node: its name, or that of its first output. */
export function labelOf({ name, output }: NodeProto): string {
  return name || output.find((value) => value !== '') || '';
}

function createScope(graph: GraphProto, outer: Scope | undefined): Scope {
  const initializers = new Map(graph.initializer.map((tensor) => [tensor.name ?? '', tensor]));
  const inputs = new Set(graph.input.map(({ name = '' }) => name));
  const outputs = new Set(graph.output.map(({ name = '' }) => name));
  const producers = new Map<string, NodeProto>();
  for (const node of graph.node) for (const value of node.output) producers.set(value, node);
  const definitions = definitionsOf(graph);
  const readers = readersWithin(graph.node);
  const defines = (value: string): boolean => definitions.has(value);
  const scope: Scope = {
    graph,
    outer,
    definer: (value) => (defines(value) ? scope : outer?.definer(value)),
    producer: (value) => (defines(value) ? producers.get(value) : outer?.producer(value)),
    readers: (value) => (defines(value) ? (readers.get(value) ?? []) : (outer?.readers(value) ?? [])),
    isOutput: (value) => (defines(value) ? outputs.has(value) : (outer?.isOutput(value) ?? false)),
    isInput: (value) => (defines(value) ? inputs.has(value) : (outer?.isInput(value) ?? false)),
    constant: (value) => {
      if (!defines(value)) return outer?.constant(value);
      const producer = producers.get(value);
      if (producer === undefined) return initializers.get(value);
      if (producer.opType !== 'Constant' || !isStandardOp(producer)) return undefined;
      return attributeOf(producer, 'value')?.t;
    },
  };
  return scope;
}

/** Who reads which value, in order. What a body defines itself is not read from around it. */
function readersWithin(nodes: readonly NodeProto[]): ReadonlyMap<string, readonly NodeProto[]> {
  const readers = new Map<string, NodeProto[]>();
  const inner: ReadonlySet<string>[] = [];
  const read = (value: string, by: NodeProto): void => {
    if (value === '' || inner.some((definitions) => definitions.has(value))) return;
    const list = readers.get(value);
    if (list === undefined) readers.set(value, [by]);
    else if (list.at(-1) !== by) list.push(by);
  };
  const visit = (node: NodeProto): void => {
    for (const value of node.input) read(value, node);
    for (const body of bodiesOf(node)) {
      inner.push(definitionsOf(body));
      // A body may give back what it sees around it.
      for (const { name = '' } of body.output) read(name, node);
      for (const one of body.node) visit(one);
      inner.pop();
    }
  };
  for (const node of nodes) visit(node);
  return readers;
}
