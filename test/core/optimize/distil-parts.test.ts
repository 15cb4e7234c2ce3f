import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { createAgreement, guessTask } from '../../../src/optimize/distil/losses.ts';
import { samePadding } from '../../../src/optimize/distil/onnx-windows.ts';
import { collectRows, shuffle } from '../../../src/optimize/distil/rows.ts';
import { transposed } from '../../../src/optimize/distil/transpose.ts';
import { createRandom } from '../../../src/stats/random.ts';

const small = fc.integer({ min: 1, max: 9 });

describe('padding of a window', () => {
  it('makes the output as long as the length by the stride, rounded up, the odd place behind', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        small,
        small,
        small,
        (length, kernel, stride, dilation) => {
          const [before, after] = samePadding(length, kernel, stride, dilation) ?? [];
          const extent = (kernel - 1) * dilation + 1;
          const padded = length + (before ?? 0) + (after ?? 0);
          expect(Math.floor((padded - extent) / stride) + 1).toBe(Math.ceil(length / stride));
          expect([0, 1]).toContain((after ?? 0) - (before ?? 0));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('does not depend on the length without a stride, and is not known otherwise', () => {
    expect(samePadding(null, 4, 1, 2)).toEqual(samePadding(30, 4, 1, 2));
    expect(samePadding(null, 3, 2, 1)).toBeUndefined();
  });
});

describe('a weight with its axes in another order', () => {
  it('holds each element at the place whose coordinates are in that order', () => {
    const weight = Float32Array.from({ length: 24 }, (_, at) => at);
    const { shape, data } = transposed(weight, [2, 3, 4], [2, 0, 1]);
    expect(shape).toEqual([4, 2, 3]);
    for (let [a, index] = [0, 0]; a < 4; a += 1) {
      for (let b = 0; b < 2; b += 1) {
        for (let c = 0; c < 3; c += 1, index += 1) expect(data[index]).toBe(b * 12 + c * 4 + a);
      }
    }
  });

  it('is as before when turned back', () => {
    const data = Float32Array.from({ length: 120 }, (_, at) => at);
    const there = transposed(data, [2, 3, 4, 5], [3, 2, 0, 1]);
    expect(transposed(there.data, there.shape, [2, 3, 1, 0])).toEqual({ shape: [2, 3, 4, 5], data });
  });
});

describe('rows of samples', () => {
  it('are gathered in any order, each input with its own dtype', async () => {
    const rows = await collectRows([
      {
        a: new Tensor('float32', [2, 2], Float32Array.of(1, 2, 3, 4)),
        b: new Tensor('int64', [2], BigInt64Array.of(10n, 20n)),
      },
      {
        b: new Tensor('int64', [1], BigInt64Array.of(30n)),
        a: new Tensor('float32', [1, 2], Float32Array.of(5, 6)),
      },
    ]);
    expect(rows.count).toBe(3);
    const { a, b } = rows.gather([2, 0, 2]);
    expect([a?.shape, a?.data]).toEqual([[3, 2], Float32Array.of(5, 6, 1, 2, 5, 6)]);
    expect([b?.shape, b?.data]).toEqual([[3], BigInt64Array.of(30n, 10n, 30n)]);
  });

  it('are shuffled the same way by the same seed, and none is lost', () => {
    const shuffled = (seed: number): Int32Array => {
      const rows = Int32Array.from({ length: 50 }, (_, at) => at);
      shuffle(rows, createRandom(seed));
      return rows;
    };
    expect(shuffled(1)).toEqual(shuffled(1));
    expect(shuffled(1)).not.toEqual(shuffled(2));
    expect(shuffled(1).sort()).toEqual(Int32Array.from({ length: 50 }, (_, at) => at));
  });
});

describe('agreement with the teacher', () => {
  it('is the share of rows with the same likeliest class', () => {
    const agreement = createAgreement('logits', 2);
    agreement.add(Float32Array.of(1, 0, 0, 1), Float32Array.of(3, 2, 0.5, 0.4));
    agreement.add(Float32Array.of(0, 1, 0, 1), Float32Array.of(0, 9, 8, 9));
    expect(agreement.value()).toBe(0.75);
  });

  it('is the share of the spread of numbers that the student explains', () => {
    const teacher = Float32Array.of(1, 2, 3, 4);
    const near = createAgreement('regression', 1);
    near.add(teacher, Float32Array.of(1, 2, 3, 5));
    expect(near.value()).toBeCloseTo(1 - 1 / 5);
    const mean = createAgreement('regression', 1);
    mean.add(teacher, new Float32Array(4).fill(2.5));
    expect(mean.value()).toBeCloseTo(0);
  });
});

it('takes outputs for probabilities if every row is one, for logits if there are labels', () => {
  const rows = Float32Array.of(0.25, 0.75, 1, 0);
  expect(guessTask(rows, 2, false)).toBe('probabilities');
  expect(guessTask(rows, 1, false)).toBe('regression');
  expect(guessTask(Float32Array.of(0.25, 0.75, -1, 2), 2, false)).toBe('regression');
  expect(guessTask(Float32Array.of(0.25, 0.75, -1, 2), 2, true)).toBe('logits');
});
