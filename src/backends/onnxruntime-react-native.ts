/**
 * Adapter around `onnxruntime-react-native`: native ONNX Runtime in iOS and Android apps.
 * @module inlay/backends/onnxruntime-react-native
 */
import type { Backend, ExecutionProvider, ModelSource, Session, Slot } from '../core/backend.ts';
import { createSessionSet, unusableError, type LibraryLoader } from '../core/library.ts';
import { BackendError, isInlayError, ModelError } from '../core/errors.ts';
import {
  createError,
  wrapSession,
  type OrtModule,
  type OrtSession,
  type OrtSessionOptions,
  type OrtTensor,
  type OrtValueMetadata,
} from './onnxruntime.ts';

/** The part of the `onnxruntime-react-native` module that is used. */
export interface OrtReactNativeModule extends OrtModule {
  listSupportedBackends(): ReadonlyArray<{ readonly name: string }>;
}

/** Options of {@link onnxruntimeReactNative}. */
export interface OnnxruntimeReactNativeOptions {
  /** The module `onnxruntime-react-native`, or a function that imports it. */
  readonly ort: LibraryLoader<OrtReactNativeModule>;
  /**
   * How many threads the library may start at once, for loading and running together: it starts one for each call, however
   * many there are. Default 2.
   */
  readonly threads?: number;
  /**
   * Execution providers to offer where the app was built with them, best first. `xnnpack` has to be asked for: it has
   * threads of its own. Default: `coreml`, `qnn`, `nnapi`, `cpu`.
   */
  readonly providers?: readonly string[];
}

const NAME = 'onnxruntime-react-native';
const DEVICES: Readonly<Record<string, ExecutionProvider['device']>> = { cpu: 'cpu', xnnpack: 'cpu' };
const DEFAULT_PROVIDERS = ['coreml', 'qnn', 'nnapi', 'cpu'];

/**
 * Creates the backend of `onnxruntime-react-native`. Each load and each run has a native thread, so that the app stays
 * responsive; a model is loaded fastest by its path, and from memory only on the CPU. Strings cannot be fed or read, nor
 * float16 outputs in engines without `Float16Array`: the library loses the former and never answers the latter.
 */
export function onnxruntimeReactNative(options: OnnxruntimeReactNativeOptions): Backend {
  const { threads = 2, providers: wanted = DEFAULT_PROVIDERS } = options;
  if (!Number.isSafeInteger(threads) || threads < 1) {
    throw new RangeError(`threads is a whole number of at least 1, got ${threads}.`);
  }
  const sessions = createSessionSet(NAME);
  const onThread = createGate(threads);
  const places: readonly Slot[] = Array.from({ length: threads }, (_, i) => ({ name: `thread ${i + 1}` }));
  let loading: Promise<OrtReactNativeModule> | undefined;

  const importModule = async (): Promise<OrtReactNativeModule> =>
    typeof options.ort === 'function' ? options.ort() : options.ort;
  const load = (): Promise<OrtReactNativeModule> =>
    (loading ??= importModule().catch((cause: unknown) => {
      loading = undefined;
      throw toLibraryError(cause);
    }));

  const providers = async (): Promise<readonly ExecutionProvider[]> => {
    const built = new Set((await load()).listSupportedBackends().map(({ name }) => name));
    return wanted.filter((name) => built.has(name)).map((name) => ({ name, device: DEVICES[name] ?? 'npu' }));
  };

  const create = async (
    source: ModelSource,
    provider: string,
    intraOpThreads: number,
  ): Promise<OrtSession> => {
    const { InferenceSession } = await load();
    const ortOptions: OrtSessionOptions = {
      executionProviders: [provider],
      intraOpNumThreads: intraOpThreads,
      interOpNumThreads: 1,
      logSeverityLevel: 4,
    };
    return onThread(() =>
      source.path === undefined
        ? InferenceSession.create(compact(source.bytes), ortOptions)
        : InferenceSession.create(source.path, ortOptions),
    );
  };

  const wrap = (session: OrtSession, provider: string, intraOpThreads: number): Session => {
    for (const input of session.inputMetadata) {
      if (input.type === 'string') throw unsupported(`Input "${input.name}" takes strings`);
    }
    // Under load a model gets a second thread; it is the same session.
    const slots = places.slice(0, 1);
    const wrapped = wrapSession(
      {
        inputMetadata: session.inputMetadata,
        outputMetadata: session.outputMetadata.map(withoutUnreadable),
        run: async (feeds, fetches?: readonly string[]) => {
          const native = toNative(feeds);
          const run = (): ReturnType<OrtSession['run']> =>
            fetches === undefined ? session.run(native) : session.run(native, fetches);
          try {
            return await onThread(run);
          } catch (thrown) {
            throw toError(thrown);
          }
        },
        release: () => session.release(),
      },
      { provider, slots, intraOpThreads },
    );
    return {
      ...wrapped,
      placement: 'worker',
      grow: () => {
        const next = places[slots.length];
        if (next === undefined) return undefined;
        slots.push(next);
        return Promise.resolve();
      },
    };
  };

  return {
    name: NAME,
    providers,
    createSession: (source, { provider, intraOpThreads = 1 }) =>
      sessions.open(async () => {
        if (!(await providers()).some(({ name }) => name === provider)) {
          throw unusableError(
            provider,
            `this app offers ${(await providers()).map(({ name }) => name).join(', ')}`,
          );
        }
        // It does not pass any options on for models from memory, and takes the CPU with all cores.
        if (source.path === undefined && provider !== 'cpu') {
          throw unusableError(provider, 'models from memory run on the CPU only; load the model from a file');
        }
        let session: OrtSession;
        try {
          session = await create(source, provider, intraOpThreads);
        } catch (thrown) {
          throw createError(toError(thrown), source, provider);
        }
        try {
          return wrap(session, provider, intraOpThreads);
        } catch (error) {
          await session.release().catch(() => {});
          throw error;
        }
      }),
    close: () => sessions.close(),
  };
}

/** Says why the library cannot be imported. */
export function toLibraryError(cause: unknown): BackendError {
  if (isInlayError(cause) && cause instanceof BackendError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  // Its first line calls a native module that is null in an app that was built without it.
  if (/'?install'?\W* of (null|undefined)|null is not an object|OrtApi|TurboModuleRegistry/.test(message)) {
    return new BackendError(
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      `${NAME} is installed, but this app was built without its native part; in Expo, add the entry of the examples/expo ` +
        'guide to react-native.config.js, run "npx expo prebuild --clean" and start a development build, since Expo Go cannot have it.',
      { cause, details: { packageName: NAME } },
    );
  }
  const isMissing = /unknown module|(unable to|could not) resolve|cannot find (module|package)/i.test(
    message,
  );
  return isMissing
    ? new BackendError(
        'ERR_INLAY_BACKEND_MISSING',
        `${NAME} is not installed; run "npx expo install ${NAME}" or "npm install ${NAME}".`,
        { cause },
      )
    : new BackendError(
        'ERR_INLAY_BACKEND_UNAVAILABLE',
        `${NAME} is installed but does not load here; see the cause.`,
        { cause, details: { packageName: NAME } },
      );
}

/** Lets so many tasks run at once, the others in order of arrival. */
function createGate(limit: number): <Result>(task: () => Promise<Result>) => Promise<Result> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (task) => {
    if (running >= limit) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      // Whoever is next takes over the place.
      if (next === undefined) running -= 1;
      else next();
    }
  };
}

/** Native code rejects with strings. */
function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

function unsupported(what: string): ModelError {
  return new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', `${what}, which ${NAME} cannot pass on.`);
}

/** Marks outputs that must not be computed. */
function withoutUnreadable(output: OrtValueMetadata): OrtValueMetadata {
  const isUnreadable =
    output.type === 'string' || (output.type === 'float16' && !('Float16Array' in globalThis));
  return isUnreadable ? { name: output.name, isTensor: false } : output;
}

/** Dtypes that have a name in the native part. */
const FEEDABLE = /^(u?int(8|16|32|64)|float(16|32|64)|bool)$/;

/** Native code reads `cpuData`, always from the start of its buffer, and as many elements as `dims` say. */
function toNative(feeds: Readonly<Record<string, OrtTensor>>): Record<string, OrtTensor> {
  const native: Record<string, OrtTensor & { readonly cpuData: unknown }> = {};
  for (const name in feeds) {
    const tensor = feeds[name] as OrtTensor;
    if (!FEEDABLE.test(tensor.type)) throw new Error(`Unsupported data type ${tensor.type} of "${name}"`);
    const data = compactView(tensor.data as Uint8Array);
    const size = tensor.dims.reduce((product, length) => product * length, 1);
    if (data.length < size) throw new Error(`The buffer of "${name}" is gone`);
    native[name] = { type: tensor.type, dims: tensor.dims, location: 'cpu', data, cpuData: data };
  }
  return native;
}

function compactView(view: Uint8Array): Uint8Array {
  return view.byteOffset === 0 ? view : view.slice();
}

/** Of a view on a larger buffer, native code would take the whole buffer for the model. */
function compact(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
}
