import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/core/errors.ts';
import { fromFloat16Bits, toFloat16Bits } from '../../../src/core/float.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { argmax, softmax, topK } from '../../../src/process/index.ts';

const row = (...values: number[]): Tensor<'float64'> =>
  new Tensor('float64', [1, values.length], Float64Array.from(values));
const anyScore = fc.oneof(fc.double(), fc.constantFrom(Number.NaN, Infinity, -Infinity, 0, -0, 1));

describe('softmax', () => {
  it('gives shares in the proportions of the exponentials', () => {
    const { data } = softmax(row(0, Math.log(2), Math.log(5)));
    [1 / 8, 2 / 8, 5 / 8].forEach((share, index) => expect(data[index]).toBeCloseTo(share, 12));
  });

  it('is the same for scores that are all shifted, however far', () => {
    const expected = [...softmax(row(1, 2, 3)).data];
    softmax(row(1e5 + 1, 1e5 + 2, 1e5 + 3)).data.forEach((share, i) =>
      expect(share).toBeCloseTo(expected[i] as number, 9),
    );
    expect([...softmax(row(-1000, 1000)).data]).toEqual([0, 1]);
    expect([...softmax(row(-Infinity, 0)).data]).toEqual([0, 1]);
  });

  it('sums to 1 along any axis', () => {
    const side = fc.integer({ min: 1, max: 4 });
    fc.assert(
      fc.property(
        fc.tuple(side, side, side),
        fc.integer({ min: -3, max: 2 }),
        fc.infiniteStream(fc.double({ min: -50, max: 50, noNaN: true })),
        (shape, axis, values) => {
          const size = shape[0] * shape[1] * shape[2];
          const tensor = new Tensor(
            'float64',
            shape,
            Float64Array.from({ length: size }, () => values.next().value as number),
          );
          const shares = softmax(tensor, { axis });
          expect(shares.shape).toEqual(shape);
          const at = axis < 0 ? axis + 3 : axis;
          const inner = shape.slice(at + 1).reduce((product, length) => product * length, 1);
          const sums = new Map<number, number>();
          shares.data.forEach((share, index) => {
            const lane = Math.floor(index / inner / (shape[at] as number)) * inner + (index % inner);
            sums.set(lane, (sums.get(lane) ?? 0) + share);
          });
          expect(sums.size).toBe(size / (shape[at] as number));
          for (const sum of sums.values()) expect(sum).toBeCloseTo(1, 12);
        },
      ),
    );
  });

  it('keeps the dtype', () => {
    const half = new Tensor('float16', [2], Uint16Array.from([0, 0], toFloat16Bits));
    expect(Array.from(softmax(half).data, fromFloat16Bits)).toEqual([0.5, 0.5]);
    expect(softmax(new Tensor('float32', [2], new Float32Array(2))).data).toEqual(
      new Float32Array([0.5, 0.5]),
    );
  });

  it('gives NaN for a lane that holds NaN, and for no other', () => {
    const tensor = tensorFrom('float32', [
      [Number.NaN, 1],
      [1, 1],
    ]);
    expect([...softmax(tensor).data]).toEqual([Number.NaN, Number.NaN, 0.5, 0.5]);
  });

  it('refuses other dtypes and axes that there are not', () => {
    const integers = new Tensor('int32', [1], new Int32Array(1)) as unknown as Tensor<'float32'>;
    expect(() => softmax(integers)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_FEED_DTYPE' }));
    expect(() => softmax(row(1), { axis: 2 })).toThrow(/axis must be one of the 2 axes of the tensor, got 2/);
    expect(() => softmax(row(1), { axis: -3 })).toThrow(RangeError);
    expect(() => softmax(new Tensor('float32', [], new Float32Array(1)))).toThrow(RangeError);
    expect(() => softmax([1, 2] as unknown as Tensor<'float32'>)).toThrow(TypeError);
  });
});

describe('argmax', () => {
  it('takes the first of equal elements, along any axis', () => {
    const tensor = tensorFrom('int32', [
      [3, 1, 3],
      [0, 5, 4],
    ]);
    expect(argmax(tensor)).toMatchObject({ dtype: 'int32', shape: [2] });
    expect([...argmax(tensor).data]).toEqual([0, 1]);
    expect([...argmax(tensor, { axis: 0 }).data]).toEqual([0, 1, 1]);
  });

  it('takes NaN only where there is nothing else', () => {
    expect(argmax(row(Number.NaN, -Infinity, Number.NaN)).data[0]).toBe(1);
    expect(argmax(row(1, Number.NaN)).data[0]).toBe(0);
    expect(argmax(row(Number.NaN, Number.NaN)).data[0]).toBe(0);
  });

  it('is the first entry of topK', () => {
    fc.assert(
      fc.property(fc.array(anyScore, { minLength: 1, maxLength: 20 }), (values) => {
        expect(argmax(row(...values)).data[0]).toBe(topK(row(...values), 1)[0]?.[0]?.index);
      }),
    );
  });

  it('refuses an axis without elements', () => {
    expect(() => argmax(new Tensor('float32', [2, 0], new Float32Array(0)))).toThrow(
      /axis -1 has no elements/,
    );
  });
});

describe('topK', () => {
  it('gives the largest first, with labels, row by row', () => {
    const tensor = tensorFrom('float32', [
      [0, 2, 1],
      [7, 5, 6],
    ]);
    expect(topK(tensor, 2, { labels: ['a', 'b', 'c'] })).toEqual([
      [
        { index: 1, score: 2, label: 'b' },
        { index: 2, score: 1, label: 'c' },
      ],
      [
        { index: 0, score: 7, label: 'a' },
        { index: 2, score: 6, label: 'c' },
      ],
    ]);
    expect(topK(tensor, 1)[0]).toEqual([{ index: 1, score: 2 }]);
  });

  it('gives what a full sort gives, whatever the scores: equal ones in order, NaN last', () => {
    fc.assert(
      fc.property(fc.array(anyScore, { maxLength: 60 }), fc.integer({ min: 1, max: 70 }), (values, k) => {
        const numbers = values.flatMap((value, index) => (Number.isNaN(value) ? [] : [index]));
        const expected = numbers.sort((a, b) => {
          const [x, y] = [values[a] as number, values[b] as number];
          return x === y ? a - b : x > y ? -1 : 1;
        });
        const nans = values.flatMap((value, index) => (Number.isNaN(value) ? [index] : []));
        const [got] = topK(row(...values), k);
        expect(got?.map(({ index }) => index)).toEqual([...expected, ...nans].slice(0, k));
        for (const { index, score } of got ?? []) expect(score).toBe(values[index]);
      }),
    );
  });

  it('reads 16-bit floats', () => {
    const half = new Tensor('float16', [3], Uint16Array.from([-1, 0.5, 0.25], toFloat16Bits));
    expect(topK(half, 2)[0]?.map(({ score }) => score)).toEqual([0.5, 0.25]);
  });

  it('refuses what it cannot rank', () => {
    expect(() => topK(row(1, 2), 0)).toThrow(/k must be an integer of at least 1, got 0/);
    expect(() => topK(row(1, 2), 1, { labels: ['a'] })).toThrow(/one label for each of 2 places, got 1/);
    expect(() => topK(new Tensor('int64', [1], new BigInt64Array(1)), 1)).toThrow(InputError);
    expect(() => topK(new Tensor('string', [1], ['a']), 1)).toThrow(/plain numbers is needed, got string/);
  });
});
