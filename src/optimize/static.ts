/** Static quantization to 8 bits: values are rounded to integers and back, which onnxruntime turns into integer kernels. */

import type { ModelProto, NodeProto, TensorProto } from '../onnx/messages.ts';
import { opsetOf } from '../onnx/opset.ts';
import { rewriteModel, type Edit } from '../onnx/rewrite.ts';
import { labelOf, openScope } from '../onnx/scope.ts';
import { rewriteEmbedding } from './embedding.ts';
import { createFloatReads } from './qdq-floats.ts';
import { createPairs, type Dequantized } from './qdq-pairs.ts';
import { planStatic, type Mark, type Plan, type PlanOptions } from './qdq-plan.ts';
import { quantizeProduct, type Product as ProductPlan } from './qdq-products.ts';
import { assertQuantizable } from './refusals.ts';
import type { Ranges, Rewritten, StaticInt8 } from './technique.ts';
import type { WeightEdit } from './weight-rewrite.ts';
import { readWeights } from './weights.ts';

export type { PlanOptions as StaticOptions } from './qdq-plan.ts';

/** Scales along an axis came to the standard operators with this opset; that of Microsoft has them always. */
const AXIS_OPSET = 13;
/**
 * From this opset on QuantizeLinear names the dtype of its output, and onnxruntime 1.30 contradicts itself where it turns
 * int8 activations into uint8: it refuses its own rewritten graph.
 */
const DTYPE_OPSET = 21;

/**
 * Quantizes the products of a model with the values around them, as QuantizeLinear and DequantizeLinear in pairs (QDQ).
 *
 * Each value between quantized nodes is rounded by the range that it has in `ranges`; clamps after them go; biases
 * become int32. Inputs and outputs keep names and dtypes. Nodes whose values have no range stay float, and so do
 * normalizations, products of two activations, bodies of control flow, and what comes after the last product. Nodes that
 * stay float keep their weights, also where onnxruntime would round them by itself.
 * @param ranges - what `calibrate` finds.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for a model that is quantized already or has an opset below 11,
 * `ERR_INLAY_MODEL_INVALID` for weights that are NaN or infinite; `RangeError` for `uint8` weights beside `int8`
 * activations, or a range that is none.
 */
export function quantizeStatic(
  model: ModelProto,
  technique: StaticInt8,
  ranges: Ranges,
  options: PlanOptions = {},
): Rewritten {
  const { activations = 'uint8', weights = 'int8' } = technique;
  if (activations === 'int8' && weights === 'uint8') {
    throw new RangeError('No kernel multiplies int8 activations by uint8 weights; take uint8 activations.');
  }
  assertRanges(ranges);
  assertQuantizable(model, options);
  const plan = planStatic(model, technique, ranges, options);
  const opset = opsetOf(model) ?? 0;
  const isMicrosoft = opset < AXIS_OPSET || (activations === 'int8' && opset >= DTYPE_OPSET);
  const grown = new Set<string>();
  let rewrite: ReturnType<typeof createRewriter> | undefined;
  const rewritten = rewriteModel(
    model,
    (node, edit) => {
      if (edit.scope.outer !== undefined) return undefined;
      rewrite ??= createRewriter(plan, technique, {
        edit,
        isMicrosoft,
        warn: (warning) => grown.add(warning),
      });
      return rewrite(node);
    },
    isMicrosoft ? { opsets: { 'com.microsoft': 1 } } : {},
  );
  const { changed, kept } = plan;
  return { model: rewritten, changed, kept, warnings: [...warningsOf(model, plan), ...grown] };
}

/** Rewrites the nodes of the graph, in order. */
function createRewriter(
  plan: Plan,
  { activations = 'uint8', weights = 'int8', reduceRange = false }: StaticInt8,
  { edit, isMicrosoft, warn }: { edit: Edit; isMicrosoft: boolean; warn: (warning: string) => void },
): (node: NodeProto) => readonly NodeProto[] | undefined {
  const { scope } = edit;
  const pairs = createPairs(edit, activations, isMicrosoft);
  const floatReads = createFloatReads(plan, edit, activations);

  const readConstants = (
    { weights: name, axis, bias }: ProductPlan,
    data: string,
  ): readonly Dequantized[] => {
    const { scale } = plan.marks.get(data) as Mark;
    const constantOf = (value: string): TensorProto => scope.constant(value) as TensorProto;
    const options = { dtype: weights, isReduced: reduceRange, ...(axis !== undefined && { axis }) };
    const made = edit.derive(`product ${name} ${axis} ${bias} ${scale}`, () =>
      quantizeProduct(constantOf(name), bias === undefined ? undefined : constantOf(bias), scale, options),
    );
    if (made.isAdjusted) {
      warn(
        `The scale of the weights "${name}" had to grow, since the bias "${bias}" would not fit otherwise.`,
      );
    }
    // Weights do not depend on the input, unless the bias made them.
    const key = `${name} ${axis}${made.isAdjusted ? ` ${bias} ${scale}` : ''}`;
    const read = [pairs.weights(name, key, () => made.weights, axis)];
    const { bias: terms } = made;
    return bias === undefined || terms === undefined
      ? read
      : [...read, pairs.bias(bias, `${bias} ${scale} ${key}`, () => terms)];
  };

  const rewriteInputs = (node: NodeProto): { before: readonly NodeProto[]; input: readonly string[] } => {
    const [first = ''] = node.output;
    const product = plan.products.get(first);
    if (product !== undefined) {
      const constants = readConstants(product, scope.producer(first)?.input[0] ?? '');
      return {
        before: constants.map((one) => one.node),
        input: [node.input[0] ?? '', ...constants.map(({ output }) => output)],
      };
    }
    if (!plan.integers.has(first)) return floatReads.of(node);
    const before: NodeProto[] = [];
    if (!plan.operands.has(first)) return { before, input: node.input };
    const input = node.input.map((value) => {
      const constant = scope.constant(value);
      if (constant === undefined) return value;
      const { node: one, output } = pairs.operand(value, constant);
      before.push(one);
      return output;
    });
    return { before, input };
  };

  const rewriteOutputs = ({
    output: values,
  }: NodeProto): { output: readonly string[]; after: readonly NodeProto[] } => {
    const after: NodeProto[] = [];
    const isInteger = plan.integers.has(values[0] ?? '');
    const output = values.map((value) => {
      const name = plan.renamed.get(value) ?? value;
      const mark = plan.marks.get(name);
      if (mark === undefined) return name;
      const isRounded = scope.isOutput(name) && isInteger;
      const raw = isRounded ? edit.fresh(`${name}_QuantizeLinear_Input`) : undefined;
      const pair = pairs.around(name, mark, raw);
      after.push(...pair.nodes);
      floatReads.add(name, pair.output);
      if (raw === undefined) edit.redirect(name, pair.output);
      return raw ?? name;
    });
    return { output, after };
  };

  const rewrite = (node: NodeProto): readonly NodeProto[] | undefined => {
    const [first = ''] = node.output;
    if (plan.absorbed.has(first)) return [];
    if (plan.tables.has(first)) {
      const once: WeightEdit['once'] = ({ value, proto }, form, make) =>
        edit.derive(`${form} ${value}`, () => make(readWeights(proto, value)));
      const outcome = rewriteEmbedding(node, { ...edit, once });
      const nodes = outcome !== undefined && 'nodes' in outcome ? outcome.nodes : [node];
      const { after, output } = rewriteOutputs(node);
      return [...nodes.map((one) => withOutput(one, first, output[0] ?? first)), ...after];
    }
    const { before, input } = rewriteInputs(node);
    const { output, after } = rewriteOutputs(node);
    const isSame =
      after.length === 0 &&
      input.every((value, i) => value === node.input[i]) &&
      output.every((value, i) => value === node.output[i]);
    return isSame ? undefined : [...before, { ...node, input, output }, ...after];
  };

  let isOpened = false;
  return (node) => {
    if (isOpened) return rewrite(node);
    const opening: NodeProto[] = [];
    const rounded = new Map<string, string>();
    for (const { name = '' } of scope.graph.input) {
      const mark = plan.marks.get(name);
      if (mark === undefined) continue;
      const { nodes, output } = pairs.around(name, mark);
      opening.push(...nodes);
      rounded.set(name, output);
      floatReads.add(name, output);
      edit.redirect(name, output);
    }
    isOpened = true;
    if (opening.length === 0) return rewrite(node);
    const first = { ...node, input: node.input.map((value) => rounded.get(value) ?? value) };
    return [...opening, ...(rewrite(first) ?? [first])];
  };
}

function withOutput(node: NodeProto, from: string, to: string): NodeProto {
  return node.output.includes(from)
    ? { ...node, output: node.output.map((name) => (name === from ? to : name)) }
    : node;
}

/** @throws `RangeError` if the ends of a range are no finite numbers in order. */
function assertRanges(ranges: Ranges): void {
  for (const [name, { min, max }] of ranges) {
    if (Number.isFinite(min) && Number.isFinite(max) && min <= max) continue;
    throw new RangeError(
      `The range of "${name}" is ${min} to ${max}, which is none; calibrate the model again.`,
    );
  }
}

function warningsOf(model: ModelProto, { products, operands }: Plan): string[] {
  const scope = openScope(model);
  const constants = new Set<string>();
  for (const { weights, bias } of products.values()) {
    constants.add(weights);
    if (bias !== undefined) constants.add(bias);
  }
  return [...constants].flatMap((name) => {
    const isQuantized = ({ output: [value = ''] }: NodeProto): boolean =>
      products.has(value) || operands.has(value);
    const reader = scope.readers(name).find((node) => !isQuantized(node));
    const isShared = reader !== undefined || scope.isOutput(name);
    return [
      ...(scope.isInput(name)
        ? [`The constant "${name}" was an input as well; callers can no longer override it.`]
        : []),
      ...(isShared
        ? [
            `The constant "${name}" is stored twice: quantized, and as floats for ${reader ? `node "${labelOf(reader)}"` : 'an output'}.`,
          ]
        : []),
    ];
  });
}
