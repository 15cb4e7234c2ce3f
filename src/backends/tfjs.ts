/**
 * Adapter around TensorFlow.js: graph and layers models in pages, in Node and wherever else it runs.
 * @module inlay/backends/tfjs
 */
import type { Backend, ExecutionProvider, Session } from '../core/backend.ts';
import { callingThread, createSessionSet, unusableError, type LibraryLoader } from '../core/library.ts';
import { openEngine, type Engine } from './tfjs-engine.ts';
import { createError } from './tfjs-errors.ts';
import { readModel, type FileAccess, type ModelFiles } from './tfjs-files.ts';
import { createTfLoader, type TfModule, type TfWasmModule } from './tfjs-library.ts';
import { loadGraph, loadLayers, type LoadedModel } from './tfjs-model.ts';
import { refuseGpu } from './tfjs-probe.ts';
import { openSession } from './tfjs-session.ts';

export type { LibraryLoader } from '../core/library.ts';
export type { TfModule, TfWasmModule } from './tfjs-library.ts';

/** Options of {@link tfjs}. */
export interface TfjsOptions {
  /** The module `@tensorflow/tfjs` or `@tensorflow/tfjs-node`, or a function that imports it. */
  readonly tf: LibraryLoader<TfModule>;
  /** The module `@tensorflow/tfjs-backend-wasm`, or a function that imports it, for the provider `wasm`. */
  readonly wasm?: LibraryLoader<TfWasmModule>;
  /** The module `@tensorflow/tfjs-backend-webgpu`, or a function that imports it, for the provider `webgpu`. */
  readonly webgpu?: LibraryLoader<object>;
  /**
   * Where the `.wasm` files are: a prefix that ends in `/`, or the URL of each of the three by its name. Default: beside
   * the script.
   */
  readonly wasmPaths?: string | Readonly<Record<string, string>>;
  /** Providers to offer, of `webgpu`, `webgl`, `tensorflow`, `wasm` and `cpu`. Default: all that are there. */
  readonly providers?: readonly string[];
  /** Lets a software GPU adapter count as a GPU. Default false: it is many times slower than the CPU. */
  readonly allowSoftwareAdapter?: boolean;
  /** Called once, before the first model: sets flags, registers layers and operators of the app. */
  readonly setup?: () => void | Promise<void>;
  /** Reads models that are given by path. Default in Node: its file system; elsewhere there is none. */
  readonly readFile?: (path: string) => Promise<Uint8Array>;
  /** Gets the weights of a `model.json` that came from a URL. Default: the global `fetch`. */
  readonly fetch?: (url: string, init?: RequestInit) => Promise<Response>;
  /** Largest weights of a model, in bytes; nothing of larger ones is read or unpacked. Default 2 GiB. */
  readonly maxBytes?: number;
}

const NAME = '@tensorflow/tfjs';

/** Providers by the TensorFlow.js backends' names, best first; others are left alone. */
const DEVICES: ReadonlyMap<string, ExecutionProvider['device']> = /* @__PURE__ */ new Map([
  ['webgpu', 'gpu'],
  ['webgl', 'gpu'],
  ['tensorflow', 'cpu'],
  ['wasm', 'cpu'],
  ['cpu', 'cpu'],
]);

/** The library with its engine, ready to be asked. */
interface Library {
  readonly tf: TfModule;
  readonly engine: Engine;
}

/**
 * Creates the backend of TensorFlow.js. A model is a ZIP archive of the folder that its converter writes, or a
 * `model.json` with the weights beside it. Runs block the calling thread for their length, so that its best place is a
 * worker of its own.
 *
 * TensorFlow.js has one engine per thread. The host's choice of a backend and its tensors are left as they are; only
 * while a layers model is opened, or one with control flow runs, do operations that the host starts meanwhile
 * run on that model's backend, and tensors that it then makes outside of `tf.tidy` are lost if that fails. The
 * memory of a TensorFlow.js backend is given back when the thread ends.
 *
 * @throws `RangeError` if `providers` has another name, or `maxBytes` is no number of bytes.
 * @example
 * const backend = tfjs({ tf: () => import('@tensorflow/tfjs') });
 */
export function tfjs(options: TfjsOptions): Backend {
  const { allowSoftwareAdapter = false, maxBytes = 2 ** 31, setup, wasmPaths } = options;
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1)
    throw new RangeError(`maxBytes is a number of bytes, got ${String(maxBytes)}.`);
  for (const name of options.providers ?? []) {
    if (DEVICES.has(name)) continue;
    throw new RangeError(`providers are of ${[...DEVICES.keys()].join(', ')}, got ${JSON.stringify(name)}.`);
  }
  const loadTf = createTfLoader(options.tf, NAME);
  const loadWasm = options.wasm && createTfLoader(options.wasm, '@tensorflow/tfjs-backend-wasm');
  const loadWebGpu = options.webgpu && createTfLoader(options.webgpu, '@tensorflow/tfjs-backend-webgpu');
  const access: FileAccess = {
    ...(options.readFile && { readFile: options.readFile }),
    fetch: options.fetch ?? ((url, init) => fetch(url, init)),
    maxBytes,
  };
  const slots = callingThread();
  const sessions = createSessionSet(NAME);
  let library: Promise<Library> | undefined;

  const load = (): Promise<Library> => {
    const start = async (): Promise<Library> => {
      const tf = await loadTf();
      await setup?.();
      return { tf, engine: openEngine(tf) };
    };
    return (library ??= start().catch((error: unknown) => {
      library = undefined;
      throw error;
    }));
  };

  /** Providers that are registered, or would be by a package that is there. */
  const offered = async ({ engine }: Library): Promise<string[]> => {
    const names = new Set(engine.names());
    if (loadWasm !== undefined) names.add('wasm');
    if (loadWebGpu !== undefined) names.add('webgpu');
    return [...DEVICES.keys()].filter(
      (name) => names.has(name) && (options.providers?.includes(name) ?? true),
    );
  };

  const providers = async (): Promise<readonly ExecutionProvider[]> =>
    Promise.all(
      (await offered(await load())).map(async (name): Promise<ExecutionProvider> => {
        const refusal = await refuseGpu(name, allowSoftwareAdapter);
        return { name, device: DEVICES.get(name) ?? 'cpu', ...(refusal !== undefined && { refusal }) };
      }),
    );

  const startProvider = async (loaded: Library, provider: string): Promise<void> => {
    const names = await offered(loaded);
    if (!names.includes(provider)) throw unusableError(provider, `there are ${names.join(', ')}`);
    const refusal = await refuseGpu(provider, allowSoftwareAdapter);
    if (refusal !== undefined) throw unusableError(provider, refusal);
    if (provider === 'webgpu') await loadWebGpu?.();
    const wasm = provider === 'wasm' ? await loadWasm?.() : undefined;
    if (!loaded.engine.names().includes(provider))
      throw unusableError(provider, 'its package does not offer it here');
    await loaded.engine.start(provider, () => {
      if (wasmPaths !== undefined) wasm?.setWasmPaths(wasmPaths);
    });
  };

  const open = async (files: ModelFiles, loaded: Library, provider: string): Promise<Session> => {
    const { tf, engine } = loaded;
    const model: LoadedModel =
      files.kind === 'graph'
        ? await engine.use(provider, () => loadGraph(tf, files))
        : await engine.useAsync(provider, () => loadLayers(tf, files));
    try {
      return await openSession({ tf, engine, model, provider, slots });
    } catch (error) {
      await engine.use(provider, () => model.dispose());
      throw error;
    }
  };

  return {
    name: NAME,
    providers,
    createSession: (source, { provider }) =>
      sessions.open(async () => {
        const loaded = await load();
        await startProvider(loaded, provider);
        try {
          return await open(await readModel(source, access), loaded, provider);
        } catch (error) {
          throw createError(error, source, provider);
        }
      }),
    close: () => sessions.close(),
  };
}
