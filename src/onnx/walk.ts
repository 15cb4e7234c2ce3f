/** All graphs and nodes of a model. */
import type { AttributeProto, GraphProto, ModelProto, NodeProto } from './messages.ts';

/** Visits every node: of the graph, of functions, and of the bodies inside `If`, `Loop` and `Scan`; parents first. */
export function* allNodes(model: ModelProto): Generator<NodeProto, void, undefined> {
  yield* nodesWithin(model.graph.node);
  for (const { node } of model.functions ?? []) yield* nodesWithin(node);
}

/** Visits every graph: that of the model, and the bodies inside it and inside functions. */
export function* allGraphs(model: ModelProto): Generator<GraphProto, void, undefined> {
  yield model.graph;
  for (const node of allNodes(model)) yield* bodiesOf(node);
}

/** Bodies that a node carries in its attributes. */
export function bodiesOf(node: NodeProto): readonly GraphProto[] {
  return node.attribute.flatMap(({ g, graphs = [] }) => (g ? [g, ...graphs] : graphs));
}

/** Replaces the bodies that a node carries. @returns the node itself if each stays what it is. */
export function replaceBodies(node: NodeProto, replace: (body: GraphProto) => GraphProto): NodeProto {
  let isReplaced = false;
  const renew = (body: GraphProto): GraphProto => {
    const renewed = replace(body);
    isReplaced ||= renewed !== body;
    return renewed;
  };
  const attribute = node.attribute.map((one): AttributeProto =>
    one.g === undefined && one.graphs === undefined
      ? one
      : { ...one, ...(one.g && { g: renew(one.g) }), ...(one.graphs && { graphs: one.graphs.map(renew) }) },
  );
  return isReplaced ? { ...node, attribute } : node;
}

function* nodesWithin(nodes: readonly NodeProto[]): Generator<NodeProto, void, undefined> {
  for (const node of nodes) {
    yield node;
    for (const body of bodiesOf(node)) yield* nodesWithin(body.node);
  }
}
