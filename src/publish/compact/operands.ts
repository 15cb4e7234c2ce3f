/** Which constants of a model are weights: what its operators multiply with, or look up rows in. */

import type { ModelProto, NodeProto } from '../../onnx/messages.ts';
import { attributeOf } from '../../onnx/scope.ts';
import { bodiesOf } from '../../onnx/walk.ts';

/** What a constant may be to count as a weight. */
export type WeightKind = 'any' | 'float';

type Inputs = Readonly<Record<string, readonly number[]>>;

/** Inputs that are weights, by operator (onnx docs/Operators.md, onnxruntime docs/ContribOperators.md). */
const WEIGHTS: Inputs = {
  ...of(
    [0, 1],
    'MatMul',
    'Gemm',
    'Einsum',
    'FusedMatMul',
    'FusedGemm',
    'MatMulInteger',
    'MatMulIntegerToFloat',
  ),
  ...of([1], 'Conv', 'ConvTranspose', 'ConvInteger', 'DeformConv', 'FusedConv', 'NhwcFusedConv'),
  ...of([1], 'DynamicQuantizeMatMul', 'MatMulNBits', 'Attention', 'QAttention'),
  ...of([0, 3], 'QLinearMatMul', 'QGemm'),
  ...of([3], 'QLinearConv'),
  ...of([1, 2], 'LSTM', 'GRU', 'RNN', 'DynamicQuantizeLSTM'),
  ...of([2, 3, 4], 'EmbedLayerNormalization', 'QEmbedLayerNormalization'),
  ...of([0], 'DequantizeLinear', 'GatherBlockQuantized'),
};
/** Rows of floats are embeddings; whole numbers that are looked up may mean anything. */
const TABLES: Inputs = of([0], 'Gather');
/** Operators whose first input is what they give, moved or converted; of `Concat`, all are. */
const MOVERS: ReadonlySet<string> = /* @__PURE__ */ new Set([
  'Identity',
  'Cast',
  'Transpose',
  'Reshape',
  'Flatten',
  'Squeeze',
  'Unsqueeze',
  'Slice',
  'Split',
  'QuantizeLinear',
]);

function of(inputs: readonly number[], ...operators: readonly string[]): Inputs {
  return Object.fromEntries(operators.map((operator) => [operator, inputs]));
}

/**
 * Finds the constants that are weights, by name. What only other operators read is none: biases, masks, tables of
 * positions, vocabularies, scales and zero points.
 */
export function findWeights(model: ModelProto): ReadonlyMap<string, WeightKind> {
  const functions = new Map((model.functions ?? []).map((one) => [keyOf(one.domain, one.name), one]));
  const inner = new Map<string, ReadonlyMap<string, WeightKind>>();
  const constants = new Map<string, WeightKind>();

  const visit = (nodes: readonly NodeProto[]): ReadonlyMap<string, WeightKind> => {
    const all = withBodies(nodes);
    const producers = new Map(all.flatMap((node) => node.output.map((name) => [name, node] as const)));
    const found = new Map<string, WeightKind>();
    const add = (name: string, kind: WeightKind, isTable: boolean): void => {
      if (name === '' || found.get(name) === 'any' || found.get(name) === kind) return;
      found.set(name, kind);
      const producer = producers.get(name);
      const { opType = '', input = [] } = producer ?? {};
      const constant = producer && attributeOf(producer, 'value')?.t?.name;
      if (opType === 'Constant' && constant !== undefined) constants.set(constant, kind);
      else if (opType === 'Concat') for (const part of input) add(part, kind, isTable);
      else if (MOVERS.has(opType) || (isTable && opType === 'Gather')) add(input[0] ?? '', kind, isTable);
    };
    for (const { opType = '', domain, input } of all) {
      // Rows of whole numbers are weights where they are turned into floats.
      for (const at of WEIGHTS[opType] ?? []) add(input[at] ?? '', 'any', opType === 'DequantizeLinear');
      for (const at of TABLES[opType] ?? []) add(input[at] ?? '', 'float', false);
      const body = functions.get(keyOf(domain, opType));
      if (body === undefined) continue;
      const ofBody = visitFunction(keyOf(domain, opType), body.node);
      body.input.forEach((name, at) => {
        const kind = ofBody.get(name);
        if (kind !== undefined) add(input[at] ?? '', kind, false);
      });
    }
    return found;
  };
  const visitFunction = (key: string, nodes: readonly NodeProto[]): ReadonlyMap<string, WeightKind> => {
    const known = inner.get(key);
    if (known !== undefined) return known;
    // One that calls itself finds nothing in itself, and ends.
    inner.set(key, new Map());
    const found = visit(nodes);
    inner.set(key, found);
    return found;
  };
  return new Map([...visit(model.graph.node), ...constants]);
}

function keyOf(domain = '', name = ''): string {
  return `${domain}::${name}`;
}

function withBodies(nodes: readonly NodeProto[]): readonly NodeProto[] {
  return nodes.flatMap((node) => [node, ...bodiesOf(node).flatMap((body) => withBodies(body.node))]);
}
