/** Embeddings with rows of 8 bits: a `Gather` of integers, and one of their scales. */

import { DTYPES } from '../core/dtype.ts';
import { Tensor } from '../core/tensor.ts';
import type { NodeProto } from '../onnx/messages.ts';
import { intOf, isStandardOp, labelOf, type Scope } from '../onnx/scope.ts';
import { addSteps, createEmitter, type Step } from './emitter.ts';
import { readWeightUse, type WeightUse } from './products.ts';
import type { Outcome, WeightEdit } from './weight-rewrite.ts';
import { quantizeWeights } from './weights.ts';

/** Rows below this length gain too little: each has a scale of 4 bytes, and takes three nodes more. */
const SHORTEST_ROW = 16;

/** Names of the constants that a table of embeddings becomes. */
export interface QuantizedRows {
  /** int8, of the shape that the table had. */
  readonly values: string;
  /** One for each row. */
  readonly scales: Float32Array;
}

/** The table that a node looks rows up in, why it is not quantized, or `undefined` if it looks up something else. */
export function readEmbedding(node: NodeProto, scope: Scope): WeightUse | string | undefined {
  if (node.opType !== 'Gather' || !isStandardOp(node)) return undefined;
  const [table = ''] = node.input;
  const use = readWeightUse(table, scope);
  if (typeof use === 'string') return undefined;
  const { shape } = use;
  const axis = intOf(node, 'axis', 0);
  if (shape.length < 2 || (axis !== 0 && axis !== -shape.length)) return undefined;
  const row = shape.slice(1).reduce((size, length) => size * length, 1);
  return row < SHORTEST_ROW ? `its rows have ${row} elements, too few to gain` : use;
}

/** The rows of a table as int8, each with a scale of its own. */
export function quantizeRows(use: WeightUse, edit: WeightEdit): QuantizedRows {
  return edit.once(use, 'int8 rows', (weights) => {
    const { values, scale } = quantizeWeights(weights, { dtype: 'int8', axis: 0 });
    return { values: edit.constant(`${use.value}_quantized`, values), scales: scale.data };
  });
}

/** Rewrites a `Gather` of rows; the result is float as before. */
export function rewriteEmbedding(node: NodeProto, edit: WeightEdit): Outcome {
  const use = readEmbedding(node, edit.scope);
  if (typeof use !== 'object') return use === undefined ? undefined : { kept: use };
  const { values, scales } = quantizeRows(use, edit);
  const columns = edit.derive(`row scales ${use.value}`, () =>
    edit.constant(
      `${use.value}_scale`,
      new Tensor(
        'float32',
        use.shape.map((length, axis) => (axis === 0 ? length : 1)),
        scales,
      ),
    ),
  );
  const { nodes, add } = createEmitter(edit, labelOf(node));
  const [, indices = '', output = ''] = [...node.input, ...node.output];
  const cast =
    (dtype: keyof typeof DTYPES): Step =>
    (value, name) =>
      add('Cast', [value], { attributes: { to: DTYPES[dtype].onnx }, output: name });
  const rows = add('Gather', [values, indices]);
  const scale = add('Gather', [columns, indices]);
  addSteps(rows, output, [
    cast('float32'),
    (value, name) => add('Mul', [value, scale], { output: name }),
    ...(use.dtype === 'float32' ? [] : [cast(use.dtype)]),
  ]);
  return { nodes, reason: 'rows of 8 bits, a scale for each' };
}
