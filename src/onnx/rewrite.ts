/** Rewriting of models, node by node: what is not touched is shared with the model that it came from. */

import type { Tensor } from '../core/tensor.ts';
import type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto } from './messages.ts';
import { openBody, openScope, type Scope } from './scope.ts';
import { toTensorProto } from './tensors.ts';
import { allGraphs, bodiesOf } from './walk.ts';

/** What a rewriter may do besides replacing nodes. */
export interface Edit {
  /** The graph that the node is in, as it was before anything was rewritten. */
  readonly scope: Scope;
  /** Makes up a name that no value and no node of the model has. */
  fresh(stem: string): string;
  /** Adds a constant, visible everywhere. The tensor is not copied. @returns Its name, made up from the stem. */
  constant(stem: string, tensor: Tensor): string;
  /**
   * Adds constants that follow from another one, only once for each `key`: weights that several nodes share are
   * rewritten once.
   */
  derive<Value>(key: string, make: () => Value): Value;
  /** From here on, nodes read `to` where they read `from`. Outputs of graphs keep their names. */
  redirect(from: string, to: string): void;
}

/**
 * Gives the nodes that take the place of one, in topological order, or `undefined` to keep it. The inputs of the node
 * are redirected already. Its outputs stay defined: by the nodes that replace it, unless nobody reads them any more.
 */
export type Rewriter = (node: NodeProto, edit: Edit) => readonly NodeProto[] | undefined;

/** How {@link rewriteModel} goes about it. */
export interface RewriteOptions {
  /** Operator sets that the model needs afterwards, by domain; higher versions that are there stay. */
  readonly opsets?: Readonly<Record<string, number>>;
  /** Lowest IR version afterwards. */
  readonly irVersion?: number;
}

/**
 * Rewrites the graph of a model and the bodies inside of it; local functions stay as they are.
 *
 * Constants and `Constant` nodes that nobody reads any more go, and graph inputs of that name with them, so that a
 * caller can no longer override them. Linear in the size of the graph.
 */
export function rewriteModel(
  model: ModelProto,
  rewrite: Rewriter,
  { opsets = {}, irVersion = 0 }: RewriteOptions = {},
): ModelProto {
  const taken = namesOf(model);
  const added: TensorProto[] = [];
  const derived = new Map<string, unknown>();
  const redirects = new Map<string, string>();
  let next = 0;
  const fresh = (stem: string): string => {
    let name = stem;
    while (name === '' || taken.has(name)) name = `${stem}_${(next += 1)}`;
    taken.add(name);
    return name;
  };
  const shared: Omit<Edit, 'scope'> = {
    fresh,
    constant: (stem, tensor) => {
      const name = fresh(stem);
      added.push(toTensorProto(name, tensor));
      return name;
    },
    derive: <Value>(key: string, make: () => Value): Value => {
      if (!derived.has(key)) derived.set(key, make());
      return derived.get(key) as Value;
    },
    redirect: (from, to) => void redirects.set(from, to),
  };

  const redirected = (node: NodeProto): NodeProto =>
    node.input.some((value) => redirects.has(value))
      ? { ...node, input: node.input.map((value) => redirects.get(value) ?? value) }
      : node;
  const rewriteGraph = (graph: GraphProto, scope: Scope): GraphProto => {
    const edit: Edit = { ...shared, scope };
    const nodes: NodeProto[] = [];
    for (const original of graph.node) {
      const node = withBodies(redirected(original), (body) => rewriteGraph(body, openBody(body, scope)));
      for (const one of rewrite(node, edit) ?? [node]) nodes.push(one);
    }
    return nodes.length === graph.node.length && nodes.every((node, i) => node === graph.node[i])
      ? graph
      : { ...graph, node: nodes };
  };
  const scope = openScope(model);
  const rewritten = rewriteGraph(model.graph, scope);
  if (rewritten === model.graph && added.length === 0) return model;
  const graph = withoutUnread({ ...rewritten, initializer: [...rewritten.initializer, ...added] }, scope);
  return {
    ...model,
    ...(irVersion > (model.irVersion ?? 0) && { irVersion }),
    graph,
    opsetImport: raised(model.opsetImport, opsets),
  };
}

/** A node whose bodies have been replaced; the node itself if none has. */
function withBodies(node: NodeProto, replace: (body: GraphProto) => GraphProto): NodeProto {
  if (bodiesOf(node).length === 0) return node;
  const attribute = node.attribute.map((one): AttributeProto => {
    if (one.g !== undefined) {
      const g = replace(one.g);
      return g === one.g ? one : { ...one, g };
    }
    if (one.graphs === undefined) return one;
    const graphs = one.graphs.map(replace);
    return graphs.every((body, i) => body === one.graphs?.[i]) ? one : { ...one, graphs };
  });
  return attribute.every((one, i) => one === node.attribute[i]) ? node : { ...node, attribute };
}

/** Drops constants that were read before and are not any more, with the inputs by which they could be overridden. */
function withoutUnread(graph: GraphProto, before: Scope): GraphProto {
  const read = new Set(graph.output.map(({ name = '' }) => name));
  const collect = ({ node, output }: GraphProto): void => {
    for (const { name = '' } of output) read.add(name);
    for (const one of node) {
      for (const value of one.input) read.add(value);
      for (const body of bodiesOf(one)) collect(body);
    }
  };
  collect(graph);
  const isLeft = (name: string): boolean => !read.has(name) && before.readers(name).length > 0;
  const isConstant = ({ opType, output }: NodeProto): boolean =>
    opType === 'Constant' && output.length === 1 && isLeft(output[0] ?? '');
  const constants = new Set(graph.initializer.map(({ name = '' }) => name));
  const defined = new Set(graph.node.flatMap(({ output }) => output));
  return {
    ...graph,
    node: graph.node.filter((node) => !isConstant(node)),
    initializer: graph.initializer.filter(({ name = '' }) => !isLeft(name)),
    input: graph.input.filter(({ name = '' }) => !(constants.has(name) && isLeft(name))),
    ...(graph.valueInfo && {
      valueInfo: graph.valueInfo.filter(({ name = '' }) => defined.has(name)),
    }),
  };
}

function raised(
  present: ModelProto['opsetImport'],
  needed: Readonly<Record<string, number>>,
): ModelProto['opsetImport'] {
  const isOf = (domain: string, other: string): boolean => (domain || 'ai.onnx') === (other || 'ai.onnx');
  const kept = present.map((opset) => {
    const [, wanted = 0] = Object.entries(needed).find(([name]) => isOf(name, opset.domain ?? '')) ?? [];
    return wanted > (opset.version ?? 0) ? { ...opset, version: wanted } : opset;
  });
  const missing = Object.entries(needed).filter(
    ([name]) => !present.some(({ domain = '' }) => isOf(name, domain)),
  );
  return [...kept, ...missing.map(([domain, version]) => ({ domain, version }))];
}

/** All names of values and nodes. */
function namesOf(model: ModelProto): Set<string> {
  const names = new Set<string>();
  for (const { node, input, output, initializer, sparseInitializer = [] } of allGraphs(model)) {
    for (const { name } of [...input, ...output, ...initializer]) names.add(name ?? '');
    for (const { values } of sparseInitializer) names.add(values?.name ?? '');
    for (const one of node) {
      names.add(one.name ?? '');
      for (const value of [...one.input, ...one.output]) names.add(value);
    }
  }
  return names;
}
