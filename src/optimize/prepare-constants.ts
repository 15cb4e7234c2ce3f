/** Constants that are in a model several times, once. */

import { equalBytes } from '../core/bytes.ts';
import type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto } from '../onnx/messages.ts';
import { createNamer, namesOf } from '../onnx/names.ts';
import { allGraphs, bodiesOf } from '../onnx/walk.ts';

/** Smaller ones are not worth a name in the graph of the model. */
const LEAST_BYTES = 1024;

/**
 * Moves large constants that bodies have in common into the graph of the model: libraries that fold constants leave one of
 * them in each branch.
 */
export function shareConstants(model: ModelProto): ModelProto {
  const { graph } = model;
  const bodies = [...allGraphs(model)].filter((one) => one !== graph);
  const counts = new Map<TensorProto, number>();
  const find = createFinder(graph.initializer);
  for (const { initializer } of bodies) {
    for (const constant of initializer) {
      const same = find(constant);
      if (same !== undefined) counts.set(same, (counts.get(same) ?? 0) + 1);
    }
  }
  const fresh = createNamer(namesOf(model));
  const names = new Map<TensorProto, string>(
    graph.initializer.map((constant) => [constant, constant.name ?? '']),
  );
  const added: TensorProto[] = [];
  for (const [constant, count] of counts) {
    if (count < 2 || names.has(constant)) continue;
    const name = fresh(`${constant.name ?? ''}_shared`);
    names.set(constant, name);
    added.push({ ...constant, name });
  }
  const share = (constant: TensorProto): string | undefined => {
    const same = find(constant);
    return same && names.get(same);
  };
  const node = graph.node.map((one) => renamed(one, new Map(), share));
  return node.every((one, i) => one === graph.node[i])
    ? model
    : { ...model, graph: { ...graph, node, initializer: [...graph.initializer, ...added] } };
}

/** Makes a function that gives the first constant of the same type, shape and bytes; `undefined` for small ones. */
function createFinder(known: readonly TensorProto[]): (constant: TensorProto) => TensorProto | undefined {
  const alike = new Map<string, TensorProto[]>();
  const find = (constant: TensorProto): TensorProto | undefined => {
    const { rawData, dataType, dims } = constant;
    if (rawData === undefined || rawData.length < LEAST_BYTES) return undefined;
    const key = `${dataType} ${dims.join()}`;
    const list = alike.get(key) ?? [];
    alike.set(key, list);
    const same = list.find((one) => one === constant || equalBytes(one.rawData ?? rawData, rawData));
    if (same === undefined) list.push(constant);
    return same ?? constant;
  };
  for (const constant of known) find(constant);
  return find;
}

/** A node that reads constants under their new names, as the nodes of its bodies do. */
function renamed(
  node: NodeProto,
  names: ReadonlyMap<string, string>,
  share: (constant: TensorProto) => string | undefined,
): NodeProto {
  const inside = (body: GraphProto): GraphProto => {
    const own = new Map(names);
    // What a body defines itself hides what is outside.
    for (const { name = '' } of [...body.input, ...body.initializer]) own.delete(name);
    for (const value of body.node.flatMap(({ output }) => output)) own.delete(value);
    const outputs = new Set(body.output.map(({ name }) => name));
    const initializer = body.initializer.filter((constant) => {
      const name = outputs.has(constant.name) ? undefined : share(constant);
      if (name !== undefined) own.set(constant.name ?? '', name);
      return name === undefined;
    });
    const nodes = body.node.map((one) => renamed(one, own, share));
    const isSame =
      initializer.length === body.initializer.length && nodes.every((one, i) => one === body.node[i]);
    return isSame ? body : { ...body, node: nodes, initializer };
  };
  const attribute =
    bodiesOf(node).length === 0
      ? node.attribute
      : node.attribute.map((one): AttributeProto => {
          const { g, graphs } = one;
          return { ...one, ...(g && { g: inside(g) }), ...(graphs && { graphs: graphs.map(inside) }) };
        });
  const isRenamed = node.input.some((value) => names.has(value));
  const isSame = attribute.every(
    (one, i) => one.g === node.attribute[i]?.g && one.graphs === node.attribute[i]?.graphs,
  );
  if (!isRenamed && isSame) return node;
  return {
    ...node,
    input: isRenamed ? node.input.map((value) => names.get(value) ?? value) : node.input,
    attribute: isSame ? node.attribute : attribute,
  };
}
