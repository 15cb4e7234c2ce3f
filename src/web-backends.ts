/** The inference libraries of `inlay` in pages and other web runtimes, and where they run. */
import type { Backend } from './core/backend.ts';
import { closedError } from './core/errors.ts';
import type { WebWorkerOptions } from './workers/web.ts';

/** Options of {@link createBackends}. */
export interface WebBackendOptions {
  /**
   * Where models run.
   * - `worker`: in workers of their own, one for WebAssembly and one for WebGPU; the page never waits for a model.
   * - `inline`: on the calling thread, which each run blocks for its length, so that `worker`, `workers` and
   *   `runTimeoutMs` have no effect. For workers and SharedWorkers of the app.
   * - `auto`, the default: in workers, or inline on WebAssembly where the runtime has no `Worker`, as SharedWorkers.
   */
  readonly placement?: 'auto' | 'worker' | 'inline';
  /**
   * Makes a worker whose script is `inlay/worker`, for bundlers that do not find it by themselves. Default:
   * `new Worker(new URL('./worker-web.js', import.meta.url), { type: 'module' })`.
   */
  readonly worker?: () => Worker;
  /**
   * How many workers with WebAssembly there may be, at least 1; further ones are started under load, and each has a copy
   * of the library and of its models. Default 1.
   */
  readonly workers?: number;
  /**
   * Milliseconds that one run may take, 10 times that to load a model; a worker that takes longer is ended and started
   * again, and its call rejects with `ERR_INLAY_WORKER_LOST`. Default 30,000.
   */
  readonly runTimeoutMs?: number;
  /**
   * Where the `.wasm` files of onnxruntime-web are: a prefix for all of them, or the URLs of the build without WebGPU.
   * Default: where the bundler has put them, else beside the library.
   */
  readonly wasmPaths?: string | { readonly mjs?: string | URL; readonly wasm?: string | URL };
  /** The file `ort-wasm-simd-threaded.wasm` itself; then it is not fetched. */
  readonly wasmBinary?: ArrayBuffer | Uint8Array;
  /** Lets a software GPU adapter count as a GPU. Default false: it is many times slower than WebAssembly. */
  readonly allowSoftwareAdapter?: boolean;
  /**
   * Threads of one run on WebAssembly. More than one needs a page that is cross-origin isolated, and is 1 elsewhere, as
   * `info()` then says. Default 1.
   */
  readonly intraOpThreads?: number | 'auto';
}

/** Options of {@link inWorker}. */
export interface InWorkerOptions extends WebWorkerOptions {
  /** Name of the backend that the worker hosts. */
  readonly name: string;
  /** Milliseconds that one run may take, 10 times that to load a model. Default 30,000. */
  readonly runTimeoutMs?: number;
}

/**
 * Creates the default backend: onnxruntime-web with its providers `webgpu` and `wasm`, each in a worker that is started
 * when it is needed, ended with its last model, and started again when it breaks down. Nothing is loaded before its
 * first use. Several Inlays of one page may share it; close it after the last one.
 * @throws `TypeError` or `RangeError` for an option that is none.
 */
export function createBackends(options: WebBackendOptions = {}): readonly Backend[] {
  assertOptions(options);
  const { placement = 'auto' } = options;
  const isInline = placement === 'inline' || (placement === 'auto' && !('Worker' in globalThis));
  const backend = createLazily('onnxruntime-web', async () =>
    isInline
      ? (await import('./web-inline.ts')).createInline(options)
      : (await import('./web-realms.ts')).createRealms(options),
  );
  if (isInline) return [backend];
  const isolated = createLazily('onnxruntime-web', async () =>
    (await import('./web-realms.ts')).createTrialRealm(options),
  );
  return [
    {
      ...backend,
      elsewhere: { worker: backend },
      isolated,
      close: async () => {
        await Promise.all([backend.close(), isolated.close()]);
      },
    },
  ];
}

/**
 * Creates a backend that runs in a worker of the app, whose script hosts it with `hostInWorker` of `inlay/host`. The
 * worker is started when it is needed, ended with its last model, and started again when it breaks down.
 * @example
 * const backend = inWorker({
 *   name: 'tfjs',
 *   worker: () => new Worker(new URL('./tfjs-worker.js', import.meta.url), { type: 'module' }),
 * });
 */
export function inWorker(options: InWorkerOptions): Backend {
  assertNumbers(options);
  return createLazily(options.name, async () => (await import('./web-realms.ts')).createRealm(options));
}

/** A backend whose code is loaded at its first use. */
function createLazily(name: string, load: () => Promise<Backend>): Backend {
  let loading: Promise<Backend> | undefined;
  let closing: Promise<void> | undefined;
  const use = (): Promise<Backend> => {
    if (closing !== undefined) return Promise.reject(closedError(`The backend ${name}`));
    return (loading ??= load().catch((error: unknown) => {
      loading = undefined;
      throw error;
    }));
  };
  return {
    name,
    providers: async () => (await use()).providers(),
    createSession: async (source, options) => (await use()).createSession(source, options),
    close: () => {
      const close = async (): Promise<void> => (await loading?.catch(() => undefined))?.close();
      return (closing ??= close());
    },
  };
}

const PLACEMENTS = ['auto', 'worker', 'inline'];

function assertOptions(options: WebBackendOptions): void {
  const { placement = 'auto', workers = 1 } = options;
  if (!PLACEMENTS.includes(placement)) {
    throw new TypeError(
      `In a page, placement is 'auto', 'worker' or 'inline', got ${JSON.stringify(placement)}.`,
    );
  }
  if (!Number.isSafeInteger(workers) || workers < 1) {
    throw new RangeError(`workers is a whole number of at least 1, got ${workers}.`);
  }
  assertNumbers(options);
}

function assertNumbers({ runTimeoutMs = 1, startTimeoutMs = 1 }: Partial<InWorkerOptions>): void {
  for (const [name, value] of Object.entries({ runTimeoutMs, startTimeoutMs })) {
    if (!(value > 0)) throw new RangeError(`${name} is a number above 0, got ${value}.`);
  }
}
