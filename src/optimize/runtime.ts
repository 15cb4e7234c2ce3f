/** Where models are tried out. The implementations are passed in: onnxruntime in Node, WebAssembly, a browser's GPU. */

import type { TensorMap } from '../core/backend.ts';
import type { ValueType } from './technique.ts';

/** What a model is optimised for. */
export type TargetName = 'node-cpu' | 'wasm' | 'webgpu';

/** How far onnxruntime rewrites a graph before it runs it (`GraphOptimizationLevel`). */
export type OptimizationLevel = 'disabled' | 'basic' | 'extended' | 'all';

/** How a model is opened. */
export interface OpenOptions {
  /** Default `all`, as apps do. */
  readonly level?: OptimizationLevel;
  /** Threads inside one operator. Default 1. */
  readonly threads?: number;
}

/** A value that a session takes or gives. */
export interface NamedValueType extends ValueType {
  readonly name: string;
}

/** A model that is open. Close it before the next is measured with several threads: idle pools spin. */
export interface RuntimeSession {
  readonly inputs: readonly NamedValueType[];
  /** Those that are tensors. */
  readonly outputs: readonly NamedValueType[];
  /** Runs once. @throws {@link BackendError} `ERR_INLAY_RUN_FAILED` */
  run(feeds: TensorMap, outputs?: readonly string[]): Promise<TensorMap>;
  /**
   * Times single runs of the same feeds where the model is, the way there not counted.
   * @returns milliseconds of each run, in order.
   */
  time(feeds: TensorMap, runs: number): Promise<readonly number[]>;
  release(): Promise<void>;
}

/** A place where models run. */
export interface OptimizeRuntime {
  readonly target: TargetName;
  /** For reports: library, version, processor or adapter. */
  readonly description: string;
  /**
   * Opens a model.
   * @throws {@link ModelError} if the library does not take it.
   */
  open(model: Uint8Array, options?: OpenOptions): Promise<RuntimeSession>;
  /** The graph as the library rewrites it at a level. Absent where it cannot say. */
  readonly optimized?: (model: Uint8Array, level: OptimizationLevel) => Promise<Uint8Array>;
  /** Bytes of memory that the process or page holds now; absent where that is unknown. */
  readonly memoryBytes?: () => Promise<number>;
  close(): Promise<void>;
}
