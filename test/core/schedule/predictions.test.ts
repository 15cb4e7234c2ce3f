import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createPredictions, type Predictions } from '../../../src/schedule/predictions.ts';
import { testPlatform, until } from '../platform.ts';

const floats = (...values: number[]): Tensor =>
  new Tensor('float32', [values.length], Float32Array.from(values));
const feedsOf = (value: number): TensorMap => ({ x: floats(value) });
const model = {};

/** A computation that the test ends. */
function held(): {
  compute: (signal: AbortSignal | undefined) => Promise<TensorMap>;
  runs: {
    signal: AbortSignal | undefined;
    end: (outputs: TensorMap) => void;
    fail: (error: Error) => void;
  }[];
} {
  const runs: ReturnType<typeof held>['runs'] = [];
  const compute = (signal: AbortSignal | undefined): Promise<TensorMap> =>
    new Promise((end, fail) => {
      runs.push({ signal, end, fail });
    });
  return { compute, runs };
}

/** Asks for the double of `value`. @returns whether that took a computation. */
async function computes(predictions: Predictions, value: number, of: object = model): Promise<boolean> {
  let isComputed = false;
  const feeds = feedsOf(value);
  const { y } = await predictions.run(of, feeds, {}, async () => {
    isComputed = true;
    return { y: floats(2 * value) };
  });
  expect(y).toEqual(floats(2 * value));
  return isComputed;
}

describe('what is kept', () => {
  it('is an answer whose input came twice', async () => {
    const predictions = createPredictions(testPlatform());
    expect(await computes(predictions, 1)).toBe(true);
    expect(await computes(predictions, 1)).toBe(true);
    expect(await computes(predictions, 1)).toBe(false);
    expect(predictions.stats()).toMatchObject({ hits: 1, misses: 2, joined: 0, admitted: 1, entries: 1 });
  });

  it.each([1, 3])('follows admitAt %i', async (admitAt) => {
    const predictions = createPredictions(testPlatform(), { admitAt });
    for (let time = 1; time <= admitAt; time += 1) expect(await computes(predictions, 1)).toBe(true);
    expect(await computes(predictions, 1)).toBe(false);
  });

  it('is an answer that two callers waited for at once', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const calls = [1, 2].map(() => predictions.run(model, feedsOf(1), {}, compute));
    runs[0]?.end({ y: floats(2) });
    await Promise.all(calls);
    expect(await computes(predictions, 1)).toBe(false);
  });

  it('leaves in the order of last use', async () => {
    const probe = createPredictions(testPlatform(), { admitAt: 1 });
    await computes(probe, 1);
    const predictions = createPredictions(testPlatform(), {
      admitAt: 1,
      maxBytes: 8 * probe.stats().sizeBytes,
    });
    for (let value = 1; value <= 8; value += 1) await computes(predictions, value);
    await computes(predictions, 1);
    await computes(predictions, 9);
    expect(predictions.stats()).toMatchObject({ entries: 8, evicted: 1 });
    expect(await computes(predictions, 1)).toBe(false);
    expect(await computes(predictions, 3)).toBe(false);
    expect(await computes(predictions, 2)).toBe(true);
  });

  it('is nothing above an eighth of the memory', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1, maxBytes: 80_000 });
    const ask = (bytes: number): Promise<TensorMap> =>
      predictions.run(model, feedsOf(bytes), {}, async () => ({
        y: new Tensor('uint8', [bytes], new Uint8Array(bytes)),
      }));
    await ask(10_001);
    await ask(10_000);
    expect(predictions.stats().entries).toBe(0);
    await ask(9_000);
    expect(predictions.stats().entries).toBe(1);
  });

  it('counts strings', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const texts = ['é'.repeat(1000), 'b'];
    await predictions.run(model, feedsOf(1), {}, async () => ({ y: new Tensor('string', [2], texts) }));
    expect(predictions.stats().sizeBytes).toBeGreaterThan(2 * 1001);
    const { y } = await predictions.run(model, feedsOf(1), {}, () => Promise.reject(new Error('unexpected')));
    expect(y).toEqual(new Tensor('string', [2], texts));
    expect(y?.data).not.toBe(texts);
  });

  it('does not hold the batch that an answer was cut from', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const batch = new Float32Array(1000);
    const ask = (): Promise<TensorMap> =>
      predictions.run(model, feedsOf(1), {}, async () => ({
        y: new Tensor('float32', [1], batch.subarray(7, 8)),
      }));
    await ask();
    const { y } = await ask();
    expect((y as Tensor<'float32'>).data.buffer.byteLength).toBe(4);
  });

  it('is computed anew at maxAgeMs', async () => {
    const platform = testPlatform();
    const predictions = createPredictions(platform, { admitAt: 1, maxAgeMs: 100 });
    await computes(predictions, 1);
    platform.advance(99);
    expect(await computes(predictions, 1)).toBe(false);
    platform.advance(1);
    expect(await computes(predictions, 1)).toBe(true);
    expect(predictions.stats()).toMatchObject({ admitted: 2, evicted: 1, entries: 1 });
  });

  it('is no failure', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const error = new Error('no');
    await expect(predictions.run(model, feedsOf(1), {}, () => Promise.reject(error))).rejects.toBe(error);
    const throws = (): never => {
      throw error;
    };
    await expect(predictions.run(model, feedsOf(1), {}, throws)).rejects.toBe(error);
    expect(await computes(predictions, 1)).toBe(true);
  });

  it('stays and stays small through traffic that never repeats itself', async () => {
    const predictions = createPredictions(testPlatform());
    const ask = (question: number): Promise<TensorMap> =>
      predictions.run(model, feedsOf(question), {}, async () => ({ y: floats(question) }));
    await ask(0);
    await ask(0);
    const before = predictions.stats();
    for (let question = 1; question <= 100_000; question += 1) await ask(question);
    expect(predictions.stats()).toEqual({ ...before, misses: before.misses + 100_000 });
    await ask(0);
    expect(predictions.stats().hits).toBe(1);
    // What came long ago is forgotten, what came lately is not.
    await ask(1);
    await ask(95_000);
    expect(predictions.stats().admitted).toBe(2);
  });
});

describe('callers at once', () => {
  it('share one computation', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const calls = [1, 2, 3].map(() => predictions.run(model, feedsOf(1), {}, compute));
    expect(runs).toHaveLength(1);
    runs[0]?.end({ y: floats(2) });
    expect(await Promise.all(calls)).toEqual([1, 2, 3].map(() => ({ y: floats(2) })));
    expect(predictions.stats()).toMatchObject({ misses: 1, joined: 2, admitted: 1 });
  });

  it('do not share one with another question', () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    for (const value of [1, 2]) void predictions.run(model, feedsOf(value), {}, compute);
    void predictions.run({}, feedsOf(1), {}, compute);
    expect(runs).toHaveLength(3);
  });

  it('each get the outputs they ask for', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const wanted = [['y'], undefined, ['z', 'unknown']];
    const calls = wanted.map((outputs) =>
      predictions.run(model, feedsOf(1), outputs ? { outputs } : {}, compute),
    );
    runs[0]?.end({ y: floats(2), z: floats(3) });
    const y = floats(2);
    const z = floats(3);
    expect(await Promise.all(calls)).toEqual([{ y }, { y, z }, { z }]);
    expect(await predictions.run(model, feedsOf(1), { outputs: ['z'] }, compute)).toEqual({ z });
    expect(runs).toHaveLength(1);
  });

  it('all see its failure, and the next one starts anew', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const { compute, runs } = held();
    const calls = [1, 2].map(() => predictions.run(model, feedsOf(1), {}, compute));
    const error = new Error('no');
    runs[0]?.fail(error);
    expect(await Promise.allSettled(calls)).toEqual(
      [1, 2].map(() => ({ status: 'rejected', reason: error })),
    );
    expect(await computes(predictions, 1)).toBe(true);
  });

  it('each own their answer', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const calls = [1, 2, 3].map(() => predictions.run(model, feedsOf(1), {}, compute));
    const original = floats(2);
    runs[0]?.end({ y: original });
    const answers = await Promise.all(calls);
    answers.push(await predictions.run(model, feedsOf(1), {}, compute));
    for (const { y } of answers) {
      expect(y).toEqual(floats(2));
      const { data, shape } = y as Tensor<'float32'>;
      data[0] = 99;
      (shape as number[])[0] = 99;
      structuredClone(data, { transfer: [data.buffer as ArrayBuffer] });
    }
    expect(await predictions.run(model, feedsOf(1), {}, compute)).toEqual({ y: floats(2) });
    expect(runs).toHaveLength(1);
  });
});

describe('an answer in an array of another class', () => {
  /** Slices like a Node Buffer: without a copy. */
  class View extends Uint8Array {
    override slice(start?: number, end?: number): Uint8Array<ArrayBuffer> {
      return this.subarray(start, end);
    }
  }

  it('is copied all the same', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const data = View.of(1, 2);
    const ask = (): Promise<TensorMap> =>
      predictions.run(model, feedsOf(1), {}, async () => ({ y: new Tensor('uint8', [2], data) }));
    await ask();
    data.fill(9);
    expect((await ask()).y).toEqual(new Tensor('uint8', [2], Uint8Array.of(1, 2)));
  });
});

describe('a caller that gives up', () => {
  it('is refused at once when it had done so before', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const reason = new Error('gone');
    const call = predictions.run(model, feedsOf(1), { signal: AbortSignal.abort(reason) }, compute);
    await expect(call).rejects.toBe(reason);
    expect(runs).toHaveLength(0);
    expect(predictions.stats()).toMatchObject({ hits: 0, misses: 0, joined: 0 });
  });

  it('leaves the others their answer', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const aborts = [new AbortController(), new AbortController()];
    const calls = aborts.map(({ signal }) => predictions.run(model, feedsOf(1), { signal }, compute));
    aborts[0]?.abort('enough');
    await expect(calls[0]).rejects.toBe('enough');
    expect(runs[0]?.signal?.aborted).toBe(false);
    runs[0]?.end({ y: floats(2) });
    expect(await calls[1]).toEqual({ y: floats(2) });
    expect(runs).toHaveLength(1);
  });

  it('as the last one ends the computation, and the next one starts anew', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const { compute, runs } = held();
    const aborts = [new AbortController(), new AbortController()];
    const calls = aborts.map(({ signal }) => predictions.run(model, feedsOf(1), { signal }, compute));
    aborts[0]?.abort('first');
    aborts[1]?.abort('last');
    expect(runs[0]?.signal?.reason).toBe('last');
    const next = predictions.run(model, feedsOf(1), {}, compute);
    expect(runs).toHaveLength(2);
    runs[0]?.end({ y: floats(666) });
    await Promise.allSettled(calls);
    expect(predictions.stats().entries).toBe(0);
    runs[1]?.end({ y: floats(2) });
    expect(await next).toEqual({ y: floats(2) });
    expect(predictions.stats().entries).toBe(1);
  });

  it('does not stand in the way of the next ones when its computation fails', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const abort = new AbortController();
    const given = predictions.run(model, feedsOf(1), { signal: abort.signal }, compute);
    abort.abort('enough');
    await expect(given).rejects.toBe('enough');
    const next = predictions.run(model, feedsOf(1), {}, compute);
    runs[0]?.fail(new Error('no'));
    await computes(predictions, 2);
    const joining = predictions.run(model, feedsOf(1), {}, compute);
    expect(runs).toHaveLength(2);
    runs[1]?.end({ y: floats(2) });
    expect(await Promise.all([next, joining])).toEqual([{ y: floats(2) }, { y: floats(2) }]);
  });

  it('does not end what one without a signal waits for', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const abort = new AbortController();
    const first = predictions.run(model, feedsOf(1), { signal: abort.signal }, compute);
    const second = predictions.run(model, feedsOf(1), {}, compute);
    abort.abort('enough');
    await expect(first).rejects.toBe('enough');
    expect(runs[0]?.signal?.aborted).toBe(false);
    runs[0]?.end({ y: floats(2) });
    expect(await second).toEqual({ y: floats(2) });
  });

  it('leaves no listener behind, as do those that are answered', async () => {
    const predictions = createPredictions(testPlatform());
    const { compute, runs } = held();
    const { signal } = new AbortController();
    let listeners = 0;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: unknown[]) => {
      listeners += 1;
      Reflect.apply(addEventListener, signal, args);
    };
    signal.removeEventListener = (...args: unknown[]) => {
      listeners -= 1;
      Reflect.apply(removeEventListener, signal, args);
    };
    const calls = [1, 2, 3].map((value) => predictions.run(model, feedsOf(value), { signal }, compute));
    calls.push(predictions.run(model, feedsOf(3), { signal }, compute));
    const spoilt = feedsOf(4);
    calls.push(predictions.run(model, spoilt, { signal }, compute));
    calls.push(predictions.run(model, feedsOf(4), { signal }, compute));
    const settled = Promise.allSettled(calls);
    expect(listeners).toBe(6);
    runs[0]?.end({ y: floats(2) });
    runs[1]?.fail(new Error('no'));
    runs[2]?.end({ y: floats(6) });
    (spoilt.x?.data as Float32Array)[0] = 99;
    runs[3]?.end({ y: floats(198) });
    await until(() => runs.length === 5);
    runs[4]?.end({ y: floats(8) });
    await settled;
    expect(listeners).toBe(0);
  });
});

describe('feeds that change under way', () => {
  const wrong = floats(198);

  it('spoil the answer of their own caller only', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const { compute, runs } = held();
    const mine = new Float32Array([1]);
    const own = predictions.run(model, { x: new Tensor('float32', [1], mine) }, {}, compute);
    const others = [1, 2].map(() => predictions.run(model, feedsOf(1), {}, compute));
    mine[0] = 99;
    runs[0]?.end({ y: wrong });
    expect(await own).toEqual({ y: wrong });
    expect(predictions.stats().entries).toBe(0);
    expect(runs).toHaveLength(2);
    runs[1]?.end({ y: floats(2) });
    expect(await Promise.all(others)).toEqual([{ y: floats(2) }, { y: floats(2) }]);
    expect(await computes(predictions, 1)).toBe(false);
  });

  it('spoil nothing when their caller has given up', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const { compute, runs } = held();
    const mine = new Float32Array([1]);
    const abort = new AbortController();
    const { signal } = abort;
    const own = predictions.run(model, { x: new Tensor('float32', [1], mine) }, { signal }, compute);
    const other = predictions.run(model, feedsOf(1), {}, compute);
    abort.abort('enough');
    await expect(own).rejects.toBe('enough');
    mine[0] = 99;
    runs[0]?.end({ y: wrong });
    await until(() => runs.length === 2);
    runs[1]?.end({ y: floats(2) });
    expect(await other).toEqual({ y: floats(2) });
    expect(await computes(predictions, 1)).toBe(false);
  });

  it('are not those whose buffers the computation took over', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const mine = new Float32Array([1]);
    await predictions.run(model, { x: new Tensor('float32', [1], mine) }, {}, async () => {
      structuredClone(mine, { transfer: [mine.buffer] });
      return { y: floats(2) };
    });
    expect(mine).toHaveLength(0);
    expect(await computes(predictions, 1)).toBe(false);
  });
});

describe('a model that is gone', () => {
  it('takes its answers with it, and no others', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    const other = {};
    await computes(predictions, 1);
    await computes(predictions, 1, other);
    predictions.forget(model);
    predictions.forget({});
    expect(predictions.stats()).toMatchObject({ entries: 1, evicted: 1 });
    expect(await computes(predictions, 1, other)).toBe(false);
    expect(await computes(predictions, 1)).toBe(true);
  });

  it.each(['forget', 'clear'] as const)(
    'gives the answers under way to those who wait, and to nobody else (%s)',
    async (how) => {
      const predictions = createPredictions(testPlatform(), { admitAt: 1 });
      const { compute, runs } = held();
      const before = [1, 2].map(() => predictions.run(model, feedsOf(1), {}, compute));
      predictions[how](model);
      const after = predictions.run(model, feedsOf(1), {}, compute);
      expect(runs).toHaveLength(2);
      runs[0]?.end({ y: floats(2) });
      expect(await Promise.all(before)).toEqual([{ y: floats(2) }, { y: floats(2) }]);
      expect(predictions.stats().entries).toBe(0);
      runs[1]?.end({ y: floats(3) });
      expect(await after).toEqual({ y: floats(3) });
      expect(predictions.stats().entries).toBe(1);
    },
  );

  it('leaves nothing after clear', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    await computes(predictions, 1);
    predictions.clear();
    expect(predictions.stats()).toMatchObject({ entries: 0, sizeBytes: 0, evicted: 1 });
    expect(await computes(predictions, 1)).toBe(true);
  });
});

describe('createPredictions', () => {
  it.each([
    { maxBytes: -1 },
    { maxBytes: Number.NaN },
    { maxAgeMs: 0 },
    { maxAgeMs: Number.NaN },
    { admitAt: 0 },
    { admitAt: 1.5 },
  ])('refuses %j', (options) => {
    expect(() => createPredictions(testPlatform(), options)).toThrow(RangeError);
  });

  it('keeps nothing with no memory, and still shares computations', async () => {
    const predictions = createPredictions(testPlatform(), { admitAt: 1, maxBytes: 0 });
    expect(await computes(predictions, 1)).toBe(true);
    expect(await computes(predictions, 1)).toBe(true);
    expect(predictions.stats()).toMatchObject({ entries: 0, admitted: 0 });
  });
});
