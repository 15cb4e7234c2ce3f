import { assertNotAborted } from '../core/abort.ts';
import type { TensorMap } from '../core/backend.ts';
import { closedError, InputError, isInlayError } from '../core/errors.ts';
import { createEmitter, type Events } from '../core/events.ts';
import type { Signature } from '../core/signature.ts';
import type { Span, SpanFacts, Tracing } from '../core/tracing.ts';
import type { CallFacts, CallOptions } from '../schedule/job.ts';
import type { Metrics, QueueStats } from '../schedule/metrics.ts';
import type { Predictions } from '../schedule/predictions.ts';
import type { ModelTelemetry } from '../telemetry/model.ts';
import type { AnsweredCall, Feedback } from '../telemetry/recorder.ts';
import { createFeedBinder, type Feeds } from './feeds.ts';
import {
  createRunAll,
  type EntriesOptions,
  type Entry,
  type OutputsOptions,
  type Source,
} from './run-all.ts';
import type { Degraded, Serving } from './serving.ts';
import type { ModelTypes, OutputName, OutputsOf } from './typed.ts';

/** Options of {@link Model.run}. */
export interface RunOptions<Name extends string = string> {
  /** Names of the outputs to compute. Default: all. */
  readonly outputs?: readonly Name[];
  /** Hands the buffers of the feeds over to the worker instead of copying them. Default false. */
  readonly transfer?: boolean;
  /**
   * Gives the call up: it rejects with `signal.reason`, leaves the queue, and its result is dropped. A run that has begun
   * goes to its end, since inference libraries cannot stop one.
   */
  readonly signal?: AbortSignal;
  /**
   * Milliseconds from now after which the answer is worth nothing, above 0. A call that cannot be answered by then is
   * refused at once, or as soon as that shows. Default: none.
   */
  readonly deadlineMs?: number;
  /**
   * Goes before calls of lower priority, which catch up by one level for every second that they wait. Integer from -100
   * to 100, default 0.
   */
  readonly priority?: number;
  /** Names this prediction, for {@link Model.feedback}. It stays on the device. */
  readonly id?: string;
}

/** What {@link Model.stats} returns: everything since the model was loaded, whatever version answered. */
export interface ModelStats extends QueueStats {
  /** Calls that have not settled yet. */
  readonly inFlight: number;
}

/** Options of {@link Model.runAll}. */
export type RunAllOptions = RunOptions & (OutputsOptions | EntriesOptions);

/** What a {@link Model} tells its listeners. */
export interface ModelEvents {
  /** Runs that start from now on use another version. */
  readonly swapped: { readonly from: string | undefined; readonly to: string | undefined };
  /** A new version could not be taken; the present one goes on. */
  readonly 'update-failed': { readonly error: unknown };
  /** The GPU broke down too often; calls are answered by the CPU from now on. */
  readonly degraded: Degraded;
}

/** A loaded model. Under a name, it follows the versions that the sync server offers; calls never see the change. */
export interface Model<M extends ModelTypes = ModelTypes> extends Events<ModelEvents>, AsyncDisposable {
  /** Name under which it was loaded; `undefined` for files and bytes. */
  readonly name: string | undefined;
  /** Version that answers calls now; `undefined` for files and bytes. */
  readonly version: string | undefined;
  /** Which of several variants answers calls now; `undefined` where there was no choice. */
  readonly variant: string | undefined;
  /** What the present version takes and gives. */
  readonly signature: Signature;
  /**
   * Runs once, together with other calls where that is faster.
   * @param feeds one entry per input; see {@link Feeds}. They must not change before the call settles, and are not
   * changed, unless `transfer` is set.
   * @returns the outputs by name, owned by the caller.
   * @throws {@link InputError} if a feed does not fit the signature, {@link ScheduleError} if the call cannot be
   * answered in time or too many wait, {@link BackendError} if the run itself fails, {@link StateError}
   * `ERR_INLAY_CLOSED` after `close()`, `signal.reason` when aborted.
   * @example
   * const { logits } = await model.run({ image: pixels });
   */
  run<const Name extends string = OutputName<M>>(
    feeds: M['feeds'],
    options?: RunOptions<Name & OutputName<M>>,
  ): Promise<OutputsOf<M, Name>>;
  /**
   * Runs over a source, with back-pressure: it pulls at most `concurrency` items ahead, 4 by default. Calls under way
   * share batches like all others.
   */
  runAll<const Name extends string = OutputName<M>>(
    source: Source<M['feeds']>,
    options: RunOptions<Name & OutputName<M>> & EntriesOptions,
  ): AsyncIterableIterator<Entry<OutputsOf<M, Name>>>;
  runAll<const Name extends string = OutputName<M>>(
    source: Source<M['feeds']>,
    options?: RunOptions<Name & OutputName<M>> & OutputsOptions,
  ): AsyncIterableIterator<OutputsOf<M, Name>>;
  stats(): ModelStats;
  /**
   * Tells what turned out about a prediction: its label, or what came of it. Only counts of it leave the device, and only
   * with `full` consent.
   * @param id - what its call was named by {@link RunOptions.id}; the last 4096 are remembered for a week.
   * @returns whether it is still known.
   */
  feedback(id: string, feedback: Feedback): boolean;
  /**
   * Keeps the model in memory, whatever the budget says.
   * @returns lets it go again.
   */
  pin(): () => void;
  /** Waits for runs in flight, then frees the model. Safe to call twice. */
  close(): Promise<void>;
}

/** A model, and the handles of its owner. */
export interface ManagedModel {
  readonly model: Model;
  /** Lets later runs use another version; the present one is released when its last run has ended. */
  swap(next: Serving): void;
  updateFailed(error: unknown): void;
  readonly metrics: Metrics;
  /** Resolves when the model was closed. */
  readonly closed: Promise<void>;
  /** What answers calls now. */
  current(): Serving;
}

/** One version with the runs that still need it. */
interface Lease {
  readonly serving: Serving;
  readonly bind: (feeds: Feeds) => TensorMap;
  readonly outputNames: ReadonlySet<string>;
  runs: number;
  retired: boolean;
  /** One of its runs has settled. */
  readonly leave: () => void;
  drained: () => void;
}

/** What a model needs besides the version that it starts with. */
export interface ModelParts {
  readonly name: string | undefined;
  readonly metrics: Metrics;
  /** What calls say that say nothing else. */
  readonly defaults?: Pick<RunOptions, 'deadlineMs' | 'priority'>;
  readonly tracing?: Tracing | undefined;
  /** Cache of answers, for models that use it. */
  readonly predictions?: Predictions;
  /** Counts calls, where the app tells the fleet. */
  readonly telemetry?: ModelCounts | undefined;
}

/** What of the telemetry of a model its calls need, and by which clock they are timed. */
export type ModelCounts = Pick<ModelTelemetry, 'recorder' | 'context'> & {
  readonly monotonicMs: () => number;
};

/** Creates the handle over a version that answers calls. */
export function createModel(parts: ModelParts, first: Serving): ManagedModel {
  const { name, metrics, defaults, tracing, predictions, telemetry } = parts;
  const emitter = createEmitter<ModelEvents>();
  const releases = new Set<Promise<void>>();
  let pins = 0;
  let inFlight = 0;
  let closing: Promise<void> | undefined;
  let markClosed = (): void => {};
  const whenClosed = new Promise<void>((resolve) => {
    markClosed = resolve;
  });
  const createLease = (serving: Serving): Lease => {
    const { signature } = serving;
    serving.onDegraded((degraded) => emitter.emit('degraded', degraded));
    const created: Lease = {
      serving,
      bind: createFeedBinder(signature),
      outputNames: new Set(signature.outputs.map((output) => output.name)),
      runs: 0,
      retired: false,
      leave: () => {
        created.runs -= 1;
        inFlight -= 1;
        if (created.retired && created.runs === 0) created.drained();
      },
      drained: () => {},
    };
    return created;
  };
  let lease = createLease(first);

  const retire = (old: Lease): Promise<void> => {
    const drained = new Promise<void>((resolve) => {
      old.drained = resolve;
    });
    old.retired = true;
    if (old.runs === 0) old.drained();
    const released = drained.then(() => {
      predictions?.forget(old.serving);
      return old.serving.close();
    });
    releases.add(released);
    const forget = (): void => void releases.delete(released);
    released.then(forget, forget);
    return released;
  };

  const start = (feeds: Feeds, options: RunOptions): Promise<TensorMap> => {
    if (closing !== undefined) throw closedError(name === undefined ? 'The model' : `Model "${name}"`);
    assertNotAborted(options.signal);
    assertCall(options);
    const used = lease;
    const bound = used.bind(feeds);
    if (options.outputs !== undefined) assertOutputs(used.outputNames, options.outputs);
    used.runs += 1;
    inFlight += 1;
    const span = tracing?.startCall(factsOf(name, used.serving));
    const facts: CountedFacts | undefined = telemetry && {
      id: options.id,
      cache: undefined,
      queueMs: undefined,
      runs: 0,
    };
    const call =
      defaults === undefined && span === undefined && facts === undefined
        ? options
        : withDefaults(options, defaults, span, facts);
    const answered =
      predictions === undefined
        ? used.serving.run(bound, call, used.leave)
        : runPredicted(predictions, used, bound, call, facts);
    if (facts !== undefined) countCall(telemetry as ModelCounts, answered, bound, facts, options.signal);
    if (span === undefined) return answered;
    return answered.then(
      (outputs) => {
        span.end();
        return outputs;
      },
      (error: unknown) => {
        span.end({}, error);
        throw error;
      },
    );
  };

  /** All outputs are computed, so that later calls may ask for others; and for whoever still waits, not for one caller. */
  const runPredicted = (
    cache: Predictions,
    used: Lease,
    feeds: TensorMap,
    call: CallOptions,
    facts: CountedFacts | undefined,
  ): Promise<TensorMap> => {
    let isMine = false;
    if (facts !== undefined) facts.cache = 'hit';
    return cache
      .run(used.serving, feeds, call, (signal) => {
        isMine = true;
        if (facts !== undefined) facts.cache = 'miss';
        return used.serving.run(feeds, { ...call, outputs: undefined, signal }, () => {});
      })
      .catch((error: unknown) => {
        // That another caller's time was too short says nothing about this one's.
        const isTheirs = !isMine && isInlayError(error) && error.name === 'ScheduleError';
        if (!isTheirs) throw error;
        return used.serving.run(feeds, call, () => {});
      })
      .finally(used.leave);
  };

  const run = (feeds: Feeds, options: RunOptions = NONE): Promise<TensorMap> => {
    try {
      return start(feeds, options);
    } catch (error) {
      return Promise.reject(error);
    }
  };

  const model: Model = {
    name,
    get version() {
      return lease.serving.version;
    },
    get variant() {
      return lease.serving.variant;
    },
    get signature() {
      return lease.serving.signature;
    },
    on: emitter.on,
    run,
    runAll: createRunAll(run),
    stats: () => ({ inFlight, ...metrics.read() }),
    feedback: (id, feedback) => telemetry?.recorder.feedback(id, feedback) ?? false,
    pin: () => {
      pins += 1;
      lease.serving.pin(true);
      let isPinned = true;
      return () => {
        if (isPinned) pins -= 1;
        isPinned = false;
        lease.serving.pin(pins > 0);
      };
    },
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
    metrics,
    closed: whenClosed,
    swap: (next) => {
      if (closing !== undefined) {
        void next.close().catch(() => {});
        return;
      }
      const old = lease;
      lease = createLease(next);
      next.pin(pins > 0);
      void retire(old).catch(() => {});
      emitter.emit('swapped', { from: old.serving.version, to: next.version });
    },
    updateFailed: (error) => {
      emitter.emit('update-failed', { error });
    },
    current: () => lease.serving,
  };
}

const NONE: RunOptions = {};

/** A call that is counted. */
interface CountedFacts extends CallFacts {
  readonly id: string | undefined;
  cache: AnsweredCall['cache'];
}

/** Counts a call when it settles, beside whoever waits for it. It belongs to what ran when it began. */
function countCall(
  { recorder, context, monotonicMs }: ModelCounts,
  answered: Promise<TensorMap>,
  feeds: TensorMap,
  facts: CountedFacts,
  signal: AbortSignal | undefined,
): void {
  const beganMs = monotonicMs();
  const began = context();
  answered.then(
    (outputs) => {
      recorder.answered(monotonicMs() - beganMs, { feeds, outputs, ...facts, context: began });
    },
    (error: unknown) => {
      // A call that is given up says nothing of the model, and neither does one that comes too late.
      const isClosed = isInlayError(error) && error.code === 'ERR_INLAY_CLOSED';
      if (signal?.aborted !== true && !isClosed) recorder.failed(error, monotonicMs() - beganMs, began);
    },
  );
}

/** An option that is there but `undefined` says nothing. */
function withDefaults(
  options: RunOptions,
  defaults: ModelParts['defaults'],
  span: Span | undefined,
  facts: CallFacts | undefined,
): CallOptions {
  return {
    ...options,
    deadlineMs: options.deadlineMs ?? defaults?.deadlineMs,
    priority: options.priority ?? defaults?.priority,
    span,
    facts,
  };
}

function factsOf(name: string | undefined, { version }: Serving): SpanFacts {
  return {
    ...(name !== undefined && { 'inlay.model': name }),
    ...(version !== undefined && { 'inlay.version': version }),
  };
}

/** @throws `RangeError` for options of a call that make no sense. */
export function assertCall({ deadlineMs, priority }: RunOptions = NONE): void {
  if (deadlineMs !== undefined && !(typeof deadlineMs === 'number' && deadlineMs > 0)) {
    throw new RangeError(
      `deadlineMs is a number of milliseconds above 0, got ${JSON.stringify(deadlineMs)}.`,
    );
  }
  if (priority !== undefined && !(Number.isInteger(priority) && Math.abs(priority) <= 100)) {
    throw new RangeError(`priority is a whole number from -100 to 100, got ${priority}.`);
  }
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
