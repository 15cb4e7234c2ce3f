/** The part of TensorFlow.js that is used, and how it is loaded. */
import { createLoader, type LibraryLoader } from '../core/library.ts';

/** The part of `tf.Tensor` that is used. */
export interface TfTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Whether it outlives the scope in which it was made. */
  kept: boolean;
  clone(): TfTensor;
  data(): Promise<unknown>;
  dispose(): void;
}

/** What a model says about one of its inputs or outputs. */
export interface TfValue {
  readonly shape?: ReadonlyArray<number | null> | null | undefined;
  readonly dtype?: string | null | undefined;
}

/** The part of `tf.GraphModel` that is used. */
export interface TfGraphModel {
  readonly inputNodes: readonly string[];
  readonly outputNodes: readonly string[];
  readonly inputs: readonly TfValue[];
  readonly outputs: readonly TfValue[];
  /** Weights by name, several tensors each. */
  readonly weights: object;
  /** The signatures of the SavedModel, by name. */
  readonly modelSignature: object | undefined;
  /** Names that the SavedModel gave its outputs, in their order. */
  readonly modelStructuredOutputKeys: object | undefined;
  execute(feeds: Record<string, never>, outputs: string[]): unknown;
  executeAsync(feeds: Record<string, never>, outputs: string[]): Promise<unknown>;
  dispose(): void;
}

/** The part of `tf.LayersModel` that is used. */
export interface TfLayersModel {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputs: readonly TfValue[];
  readonly outputs: readonly TfValue[];
  predictOnBatch(feeds: never): unknown;
  dispose(): unknown;
}

/** The part of a TensorFlow.js module that is used. */
export interface TfModule {
  engine(): object;
  setBackend(name: string): Promise<boolean>;
  findBackendFactory(name: string): unknown;
  tensor(values: never, shape: never, dtype: never): TfTensor;
  loadGraphModelSync(artifacts: never): TfGraphModel;
  loadLayersModel(handler: never): Promise<TfLayersModel>;
}

/** The part of `@tensorflow/tfjs-backend-wasm` that is used. */
export interface TfWasmModule {
  setWasmPaths(paths: string | Readonly<Record<string, string>>): void;
}

/** Packages of TensorFlow.js: they import each other, and any of them may be missing. */
const FAMILY = '@tensorflow/[\\w-]+';

/** Makes a loader for a package of TensorFlow.js; see {@link createLoader}. */
export function createTfLoader<Module extends object>(
  library: LibraryLoader<Module>,
  packageName: string,
): () => Promise<Module> {
  const load = async (): Promise<Module> => named(typeof library === 'function' ? await library() : library);
  return createLoader(load, packageName, FAMILY);
}

/** CommonJS builds put everything into `default`, of which not every runtime finds the names. */
function named<Module extends object>(module: Module): Module {
  const { default: whole } = module as { readonly default?: unknown };
  return typeof whole === 'object' && whole !== null ? (whole as Module) : module;
}
