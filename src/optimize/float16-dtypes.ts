/** Dtypes of values, also where the library tells none: inside bodies. */

import { dtypeFromOnnx, type DType } from '../core/dtype.ts';
import type { GraphProto, NodeProto } from '../onnx/messages.ts';
import { attributeOf, intOf, isStandardOp } from '../onnx/scope.ts';
import { bodiesOf } from '../onnx/walk.ts';

/** Dtypes of the values of one graph, with those of the graphs around it. */
export interface Dtypes {
  /** `undefined`: not known, or no tensor. */
  of(value: string): DType | undefined;
  /** Those of a body that a node of this graph carries. */
  within(body: GraphProto): Dtypes;
}

/**
 * Finds the dtypes of a graph's values: what is known already, what the file declares, and else what follows from the
 * operators. Linear in the size of the graph, bodies included.
 */
export function openDtypes(
  graph: GraphProto,
  known: (value: string) => DType | undefined,
  outer?: Dtypes,
): Dtypes {
  const own = new Map<string, DType | undefined>();
  const bodies = new Map<GraphProto, Dtypes>();
  const of = (value: string): DType | undefined => (own.has(value) ? own.get(value) : outer?.of(value));
  for (const { name = '', dataType = 0 } of graph.initializer) own.set(name, dtypeFromOnnx(dataType));
  for (const { values } of graph.sparseInitializer ?? []) {
    own.set(values?.name ?? '', dtypeFromOnnx(values?.dataType ?? 0));
  }
  const declared = new Map<string, DType>();
  for (const { name = '', type } of [...graph.input, ...graph.output, ...(graph.valueInfo ?? [])]) {
    const dtype = dtypeFromOnnx(type?.tensorType?.elemType ?? 0);
    if (dtype !== undefined) declared.set(name, dtype);
  }
  for (const { name = '' } of graph.input) own.set(name, declared.get(name) ?? known(name));
  for (const node of graph.node) {
    for (const body of bodiesOf(node))
      bodies.set(
        body,
        openDtypes(body, () => undefined, { of, within }),
      );
    node.output.forEach((value, index) => {
      if (value === '') return;
      const dtype = known(value) ?? declared.get(value) ?? dtypeOfOutput(node, index, of, bodies);
      own.set(value, dtype);
    });
  }
  function within(body: GraphProto): Dtypes {
    return bodies.get(body) ?? openDtypes(body, () => undefined, { of, within });
  }
  return { of, within };
}

/** Outputs by operator: a dtype, the input that has the same, or the attribute that names it. */
const RULES: Readonly<Record<string, readonly (DType | number)[]>> = {
  ...rule(['bool'], ['Equal', 'Less', 'LessOrEqual', 'Greater', 'GreaterOrEqual', 'And', 'Or', 'Xor', 'Not']),
  ...rule(['bool'], ['IsNaN', 'IsInf', 'OptionalHasElement']),
  ...rule(['int64'], ['Shape', 'Size', 'ArgMax', 'ArgMin', 'NonZero', 'NonMaxSuppression', 'SequenceLength']),
  ...rule(['int32'], ['MatMulInteger', 'ConvInteger']),
  ...rule([0, 'int64'], ['TopK', 'MaxPool']),
  ...rule([0, 'bool'], ['Dropout']),
  ...rule([0, 'int64', 'int64', 'int64'], ['Unique']),
  ...rule([1], ['Where', 'DequantizeLinear', 'CastLike']),
  ...rule([2], ['OneHot']),
  ...rule(['uint8', 'float32', 'uint8'], ['DynamicQuantizeLinear']),
  ...rule(['float32'], ['HannWindow', 'HammingWindow', 'BlackmanWindow', 'MelWeightMatrix']),
};

function rule(outputs: readonly (DType | number)[], operators: readonly string[]): typeof RULES {
  return Object.fromEntries(operators.map((operator) => [operator, outputs]));
}

/** Operators whose outputs are no tensors, or of a type that is not told by their inputs. */
const OPAQUE = /^(Sequence|SplitToSequence|ConcatFromSequence|Optional|ImageDecoder|QLinear)/;

function dtypeOfOutput(
  node: NodeProto,
  index: number,
  of: (value: string) => DType | undefined,
  bodies: ReadonlyMap<GraphProto, Dtypes>,
): DType | undefined {
  const { opType = '' } = node;
  if (!isStandardOp(node)) return undefined;
  const [body] = bodiesOf(node);
  if (body !== undefined) {
    const value = body.output[opType === 'Loop' ? index + 1 : index]?.name ?? '';
    return bodies.get(body)?.of(value);
  }
  if (opType === 'Cast') return dtypeFromOnnx(intOf(node, 'to', 0));
  if (opType === 'Constant' || opType === 'ConstantOfShape') return dtypeOfConstant(node);
  const named = intOf(node, 'dtype', 0);
  if (named !== 0) return dtypeFromOnnx(named);
  if (/^Random(Normal|Uniform)$/.test(opType)) return 'float32';
  if (opType === 'Multinomial') return 'int32';
  if (opType === 'QuantizeLinear') return of(node.input[2] ?? '') ?? 'uint8';
  const outputs = RULES[opType];
  const found = outputs === undefined ? 0 : (outputs[index] ?? outputs[0] ?? 0);
  if (typeof found === 'string') return found;
  return OPAQUE.test(opType) ? undefined : of(node.input[found] ?? '');
}

function dtypeOfConstant(node: NodeProto): DType | undefined {
  const { t } = attributeOf(node, 'value') ?? {};
  if (t !== undefined) return dtypeFromOnnx(t.dataType ?? 0);
  if (node.opType === 'ConstantOfShape') return 'float32';
  const [{ name = '' } = {}] = node.attribute;
  if (name.startsWith('value_float')) return 'float32';
  if (name.startsWith('value_int')) return 'int64';
  return name.startsWith('value_string') ? 'string' : undefined;
}
