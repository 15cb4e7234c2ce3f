/** Names of values across the graphs of one model. */

import type { GraphProto, ModelProto, NodeProto } from './messages.ts';
import { allGraphs, allNodes, replaceBodies } from './walk.ts';

/** Names of the values that a graph itself defines: inputs, constants and what its nodes give. */
export function definitionsOf(graph: GraphProto): Set<string> {
  const names = new Set<string>();
  for (const { name = '' } of graph.input) names.add(name);
  for (const { name = '' } of graph.initializer) names.add(name);
  for (const { values } of graph.sparseInitializer ?? []) names.add(values?.name ?? '');
  for (const { output } of graph.node) for (const value of output) names.add(value);
  names.delete('');
  return names;
}

/** All names of values and nodes, those that are only mentioned included. */
export function namesOf(model: ModelProto): Set<string> {
  const names = new Set<string>();
  const add = ({ name = '' }: { readonly name?: string }): void => void names.add(name);
  for (const graph of allGraphs(model)) {
    for (const name of definitionsOf(graph)) names.add(name);
    for (const list of [graph.output, graph.valueInfo ?? []]) list.forEach(add);
  }
  for (const node of allNodes(model)) {
    add(node);
    for (const list of [node.input, node.output]) for (const value of list) names.add(value);
  }
  return names;
}

/** Makes a function that gives names which are not taken, made up from a stem; each is taken from then on. */
export function createNamer(taken: Set<string>): (stem: string) => string {
  let next = 0;
  return (stem) => {
    let name = stem;
    while (name === '' || taken.has(name)) name = `${stem}_${(next += 1)}`;
    taken.add(name);
    return name;
  };
}

/**
 * Gives every value of the graph and its bodies a name of its own: two branches may call different values the same
 * (onnx docs/IR.md, "Names Within a Graph"). The graph of the model keeps its names.
 * @returns the model itself if no two graphs share a name.
 */
export function withUniqueNames(model: ModelProto, fresh: (stem: string) => string): ModelProto {
  const seen = new Set<string>();
  const shared = new Set<string>();
  // Functions are worlds of their own.
  for (const graph of allGraphs({ ...model, functions: [] })) {
    for (const name of definitionsOf(graph)) (seen.has(name) ? shared : seen).add(name);
  }
  if (shared.size === 0) return model;

  const renameBody = (body: GraphProto, outer: ReadonlyMap<string, string>): GraphProto => {
    const clashes = [...definitionsOf(body)].filter((name) => shared.has(name));
    const names = new Map(outer);
    for (const name of clashes) names.set(name, fresh(name));
    return renameGraph(body, names);
  };
  const renameGraph = (graph: GraphProto, names: ReadonlyMap<string, string>): GraphProto => {
    const renamed = (name: string): string => names.get(name) ?? name;
    const rename = <Named extends { readonly name?: string }>(one: Named): Named =>
      one.name !== undefined && names.has(one.name) ? { ...one, name: renamed(one.name) } : one;
    const renameNode = (node: NodeProto): NodeProto => ({
      ...replaceBodies(node, (body) => renameBody(body, names)),
      input: node.input.map(renamed),
      output: node.output.map(renamed),
    });
    return {
      ...graph,
      node: graph.node.map(renameNode),
      input: graph.input.map(rename),
      output: graph.output.map(rename),
      initializer: graph.initializer.map(rename),
      ...(graph.valueInfo && { valueInfo: graph.valueInfo.map(rename) }),
      ...(graph.sparseInitializer && {
        sparseInitializer: graph.sparseInitializer.map((one) =>
          one.values ? { ...one, values: rename(one.values) } : one,
        ),
      }),
      ...(graph.quantizationAnnotation && {
        quantizationAnnotation: graph.quantizationAnnotation.map((one) => ({
          ...one,
          ...(one.tensorName !== undefined && { tensorName: renamed(one.tensorName) }),
          ...(one.quantParameterTensorNames && {
            quantParameterTensorNames: one.quantParameterTensorNames.map((entry) =>
              entry.value === undefined ? entry : { ...entry, value: renamed(entry.value) },
            ),
          }),
        })),
      }),
    };
  };
  return { ...model, graph: renameGraph(model.graph, new Map()) };
}
