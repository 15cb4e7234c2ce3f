/** Anything that yields values one after the other. */
export type Source<T> = Iterable<T> | AsyncIterable<T>;

/** Options of {@link mapSource}. */
export interface MapSourceOptions {
  /** Calls under way at once, at least 1. */
  readonly concurrency: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Maps a source through an asynchronous function, in order, with a bounded number of calls under way.
 *
 * It pulls from the source only as the consumer asks, so memory stays bounded on endless sources. The first error,
 * of the source or of a call, ends the iteration and closes the source; so does leaving the loop early.
 */
export function mapSource<In, Out>(
  source: Source<In>,
  map: (value: In) => Promise<Out>,
  options: MapSourceOptions,
): AsyncIterableIterator<Out> {
  const { concurrency, signal } = options;
  if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
    throw new RangeError(`concurrency is an integer of at least 1, got ${concurrency}.`);
  }
  if (
    typeof source !== 'object' ||
    source === null ||
    !(Symbol.asyncIterator in source || Symbol.iterator in source)
  ) {
    throw new TypeError(
      'A source is an array, a generator, a stream or anything else that can be iterated over.',
    );
  }
  const iterator: Iterator<In> | AsyncIterator<In> =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  const end: IteratorResult<Out> = { done: true, value: undefined };
  const window: Promise<IteratorResult<Out>>[] = [];
  let lastPull: Promise<unknown> = Promise.resolve();
  let closed = false;

  const pull = (): void => {
    const pulled = lastPull.then(async (): Promise<IteratorResult<In>> => {
      if (closed) return { done: true, value: undefined };
      signal?.throwIfAborted();
      return iterator.next();
    });
    lastPull = pulled;
    const mapped = pulled.then(async (item): Promise<IteratorResult<Out>> => {
      if (item.done === true) return end;
      return { done: false, value: await map(item.value) };
    });
    // The consumer sees the rejection when it gets there; until then it must not count as unhandled.
    mapped.catch(() => {});
    window.push(mapped);
  };

  const close = async (): Promise<void> => {
    if (closed) return;
    closed = true;
    window.length = 0;
    await iterator.return?.();
  };

  return {
    next: async () => {
      if (closed) return end;
      while (window.length < concurrency) pull();
      try {
        const item = await (window.shift() as Promise<IteratorResult<Out>>);
        if (item.done === true) closed = true;
        return item;
      } catch (error) {
        // The first error is the one to report, not what closing the source may add to it.
        await close().catch(() => {});
        throw error;
      }
    },
    return: async () => {
      await close();
      return end;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
