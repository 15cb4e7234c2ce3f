/** What the WebAssembly builds of ONNX Runtime share: one start per realm, and one call at a time. */
import type { ModelSource } from '../core/backend.ts';
import { createLoader, type LibraryLoader } from '../core/library.ts';
import { BackendError, isInlayError } from '../core/errors.ts';
import {
  faultOfBinary,
  findFaultyFile,
  noteFetches,
  type FileFault,
  type WasmPaths,
} from './onnxruntime-web-files.ts';
import {
  createError,
  reasonOf,
  type OrtModule,
  type OrtSession,
  type OrtSessionOptions,
} from './onnxruntime.ts';

export type { WasmPaths } from './onnxruntime-web-files.ts';

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

/** Where the library gets its WebAssembly from. Nothing is ever fetched from anywhere else. */
export interface WasmFiles {
  /** The WebAssembly binary itself; then nothing is fetched. */
  readonly wasmBinary?: ArrayBuffer | Uint8Array;
  /**
   * Where to fetch the WebAssembly files: a prefix, under which the `.mjs` and the `.wasm` of the build are served, or
   * one URL each. Default: beside the library, where bundlers put them.
   */
  readonly wasmPaths?: WasmPaths;
}

/** What {@link createOrtRealm} makes. */
export interface OrtRealm {
  /** Loads the module, not yet its WebAssembly. */
  load(): Promise<void>;
  /**
   * Does one thing after the other, whatever became of those before. Two first sessions at once would initialise
   * WebAssembly twice and spoil it for the realm; runs at the same time get each other's error messages or hang, and a
   * release during a run never ends.
   */
  readonly inTurn: Around;
  /**
   * Creates a session, and starts WebAssembly before the first one. To be called in turn, like everything of it.
   * @param threads - of WebAssembly; only those of the first session count.
   * @param settings - what apps leave as it is.
   * @throws {@link BackendError} `ERR_INLAY_BACKEND_UNAVAILABLE` when WebAssembly did not start, then for good.
   */
  create(
    source: ModelSource,
    provider: OrtProvider,
    threads?: number,
    settings?: OrtSettings,
  ): Promise<OrtSession>;
  /** Threads that WebAssembly was started with. */
  threads(): number | undefined;
}

/** Does a piece of work under some condition. */
export type Around = <T>(work: () => Promise<T>) => Promise<T>;

/** Options of the library that change how a graph is run, but not what it computes. */
export type OrtSettings = Pick<OrtSessionOptions, 'graphOptimizationLevel'>;

/** An execution provider with its options. */
export type OrtProvider = OrtSessionOptions['executionProviders'][number];

export const PACKAGE_NAME = 'onnxruntime-web';

/** Wraps the library for one realm. */
export function createOrtRealm(ort: LibraryLoader<OrtWebModule>, files: WasmFiles): OrtRealm {
  const loadModule = createLoader(ort, PACKAGE_NAME);
  let loading: Promise<OrtWebModule> | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  let threads: number | undefined;
  let spoiled: BackendError | undefined;

  const inTurn: Around = (work) => {
    const done = turn.then(work, work);
    turn = done;
    return done;
  };

  const configure = async (): Promise<OrtWebModule> => {
    const { wasmBinary, wasmPaths } = files;
    const module = await loadModule().catch(async (error: unknown) => {
      throw isUnavailable(error) ? await startError(error.cause, files, []) : error;
    });
    const { wasm } = module.env;
    wasm.numThreads = 1;
    wasm.proxy = false;
    if (wasmBinary !== undefined) wasm.wasmBinary = wasmBinary;
    if (wasmPaths !== undefined) wasm.wasmPaths = wasmPaths;
    return module;
  };
  const load = (): Promise<OrtWebModule> =>
    (loading ??= configure().catch((error: unknown) => {
      loading = undefined;
      throw error;
    }));

  const open = async (
    module: OrtWebModule,
    source: ModelSource,
    provider: OrtProvider,
    wanted: number,
    settings: OrtSettings,
  ): Promise<OrtSession> => {
    if (spoiled !== undefined) throw spoiled;
    const { wasm } = module.env;
    const isFirst = threads === undefined;
    if (isFirst) wasm.numThreads = wanted;
    // The library writes into its options, so that they cannot be shared between calls.
    const options: OrtSessionOptions = {
      executionProviders: [provider],
      logSeverityLevel: 4,
      ...settings,
    };
    const create = async (): Promise<OrtSession> =>
      source.path === undefined
        ? module.InferenceSession.create(source.bytes, options)
        : module.InferenceSession.create(source.path, options);
    const { result, urls } = isFirst ? noteFetches(create) : { result: create(), urls: [] };
    try {
      return await result;
    } catch (error) {
      if (/no available backend/i.test(reasonOf(error))) {
        spoiled = await startError(error, files, urls);
        throw spoiled;
      }
      throw createError(error, source, typeof provider === 'string' ? provider : provider.name);
    } finally {
      // The library has the last word.
      threads ??= wasm.numThreads ?? 1;
    }
  };

  return {
    load: async () => {
      await load();
    },
    inTurn,
    create: async (source, provider, wanted = 1, settings = {}) =>
      open(await load(), source, provider, wanted, settings),
    threads: () => threads,
  };
}

/** A session, all of whose calls are made under a condition. */
export function guardSession(session: OrtSession, around: Around): OrtSession {
  return {
    inputMetadata: session.inputMetadata,
    outputMetadata: session.outputMetadata,
    run: (feeds, fetches?: readonly string[]) =>
      around(() => (fetches === undefined ? session.run(feeds) : session.run(feeds, fetches))),
    release: () => around(() => session.release()),
  };
}

function isUnavailable(error: unknown): error is BackendError {
  return isInlayError(error) && error.code === 'ERR_INLAY_BACKEND_UNAVAILABLE';
}

async function startError(
  cause: unknown,
  { wasmBinary, wasmPaths }: WasmFiles,
  fetched: readonly string[],
): Promise<BackendError> {
  const reason = reasonOf(cause);
  const fault: FileFault | undefined =
    wasmBinary === undefined ? await findFaultyFile(reason, wasmPaths, fetched) : faultOfBinary(wasmBinary);
  const what = fault?.text ?? reason;
  const remedy = /Content Security Policy|disallowed by embedder/i.test(reason)
    ? `allow 'wasm-unsafe-eval' in the page's Content-Security-Policy`
    : fault === undefined
      ? 'see the cause, or use another backend'
      : 'serve the file of the installed version there, or set wasmPaths or wasmBinary';
  return new BackendError(
    'ERR_INLAY_BACKEND_UNAVAILABLE',
    `${PACKAGE_NAME} does not start here: ${what}; ${remedy}.`,
    { cause, details: { packageName: PACKAGE_NAME, ...fault?.details } },
  );
}
