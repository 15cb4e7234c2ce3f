/** How far two models have come apart after each layer. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES } from '../core/dtype.ts';
import type { Dimension } from '../core/signature.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { encodeModel } from '../onnx/model.ts';
import { openScope } from '../onnx/scope.ts';
import { createComparer } from './compare.ts';
import type { NamedValueType, OptimizeRuntime, RuntimeSession } from './runtime.ts';
import { exposeValues, valuesOf } from './types.ts';

/** One value inside two models, over all samples. */
export interface LayerComparison {
  /** Name of the value, in both models. */
  readonly name: string;
  /** Operator that gives it in the first model. */
  readonly op: string;
  /** Signal-to-noise ratio, dB; `Infinity` where all is equal, `-Infinity` where it cannot be compared. */
  readonly sqnrDb: number;
  readonly maxAbs: number;
}

/** Options of {@link compareLayers}. */
export interface CompareLayersOptions {
  /** Values of one run that are held at a time, bytes. Default 256 MB; what is beyond takes further runs. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
}

const MAX_BYTES = 2 ** 28;

/**
 * Compares the floats that nodes of two models give under the same name, in the order of the first. Both run without
 * optimization, so that no layer is fused away. A value that is rounded to integers before anything reads it counts as it
 * is after that. Values inside bodies are not seen.
 * @throws what the runtime throws; the reason of `signal`.
 */
export async function compareLayers(
  runtime: OptimizeRuntime,
  expected: ModelProto,
  actual: ModelProto,
  samples: readonly TensorMap[],
  { maxBytes = MAX_BYTES, signal }: CompareLayersOptions = {},
): Promise<readonly LayerComparison[]> {
  const theirs = roundedValues(actual);
  const operators = new Map(
    expected.graph.node.flatMap(({ opType = '', output }) => output.map((name) => [name, opType] as const)),
  );
  const shared = valuesOf(expected).filter((name) => theirs.has(name) && operators.get(name) !== 'Constant');
  const [first] = samples;
  if (shared.length === 0 || first === undefined) return [];
  const [a, b] = [
    await floatsOf(runtime, expected, shared),
    await floatsOf(
      runtime,
      actual,
      shared.map((name) => theirs.get(name) ?? name),
    ),
  ];
  const sizes = sizesOf(a.inputs, first);
  const names = shared.filter((name) => a.floats.has(name) && b.floats.has(theirs.get(name) ?? name));
  const groups = inGroups(names, (name) => bytesOf(a.floats.get(name), sizes), maxBytes);
  const layers: LayerComparison[] = [];
  for (const group of groups) {
    const comparer = createComparer();
    const others = group.map((name) => theirs.get(name) ?? name);
    await withSession(runtime, expected, group, (one) =>
      withSession(runtime, actual, others, async (other) => {
        for (const sample of samples) {
          signal?.throwIfAborted();
          const answers = await other.run(sample, others);
          const theirsByName = group.flatMap((name, i) => {
            const tensor = answers[others[i] ?? name];
            return tensor === undefined ? [] : [[name, tensor] as const];
          });
          comparer.add(await one.run(sample, group), Object.fromEntries(theirsByName));
        }
      }),
    );
    const compared = new Map(comparer.result().outputs.map((output) => [output.name, output]));
    for (const name of group) {
      const { sqnrDb = Number.NEGATIVE_INFINITY, maxAbs = Number.POSITIVE_INFINITY } =
        compared.get(name) ?? {};
      layers.push({ name, op: operators.get(name) ?? '', sqnrDb, maxAbs });
    }
  }
  return layers;
}

/**
 * Values that nodes of a model give, each with the value that stands for it: where all that reads one rounds it to
 * integers, what they stand for is meant. It may be another, for rounding also does the work of a Relu.
 */
function roundedValues(model: ModelProto): ReadonlyMap<string, string> {
  const scope = openScope(model);
  const roundedOf = (name: string): string => {
    const readers = scope.isOutput(name) ? [] : scope.readers(name);
    const [quantize] = readers;
    if (quantize === undefined || readers.some(({ opType }) => opType !== 'QuantizeLinear')) return name;
    const [dequantize] = scope.readers(quantize.output[0] ?? '');
    return dequantize?.opType === 'DequantizeLinear' ? (dequantize.output[0] ?? name) : name;
  };
  return new Map(valuesOf(model).map((name) => [name, roundedOf(name)]));
}

async function withSession<Value>(
  runtime: OptimizeRuntime,
  model: ModelProto,
  names: readonly string[],
  use: (session: RuntimeSession) => Promise<Value>,
): Promise<Value> {
  const session = await runtime.open(encodeModel(exposeValues(model, names)), { level: 'disabled' });
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}

/** Those of some values that are floats, with the inputs of the model. */
async function floatsOf(
  runtime: OptimizeRuntime,
  model: ModelProto,
  names: readonly string[],
): Promise<{
  readonly inputs: readonly NamedValueType[];
  readonly floats: ReadonlyMap<string, NamedValueType>;
}> {
  return withSession(runtime, model, names, async ({ inputs, outputs }) => {
    const isFloat = ({ dtype }: NamedValueType): boolean =>
      DTYPES[dtype].kind === 'float' && DTYPES[dtype].bits >= 16;
    return { inputs, floats: new Map(outputs.filter(isFloat).map((value) => [value.name, value])) };
  });
}

/** Lengths of the named axes in a sample. */
function sizesOf(inputs: readonly NamedValueType[], sample: TensorMap): ReadonlyMap<Dimension, number> {
  const sizes = new Map<Dimension, number>();
  for (const { name, shape } of inputs) {
    shape?.forEach((dimension, axis) => {
      if (typeof dimension === 'string') sizes.set(dimension, sample[name]?.shape[axis] ?? 1);
    });
  }
  return sizes;
}

/** Bytes of a value, as far as its shape is known. */
function bytesOf(value: NamedValueType | undefined, sizes: ReadonlyMap<Dimension, number>): number {
  if (value === undefined) return 0;
  const lengths = (value.shape ?? []).map((axis) =>
    typeof axis === 'number' ? axis : (sizes.get(axis) ?? 1),
  );
  return lengths.reduce((product, length) => product * length, DTYPES[value.dtype].bits / 8);
}

function inGroups<Item>(
  items: readonly Item[],
  sizeOf: (item: Item) => number,
  limit: number,
): readonly (readonly Item[])[] {
  const groups: Item[][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const item of items) {
    const own = sizeOf(item);
    if (size + own > limit) {
      groups.push([]);
      size = 0;
    }
    groups.at(-1)?.push(item);
    size += own;
  }
  return groups;
}
