/**
 * Adapter around `onnxruntime-web`: ONNX Runtime as WebAssembly, on the CPU, in any runtime that allows it.
 * @module inlay/backends/onnxruntime-web
 */
import type { Backend } from '../core/backend.ts';
import { BackendError } from '../core/errors.ts';
import {
  callingThread,
  createError,
  createLoader,
  createSessionSet,
  wrapSession,
  type OrtLoader,
  type OrtModule,
  type OrtSessionOptions,
} from './onnxruntime.ts';

/** Where the library finds its WebAssembly files: a prefix, or one URL each. */
export type WasmPaths = string | { readonly mjs?: string | URL; readonly wasm?: string | URL };

/** The part of the `onnxruntime-web` module that is used. */
export interface OrtWebModule extends OrtModule {
  readonly env: {
    readonly wasm: {
      numThreads?: number;
      proxy?: boolean;
      wasmBinary?: ArrayBufferLike | Uint8Array;
      wasmPaths?: WasmPaths;
    };
  };
}

/** Options of {@link onnxruntimeWeb}. */
export interface OnnxruntimeWebOptions {
  /**
   * The module, or a function that imports it: `onnxruntime-web` in Node, `onnxruntime-web/wasm` elsewhere, which is
   * smaller.
   */
  readonly ort: OrtLoader<OrtWebModule>;
  /** The WebAssembly binary itself; then nothing is fetched. */
  readonly wasmBinary?: ArrayBuffer | Uint8Array;
  /** Where to fetch the WebAssembly files. Default: beside the library. */
  readonly wasmPaths?: WasmPaths;
}

const NAME = 'onnxruntime-web';
const PROVIDER = 'wasm';

/**
 * Creates the backend of `onnxruntime-web` with its WebAssembly provider on one thread.
 *
 * WebAssembly is initialised once per realm, and the library keeps a failure for good: after
 * `ERR_INLAY_BACKEND_UNAVAILABLE` only a new realm, such as a new worker, helps. Memory that a model has taken is
 * reused by later models and is given back when the realm ends.
 *
 * @example
 * const backend = onnxruntimeWeb({ ort: () => import('onnxruntime-web/wasm') });
 */
export function onnxruntimeWeb(options: OnnxruntimeWebOptions): Backend {
  const loadModule = createLoader(options.ort, NAME);
  const sessions = createSessionSet(NAME);
  const slots = callingThread();
  let configured: Promise<OrtWebModule> | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  // Two first sessions at once would initialise WebAssembly twice and spoil it for the realm; runs at the same time
  // get each other's error messages, and a release during a run never ends.
  const inTurn = <T>(task: () => Promise<T>): Promise<T> => {
    const done = turn.then(task, task);
    turn = done;
    return done;
  };

  const configure = async (): Promise<OrtWebModule> => {
    const ort = await loadModule();
    const { wasm } = ort.env;
    wasm.numThreads = 1;
    wasm.proxy = false;
    if (options.wasmBinary !== undefined) wasm.wasmBinary = options.wasmBinary;
    if (options.wasmPaths !== undefined) wasm.wasmPaths = options.wasmPaths;
    return ort;
  };
  const load = (): Promise<OrtWebModule> =>
    (configured ??= configure().catch((error: unknown) => {
      configured = undefined;
      throw error;
    }));

  return {
    name: NAME,
    providers: async () => {
      await load();
      return [{ name: PROVIDER, device: 'cpu' }];
    },
    createSession: (source, { provider }) =>
      sessions.open(async () => {
        const ort = await load();
        if (provider !== PROVIDER) {
          throw new BackendError(
            'ERR_INLAY_DEVICE_UNAVAILABLE',
            `The execution provider "${provider}" is not usable here: this backend offers ${PROVIDER}.`,
            { details: { provider } },
          );
        }
        // The library writes into its options, so that they cannot be shared between calls.
        const ortOptions: OrtSessionOptions = { executionProviders: [PROVIDER], logSeverityLevel: 4 };
        try {
          const session = await inTurn(() =>
            source.path === undefined
              ? ort.InferenceSession.create(source.bytes, ortOptions)
              : ort.InferenceSession.create(source.path, ortOptions),
          );
          return wrapSession(
            {
              inputMetadata: session.inputMetadata,
              outputMetadata: session.outputMetadata,
              run: (feeds, fetches?: readonly string[]) =>
                inTurn(() => (fetches === undefined ? session.run(feeds) : session.run(feeds, fetches))),
              release: () => inTurn(() => session.release()),
            },
            { provider: PROVIDER, slots, intraOpThreads: 1 },
          );
        } catch (error) {
          throw createError(error, source, PROVIDER);
        }
      }),
    close: () => sessions.close(),
  };
}
