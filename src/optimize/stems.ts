/** Layers near the inputs that may run faster in floats: large pictures of few channels are where integers lose. */

import type { ModelProto } from '../onnx/messages.ts';
import { labelOf, openScope } from '../onnx/scope.ts';
import { plannedProduct } from './qdq-products.ts';
import type { StaticInt8, TechniqueOptions } from './technique.ts';

/** Most sets that are worth trying. */
const MOST = 6;
/** Terms of a sum from which on integers are surely faster. */
const LONG_SUM = 160;

/** Products that have as many products between them and the inputs, and the most terms that one of them sums. */
interface Level {
  readonly labels: string[];
  terms: number;
}

/**
 * Finds growing sets of products, from the inputs on, that may better stay float when the others are quantized.
 *
 * What integers gain grows with the terms of each sum (channels of a group times the size of the kernel), while turning
 * values into integers costs the same. So each set ends where the next sums are longer, which is after the depthwise
 * layer where such alternate with others, and none reaches sums of more than 160 terms. Linear in the size of the graph.
 * @returns at most six sets of labels of nodes, as `exclude` takes them, each with those before it.
 */
export function stemsOf(
  model: ModelProto,
  technique: StaticInt8,
  options: TechniqueOptions = {},
): readonly (readonly string[])[] {
  const levels = levelsOf(model, technique, options);
  const stems: (readonly string[])[] = [];
  let labels: readonly string[] = [];
  for (const [i, level] of levels.entries()) {
    const next = levels[i + 1];
    if (level.terms > LONG_SUM || next === undefined || stems.length === MOST) break;
    labels = [...labels, ...level.labels];
    if (next.terms > level.terms) stems.push(labels);
  }
  return stems;
}

function levelsOf(model: ModelProto, technique: StaticInt8, options: TechniqueOptions): readonly Level[] {
  const scope = openScope(model);
  const levels: Level[] = [];
  const depths = new Map<string, number>();
  for (const node of model.graph.node) {
    let depth = node.input.reduce((most, value) => Math.max(most, depths.get(value) ?? 0), 0);
    const product = plannedProduct(node, scope, technique, options);
    if (product !== undefined) {
      const level = (levels[depth] ??= { labels: [], terms: 0 });
      level.labels.push(labelOf(node));
      level.terms = Math.max(level.terms, product.terms);
      depth += 1;
    }
    for (const value of node.output) depths.set(value, depth);
  }
  return levels;
}
