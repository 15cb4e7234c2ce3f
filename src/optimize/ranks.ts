/** How many axes values have, where the model tells without being run. */

import type { GraphProto, NodeProto } from '../onnx/messages.ts';
import type { Scope } from '../onnx/scope.ts';

/** The number of axes of a value, as it is seen from a graph; `undefined` where it is not known. */
export type Ranks = (value: string, scope: Scope) => number | undefined;

/** Starts to look: each graph is gone through once, when one of its values is asked for. Its nodes are in order. */
export function createRanks(): Ranks {
  const known = new Map<GraphProto, Map<string, number>>();
  const rankOf: Ranks = (value, from) => {
    const scope = from.definer(value);
    if (scope === undefined) return undefined;
    return (known.get(scope.graph) ?? explore(scope)).get(value);
  };
  const explore = (scope: Scope): ReadonlyMap<string, number> => {
    const { graph } = scope;
    const ranks = new Map<string, number>();
    known.set(graph, ranks);
    for (const { name = '', type } of [...graph.input, ...(graph.valueInfo ?? [])]) {
      const { dim } = type?.tensorType?.shape ?? {};
      if (dim !== undefined) ranks.set(name, dim.length);
    }
    for (const { name = '', dims } of graph.initializer) ranks.set(name, dims.length);
    for (const node of graph.node) {
      const [value = ''] = node.output;
      const rank = ranks.has(value) ? undefined : rankAfter(node, (name) => rankOf(name, scope));
      if (rank !== undefined) ranks.set(value, rank);
    }
    return ranks;
  };
  return rankOf;
}

/** Operators whose first output has as many axes as their first input. */
const KEEPING = new Set(
  (
    'Abs Cast Clip Conv BatchNormalization BiasGelu Dropout Elu Erf FastGelu Gelu HardSigmoid HardSwish Identity ' +
    'LayerNormalization LeakyRelu Neg PRelu QuickGelu Relu Sigmoid SimplifiedLayerNormalization ' +
    'SkipLayerNormalization Softmax Softplus Sqrt Tanh Transpose'
  ).split(' '),
);
/** Operators whose output has as many axes as the one of their inputs that has the most. */
const BROADCASTING = new Set(['Add', 'Sub', 'Mul', 'Div', 'Pow', 'Max', 'Min', 'Where', 'MatMul']);
/** Operators that give matrices. */
const FLAT = new Set(['Gemm', 'Flatten']);

function rankAfter(
  { opType = '', domain = '', input }: NodeProto,
  rankOf: (value: string) => number | undefined,
): number | undefined {
  if (!/^(ai\.onnx|com\.microsoft)?$/.test(domain)) return undefined;
  if (FLAT.has(opType)) return 2;
  if (KEEPING.has(opType)) return rankOf(input[0] ?? '');
  if (!BROADCASTING.has(opType) && opType !== 'Gather') return undefined;
  const ranks = input.map(rankOf).filter((rank) => rank !== undefined);
  // A vector in a product of matrices takes an axis away.
  const isVector = opType === 'MatMul' && ranks.includes(1);
  if (ranks.length < input.length || isVector) return undefined;
  return opType === 'Gather' ? ranks.reduce((sum, rank) => sum + rank, -1) : Math.max(...ranks);
}
