import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { batchOf } from '../../../src/optimize/batches.ts';
import { measureModels, quantile, type MeasureOptions } from '../../../src/optimize/measure.ts';
import type { NamedValueType, OptimizeRuntime } from '../../../src/optimize/runtime.ts';

const inputs: readonly NamedValueType[] = [{ name: 'x', dtype: 'float32', shape: ['batch', 2] }];
const rows = (...values: readonly number[]): Tensor =>
  new Tensor('float32', [values.length / 2, 2], Float32Array.from(values));
const samples: readonly TensorMap[] = [{ x: rows(1, 2) }, { x: rows(3, 4, 5, 6) }];

/** A runtime whose clock moves only while a model is opened (5 ms) or run: `ms` for the so-and-so-many-th run of a model. */
function virtualRuntime(ms: (model: number, run: number) => number) {
  let nowMs = 0;
  const open = new Set<number>();
  const log: string[] = [];
  const runs = new Map<number, number>();
  let mostOpen = 0;
  const runtime: OptimizeRuntime = {
    target: 'node-cpu',
    description: 'virtual',
    open: async ([model = 0]) => {
      nowMs += 5;
      open.add(model);
      mostOpen = Math.max(mostOpen, open.size);
      return {
        inputs,
        outputs: [],
        run: async () => ({}),
        time: async (feeds, count) => {
          log.push(`${model}: ${count} × ${feeds['x']?.shape[0]}`);
          return Array.from({ length: count }, () => {
            const run = (runs.get(model) ?? 0) + 1;
            runs.set(model, run);
            nowMs += ms(model, run);
            return ms(model, run);
          });
        },
        release: async () => void open.delete(model),
      };
    },
    memoryBytes: async () => 100 + 10 * open.size,
    close: async () => {},
  };
  const measure = (models: number, options: Partial<MeasureOptions> = {}) =>
    measureModels(
      Array.from({ length: models }, (_, i) => ({ name: `m${i}`, model: Uint8Array.of(i) })),
      runtime,
      { monotonicMs: () => nowMs, samples, turnMs: 0, ...options },
    );
  return { measure, log, open, mostOpen: () => mostOpen };
}

/** Turns of each model, without the runs that warm it up. */
const turnsOf = (log: readonly string[]): readonly string[] => log.filter((line) => !line.includes(': 2 ×'));

describe('measureModels', () => {
  it('lets models take turns, and another one begin each time', async () => {
    const { measure, log, open } = virtualRuntime(() => 10);
    await measure(3, { rounds: 2 });
    expect(
      turnsOf(log)
        .map(([model]) => model)
        .join(''),
    ).toBe('012120');
    expect(open.size).toBe(0);
  });

  it('ends early once no two models could change places, and only then', async () => {
    const clear = virtualRuntime((model) => [10, 20, 15][model] ?? 0);
    await clear.measure(3, { rounds: 10 });
    expect(turnsOf(clear.log)).toHaveLength(3 * 5);
    const tied = virtualRuntime((model) => [10, 20, 20.5][model] ?? 0);
    await tied.measure(3, { rounds: 10 });
    expect(turnsOf(tied.log)).toHaveLength(3 * 10);
  });

  it('has one model open at a time with several threads, and all with one', async () => {
    const several = virtualRuntime(() => 10);
    await several.measure(3, { threads: 2, rounds: 2 });
    expect(several.mostOpen()).toBe(1);
    const one = virtualRuntime(() => 10);
    await one.measure(3, { rounds: 2 });
    expect(one.mostOpen()).toBe(3);
  });

  it('tells percentiles, time to load and memory for each batch in order', async () => {
    const { measure } = virtualRuntime((_, run) => run);
    const [measured] = await measure(1, { batches: [1, 4], rounds: 2, runs: 10 });
    expect(measured).toEqual({
      name: 'm0',
      loadMs: 5,
      memoryBytes: 10,
      latencies: [
        { batch: 1, p10Ms: 4, p50Ms: 8, runs: 10 },
        { batch: 4, p10Ms: 16, p50Ms: 20, runs: 10 },
      ],
    });
  });

  it('runs quick models more often in a turn, and slow ones as often as was asked for', async () => {
    const { measure, log } = virtualRuntime((model) => [0.5, 100][model] ?? 0);
    await measure(2, { rounds: 1, runs: 3, turnMs: 20, batches: [4] });
    expect(turnsOf(log)).toEqual(['0: 40 × 4', '1: 3 × 4']);
  });

  it('takes no further turn once the time is over', async () => {
    const { measure, log } = virtualRuntime(() => 10);
    await measure(2, { rounds: 10, budgetMs: 150 });
    expect(turnsOf(log)).toHaveLength(2 * 2);
  });

  it('releases what it opened when it is aborted', async () => {
    const stop = new AbortController();
    const { measure, open } = virtualRuntime(() => 10);
    const onProgress = (): void => {
      stop.abort(new Error('enough'));
    };
    await expect(measure(2, { signal: stop.signal, onProgress })).rejects.toThrow('enough');
    expect(open.size).toBe(0);
  });

  it('takes the value below which a share of the values lies', () => {
    const values = [5, 1, 4, 2, 3];
    expect([0, 0.5, 0.9, 1].map((q) => quantile(values, q))).toEqual([1, 3, 5, 5]);
  });
});

describe('batchOf', () => {
  it('repeats the rows of all samples in turn', () => {
    const { x } = batchOf(inputs, samples, 5);
    expect(x?.toArray()).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
      [1, 2],
      [3, 4],
    ]);
    expect(batchOf(inputs, samples, 1)['x']?.toArray()).toEqual([[1, 2]]);
  });

  it('finds the axis of an input by its name, and leaves inputs alone that have none', () => {
    const state: NamedValueType = { name: 'state', dtype: 'int64', shape: [2, 'batch', 1] };
    const rate: NamedValueType = { name: 'rate', dtype: 'int64', shape: [] };
    const sample = {
      x: rows(1, 2, 3, 4),
      state: new Tensor('int64', [2, 2, 1], BigInt64Array.of(10n, 20n, 11n, 21n)),
      rate: new Tensor('int64', [], BigInt64Array.of(16_000n)),
    };
    const batch = batchOf([...inputs, state, rate], [sample], 3);
    expect(batch['state']?.toArray()).toEqual([
      [[10n], [20n], [10n]],
      [[11n], [21n], [11n]],
    ]);
    expect(batch['rate']).toBe(sample.rate);
  });

  it('leaves samples out that are longer than the first', () => {
    const words: NamedValueType = { name: 'words', dtype: 'string', shape: ['n', 'length'] };
    const list = [['a', 'b'], ['c'], ['d', 'e']].map((data) => ({
      words: new Tensor('string', [1, data.length], data),
    }));
    expect(batchOf([words], list, 2)['words']?.toArray()).toEqual([
      ['a', 'b'],
      ['d', 'e'],
    ]);
  });

  it('refuses a batch that the model does not take, and samples that lack an input', () => {
    const fixed: NamedValueType = { name: 'x', dtype: 'float32', shape: [1, 2] };
    expect(batchOf([fixed], samples, 1)).toBe(samples[0]);
    const codeOf = (make: () => unknown): unknown => {
      try {
        return make();
      } catch (error) {
        return (error as { code?: string }).code;
      }
    };
    expect(codeOf(() => batchOf([fixed], samples, 2))).toBe('ERR_INLAY_FEED_SHAPE');
    expect(codeOf(() => batchOf(inputs, [{}], 2))).toBe('ERR_INLAY_FEED_MISSING');
    expect(codeOf(() => batchOf(inputs, [], 2))).toBe('ERR_INLAY_FEED_MISSING');
  });
});
