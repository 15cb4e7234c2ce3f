/** The two kinds of models that TensorFlow.js has, as one. */
import { ModelError } from '../core/errors.ts';
import type { Dimension, TensorSpec } from '../core/signature.ts';
import type { DType } from '../core/dtype.ts';
import type { ModelFiles } from './tfjs-files.ts';
import type { TfLayersModel, TfModule, TfTensor, TfValue } from './tfjs-library.ts';

/** What is known of an output before its first run. */
export type OutputSpec = Omit<TensorSpec, 'dtype'> & { readonly dtype: DType | undefined };

/** A model in the library. */
export interface LoadedModel {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly OutputSpec[];
  /** Computes outputs by name; they may be tensors of the model or of the feeds. */
  run(feeds: Readonly<Record<string, TfTensor>>, outputs: readonly string[]): readonly TfTensor[];
  /** The same, for models whose operators wait for each other's values. */
  runAsync?(
    feeds: Readonly<Record<string, TfTensor>>,
    outputs: readonly string[],
  ): Promise<readonly TfTensor[]>;
  dispose(): void;
}

/** Dtypes that the library computes with, which has the same names for them. */
const DTYPES: readonly string[] = ['float32', 'int32', 'bool', 'string'];
/** What the library makes of the dtypes of TensorFlow that it does not have. */
const SIGNATURE_DTYPES: Readonly<Record<string, string>> = {
  DT_FLOAT: 'float32',
  DT_HALF: 'float32',
  DT_DOUBLE: 'float32',
  DT_INT32: 'int32',
  DT_INT64: 'int32',
  DT_INT8: 'int32',
  DT_UINT8: 'int32',
  DT_BOOL: 'bool',
  DT_STRING: 'string',
};

/**
 * Builds a graph model; its weights outlive the scope of the engine.
 * @throws what the library throws; {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for inputs of dtypes that it does
 * not take.
 */
export function loadGraph(tf: TfModule, { artifacts, weightSpecs, weightData }: ModelFiles): LoadedModel {
  const model = tf.loadGraphModelSync({ ...artifacts, weightSpecs, weightData } as never);
  const { inputs = {}, outputs = {} } = (model.modelSignature ?? {}) as Signatures;
  const names = model.modelStructuredOutputKeys;
  // The library's own list names a node, and not which of its outputs.
  const signed = Object.keys(outputs);
  const nodes = signed.length > 0 ? signed : model.outputNodes;
  const given = Array.isArray(names) && names.length === nodes.length ? (names as string[]) : nodes;
  const nodeOf = new Map(given.map((name, index) => [name, nodes[index] as string]));
  const find = (wanted: readonly string[]): string[] => wanted.map((name) => nodeOf.get(name) as string);
  const loaded: LoadedModel = {
    inputs: model.inputNodes.flatMap((name, index) => {
      const entry = inputs[name];
      // A table that the model fills by itself.
      if ((entry?.resourceId ?? undefined) !== undefined) return [];
      return [toInput(name, { ...describe(entry), ...defined(model.inputs[index]) })];
    }),
    outputs: given.map((name, index) => {
      const node = nodes[index] as string;
      return toOutput(name, { ...defined(model.outputs[index]), ...describe(outputs[node]) });
    }),
    run: (feeds, wanted) => toList(model.execute({ ...feeds } as Record<string, never>, find(wanted))),
    runAsync: async (feeds, wanted) =>
      toList(await model.executeAsync({ ...feeds } as Record<string, never>, find(wanted))),
    dispose: () => model.dispose(),
  };
  for (const tensor of Object.values(model.weights as Record<string, TfTensor[]>).flat()) tensor.kept = true;
  return loaded;
}

/**
 * Builds a layers model.
 * @throws as {@link loadGraph}.
 */
export async function loadLayers(tf: TfModule, files: ModelFiles): Promise<LoadedModel> {
  const { artifacts, weightSpecs, weightData } = files;
  const load = async (): Promise<object> => ({ ...artifacts, weightSpecs, weightData });
  const model = await tf.loadLayersModel({ load } as never);
  const named = withNames(model);
  const names = named.outputNames;
  return {
    inputs: named.inputNames.map((name, index) => toInput(name, named.inputs[index])),
    outputs: names.map((name, index) => toOutput(name, named.outputs[index])),
    run: (feeds, wanted) => {
      const all = toList(named.predictOnBatch(named.inputNames.map((name) => feeds[name]) as never));
      return wanted.map((name) => all[names.indexOf(name)] as TfTensor);
    },
    dispose: () => void model.dispose(),
  };
}

/** A sequential model has no names, but is built as one inside that has. */
function withNames(model: TfLayersModel): TfLayersModel {
  if (model.inputNames.length > 0) return model;
  const sequential: TfLayersModel & { build?(): void; readonly model?: TfLayersModel } = model;
  sequential.build?.();
  return sequential.model ?? model;
}

/** An entry of a SavedModel's signature. */
interface SignatureEntry {
  readonly dtype?: string;
  readonly tensorShape?: {
    readonly dim?: ReadonlyArray<{ readonly size?: string | number }>;
    readonly unknownRank?: boolean;
  };
  readonly resourceId?: unknown;
}

interface Signatures {
  readonly inputs?: Readonly<Record<string, SignatureEntry>>;
  readonly outputs?: Readonly<Record<string, SignatureEntry>>;
}

function describe({ dtype, tensorShape }: SignatureEntry = {}): TfValue {
  return {
    ...(dtype !== undefined && { dtype: SIGNATURE_DTYPES[dtype] ?? dtype }),
    ...(tensorShape !== undefined &&
      tensorShape.unknownRank !== true && {
        shape: (tensorShape.dim ?? []).map(({ size }) => Number(size ?? -1)),
      }),
  };
}

function defined({ shape, dtype }: TfValue = {}): TfValue {
  return { ...(shape && { shape }), ...(dtype && { dtype }) };
}

function toInput(name: string, { shape, dtype }: TfValue = {}): TensorSpec {
  if (!isKnown(dtype)) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `Input "${name}" is of dtype ${JSON.stringify(dtype ?? null)}; TensorFlow.js can be fed ${DTYPES.join(', ')}.`,
    );
  }
  return { name, dtype, shape: toShape(shape) };
}

function toOutput(name: string, { shape, dtype }: TfValue = {}): OutputSpec {
  if (dtype && !isKnown(dtype)) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `Output "${name}" is of dtype ${JSON.stringify(dtype)}, which cannot be read.`,
    );
  }
  return { name, dtype: isKnown(dtype) ? dtype : undefined, shape: toShape(shape) };
}

/** Tells whether tensors of a dtype can go in and out. */
export function isKnown(dtype: string | null | undefined): dtype is DType {
  return DTYPES.includes(dtype ?? '');
}

function toShape(shape: TfValue['shape']): TensorSpec['shape'] {
  return (
    shape?.map((size): Dimension => (Number.isSafeInteger(size) && (size ?? -1) >= 0 ? size : null)) ?? null
  );
}

function toList(result: unknown): readonly TfTensor[] {
  return (Array.isArray(result) ? result : [result]) as readonly TfTensor[];
}
