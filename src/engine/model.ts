import { orAbort } from '../core/abort.ts';
import type { TensorMap } from '../core/backend.ts';
import { closedError, InputError } from '../core/errors.ts';
import { createEmitter, type Events } from '../core/events.ts';
import type { Platform } from '../core/platform.ts';
import type { Signature } from '../core/signature.ts';
import type { OpenedSession } from './candidates.ts';
import { createFeedBinder, type Feeds } from './feeds.ts';
import { mapSource, type Source } from './run-all.ts';
import { createStats, type ModelStats } from './stats.ts';

/** Options of {@link Model.run}. */
export interface RunOptions {
  /** Names of the outputs to compute. Default: all. */
  readonly outputs?: readonly string[];
  /** Hands the buffers of the feeds over to the worker instead of copying them. Default false. */
  readonly transfer?: boolean;
  /** Gives the call up: it rejects with `signal.reason` and its result is dropped. */
  readonly signal?: AbortSignal;
}

/** Options of {@link Model.runAll}. */
export interface RunAllOptions extends RunOptions {
  /** Calls under way at once. Default 4, at least 1. */
  readonly concurrency?: number;
}

/** What a {@link Model} tells its listeners. */
export interface ModelEvents {
  /** Runs that start from now on use another version. */
  readonly swapped: { readonly from: string | undefined; readonly to: string | undefined };
  /** A new version could not be taken; the present one goes on. */
  readonly 'update-failed': { readonly error: unknown };
}

/** A loaded model. Under a name, it follows the versions that the sync server offers; calls never see the change. */
export interface Model extends Events<ModelEvents>, AsyncDisposable {
  /** Name under which it was loaded; `undefined` for files and bytes. */
  readonly name: string | undefined;
  /** Version that answers calls now; `undefined` for files and bytes. */
  readonly version: string | undefined;
  /** What the present version takes and gives. */
  readonly signature: Signature;
  /**
   * Runs once.
   * @param feeds one entry per input; see {@link Feeds}. Not copied and not changed, unless `transfer` is set.
   * @returns the outputs by name, owned by the caller.
   * @throws {@link InputError} if a feed does not fit the signature, {@link BackendError} if the run itself fails,
   * {@link StateError} `ERR_INLAY_CLOSED` after `close()`, `signal.reason` when aborted.
   * @example
   * const { logits } = await model.run({ image: pixels });
   */
  run(feeds: Feeds, options?: RunOptions): Promise<TensorMap>;
  /**
   * Runs over a source, in order, with back-pressure: it pulls at most `concurrency` items ahead.
   * The first error ends the iteration and closes the source.
   */
  runAll(source: Source<Feeds>, options?: RunAllOptions): AsyncIterableIterator<TensorMap>;
  stats(): ModelStats;
  /** Waits for runs in flight, then frees the model. Safe to call twice. */
  close(): Promise<void>;
}

/** A version that can answer calls. */
export interface LoadedVersion extends OpenedSession {
  readonly version: string | undefined;
}

/** A model, and the handles of its owner. */
export interface ManagedModel {
  readonly model: Model;
  /** Lets later runs use another version; the present one is released when its last run has ended. */
  swap(next: LoadedVersion): void;
  updateFailed(error: unknown): void;
  /** Resolves when the model was closed. */
  readonly closed: Promise<void>;
  /** Session that answers calls now. */
  current(): LoadedVersion;
}

/** One version with the runs that still need it. */
interface Lease {
  readonly loaded: LoadedVersion;
  readonly bind: (feeds: Feeds) => TensorMap;
  readonly outputNames: ReadonlySet<string>;
  runs: number;
  retired: boolean;
  drained: () => void;
}

/** Creates the handle over a loaded version. */
export function createModel(
  platform: Platform,
  name: string | undefined,
  first: LoadedVersion,
): ManagedModel {
  const emitter = createEmitter<ModelEvents>();
  const stats = createStats();
  const releases = new Set<Promise<void>>();
  let lease = createLease(first);
  let closing: Promise<void> | undefined;
  let markClosed = (): void => {};
  const whenClosed = new Promise<void>((resolve) => {
    markClosed = resolve;
  });

  const leave = (used: Lease): void => {
    used.runs -= 1;
    if (used.retired && used.runs === 0) used.drained();
  };

  const retire = (old: Lease): Promise<void> => {
    const drained = new Promise<void>((resolve) => {
      old.drained = resolve;
    });
    old.retired = true;
    if (old.runs === 0) old.drained();
    const released = drained.then(() => old.loaded.session.release());
    releases.add(released);
    const forget = (): void => void releases.delete(released);
    released.then(forget, forget);
    return released;
  };

  const start = (feeds: Feeds, options: RunOptions | undefined): Promise<TensorMap> => {
    if (closing !== undefined) throw closedError(name === undefined ? 'The model' : `Model "${name}"`);
    const used = lease;
    const bound = used.bind(feeds);
    if (options?.outputs !== undefined) assertOutputs(used.outputNames, options.outputs);
    const started = platform.monotonicMs();
    used.runs += 1;
    stats.started();
    return used.loaded.session.run(bound, options).then(
      (outputs) => {
        stats.succeeded(platform.monotonicMs() - started);
        leave(used);
        return outputs;
      },
      (error: unknown) => {
        stats.failed();
        leave(used);
        throw error;
      },
    );
  };

  const run = (feeds: Feeds, options?: RunOptions): Promise<TensorMap> => {
    try {
      const signal = options?.signal;
      if (signal === undefined) return start(feeds, options);
      signal.throwIfAborted();
      return orAbort(start(feeds, options), signal);
    } catch (error) {
      return Promise.reject(error);
    }
  };

  const model: Model = {
    name,
    get version() {
      return lease.loaded.version;
    },
    get signature() {
      return lease.loaded.session.signature;
    },
    on: emitter.on,
    run,
    runAll: (source, { concurrency = 4, ...options } = {}) =>
      mapSource(source, (feeds) => run(feeds, options), { concurrency, signal: options.signal }),
    stats: stats.read,
    close: () => {
      if (closing === undefined) {
        void retire(lease);
        closing = Promise.allSettled(releases).then(markClosed);
      }
      return closing;
    },
    [Symbol.asyncDispose]: () => model.close(),
  };

  return {
    model,
    closed: whenClosed,
    swap: (next) => {
      if (closing !== undefined) {
        void next.session.release().catch(() => {});
        return;
      }
      const old = lease;
      lease = createLease(next);
      void retire(old).catch(() => {});
      emitter.emit('swapped', { from: old.loaded.version, to: next.version });
    },
    updateFailed: (error) => {
      emitter.emit('update-failed', { error });
    },
    current: () => lease.loaded,
  };
}

function createLease(loaded: LoadedVersion): Lease {
  const { signature } = loaded.session;
  return {
    loaded,
    bind: createFeedBinder(signature),
    outputNames: new Set(signature.outputs.map((output) => output.name)),
    runs: 0,
    retired: false,
    drained: () => {},
  };
}

function assertOutputs(known: ReadonlySet<string>, wanted: readonly string[]): void {
  const unknown = wanted.find((output) => !known.has(output));
  if (wanted.length === 0) throw new RangeError('`outputs` names at least one output; leave it out for all.');
  if (unknown === undefined) return;
  throw new InputError(
    'ERR_INLAY_OUTPUT_UNKNOWN',
    `The model has no output "${unknown}"; its outputs are ${[...known].map((n) => `"${n}"`).join(', ')}.`,
    { details: { output: unknown } },
  );
}
