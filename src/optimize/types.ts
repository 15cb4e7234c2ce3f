/** Types of the values between a model's nodes, as the library infers them: no shape inference of our own. */

import { DTYPES, sizeBytesOf } from '../core/dtype.ts';
import type { GraphProto, ModelProto, TensorProto, ValueInfoProto } from '../onnx/messages.ts';
import { encodeModel } from '../onnx/model.ts';
import { dtypeOf, elementsOf } from '../onnx/tensors.ts';
import type { OptimizeRuntime } from './runtime.ts';
import type { ValueType, ValueTypes } from './technique.ts';

/**
 * Declares values of the graph as outputs besides those that it has, by name only: the library knows their types.
 * Values inside bodies of `If`, `Loop` and `Scan` cannot be outputs.
 */
export function exposeValues(model: ModelProto, names: Iterable<string>): ModelProto {
  const present = new Set(model.graph.output.map(({ name }) => name));
  const added = [...new Set(names)].filter((name) => name !== '' && !present.has(name));
  if (added.length === 0) return model;
  const output = [...model.graph.output, ...added.map((name): ValueInfoProto => ({ name }))];
  return { ...model, graph: { ...model.graph, output } };
}

/** Values that nodes of the graph give, in order; those inside bodies are not among them. */
export function valuesOf({ graph }: ModelProto): readonly string[] {
  return graph.node.flatMap(({ output }) => output).filter((name) => name !== '');
}

/**
 * Infers dtype and shape of all values of a model's graph: its inputs, its constants, and what its nodes give.
 *
 * Values inside bodies of `If`, `Loop` and `Scan` and inside local functions have no entry, and neither have sequences
 * and other values that are no tensors. The model may have its weights elsewhere: large ones are not read.
 * @throws {@link ModelError} if the runtime does not take the model.
 */
export async function inferTypes(model: ModelProto, runtime: OptimizeRuntime): Promise<ValueTypes> {
  const exposed = exposeValues(model, valuesOf(model));
  const types = new Map<string, ValueType>();
  for (const constant of model.graph.initializer) {
    types.set(constant.name ?? '', { dtype: dtypeOf(constant), shape: constant.dims });
  }
  // Some kernels insist on constants that are constant.
  const session = await runtime
    .open(encodeModel(withoutWeights(exposed)), { level: 'disabled' })
    .catch(() => runtime.open(encodeModel(exposed), { level: 'disabled' }));
  try {
    for (const { name, dtype, shape } of [...session.inputs, ...session.outputs]) {
      types.set(name, { dtype, shape });
    }
  } finally {
    await session.release();
  }
  return types;
}

/** Weights smaller than this stay: shapes and axes, from which other shapes follow, are among them. */
const WEIGHT_BYTES = 4096;

/** The model with inputs in place of large constants of floats, so that they need not be there to open it. */
function withoutWeights(model: ModelProto): ModelProto {
  const { graph } = model;
  const isWeight = (constant: TensorProto): boolean => {
    const dtype = dtypeOf(constant);
    return DTYPES[dtype].kind === 'float' && sizeBytesOf(dtype, elementsOf(constant)) >= WEIGHT_BYTES;
  };
  const weights = new Set(graph.initializer.filter(isWeight));
  if (weights.size === 0) return model;
  const inputs = new Set(graph.input.map(({ name }) => name));
  const lifted: GraphProto = {
    ...graph,
    initializer: graph.initializer.filter((constant) => !weights.has(constant)),
    input: [...graph.input, ...[...weights].filter(({ name }) => !inputs.has(name)).map(toInput)],
  };
  return { ...model, graph: lifted };
}

function toInput({ name, dataType, dims }: TensorProto): ValueInfoProto {
  const shape = { dim: dims.map((dimValue) => ({ dimValue })) };
  return {
    ...(name !== undefined && { name }),
    type: { tensorType: { ...(dataType !== undefined && { elemType: dataType }), shape } },
  };
}
