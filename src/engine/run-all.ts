import { orAbort, reasonOf } from '../core/abort.ts';
import { createSharedSignals, type SharedSignal } from '../core/signals.ts';
import { sourceOpener, type OpenSource, type Source } from './source.ts';

export type { Source } from './source.ts';

/** What became of one item of a source. `index` counts from 0 in the order of the source. */
export type Entry<Out> =
  | { readonly index: number; readonly outputs: Out; readonly error?: undefined }
  | { readonly index: number; readonly outputs?: undefined; readonly error: unknown };

/** How far an iteration is. */
export interface Progress {
  /** Calls that succeeded. */
  readonly done: number;
  /** Calls that failed. */
  readonly failed: number;
  /** Calls that have not settled yet. */
  readonly inFlight: number;
}

/** What all iterations can be told. */
export interface IterationOptions {
  /** Calls under way at once, those included whose results wait for the consumer. Default 4, at least 1. */
  readonly concurrency?: number;
  /** Ends the iteration at once with `signal.reason`, and gives up what is under way. */
  readonly signal?: AbortSignal;
  /** Hears of every call that settles. What it throws ends the iteration. */
  readonly onProgress?: (progress: Progress) => void;
}

/** An iteration that yields outputs, in the order of the source. */
export interface OutputsOptions extends IterationOptions {
  readonly as?: 'outputs';
  readonly ordered?: true;
  /** Whether a call that fails ends the iteration or is left out. Default `stop`. */
  readonly onError?: 'stop' | 'skip';
}

/** An iteration that yields {@link Entry} objects, which tell the item that they belong to. */
export interface EntriesOptions extends IterationOptions {
  readonly as: 'entries';
  /** Whether results come in the order of the source or as they are ready. Default true. */
  readonly ordered?: boolean;
  /** Whether a call that fails ends the iteration, is left out, or is yielded with its error. Default `stop`. */
  readonly onError?: 'stop' | 'skip' | 'yield';
}

/**
 * Runs over a source with back-pressure.
 *
 * It pulls only as the consumer asks, at most `concurrency` items ahead, so that memory stays bounded on endless
 * sources. An error that ends the iteration comes after the results of the items before it. Leaving the loop closes
 * the source and gives up the calls under way; it waits for the source only where that is idle.
 *
 * Outputs come in the order of the source. Results that come out of order, or errors in their midst, need their index:
 * `as: 'entries'`.
 * @throws `TypeError` or `RangeError` if the source or an option is none.
 * @example
 * const feeds = images.map((image) => ({ image }));
 * const entries = model.runAll(feeds, { as: 'entries', onError: 'yield' });
 * for await (const { index, error } of entries) {
 *   if (error !== undefined) console.log(`${index} failed`);
 * }
 */
export interface RunAll<In, Out, CallOptions> {
  (source: Source<In>, options: CallOptions & EntriesOptions): AsyncIterableIterator<Entry<Out>>;
  (source: Source<In>, options?: CallOptions & OutputsOptions): AsyncIterableIterator<Out>;
}

/** Makes {@link RunAll} of a function that runs once; each call gets its own options and a signal. */
export function createRunAll<In, Out, CallOptions extends { readonly signal?: AbortSignal }>(
  run: (value: In, options: CallOptions) => Promise<Out>,
): RunAll<In, Out, CallOptions> {
  type Options = CallOptions & (EntriesOptions | OutputsOptions);

  function runAll(
    source: Source<In>,
    options: CallOptions & EntriesOptions,
  ): AsyncIterableIterator<Entry<Out>>;
  function runAll(source: Source<In>, options?: CallOptions & OutputsOptions): AsyncIterableIterator<Out>;
  function runAll(source: Source<In>, options?: Options): AsyncIterableIterator<Entry<Out> | Out> {
    const { concurrency = 4, signal, ordered, onError, onProgress, as, ...rest } = options ?? ({} as Options);
    const call = rest as CallOptions;
    const how = { concurrency, signal, ordered, onError, onProgress };
    const map = (value: In, shared: AbortSignal): Promise<Out> => run(value, { ...call, signal: shared });
    if (as === 'entries') return iterate(source, map, how, (entry) => entry);
    return mapSource(source, map, how);
  }
  return runAll;
}

/** Options of {@link mapSource}. */
export interface MapSourceOptions {
  readonly concurrency: number;
  readonly signal?: AbortSignal | undefined;
  readonly ordered?: boolean | undefined;
  readonly onError?: 'stop' | 'skip' | 'yield' | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/**
 * Maps a source through an asynchronous function, in order: what {@link RunAll} does for outputs.
 * @param map - gets a value, and a signal that aborts when the result is no longer wanted.
 */
export function mapSource<In, Out>(
  source: Source<In>,
  map: (value: In, signal: AbortSignal) => Promise<Out>,
  options: MapSourceOptions,
): AsyncIterableIterator<Out> {
  const { ordered = true, onError = 'stop' } = options;
  if (!ordered || onError === 'yield') {
    throw new TypeError(
      `${ordered ? "onError: 'yield'" : 'ordered: false'} needs as: 'entries', which tells the item of each result.`,
    );
  }
  return iterate(source, map, options, ({ outputs }) => outputs as Out);
}

interface Consumer<Item> {
  readonly resolve: (result: IteratorResult<Item>) => void;
  readonly reject: (error: unknown) => void;
}

const ON_ERROR: readonly unknown[] = ['stop', 'skip', 'yield'];

function iterate<In, Out, Item>(
  source: Source<In>,
  map: (value: In, signal: AbortSignal) => Promise<Out>,
  options: MapSourceOptions,
  toItem: (entry: Entry<Out>) => Item,
): AsyncIterableIterator<Item> {
  const { concurrency, signal, ordered = true, onError = 'stop', onProgress } = options;
  if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
    throw new RangeError(`concurrency is an integer of at least 1, got ${concurrency}.`);
  }
  if (!ON_ERROR.includes(onError)) {
    throw new RangeError(`onError is 'stop', 'skip' or 'yield', got ${JSON.stringify(onError)}.`);
  }
  const open = sourceOpener(source);
  const end: IteratorResult<Item> = { done: true, value: undefined };
  const signals = createSharedSignals();
  /** What waits to be consumed, by index. */
  const settled = new Map<number, Entry<Out>>();
  const consumers: Consumer<Item>[] = [];
  let phase: 'new' | 'reading' | 'draining' | 'ended' = 'new';
  let opened: OpenSource<In> | undefined;
  let isPulling = false;
  /** What the source threw, for when everything before it was consumed. */
  let sourceFailure: { readonly error: unknown } | undefined;
  /** What ended the iteration, for the next consumer. */
  let failure: { readonly error: unknown } | undefined;
  let pulled = 0;
  let turn = 0;
  let done = 0;
  let failed = 0;
  let inFlight = 0;

  const hasEnded = (): boolean => phase === 'ended';
  const onAbort = (): void => fail(reasonOf(signal));

  const start = (): void => {
    phase = 'reading';
    if (signal?.aborted === true) return onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      opened = open();
    } catch (error) {
      fail(error);
    }
  };

  const closeSource = (): Promise<unknown> | undefined => {
    // A generator that is running cannot be closed; `fill` does it as soon as it stands.
    if (isPulling && opened?.kind === 'sync') return undefined;
    const closing = opened?.close();
    opened = undefined;
    closing?.catch(() => {});
    return closing;
  };

  const finish = (): void => {
    phase = 'ended';
    signal?.removeEventListener('abort', onAbort);
    if (inFlight > 0) signals.abort(signal?.aborted === true ? reasonOf(signal) : undefined);
    settled.clear();
    answerAll();
  };
  const answerAll = (): void => {
    const first = failure && consumers.shift();
    if (first !== undefined) {
      first.reject(failure?.error);
      failure = undefined;
    }
    for (const consumer of consumers.splice(0)) consumer.resolve(end);
  };
  const fail = (error: unknown): void => {
    if (phase === 'ended') return;
    failure = { error };
    finish();
    void closeSource();
  };

  /** Takes the result whose turn it is; ends the iteration when nothing can come any more. */
  const take = (): Entry<Out> | undefined => {
    for (;;) {
      const index = ordered ? turn : settled.keys().next().value;
      const entry = index === undefined ? undefined : settled.get(index);
      if (entry === undefined) break;
      settled.delete(entry.index);
      turn += 1;
      if (!('error' in entry) || onError === 'yield') return entry;
      if (onError === 'stop') {
        fail(entry.error);
        return undefined;
      }
    }
    if (phase !== 'draining' || inFlight > 0) return undefined;
    if (sourceFailure === undefined) finish();
    else fail(sourceFailure.error);
    return undefined;
  };
  const serve = (): void => {
    while (consumers.length > 0) {
      const entry = take();
      if (entry === undefined) return;
      consumers.shift()?.resolve({ done: false, value: toItem(entry) });
    }
  };

  const settle = (lent: SharedSignal, entry: Entry<Out>): void => {
    inFlight -= 1;
    signals.giveBack(lent);
    if (phase === 'ended') return;
    const isFailure = 'error' in entry;
    if (isFailure) failed += 1;
    else done += 1;
    if (onProgress !== undefined) {
      try {
        onProgress({ done, failed, inFlight });
      } catch (error) {
        return fail(error);
      }
    }
    if (isFailure && onError === 'stop' && phase === 'reading') {
      phase = 'draining';
      void closeSource();
    }
    settled.set(entry.index, entry);
    serve();
    if (consumers.length > 0) fill();
  };

  const call = (value: In): void => {
    const index = pulled;
    const lent = signals.take();
    pulled += 1;
    inFlight += 1;
    let mapped: Promise<Out>;
    try {
      mapped = map(value, lent.signal);
    } catch (error) {
      mapped = Promise.reject(error);
    }
    mapped.then(
      (outputs) => settle(lent, { index, outputs }),
      (error: unknown) => settle(lent, { index, error }),
    );
  };

  const accept = (result: IteratorResult<In>): void => {
    if (phase !== 'reading') return;
    if (result.done !== true) return call(result.value);
    phase = 'draining';
    opened = undefined;
    serve();
  };
  const breakOff = (error: unknown): void => {
    isPulling = false;
    opened = undefined;
    if (phase !== 'reading') return;
    phase = 'draining';
    sourceFailure = { error };
    serve();
  };

  const fill = (): void => {
    while (phase === 'reading' && !isPulling && inFlight + settled.size < concurrency) {
      isPulling = true;
      try {
        const result = (opened as OpenSource<In>).pull();
        if (result instanceof Promise) {
          void result.then(resume).catch(breakOff);
          return;
        }
        accept(result);
      } catch (error) {
        breakOff(error);
      }
      isPulling = false;
      if (hasEnded()) void closeSource();
    }
  };
  const resume = (result: IteratorResult<In>): void => {
    isPulling = false;
    accept(result);
    fill();
  };

  return {
    next: () =>
      new Promise((resolve, reject) => {
        consumers.push({ resolve, reject });
        if (phase === 'new') start();
        if (phase === 'ended') return answerAll();
        serve();
        fill();
      }),
    return: async () => {
      if (phase === 'new') phase = 'ended';
      if (phase === 'ended') return end;
      const isStuck = isPulling && opened?.kind === 'async';
      finish();
      const closing = closeSource();
      if (closing !== undefined && !isStuck)
        await (signal === undefined ? closing : orAbort(closing, signal));
      return end;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
