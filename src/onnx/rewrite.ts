/** Rewriting of models, node by node: what is not touched is shared with the model that it came from. */

import type { Tensor } from '../core/tensor.ts';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from './messages.ts';
import { createNamer, definitionsOf, namesOf, withUniqueNames } from './names.ts';
import { isStandardOp, openBody, openScope, type Scope } from './scope.ts';
import { sortGraph } from './sort.ts';
import { toTensorProto } from './tensors.ts';
import { bodiesOf, replaceBodies } from './walk.ts';

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
  /**
   * From here on, nodes of this graph and of bodies in it read `to` where they read `from`; those that the rewriter
   * gives read what it says. Outputs of graphs keep their names.
   */
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
 * Rewrites the graph of a model and the bodies inside of it; local functions stay as they are. Nodes are put in order
 * before, and a body's values get other names where another graph has some of the same name.
 *
 * Constants and `Constant` nodes that nobody reads any more go, and graph inputs of that name with them, so that a
 * caller can no longer override them. A model before IR version 4, where every constant had to be an input, becomes one
 * of version 4 without those inputs if constants are added. Linear in the size of the graph.
 * @returns the model itself if the rewriter changed nothing.
 */
export function rewriteModel(
  model: ModelProto,
  rewrite: Rewriter,
  { opsets = {}, irVersion = 0 }: RewriteOptions = {},
): ModelProto {
  const fresh = createNamer(namesOf(model));
  const graph = sortGraph(withUniqueNames(model, fresh).graph);
  const added: TensorProto[] = [];
  const derived = new Map<string, unknown>();
  const shared: Omit<Edit, 'scope' | 'redirect'> = {
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
  };
  const rewriteGraph = (before: GraphProto, scope: Scope, outer?: Redirects): GraphProto => {
    const redirects = createRedirects(outer);
    const edit: Edit = { ...shared, scope, redirect: redirects.add };
    const nodes: NodeProto[] = [];
    for (const original of before.node) {
      const node = replaceBodies(redirects.apply(original), (body) =>
        rewriteGraph(body, openBody(body, scope), redirects),
      );
      for (const one of rewrite(node, edit) ?? [node]) nodes.push(one);
    }
    return nodes.length === before.node.length && nodes.every((node, i) => node === before.node[i])
      ? before
      : { ...before, node: nodes };
  };
  const rewritten = rewriteGraph(graph, openScope({ ...model, graph }));
  if (rewritten === graph && added.length === 0) return model;

  const after = { ...rewritten, initializer: [...rewritten.initializer, ...added] };
  const { irVersion: present = 0 } = model;
  const needed = Math.max(irVersion, added.length > 0 ? FREE_CONSTANTS : 0, present);
  const isFreed = present < FREE_CONSTANTS && needed >= FREE_CONSTANTS;
  return {
    ...model,
    ...(needed > present && { irVersion: needed }),
    graph: withoutUnread(isFreed ? withoutDefaults(after) : after, readsOf(graph)),
    opsetImport: raised(model.opsetImport, opsets),
  };
}

/** IR version from which on a constant need not be an input (onnx docs/Versioning.md). */
const FREE_CONSTANTS = 4;

/** What nodes of one graph and of the bodies in it read instead of what they say. */
interface Redirects {
  readonly add: (from: string, to: string) => void;
  target(value: string): string | undefined;
  apply(node: NodeProto): NodeProto;
}

function createRedirects(outer: Redirects | undefined): Redirects {
  const targets = new Map<string, string>();
  const target = (value: string): string | undefined => targets.get(value) ?? outer?.target(value);
  const follow = (value: string): string => {
    let last = value;
    for (let next = target(last); next !== undefined; next = target(last)) last = next;
    return last;
  };
  return {
    target,
    add: (from, to) => {
      if (follow(to) === from) throw new RangeError(`The value "${from}" cannot be redirected to itself.`);
      targets.set(from, to);
    },
    apply: (node) =>
      node.input.some((value) => target(value) !== undefined)
        ? { ...node, input: node.input.map(follow) }
        : node,
  };
}

/** Everything that nodes and outputs read, in a graph and in its bodies. */
function readsOf(graph: GraphProto): Set<string> {
  const reads = new Set<string>();
  const collect = ({ node, output }: GraphProto): void => {
    for (const { name = '' } of output) reads.add(name);
    for (const one of node) {
      for (const value of one.input) reads.add(value);
      for (const body of bodiesOf(one)) collect(body);
    }
  };
  collect(graph);
  return reads;
}

/** Drops constants that were read before and are not any more, with the inputs by which they could be overridden. */
function withoutUnread(after: GraphProto, before: ReadonlySet<string>): GraphProto {
  const reads = readsOf(after);
  const isLeft = (name = ''): boolean => before.has(name) && !reads.has(name);
  const isConstant = (node: NodeProto): boolean =>
    node.opType === 'Constant' && isStandardOp(node) && isLeft(node.output[0]);
  const clean = (graph: GraphProto): GraphProto => {
    const constants = constantsOf(graph);
    const node = graph.node.filter((one) => !isConstant(one)).map((one) => replaceBodies(one, clean));
    const kept = {
      ...graph,
      node,
      initializer: graph.initializer.filter(({ name }) => !isLeft(name)),
      input: graph.input.filter(({ name = '' }) => !(constants.has(name) && isLeft(name))),
      ...(graph.sparseInitializer && {
        sparseInitializer: graph.sparseInitializer.filter(({ values }) => !isLeft(values?.name)),
      }),
    };
    const definitions = definitionsOf(kept);
    const valueInfo = graph.valueInfo?.filter(({ name = '' }) => definitions.has(name));
    const isSame =
      definitions.size === definitionsOf(graph).size && node.every((one, i) => one === graph.node[i]);
    return isSame && valueInfo?.length === graph.valueInfo?.length
      ? graph
      : { ...kept, ...(valueInfo && { valueInfo }) };
  };
  return clean(after);
}

function withoutDefaults(graph: GraphProto): GraphProto {
  const constants = constantsOf(graph);
  return { ...graph, input: graph.input.filter(({ name = '' }) => !constants.has(name)) };
}

function constantsOf({ initializer, sparseInitializer = [] }: GraphProto): Set<string> {
  return new Set([
    ...initializer.map(({ name = '' }) => name),
    ...sparseInitializer.map(({ values }) => values?.name ?? ''),
  ]);
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
