/** Names of nodes before onnxruntime rewrote the graph. */

import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { labelOf, type Scope } from '../onnx/scope.ts';
import { allGraphs } from '../onnx/walk.ts';

/** What onnxruntime adds to a name when it moves, copies or fuses a node. */
const ADDED = /^fused |^InsertedPrecisionFreeCast_|_token_\d+$|_nchwc$|\/(duplicated|MatMulAddFusion).*$/g;
/** How far a node that was made up is followed to one that was there. */
const STEPS = 6;

/**
 * Makes the function that names a node of the optimised graph as it was called in the original: by its own name, by that
 * without what fusions add, by the value that it gives, or else by the node that reads what it gives.
 */
export function originOf(original: ModelProto | undefined): (node: NodeProto, scope: Scope) => string {
  if (original === undefined) return labelOf;
  const names = new Set<string>();
  const makers = new Map<string, NodeProto>();
  for (const graph of allGraphs(original)) {
    for (const node of graph.node) {
      if (node.name) names.add(node.name);
      for (const value of node.output) if (value !== '') makers.set(value, node);
    }
  }
  const known = ({ name = '', output }: NodeProto): string | undefined => {
    const bare = name.replace(ADDED, '');
    const called = [name, bare].find((one) => names.has(one));
    if (called !== undefined) return called;
    const maker = [...output, bare, ...output.map((value) => value.replace(ADDED, ''))]
      .map((value) => makers.get(value))
      .find((one) => one !== undefined);
    return maker && labelOf(maker);
  };
  return (node, scope) => {
    let reader: NodeProto | undefined = node;
    for (let step = 0; step < STEPS && reader !== undefined; step += 1) {
      const name = known(reader);
      if (name !== undefined) return name;
      reader = scope.readers(reader.output[0] ?? '')[0];
    }
    return labelOf(node);
  };
}
