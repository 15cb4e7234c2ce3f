import type { Signature } from './signature.ts';
import type { Tensor } from './tensor.ts';

/** Named tensors: what goes into and comes out of a run. */
export type TensorMap = Readonly<Record<string, Tensor>>;

/** Where the bytes of a model are. A path is faster where the backend can read files. */
export type ModelSource =
  | { readonly path: string; readonly bytes?: undefined }
  | {
      readonly bytes: Uint8Array;
      /** Where they came from: models of several files name the others relative to it. */
      readonly url?: string;
      readonly path?: undefined;
    };

/** One execution provider that a backend can try. */
export interface ExecutionProvider {
  /** The library's name for it: `cpu`, `webgpu`, `cuda` … */
  readonly name: string;
  readonly device: 'cpu' | 'gpu' | 'npu';
  /** Why it cannot work here, known without trying; absent when it is worth a try. */
  readonly refusal?: string;
  /**
   * What its device can do beyond the usual, in the words of its API: `shader-f16`. `native`: its kernels are made for the
   * processor, as those of WebAssembly are not.
   */
  readonly features?: readonly string[];
}

/** Options of {@link Backend.createSession}. */
export interface SessionOptions {
  /** Name of the execution provider, one only: lists are no fallback in inference libraries. */
  readonly provider: string;
  /** Threads inside one operator. Default 1: several spinning pools halve the throughput of a busy machine. */
  readonly intraOpThreads?: number;
}

/**
 * A place that carries out one run at a time: a worker, a child process, the calling thread. Sessions in the same place
 * share the object, so that whoever plans runs can tell whether it is free.
 */
export interface Slot {
  /** For people: `worker 1`, `process 2`, `calling thread`. */
  readonly name: string;
  /** Whether something else than a run goes on there now, such as opening a session; a run would wait for it. */
  readonly isOccupied?: boolean;
}

/** Options of {@link Session.run}. */
export interface SessionRunOptions {
  /** Names of the outputs to compute. Default: all. */
  readonly outputs?: readonly string[];
  /** Hands the buffers of the feeds over instead of copying them; they are unusable afterwards. Default false. */
  readonly transfer?: boolean;
  /** One of {@link Session.slots}. Default: the first. */
  readonly slot?: Slot;
}

/** Where native code runs: on the calling thread, in a worker thread, or in a child process. */
export type Placement = 'inline' | 'worker' | 'process';

/** A loaded model in a backend. */
export interface Session {
  readonly signature: Signature;
  /** Execution provider that the session runs on. */
  readonly provider: string;
  readonly placement: Placement;
  /** Why it runs there, where that is not what was asked for or would be expected. */
  readonly placementReason?: string;
  /** Threads inside one operator, where the backend knows. */
  readonly intraOpThreads?: number;
  /** Why it has no more threads than that, where it was asked for more. */
  readonly threadsReason?: string;
  /**
   * Places in which the session is open now, at least one. Absent: one place of its own. The list is live: it grows
   * with {@link Session.grow}.
   */
  readonly slots?: readonly Slot[];
  /**
   * Opens the session in one more place, from the same source.
   * @returns `undefined` when there is no further place. Rejects when it does not open there; runs go on elsewhere.
   */
  grow?(): Promise<void> | undefined;
  /**
   * Runs once. Feeds are complete and of the right dtype and shape.
   * @returns output tensors, owned by the caller.
   * @throws {@link BackendError} `ERR_INLAY_RUN_FAILED`; `ERR_INLAY_WORKER_LOST` when its worker died;
   * `ERR_INLAY_DEVICE_UNAVAILABLE` or `ERR_INLAY_BACKEND_UNAVAILABLE` when the device or the library broke down.
   */
  run(feeds: TensorMap, options?: SessionRunOptions): Promise<TensorMap>;
  /** Waits for runs in flight, then frees the memory. Safe to call twice. */
  release(): Promise<void>;
}

/** Adapter around an inference library. */
export interface Backend {
  /** Package name of the library. */
  readonly name: string;
  /**
   * The same library in other places. Where `inline` is among them, models whose run is shorter than the way to a worker
   * may be moved there.
   */
  readonly elsewhere?: Readonly<Partial<Record<Placement, Backend>>>;
  /**
   * The same library in a place of its own that a model may crash or hang without harm to others, and that gives up by
   * itself on one that takes too long: for trying releases out. Absent where there is no such place.
   */
  readonly isolated?: Backend;
  /**
   * Lists the execution providers, best first.
   * @throws {@link BackendError} `ERR_INLAY_BACKEND_MISSING` when the library is not installed,
   * `ERR_INLAY_BACKEND_UNAVAILABLE` when it is but does not load here.
   */
  providers(): Promise<readonly ExecutionProvider[]>;
  /**
   * Loads a model.
   * @throws {@link ModelError} if the bytes are no model that the library can run, {@link BackendError} if the
   * provider does not work here.
   */
  createSession(source: ModelSource, options: SessionOptions): Promise<Session>;
  /** Frees everything, workers included, when runs in flight have ended. Safe to call twice. */
  close(): Promise<void>;
}
