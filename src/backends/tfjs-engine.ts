/**
 * One engine, shared: TensorFlow.js has one for the whole thread, whose backend is a global choice of the host. What
 * happens here takes the place of that choice and gives it back.
 */
import { BackendError } from '../core/errors.ts';
import type { TfModule, TfTensor } from './tfjs-library.ts';

/** The part of `tf.Engine` that is used. Its way to choose a backend cannot put "none" back, hence its own fields. */
interface TfEngine {
  backendName: string | null | undefined;
  backendInstance: unknown;
  profiler: unknown;
  /** The host's choice is being started; until then no operation runs. */
  readonly pendingBackendInit: Promise<unknown> | null | undefined;
  readonly registry: Record<string, unknown>;
  readonly state: {
    readonly activeScope: { readonly track: readonly TfTensor[] };
    readonly registeredVariables: Readonly<Record<string, TfTensor>>;
  };
  backendNames(): readonly string[];
  startScope(name: string): void;
  endScope(result?: readonly TfTensor[]): void;
}

/** The engine of one thread. */
export interface Engine {
  /** Names of the TensorFlow.js backends that are registered. */
  names(): readonly string[];
  /**
   * Starts a TensorFlow.js backend without choosing it, unless it runs already.
   * @param prepare - called before it starts.
   * @throws {@link BackendError} `ERR_INLAY_DEVICE_UNAVAILABLE`, or `_BACKEND_UNAVAILABLE` for those on the CPU.
   */
  start(name: string, prepare?: () => void): Promise<void>;
  /**
   * Carries out a task with that backend, at once when it is its turn: the host notices nothing. Tensors that are made
   * are disposed of, but for those that are kept.
   */
  use<T>(name: string, task: () => T): Promise<T>;
  /**
   * Carries out a task that waits in between. Meanwhile the host's operations run on that backend, too; the host's own
   * choice of a backend stays. When it fails, all tensors that were made outside of `tf.tidy` since it began are
   * disposed of; otherwise none.
   */
  useAsync<T>(name: string, task: () => Promise<T>): Promise<T>;
}

/** Several backends in one thread have the same engine, and take turns. */
const turns: WeakMap<object, Promise<unknown>> = /* @__PURE__ */ new WeakMap();

/**
 * Wraps the engine of a TensorFlow.js module.
 * @throws {@link BackendError} `ERR_INLAY_BACKEND_UNAVAILABLE` if it is of another make than is known.
 */
export function openEngine(tf: TfModule): Engine {
  const shared = tf.engine();
  if (!('registry' in shared && 'state' in shared && 'startScope' in shared)) {
    throw new BackendError(
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      'The engine of this version of TensorFlow.js is not known; use version 4.22.',
    );
  }
  const engine = shared as TfEngine;
  const prepared = new Map<string, Choice>();

  const pending = (): Promise<unknown> | undefined => engine.pendingBackendInit ?? undefined;

  const inTurn = <T>(task: () => Promise<T>): Promise<T> => {
    const begin = async (): Promise<T> => {
      for (let start = pending(); start !== undefined; start = pending()) await start;
      return task();
    };
    const last = turns.get(engine) ?? Promise.resolve();
    const done = last.then(begin, begin);
    turns.set(engine, done);
    return done;
  };

  /** @returns puts back what was chosen before. */
  const choose = (name: string): (() => void) => {
    const before = choiceOf(engine);
    const instance = engine.registry[name];
    if (before.backendInstance === instance) return () => {};
    const known = prepared.get(name);
    if (known?.backendInstance === instance) Object.assign(engine, known);
    // It sets its kernels up, which takes half a millisecond, and has chosen before it returns since it is started.
    else tf.setBackend(name).catch(() => {});
    const ours = choiceOf(engine);
    prepared.set(name, ours);
    return () => {
      // The host may have chosen anew in the meantime, even the same one; each choice has a profiler of its own.
      if (engine.backendInstance === instance && engine.profiler === ours.profiler)
        Object.assign(engine, before);
    };
  };

  return {
    names: () => engine.backendNames(),
    start: (name, prepare) =>
      inTurn(async () => {
        if (engine.registry[name] !== undefined) return;
        const instance = await create(tf, name, prepare);
        // The host may have started it as well.
        for (let start = pending(); start !== undefined; start = pending()) await start;
        if (engine.registry[name] === undefined) engine.registry[name] = instance;
        else (instance as { dispose(): void }).dispose();
      }),
    use: (name, task) =>
      inTurn(async () => {
        const restore = choose(name);
        engine.startScope('inlay');
        try {
          return task();
        } finally {
          engine.endScope();
          restore();
        }
      }),
    useAsync: (name, task) =>
      inTurn(async () => {
        const restore = choose(name);
        const variables = new Set(Object.keys(engine.state.registeredVariables));
        engine.startScope('inlay');
        const { track } = engine.state.activeScope;
        try {
          const result = await task();
          engine.endScope(track);
          return result;
        } catch (error) {
          engine.endScope();
          for (const [id, variable] of Object.entries(engine.state.registeredVariables)) {
            if (!variables.has(id)) variable.dispose();
          }
          throw error;
        } finally {
          restore();
        }
      }),
  };
}

/** A choice of a backend, as the engine holds it. */
type Choice = Pick<TfEngine, 'backendName' | 'backendInstance' | 'profiler'>;

function choiceOf({ backendName, backendInstance, profiler }: TfEngine): Choice {
  return { backendName, backendInstance, profiler };
}

async function create(tf: TfModule, name: string, prepare?: () => void): Promise<unknown> {
  const factory = tf.findBackendFactory(name);
  try {
    prepare?.();
    return await (factory as () => unknown)();
  } catch (thrown) {
    const onCpu = name === 'cpu' || name === 'wasm' || name === 'tensorflow';
    // The WASM backend throws objects that are no errors.
    const cause =
      thrown instanceof Error
        ? thrown
        : new Error(String((thrown as { message?: unknown } | null)?.message ?? thrown));
    throw new BackendError(
      onCpu ? 'ERR_INLAY_BACKEND_UNAVAILABLE' : 'ERR_INLAY_DEVICE_UNAVAILABLE',
      `The TensorFlow.js backend "${name}" does not start here: ${cause.message.replace(/\.$/, '')}.`,
      { cause, details: { provider: name } },
    );
  }
}
