import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mapSource } from '../../../src/engine/run-all.ts';

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
