import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createRunAll, mapSource, type Progress } from '../../../src/engine/run-all.ts';

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}

/** An endless source that records how far it was read and whether it was closed. */
function counter(): Iterable<number> & { pulled: number; closed: boolean } {
  const state = {
    pulled: 0,
    closed: false,
    [Symbol.iterator]: () => ({
      next: () => ({ done: false as const, value: state.pulled++ }),
      return: () => {
        state.closed = true;
        return { done: true as const, value: undefined };
      },
    }),
  };
  return state;
}

describe('mapSource', () => {
  it('gives results in order whatever order the calls end in', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(5)), fc.integer({ min: 1, max: 8 }), async (turns, concurrency) => {
        const map = async (index: number): Promise<number> => {
          for (let i = 0; i < (turns[index] as number); i += 1) await Promise.resolve();
          return index;
        };
        expect(await collect(mapSource(turns.keys(), map, { concurrency }))).toEqual([...turns.keys()]);
      }),
    );
  });

  it('keeps at most `concurrency` calls under way', async () => {
    let under = 0;
    let most = 0;
    const map = async (value: number): Promise<number> => {
      most = Math.max(most, (under += 1));
      for (let i = 0; i < 30; i += 1) await Promise.resolve();
      under -= 1;
      return value;
    };
    await collect(mapSource(Array.from({ length: 50 }).keys(), map, { concurrency: 3 }));
    expect(most).toBe(3);
  });

  it('reads an endless source only as far as the consumer asks, and closes it on leaving', async () => {
    const source = counter();
    for await (const value of mapSource(source, async (n) => n, { concurrency: 4 })) if (value === 10) break;
    expect(source.pulled).toBeLessThanOrEqual(10 + 1 + 4);
    expect(source.closed).toBe(true);
  });

  it('ends with the first error of a call and closes the source', async () => {
    const source = counter();
    const results = mapSource(
      source,
      async (n) => {
        if (n >= 2) throw new Error(`bad ${n}`);
        return n;
      },
      { concurrency: 4 },
    );
    await expect(collect(results)).rejects.toThrow('bad 2');
    expect(source.closed).toBe(true);
    expect(await results.next()).toEqual({ done: true, value: undefined });
  });

  it('ends with the error of the source', async () => {
    const broken = {
      [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error('source broke')) }),
    };
    await expect(collect(mapSource(broken, async (n) => n, { concurrency: 2 }))).rejects.toThrow(
      'source broke',
    );
  });

  it('rejects with the reason of its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const results = mapSource(counter(), async (n) => n, { concurrency: 2, signal: abort.signal });
    await results.next();
    abort.abort(reason);
    await expect(collect(results)).rejects.toBe(reason);
  });

  it.each([5, null, undefined, {}])('refuses %j as a source', (source) => {
    expect(() => mapSource(source as never, async () => 0, { concurrency: 1 })).toThrow(TypeError);
  });

  it.each([0, -1, 1.5, Number.NaN])('refuses concurrency %d', (concurrency) => {
    expect(() => mapSource([], async () => 0, { concurrency })).toThrow(RangeError);
  });
});

/** A promise that the test settles. */
function deferred<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
} {
  let resolve: (value: T) => void = () => {};
  let reject: (error: unknown) => void = () => {};
  const promise = new Promise<T>((onDone, onError) => {
    resolve = onDone;
    reject = onError;
  });
  return { promise, resolve, reject };
}

/** Lets every promise that is due settle. */
async function settleAll(): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

/** Collects rejections that nobody handles, and fails the test if there are any. */
function watchRejections(): void {
  const unhandled: unknown[] = [];
  if (typeof process === 'undefined' || typeof process.on !== 'function') return;
  const listen = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', listen);
  onTestFinished(async () => {
    await settleAll();
    process.off('unhandledRejection', listen);
    expect(unhandled).toEqual([]);
  });
}

const failing = async (n: number): Promise<{ n: number }> => {
  if (n % 3 === 2) throw new Error(`bad ${n}`);
  return { n };
};

interface Call {
  readonly scale?: number;
  readonly signal?: AbortSignal;
}

describe('runAll', () => {
  it('passes the options of a call on, and none of its own', async () => {
    const seen: object[] = [];
    const runAll = createRunAll(async (value: number, options: Call) => {
      seen.push(options);
      return value * (options.scale ?? 1);
    });
    const all = await collect(
      runAll([1, 2], { scale: 10, concurrency: 1, ordered: true, onError: 'skip', onProgress: () => {} }),
    );
    expect(all).toEqual([10, 20]);
    expect(Object.keys(seen[0] ?? {}).sort()).toEqual(['scale', 'signal']);
  });

  it('yields entries with their index as they are ready when order does not matter', async () => {
    const gates = [deferred<string>(), deferred<string>(), deferred<string>()];
    const runAll = createRunAll((index: number) => (gates[index] as (typeof gates)[number]).promise);
    const entries = runAll(gates.keys(), { as: 'entries', ordered: false, concurrency: 3 });
    const first = entries.next();
    gates[2]?.resolve('c');
    expect(await first).toEqual({ done: false, value: { index: 2, outputs: 'c' } });
    gates[0]?.resolve('a');
    expect((await entries.next()).value).toEqual({ index: 0, outputs: 'a' });
    gates[1]?.resolve('b');
    expect(await collect(entries)).toEqual([{ index: 1, outputs: 'b' }]);
  });

  it('leaves out what fails, or yields it with its error, as it is told', async () => {
    const runAll = createRunAll((n: number) => failing(n));
    const numbers = [0, 1, 2, 3, 4, 5, 6];
    const outputs = await collect(runAll(numbers, { onError: 'skip', concurrency: 2 }));
    expect(outputs.map(({ n }) => n)).toEqual([0, 1, 3, 4, 6]);
    for (const ordered of [true, false]) {
      const entries = await collect(runAll(numbers, { as: 'entries', onError: 'yield', ordered }));
      entries.sort((a, b) => a.index - b.index);
      expect(entries.map(({ outputs: given, error }) => given?.n ?? (error as Error).message)).toEqual([
        0,
        1,
        'bad 2',
        3,
        4,
        'bad 5',
        6,
      ]);
      const skipped = await collect(runAll(numbers, { as: 'entries', onError: 'skip', ordered }));
      expect(skipped.map(({ index }) => index).sort((a, b) => a - b)).toEqual([0, 1, 3, 4, 6]);
    }
  });

  it('agrees with a plain loop for any calls, errors and options', async () => {
    watchRejections();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ turns: fc.nat(4), fails: fc.boolean() }), { maxLength: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.constantFrom('stop' as const, 'skip' as const, 'yield' as const),
        fc.boolean(),
        fc.constantFrom('array', 'async', 'stream'),
        async (calls, concurrency, onError, ordered, kind) => {
          const run = async (at: number): Promise<number> => {
            for (let i = 0; i < (calls[at]?.turns ?? 0); i += 1) await Promise.resolve();
            if (calls[at]?.fails === true) throw new Error(`${at}`);
            return at;
          };
          const seen: string[] = [];
          let failure: unknown;
          try {
            const entries = createRunAll(run)(sourceOf(kind, calls.length), {
              as: 'entries',
              concurrency,
              onError,
              ordered,
            });
            for await (const { index, outputs, error } of entries) {
              seen.push(`${index} ${outputs ?? (error as Error).message}`);
            }
          } catch (error) {
            failure = error;
          }
          const firstBad = calls.findIndex(({ fails }) => fails);
          const wanted = calls.flatMap(({ fails }, at) =>
            fails && onError !== 'yield' ? [] : [`${at} ${at}`],
          );
          if (onError !== 'stop' || firstBad < 0) {
            expect(failure).toBeUndefined();
            expect(ordered ? seen : seen.sort((a, b) => Number.parseInt(a) - Number.parseInt(b))).toEqual(
              wanted,
            );
          } else {
            expect(failure).toBeInstanceOf(Error);
            if (ordered) {
              expect((failure as Error).message).toBe(`${firstBad}`);
              expect(seen).toEqual(wanted.filter((entry) => Number.parseInt(entry) < firstBad));
            }
          }
        },
      ),
    );
  });

  it('refuses to yield results that could not be told apart', () => {
    const runAll = createRunAll((n: number) => failing(n));
    expect(() => runAll([], { ordered: false as never })).toThrow("needs as: 'entries'");
    expect(() => runAll([], { onError: 'yield' as never })).toThrow("needs as: 'entries'");
    expect(() => runAll([], { onError: 'ignore' as never })).toThrow(RangeError);
  });

  it('delivers the results before an error of the source, then the error, then nothing', async () => {
    function* source(): Generator<number> {
      yield 1;
      yield 2;
      throw new Error('source broke');
    }
    const results = mapSource(source(), async (n) => n, { concurrency: 8 });
    expect((await results.next()).value).toBe(1);
    expect((await results.next()).value).toBe(2);
    await expect(results.next()).rejects.toThrow('source broke');
    expect((await results.next()).done).toBe(true);
  });

  it('ends at once on abort while the source hangs, and aborts the calls under way', async () => {
    watchRejections();
    const abort = new AbortController();
    const reason = new Error('enough');
    const signals: AbortSignal[] = [];
    let isFirst = true;
    const hanging = {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          if (!isFirst) return new Promise<never>(() => {});
          isFirst = false;
          return Promise.resolve({ done: false as const, value: 0 });
        },
        return: () => new Promise<never>(() => {}),
      }),
    };
    const results = mapSource(
      hanging,
      (_, signal) => {
        signals.push(signal);
        return new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error));
        });
      },
      { concurrency: 2, signal: abort.signal },
    );
    const pending = results.next();
    await settleAll();
    abort.abort(reason);
    await expect(pending).rejects.toBe(reason);
    expect(signals.map((signal) => signal.reason as unknown)).toEqual([reason]);
    expect(await results.next()).toEqual({ done: true, value: undefined });
  });

  it('does not touch a source when its signal was aborted before, nor when nobody asks', async () => {
    const stream = new ReadableStream<number>();
    mapSource(stream, async (n) => n, { concurrency: 1 });
    await expect(
      mapSource(stream, async (n) => n, {
        concurrency: 1,
        signal: AbortSignal.abort(new Error('no')),
      }).next(),
    ).rejects.toThrow('no');
    expect(stream.locked).toBe(false);
  });

  it('leaves a loop at once although the source hangs, and swallows what comes later', async () => {
    watchRejections();
    const late = deferred<IteratorResult<number>>();
    let pulls = 0;
    let closed = 0;
    const source = {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          pulls += 1;
          return pulls === 1 ? Promise.resolve({ done: false, value: 1 }) : late.promise;
        },
        return: () => {
          closed += 1;
          return new Promise<never>(() => {});
        },
      }),
    };
    for await (const value of mapSource(source, async (n) => n, { concurrency: 3 })) {
      expect(value).toBe(1);
      break;
    }
    expect([pulls, closed]).toEqual([2, 1]);
    late.reject(new Error('too late'));
  });

  it('tells the consumer that leaves what closing an idle source throws, unless an error came first', async () => {
    const source = (): Iterable<number> => ({
      [Symbol.iterator]: () => ({
        next: () => ({ done: false, value: 1 }),
        return: () => {
          throw new Error('cannot close');
        },
      }),
    });
    const leaving = mapSource(source(), async (n) => n, { concurrency: 1 });
    await leaving.next();
    await expect(leaving.return?.()).rejects.toThrow('cannot close');
    const bad = mapSource(source(), () => Promise.reject(new Error('bad')), { concurrency: 1 });
    await expect(bad.next()).rejects.toThrow('bad');
  });

  it('can be aborted while an idle source does not finish closing', async () => {
    const abort = new AbortController();
    const source = {
      [Symbol.asyncIterator]: () => ({
        next: () => Promise.resolve({ done: false, value: 1 }),
        return: () => new Promise<never>(() => {}),
      }),
    };
    const results = mapSource(source, async (n) => n, { concurrency: 1, signal: abort.signal });
    await results.next();
    const left = results.return?.();
    await settleAll();
    abort.abort(new Error('enough'));
    await expect(left).rejects.toThrow('enough');
  });

  it('closes a generator that aborts the iteration itself', async () => {
    const abort = new AbortController();
    let isClosed = false;
    function* source(): Generator<number> {
      try {
        for (let n = 0; ; n += 1) {
          if (n === 2) abort.abort(new Error('from within'));
          yield n;
        }
      } finally {
        isClosed = true;
      }
    }
    const results = mapSource(source(), async (n) => n, { concurrency: 4, signal: abort.signal });
    await expect(collect(results)).rejects.toThrow('from within');
    expect(isClosed).toBe(true);
  });

  it('reads streams by their reader, frees them at the end, and cancels them on leaving', async () => {
    const whole = sourceOf('stream', 3) as ReadableStream<number>;
    Object.defineProperty(whole, Symbol.asyncIterator, { value: undefined });
    expect(await collect(mapSource(whole, async (n) => n, { concurrency: 2 }))).toEqual([0, 1, 2]);
    expect(whole.locked).toBe(false);

    let cancelled = false;
    const slow = new ReadableStream<number>({
      start: (controller) => controller.enqueue(1),
      cancel: () => {
        cancelled = true;
      },
    });
    for await (const value of mapSource(slow, async (n) => n, { concurrency: 4 })) if (value === 1) break;
    expect([cancelled, slow.locked]).toEqual([true, false]);

    const broken = new ReadableStream<number>({ pull: (controller) => controller.error(new Error('torn')) });
    await expect(collect(mapSource(broken, async (n) => n, { concurrency: 2 }))).rejects.toThrow('torn');
    expect(broken.locked).toBe(false);
  });

  it('tells how far it is after every call, and ends with what the listener throws', async () => {
    const seen: Progress[] = [];
    const runAll = createRunAll((n: number) => failing(n));
    await collect(runAll([0, 1, 2, 3], { onError: 'skip', concurrency: 2, onProgress: (p) => seen.push(p) }));
    expect(seen).toHaveLength(4);
    expect(seen.at(-1)).toEqual({ done: 3, failed: 1, inFlight: 0 });
    const onProgress = (): void => {
      throw new Error('listener');
    };
    await expect(collect(runAll([0, 1], { onProgress }))).rejects.toThrow('listener');
  });

  it('answers consumers that ask before they are answered, in order', async () => {
    const results = mapSource([1, 2], async (n) => n, { concurrency: 1 });
    const asked = await Promise.all([results.next(), results.next(), results.next(), results.next()]);
    expect(asked.map(({ value }) => value as unknown)).toEqual([1, 2, undefined, undefined]);
  });

  it('holds no more than `concurrency` items of an endless source, whatever order they end in', async () => {
    let pulled = 0;
    let given = 0;
    let most = 0;
    function* source(): Generator<number> {
      for (;;) {
        pulled += 1;
        most = Math.max(most, pulled - given);
        yield pulled;
      }
    }
    const runAll = createRunAll((n: number) => failing(n));
    for await (const { index } of runAll(source(), {
      as: 'entries',
      ordered: false,
      onError: 'yield',
      concurrency: 16,
    })) {
      given += 1;
      if (index > 20_000) break;
    }
    expect(most).toBeLessThanOrEqual(17);
  });

  it('lends a signal to few calls at a time, so that no runtime suspects a leak', async () => {
    const users = new Map<AbortSignal, number>();
    let most = 0;
    const map = async (n: number, signal: AbortSignal): Promise<number> => {
      const now = (users.get(signal) ?? 0) + 1;
      users.set(signal, now);
      most = Math.max(most, now);
      await Promise.resolve();
      users.set(signal, (users.get(signal) ?? 0) - 1);
      return n;
    };
    await collect(mapSource(Array.from({ length: 500 }).keys(), map, { concurrency: 64 }));
    expect(most).toBeLessThanOrEqual(4);
    expect(users.size).toBeLessThanOrEqual(17);
  });
});

function sourceOf(
  kind: string,
  length: number,
): Iterable<number> | AsyncIterable<number> | ReadableStream<number> {
  const numbers = Array.from({ length }, (_, n) => n);
  if (kind === 'array') return numbers;
  if (kind === 'stream') {
    return new ReadableStream<number>({
      start: (controller) => {
        for (const n of numbers) controller.enqueue(n);
        controller.close();
      },
    });
  }
  return (async function* generate() {
    yield* numbers;
  })();
}
