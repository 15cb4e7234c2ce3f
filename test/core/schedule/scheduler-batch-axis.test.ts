import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { openVirtual, sample, valuesOf, virtualTime, watch } from './virtual.ts';

const rows = (data: readonly number[]): TensorMap => ({
  y: new Tensor('float32', [data.length, 1], Float32Array.from(data)),
});
const read = ({ x }: TensorMap): number[] => [...(x?.data as Float32Array)];

const softmax = (values: readonly number[]): number[] => {
  const all = values.reduce((sum, value) => sum + Math.exp(value), 0);
  return values.map((value) => Math.exp(value) / all);
};

/** Models whose first axis is no batch axis, though their signature says so. */
const LIARS: readonly { readonly what: string; readonly compute: (feeds: TensorMap) => TensorMap }[] = [
  {
    what: 'sums over its rows',
    compute: (feeds) => rows([read(feeds).reduce((sum, value) => sum + value, 0)]),
  },
  { what: 'gives every row twice', compute: (feeds) => rows(read(feeds).flatMap((value) => [value, value])) },
  { what: 'is a softmax over its rows', compute: (feeds) => rows(softmax(read(feeds))) },
  {
    what: 'subtracts the mean of its rows',
    compute: (feeds) => {
      const values = read(feeds);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return rows(values.map((value) => value - mean));
    },
  },
  { what: 'turns its rows round', compute: (feeds) => rows(read(feeds).reverse()) },
];

describe('a model whose first axis is no batch axis', () => {
  it.each(LIARS)(
    'is not batched any more, and all callers get what they get alone: $what',
    async ({ compute }) => {
      const time = virtualTime();
      const { queue, session } = openVirtual(time, { compute });
      const values = [3, 1, 4, 1, 5, 9, 2, 6];
      const calls = values.map((value) => watch(time, queue.run(sample(value))));
      await time.run();
      const late = watch(time, queue.run(sample(7)));
      const later = watch(time, queue.run(sample(8)));
      await time.run();
      for (const [at, { outcome }] of [...calls, late, later].entries()) {
        const value = [...values, 7, 8][at] as number;
        expect(outcome?.kind === 'answered' && valuesOf(outcome.outputs)).toEqual(
          valuesOf(compute(sample(value))),
        );
      }
      expect(queue.info().unbatchable).toMatch(/batch/);
      expect(session.batches.slice(1).every(({ samples }) => samples === 1)).toBe(true);
    },
  );

  it('is told from one that gives NaN, which is batched on', async () => {
    const time = virtualTime();
    const compute = (feeds: TensorMap): TensorMap => rows(read(feeds).map(Math.sqrt));
    const { queue } = openVirtual(time, { compute });
    const calls = [4, -1, 9, -4].map((value) => watch(time, queue.run(sample(value))));
    await time.run();
    const answers = calls.map(({ outcome }) => outcome?.kind === 'answered' && valuesOf(outcome.outputs)[0]);
    expect(answers).toEqual([2, Number.NaN, 3, Number.NaN]);
    expect(queue.info().unbatchable).toBeUndefined();
  });

  it('is told from calls without rows, which run alone', async () => {
    const time = virtualTime();
    const { queue, session } = openVirtual(time);
    const calls = [1, 0, 2, 0, 1].map((count) => watch(time, queue.run(sample(7, count))));
    await time.run();
    const answers = calls.map(({ outcome }) => outcome?.kind === 'answered' && valuesOf(outcome.outputs));
    expect(answers).toEqual([[7], [], [7, 7], [], [7]]);
    expect(session.batches.map(({ samples }) => samples)).toEqual([1, 0, 2, 0, 1]);
    expect(queue.info().unbatchable).toBeUndefined();
  });

  it('is compared once only, with one solo run', async () => {
    const time = virtualTime();
    const { queue, metrics, session } = openVirtual(time);
    for (let round = 0; round < 5; round += 1) {
      for (let call = 0; call < 4; call += 1) void queue.run(sample(call));
      await time.run();
    }
    expect(metrics.read().verifications).toBe(1);
    expect(session.batches.map(({ samples }) => samples)).toEqual([4, 1, 4, 4, 4, 4]);
  });

  it('does not matter to calls of several rows that are too large for one batch', async () => {
    const time = virtualTime();
    // It can be seen at the number of rows that the parts give.
    const { compute } = LIARS[0] as (typeof LIARS)[number];
    const { queue } = openVirtual(time, { compute, queue: { maxBatch: 8 } });
    const call = watch(time, queue.run(sample(1, 20)));
    await time.run();
    expect(call.outcome?.kind === 'answered' && valuesOf(call.outcome.outputs)).toEqual([20]);
    expect(queue.info().unbatchable).toMatch(/batch/);
  });
});
