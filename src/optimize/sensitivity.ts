/** Which layers cost the most accuracy, so that they stay in floats when a goal is missed. */

import { labelOf } from '../onnx/scope.ts';
import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import type { LayerAccuracy } from './decision.ts';
import type { NodeNote } from './technique.ts';

/** Signal-to-noise ratio that counts as none lost, dB: more than any quantized layer keeps. */
const cleanDb = 80;

/**
 * Orders the nodes that a technique changed by what leaving them as they were may save: the first and the last one,
 * which see inputs and make answers, then those at which the signal-to-noise ratio falls most.
 * @param model - the model that the technique was applied to.
 * @param layers - values of it, compared before and after.
 * @returns labels of nodes, as `exclude` takes them.
 */
export function rankSensitive(
  model: ModelProto,
  changed: readonly NodeNote[],
  layers: readonly LayerAccuracy[],
): readonly string[] {
  const labels = new Set(changed.map(({ node }) => node));
  const nodes = model.graph.node.filter((node) => labels.has(labelOf(node)));
  const known = new Map(layers.map(({ value, sqnrDb }) => [value, Math.min(sqnrDb ?? cleanDb, cleanDb)]));
  const drop = ({ input, output }: NodeProto): number => {
    const after = known.get(output[0] ?? '');
    if (after === undefined) return 0;
    return Math.min(cleanDb, ...input.flatMap((value) => known.get(value) ?? [])) - after;
  };
  const ends = [nodes[0], nodes.at(-1)].flatMap((node) => node ?? []);
  const others = nodes.slice(1, -1).map((node) => ({ node, lost: drop(node) }));
  others.sort((a, b) => b.lost - a.lost);
  return [...new Set([...ends, ...others.map(({ node }) => node)].map(labelOf))];
}
