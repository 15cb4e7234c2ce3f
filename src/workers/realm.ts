/** The host's half: a backend whose sessions live in a worker that may die and is built again. */
import type {
  Backend,
  ExecutionProvider,
  ModelSource,
  Placement,
  Session,
  SessionOptions,
  SessionRunOptions,
  Slot,
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
import { createWatchdog } from './watchdog.ts';

/**
 * Why a worker is gone: it never started, ended by itself, gave no answer in time, took too much memory, or was killed
 * from outside.
 */
export type LossReason = 'unstarted' | 'exit' | 'hung' | 'memory' | 'killed';

/** How a worker ended. */
export interface WorkerEnd {
  readonly reason: LossReason;
  /** What is known beyond that: an error, or words. */
  readonly cause: unknown;
}

/** A worker that runs {@link hostBackend}. */
export interface WorkerHandle {
  readonly endpoint: Endpoint;
  /** Fulfilled when the worker has ended, whoever ended it. */
  readonly ended: Promise<WorkerEnd>;
  /** Says whether calls are in flight: the process stays alive for them, and for nothing else. */
  setBusy(busy: boolean): void;
  /** Runs a task when the event loop has gone round, where the runtime hands over many messages in one go. */
  readonly nextTurn?: (task: () => void) => void;
  /** Ends the worker at once, whatever it is doing. Absent where that would take the host along. */
  readonly kill?: () => void;
  /** Lets native code come to its end where it has to, then ends the worker. Safe to call twice. */
  end(): Promise<void>;
}

/** Options of {@link createWorkerBackend}. */
export interface WorkerBackendOptions {
  /** Name of the library that the worker uses. */
  readonly name: string;
  /** Starts a worker, or throws. Called at the first use, and after the worker was lost. */
  readonly spawn: () => WorkerHandle;
  /** What {@link WorkerBackendOptions.spawn} starts. Default `worker`. */
  readonly placement?: Exclude<Placement, 'inline'>;
  /** Name of the worker's slot. Default `worker 1` or `process 1`. */
  readonly slotName?: string;
  /** Times that a session may lose its worker, without a successful run in between, before it gives up. Default 3. */
  readonly maxLosses?: number;
  /**
   * Ends the worker when its last session is released or could not be opened, and starts another one when needed: for
   * libraries that keep the memory of released models, as WebAssembly does. Default false.
   */
  readonly endWhenEmpty?: boolean;
  /** With `endWhenEmpty`: milliseconds that an empty worker waits for another model, which then need not wait. Default 0. */
  readonly lingerMs?: number;
  /**
   * Milliseconds that one run, or a release, may take. A worker that is at one for longer is killed, where that is safe
   * ({@link WorkerHandle.kill}). Default: no limit.
   */
  readonly runTimeoutMs?: number;
  /**
   * The same for loading a library or a model, the start of the worker included. Default: ten times `runTimeoutMs`, at
   * least 30 s.
   */
  readonly createTimeoutMs?: number;
}

const MIN_CREATE_TIMEOUT_MS = 30_000;
/** Milliseconds that a worker without a model stays after it was asked for its providers: a model mostly comes next. */
const IDLE_MS = 10_000;

/** The calls as they are made: what is packed is plain data when it arrives. */
interface Calls extends Omit<HostApi, 'create' | 'run'> {
  create(source: Packed<ModelSource>, options: SessionOptions): Promise<RemoteSession>;
  run(id: number, feeds: Packed<WireTensors>, outputs?: readonly string[]): Promise<WireTensors>;
}

interface Realm {
  readonly link: Link<Calls>;
  readonly handle: WorkerHandle;
  /** Sessions that are open in it or being created. */
  sessions: number;
  /** Models that it was told to open, in the order in which it does so. */
  readonly creating: Set<Packed<ModelSource>>;
  /** Those of them that had no part in its end, once it was lost. */
  innocent?: ReadonlySet<Packed<ModelSource>>;
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
  const { name, spawn, placement = 'worker', maxLosses = 3, endWhenEmpty = false, runTimeoutMs } = options;
  const { lingerMs = 0 } = options;
  const slot = { name: options.slotName ?? `${placement} 1`, isOccupied: false };
  const slots: readonly Slot[] = [slot];
  /** Sessions that are being opened. */
  let opening = 0;
  const limitOf = (call: string | undefined): number | undefined => {
    if (runTimeoutMs === undefined || call === undefined) return undefined;
    if (call !== 'providers' && call !== 'create') return runTimeoutMs;
    return options.createTimeoutMs ?? Math.max(10 * runTimeoutMs, MIN_CREATE_TIMEOUT_MS);
  };
  let realm: Realm | undefined;
  let closing: Promise<void> | undefined;
  let idleTimer: ReturnType<typeof setTimeout> | undefined;

  const current = (): Realm => {
    if (closing !== undefined) throw closedError(`The backend ${name}`);
    realm ??= start();
    return realm;
  };

  const spawnOne = (): WorkerHandle => {
    try {
      return spawn();
    } catch (cause) {
      throw new BackendError(
        'ERR_INLAY_BACKEND_UNAVAILABLE',
        `A ${placement} for ${name} cannot be started here, use another placement: ${messageOf(cause)}`,
        { cause },
      );
    }
  };

  const start = (): Realm => {
    const handle = spawnOne();
    const { nextTurn, kill } = handle;
    const watch =
      kill && runTimeoutMs !== undefined
        ? createWatchdog((limitMs) => {
            kill();
            lose({ reason: 'hung', cause: new Error(`It gave no answer for ${limitMs} ms.`) });
          })
        : undefined;
    let oldest: string | undefined;
    const link = connect<Calls>(handle.endpoint, {
      methods: ['providers', 'create', 'run', 'release', 'close'],
      short: 'run',
      onBusy: (busy) => {
        handle.setBusy(busy);
      },
      onOldest: (call) => {
        oldest = call;
        watch?.(limitOf(call));
      },
      ...(nextTurn && { pace: createPacer(nextTurn, () => performance.now()) }),
    });
    const started: Realm = { link, handle, sessions: 0, creating: new Set() };
    const lose = (end: WorkerEnd): void => {
      if (realm === started) realm = undefined;
      // A worker is at the oldest of its calls; the others had not begun.
      const waiting = [...started.creating].slice(oldest === 'create' ? 1 : 0);
      started.innocent ??= new Set(end.reason === 'unstarted' ? [] : waiting);
      link.fail(lostError(name, placement, end));
    };
    void handle.ended.then(lose);
    return started;
  };

  /** Ends a worker after the calls in flight; the next call starts another one. */
  const retire = (used: Realm): void => {
    if (realm !== used) return;
    realm = undefined;
    void closeRealm(used).catch(() => {});
  };

  /** Ends a worker in which nothing is open, where that is wanted. */
  const endIfEmpty = (): void => {
    if (opening === 0 && realm?.sessions === 0) retire(realm);
  };

  const endIfStillEmpty = (afterMs: number): void => {
    clearTimeout(idleTimer);
    if (!endWhenEmpty || closing !== undefined) return;
    if (afterMs === 0) {
      endIfEmpty();
      return;
    }
    const timer: { unref?(): void } & ReturnType<typeof setTimeout> = setTimeout(endIfEmpty, afterMs);
    // A worker that does nothing keeps no process alive.
    timer.unref?.();
    idleTimer = timer;
  };

  const guarded = async <T>(use: (realm: Realm) => Promise<T>): Promise<T> => {
    const used = current();
    try {
      return await use(used);
    } catch (error) {
      if (isSpoiled(error)) retire(used);
      throw error;
    }
  };

  /** Opens a model; once more where the first worker went for another reason. */
  const open = async (
    source: ModelSource,
    sessionOptions: SessionOptions,
    isRepeated = false,
  ): Promise<Bound> => {
    let isInnocent = false;
    opening += 1;
    slot.isOccupied = true;
    try {
      // Before a worker is chosen: to copy a large model takes many turns, in which that worker may go.
      const packed = await packSource(source);
      return await guarded(async (used) => {
        used.sessions += 1;
        used.creating.add(packed);
        try {
          return { realm: used, ...(await used.link.calls.create(packed, sessionOptions)) };
        } catch (error) {
          isInnocent =
            used !== realm &&
            (used.innocent?.has(packed) ?? true) &&
            (isSpoiled(error) || hasCode(error, 'ERR_INLAY_WORKER_LOST'));
          used.sessions -= 1;
          throw error;
        } finally {
          used.creating.delete(packed);
        }
      });
    } catch (error) {
      if (isInnocent && !isRepeated) return await open(source, sessionOptions, true);
      throw error;
    } finally {
      opening -= 1;
      slot.isOccupied = opening > 0;
      endIfStillEmpty(lingerMs);
    }
  };

  const createSession = async (source: ModelSource, sessionOptions: SessionOptions): Promise<Session> => {
    let bound = await open(source, sessionOptions);
    const { signature, intraOpThreads, threadsReason } = bound;
    let rebinding: Promise<void> | undefined;
    let released: Promise<void> | undefined;
    let losses = 0;
    let lostMs = 0;
    let lost: Realm | undefined;
    let lastLoss: unknown;

    const succeed = (outputs: WireTensors): TensorMap => {
      losses = 0;
      return toTensors(outputs);
    };
    const countLoss = (used: Realm | undefined, error: unknown): void => {
      // Calls that were lost together are one loss.
      if (used === undefined || used !== lost) losses += 1;
      lostMs = performance.now();
      lost = used;
      lastLoss = error;
    };
    const send = (feeds: TensorMap, runOptions: SessionRunOptions): Promise<TensorMap> => {
      const used = bound.realm;
      return used.link.calls
        .run(bound.id, packTensors(feeds, runOptions.transfer ?? false), runOptions.outputs)
        .then(succeed, (error: unknown) => {
          if (hasCode(error, 'ERR_INLAY_WORKER_LOST')) countLoss(used, error);
          if (hasCode(error, 'ERR_INLAY_DEVICE_UNAVAILABLE', 'ERR_INLAY_BACKEND_UNAVAILABLE')) {
            // A lost device, or WebAssembly after a trap, comes back only in a new realm.
            countLoss(used, error);
            retire(used);
          }
          throw error;
        });
    };
    const rebind = async (): Promise<void> => {
      try {
        const restMs = Math.min(REST_MS * 2 ** (losses - maxLosses), LONGEST_REST_MS);
        if (losses >= maxLosses && performance.now() - lostMs < restMs) {
          throw givenUpError(name, placement, losses, lastLoss);
        }
        bound = await open(source, sessionOptions).catch((error: unknown) => {
          if (hasCode(error, 'ERR_INLAY_WORKER_LOST')) countLoss(undefined, error);
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
      endIfStillEmpty(lingerMs);
      await done.catch((error: unknown) => {
        if (!hasCode(error, 'ERR_INLAY_WORKER_LOST')) throw error;
      });
    };

    return {
      signature,
      provider: sessionOptions.provider,
      placement,
      slots,
      ...(intraOpThreads !== undefined && { intraOpThreads }),
      ...(threadsReason !== undefined && { threadsReason }),
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
    providers: async (): Promise<readonly ExecutionProvider[]> => {
      try {
        return await guarded((used) => used.link.calls.providers());
      } finally {
        endIfStillEmpty(Math.max(IDLE_MS, lingerMs));
      }
    },
    createSession,
    close: () => {
      clearTimeout(idleTimer);
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

/**
 * Tells whether a realm is of no use after an error. A library that failed to start may be spoiled for its whole realm, and
 * so is one whose device was lost; a provider that does not work here says no reason.
 */
function isSpoiled(error: unknown): boolean {
  return (
    hasCode(error, 'ERR_INLAY_BACKEND_UNAVAILABLE', 'ERR_INLAY_BACKEND_MISSING') ||
    (isInlayError(error) &&
      error.code === 'ERR_INLAY_DEVICE_UNAVAILABLE' &&
      error.details['reason'] !== undefined)
  );
}

function hasCode(error: unknown, ...codes: readonly ErrorCode[]): boolean {
  return isInlayError(error) && codes.includes(error.code);
}

/** What became of the worker, in words. */
const LOSSES: Readonly<Record<Exclude<LossReason, 'unstarted'>, string>> = {
  exit: 'ended',
  hung: 'gave no answer in time and was ended',
  memory: 'ran out of the memory that it may take',
  killed: 'was killed',
};

function lostError(name: string, placement: Placement, { reason, cause }: WorkerEnd): BackendError {
  if (reason === 'unstarted') {
    return new BackendError(
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      `The ${placement} of ${name} did not start: ${messageOf(cause)}`,
      { cause },
    );
  }
  return new BackendError(
    'ERR_INLAY_WORKER_LOST',
    `The ${placement} of ${name} ${LOSSES[reason]} while a call was in flight; call again, and it is started again.`,
    { cause, details: { reason } },
  );
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** Pause in milliseconds after too many losses in a row; it doubles with each further one, up to a minute. */
const REST_MS = 1000;
const LONGEST_REST_MS = 60_000;

/** Told from a loss by `details.losses`: to call again at once is of no use. */
function givenUpError(name: string, placement: Placement, losses: number, cause: unknown): BackendError {
  return new BackendError(
    'ERR_INLAY_WORKER_LOST',
    `The ${placement} of ${name} was lost ${losses} times in a row with this model; it is left alone for a while before it is tried again.`,
    { cause, details: { ...(isInlayError(cause) && cause.details), losses } },
  );
}
