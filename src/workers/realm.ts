/** The host's half: a backend whose sessions live in a worker that may die and is built again. */
import type {
  Backend,
  ExecutionProvider,
  ModelSource,
  Session,
  SessionOptions,
  SessionRunOptions,
  TensorMap,
} from '../core/backend.ts';
import { BackendError, closedError, isInlayError, type ErrorCode } from '../core/errors.ts';
import type { HostApi, RemoteSession } from './host.ts';
import {
  connect,
  packSource,
  packTensors,
  toTensors,
  type Endpoint,
  type Link,
  type Packed,
  type WireTensors,
} from './link.ts';
import { createPacer } from './pacer.ts';

/** A worker that runs {@link hostBackend}. */
export interface WorkerHandle {
  readonly endpoint: Endpoint;
  /** Fulfilled with the reason when the worker has ended, whoever ended it. */
  readonly ended: Promise<unknown>;
  /** Says whether calls are in flight: the process stays alive for them, and for nothing else. */
  setBusy(busy: boolean): void;
  /** Runs a task when the event loop has gone round, where the runtime hands over many messages in one go. */
  readonly nextTurn?: (task: () => void) => void;
  /** Lets native code come to its end, then ends the worker. Safe to call twice. */
  end(): Promise<void>;
}

/** Options of {@link createWorkerBackend}. */
export interface WorkerBackendOptions {
  /** Name of the library that the worker uses. */
  readonly name: string;
  /** Starts a worker. Called at the first use, and after the worker was lost. */
  readonly spawn: () => WorkerHandle;
  /** Times that a session may lose its worker, without a successful run in between, before it gives up. Default 3. */
  readonly maxLosses?: number;
  /**
   * Ends the worker when its last session is released, and starts another one when needed: for libraries that keep
   * the memory of released models, as WebAssembly does. Default false.
   */
  readonly endWhenEmpty?: boolean;
}

/** The calls as they are made: what is packed is plain data when it arrives. */
interface Calls extends Omit<HostApi, 'create' | 'run'> {
  create(source: Packed<ModelSource>, options: SessionOptions): Promise<RemoteSession>;
  run(id: number, feeds: Packed<WireTensors>, outputs?: readonly string[]): Promise<WireTensors>;
}

interface Realm {
  readonly link: Link<Calls>;
  readonly handle: WorkerHandle;
  /** Sessions that are open in it or being opened. */
  sessions: number;
}

interface Bound extends RemoteSession {
  readonly realm: Realm;
}

/**
 * Creates a backend that runs in a worker of its own, started at the first use.
 *
 * When the worker dies, calls in flight fail with `ERR_INLAY_WORKER_LOST`; the next call starts another one and opens
 * the session again from its source. Model bytes are therefore kept, and must not change; a path costs no memory.
 * A worker whose library or device broke down is thrown away in the same manner.
 *
 * @example
 * const backend = createWorkerBackend({ name: 'onnxruntime-node', spawn: () => spawnNodeWorker(script, data) });
 */
export function createWorkerBackend(options: WorkerBackendOptions): Backend {
  const { name, spawn, maxLosses = 3, endWhenEmpty = false } = options;
  let realm: Realm | undefined;
  let closing: Promise<void> | undefined;

  const current = (): Realm => {
    if (closing !== undefined) throw closedError(`The backend ${name}`);
    realm ??= start();
    return realm;
  };

  const start = (): Realm => {
    const handle = spawn();
    const { nextTurn } = handle;
    const link = connect<Calls>(handle.endpoint, {
      methods: ['providers', 'create', 'run', 'release', 'close'],
      short: 'run',
      onBusy: (busy) => {
        handle.setBusy(busy);
      },
      ...(nextTurn && { pace: createPacer(nextTurn, () => performance.now()) }),
    });
    const started: Realm = { link, handle, sessions: 0 };
    void handle.ended.then((cause) => {
      if (realm === started) realm = undefined;
      link.fail(lostError(name, cause));
    });
    return started;
  };

  /** Ends a worker after the calls in flight; the next call starts another one. */
  const retire = (used: Realm): void => {
    if (realm !== used) return;
    realm = undefined;
    void closeRealm(used);
  };

  const guarded = async <T>(use: (realm: Realm) => Promise<T>): Promise<T> => {
    const used = current();
    try {
      return await use(used);
    } catch (error) {
      // A library that failed to start may be spoiled for its whole realm.
      if (hasCode(error, 'ERR_INLAY_BACKEND_UNAVAILABLE', 'ERR_INLAY_BACKEND_MISSING')) retire(used);
      throw error;
    }
  };

  const open = (source: ModelSource, sessionOptions: SessionOptions): Promise<Bound> =>
    guarded(async (used) => {
      used.sessions += 1;
      try {
        return { realm: used, ...(await used.link.calls.create(packSource(source), sessionOptions)) };
      } catch (error) {
        used.sessions -= 1;
        throw error;
      }
    });

  const createSession = async (source: ModelSource, sessionOptions: SessionOptions): Promise<Session> => {
    let bound = await open(source, sessionOptions);
    const { signature } = bound;
    let rebinding: Promise<void> | undefined;
    let released: Promise<void> | undefined;
    let losses = 0;
    let lost: Realm | undefined;

    const succeed = (outputs: WireTensors): TensorMap => {
      losses = 0;
      return toTensors(outputs);
    };
    const countLoss = (used: Realm | undefined): void => {
      // Calls that were lost together are one loss.
      if (used === undefined || used !== lost) losses += 1;
      lost = used;
    };
    const send = (feeds: TensorMap, runOptions: SessionRunOptions): Promise<TensorMap> => {
      const used = bound.realm;
      return used.link.calls
        .run(bound.id, packTensors(feeds, runOptions.transfer ?? false), runOptions.outputs)
        .then(succeed, (error: unknown) => {
          if (hasCode(error, 'ERR_INLAY_WORKER_LOST')) countLoss(used);
          if (hasCode(error, 'ERR_INLAY_DEVICE_UNAVAILABLE', 'ERR_INLAY_BACKEND_UNAVAILABLE')) {
            // A lost device, or WebAssembly after a trap, comes back only in a new realm.
            countLoss(used);
            retire(used);
          }
          throw error;
        });
    };
    const rebind = async (): Promise<void> => {
      try {
        if (losses >= maxLosses) throw givenUpError(name, losses);
        bound = await open(source, sessionOptions).catch((error: unknown) => {
          if (hasCode(error, 'ERR_INLAY_WORKER_LOST')) countLoss(undefined);
          throw error;
        });
      } finally {
        rebinding = undefined;
      }
    };
    const release = async (): Promise<void> => {
      await rebinding?.catch(() => {});
      const used = bound.realm;
      if (used !== realm) return;
      used.sessions -= 1;
      const done = used.link.calls.release(bound.id);
      if (endWhenEmpty && used.sessions === 0) retire(used);
      await done.catch((error: unknown) => {
        if (!hasCode(error, 'ERR_INLAY_WORKER_LOST')) throw error;
      });
    };

    return {
      signature,
      provider: sessionOptions.provider,
      placement: 'worker',
      run: async (feeds, runOptions = {}) => {
        if (released !== undefined) throw closedError('The session');
        if (bound.realm !== realm) await (rebinding ??= rebind());
        return send(feeds, runOptions);
      },
      release: () => (released ??= release()),
    };
  };

  return {
    name,
    providers: (): Promise<readonly ExecutionProvider[]> => guarded((used) => used.link.calls.providers()),
    createSession,
    close: () => {
      closing ??= realm === undefined ? Promise.resolve() : closeRealm(realm);
      return closing;
    },
  };
}

/** The worker carries calls out in order, so that its `close` comes after the runs in flight. */
async function closeRealm({ link, handle }: Realm): Promise<void> {
  await link.calls.close().catch(() => {});
  await handle.end();
}

function hasCode(error: unknown, ...codes: readonly ErrorCode[]): boolean {
  return isInlayError(error) && codes.includes(error.code);
}

function lostError(name: string, cause: unknown): BackendError {
  return new BackendError(
    'ERR_INLAY_WORKER_LOST',
    `The worker of ${name} ended while a call was in flight; call again, and it is started again.`,
    { cause },
  );
}

function givenUpError(name: string, losses: number): BackendError {
  return new BackendError(
    'ERR_INLAY_WORKER_LOST',
    `The worker of ${name} ended ${losses} times in a row with this model; load the model anew to try again.`,
    { details: { losses } },
  );
}
