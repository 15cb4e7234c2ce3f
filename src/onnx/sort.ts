/** The order of nodes. */

import type { GraphProto, NodeProto } from './messages.ts';
import { definitionsOf } from './names.ts';
import { bodiesOf, replaceBodies } from './walk.ts';

/**
 * Puts nodes in an order in which each reads what is defined before it, near to the one that they are in. ONNX asks for
 * such an order, but files without it are around, and onnxruntime takes them. Linear; long chains take no stack.
 * @returns the list itself if it is in order; `undefined` if nodes read each other in a circle.
 */
export function sortNodes(nodes: readonly NodeProto[]): readonly NodeProto[] | undefined {
  const makers = new Map<string, number>();
  for (const [i, { output }] of nodes.entries()) for (const value of output) makers.set(value, i);
  makers.delete('');
  const needs = nodes.map((node) =>
    readsOfNode(node).flatMap((value): readonly number[] => {
      const maker = makers.get(value);
      return maker === undefined ? [] : [maker];
    }),
  );
  if (needs.every((makersOfNode, i) => makersOfNode.every((maker) => maker < i))) return nodes;

  const [OPEN, DONE] = [1, 2];
  const states = new Uint8Array(nodes.length);
  const sorted: NodeProto[] = [];
  for (const root of nodes.keys()) {
    if (states[root] === DONE) continue;
    const path = [{ at: root, next: 0 }];
    states[root] = OPEN;
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const needed = needs[top.at]?.[top.next];
      top.next += 1;
      if (needed === undefined) {
        states[top.at] = DONE;
        sorted.push(nodes[top.at] as NodeProto);
        path.pop();
      } else if (states[needed] === OPEN) return undefined;
      else if (states[needed] !== DONE) {
        states[needed] = OPEN;
        path.push({ at: needed, next: 0 });
      }
    }
  }
  return sorted;
}

/** Sorts the nodes of a graph and of the bodies in it; a circle stays as it is. @returns the graph itself if all are in order. */
export function sortGraph(graph: GraphProto): GraphProto {
  const nodes = graph.node.map((node) => replaceBodies(node, sortGraph));
  const sorted = sortNodes(nodes) ?? nodes;
  return sorted.every((node, i) => node === graph.node[i]) ? graph : { ...graph, node: sorted };
}

/** Values that a node and the bodies in it read from around the node. */
function readsOfNode(node: NodeProto): readonly string[] {
  const bodies = bodiesOf(node);
  if (bodies.length === 0) return node.input;
  const inner = bodies.flatMap((body) => {
    const definitions = definitionsOf(body);
    const reads = [...body.output.map(({ name = '' }) => name), ...body.node.flatMap(readsOfNode)];
    return reads.filter((value) => !definitions.has(value));
  });
  return [...new Set([...node.input, ...inner])];
}
