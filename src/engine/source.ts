import { nameOf } from '../core/tensor.ts';

/** Anything that yields values one after the other: an array, a generator, a stream. */
export type Source<T> = Iterable<T> | AsyncIterable<T> | ReadableStream<T>;

/** A source that is being read. */
export interface OpenSource<T> {
  readonly kind: 'sync' | 'async' | 'stream';
  /** Takes the next value; a promise where the source is asynchronous. At most one call at a time. */
  pull(): IteratorResult<T> | Promise<IteratorResult<T>>;
  /** Tells the source that nothing more is wanted. While a value is pulled, only streams answer at once. */
  close(): Promise<unknown>;
}

/**
 * Checks a source.
 * @returns opens it: nothing is touched before, so that a source that is never read is neither locked nor started.
 * @throws `TypeError` if it cannot be iterated over.
 */
export function sourceOpener<T>(source: Source<T>): () => OpenSource<T> {
  if (typeof source === 'object' && source !== null) {
    // Not every runtime can iterate over streams, and their readers can be cancelled in the middle of a read.
    if ('getReader' in source) return () => fromReader(source.getReader());
    if (Symbol.asyncIterator in source) return () => fromAsync(source[Symbol.asyncIterator]());
    if (Symbol.iterator in source) return () => fromSync(source[Symbol.iterator]());
  }
  throw new TypeError(
    `A source is an array, a generator, a stream or anything else that can be iterated over, got ${nameOf(source)}.`,
  );
}

function fromSync<T>(iterator: Iterator<T>): OpenSource<T> {
  return {
    kind: 'sync',
    pull: () => iterator.next(),
    close: async () => void iterator.return?.(),
  };
}

function fromAsync<T>(iterator: AsyncIterator<T>): OpenSource<T> {
  return {
    kind: 'async',
    pull: () => Promise.resolve(iterator.next()),
    close: async () => iterator.return?.(),
  };
}

function fromReader<T>(reader: ReadableStreamDefaultReader<T>): OpenSource<T> {
  return {
    kind: 'stream',
    pull: async () => {
      let isOver = true;
      try {
        const { done, value } = await reader.read();
        isOver = done;
        return done ? { done, value: undefined } : { done, value };
      } finally {
        if (isOver) reader.releaseLock();
      }
    },
    close: () => {
      const cancelled = reader.cancel();
      // The lock ends now, and not when the stream has settled its affairs.
      reader.releaseLock();
      return cancelled;
    },
  };
}
