import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromFloat16Array, fromFloat16Bits } from '../../../src/core/float.ts';
import { affineOf, integersOf, roundHalfEven } from '../../../src/optimize/arithmetic.ts';
import {
  applyScales,
  createWeightReader,
  quantizeWeights,
  readWeights,
  scalesOf,
  transposeBytes,
  type Weights,
} from '../../../src/optimize/weights.ts';

const weights = (shape: readonly number[], data: readonly number[]): Weights => ({
  name: 'w',
  dtype: 'float32',
  shape,
  data: Float32Array.from(data),
});

describe('scales', () => {
  it('round ties to even', () => {
    expect([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4999].map(roundHalfEven)).toEqual([-2, -2, 0, 0, 2, 2, 2]);
  });

  it.each([
    ['int8', {}, -128, 127],
    ['int8', { isSymmetric: true }, -127, 127],
    ['int8', { isSymmetric: true, isReduced: true }, -64, 64],
    ['uint8', { isSymmetric: true }, 0, 255],
    ['uint8', { isReduced: true }, 0, 127],
  ] as const)('map %s %j to all integers that are meant', (dtype, how, min, max) => {
    expect(integersOf(dtype, how)).toEqual({ min, max });
  });

  it('have the zero point in the middle if symmetric', () => {
    const middle = (dtype: 'int8' | 'uint8', isReduced: boolean): number =>
      affineOf({ min: -1, max: 3 }, integersOf(dtype, { isSymmetric: true, isReduced }), true).zeroPoint;
    expect([middle('int8', false), middle('int8', true)]).toEqual([0, 0]);
    expect([middle('uint8', false), middle('uint8', true)]).toEqual([128, 64]);
  });

  it('widen the range to hold zero', () => {
    const { scale, zeroPoint } = affineOf({ min: 2, max: 5.1 }, { min: 0, max: 255 }, false);
    expect(scale).toBeCloseTo(0.02, 8);
    expect(zeroPoint).toBe(0);
    expect(affineOf({ min: -5.1, max: -2 }, { min: 0, max: 255 }, false).zeroPoint).toBe(255);
  });

  it('are 1 for zeros and for what float32 has no scale for', () => {
    for (const max of [0, 1e-45, 1e-38]) {
      expect(affineOf({ min: 0, max }, { min: -127, max: 127 }, true)).toEqual({ scale: 1, zeroPoint: 0 });
    }
  });

  it('are finite for the largest floats', () => {
    const largest = Math.fround(3.4028234663852886e38);
    const { scale } = affineOf({ min: -largest, max: largest }, { min: -127, max: 127 }, true);
    expect(scale).toBe(Math.fround(largest / 127));
  });

  it('bring every element of the range back to within half a step', () => {
    const floats = fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 1, maxLength: 24 });
    fc.assert(
      fc.property(
        floats,
        fc.constantFrom('int8' as const, 'uint8' as const),
        fc.boolean(),
        (data, dtype, isReduced) => {
          const { values, scale, zeroPoint } = quantizeWeights(weights([data.length], data), {
            dtype,
            isReduced,
          });
          const [s = 0, z = 0] = [scale.data[0], zeroPoint.data[0]];
          Array.from(values.data).forEach((q, at) => {
            const error = Math.abs(s * (q - z) - (Math.fround(data[at] as number) || 0));
            // Zero points are rounded, so that an end of an asymmetric range may lie half a step outside.
            expect(error).toBeLessThanOrEqual(s * (dtype === 'uint8' ? 1.001 : 0.501));
          });
        },
      ),
      { numRuns: 60, seed: 7 },
    );
  });
});

describe('weights', () => {
  it('have a scale for each index of an axis, first, middle or last', () => {
    const data = [1, -2, 3, 4, -5, 6, 7, 8, -9, 10, -11, 12];
    const largest = (axis: number): number[] =>
      Array.from(scalesOf(weights([2, 3, 2], data), { dtype: 'int8', axis }).scales, (scale) =>
        Math.round(scale * 127),
      );
    expect([largest(0), largest(1), largest(2)]).toEqual([
      [6, 12],
      [8, 10, 12],
      [11, 12],
    ]);
    expect(() => scalesOf(weights([2], [1, 2]), { dtype: 'int8', axis: 1 })).toThrow(RangeError);
  });

  it('have one zero point for all channels, also where a channel is zero', () => {
    const { values, zeroPoint, scale } = quantizeWeights(weights([2, 2], [1, 0, -1, 0]), {
      dtype: 'uint8',
      axis: 1,
    });
    expect(zeroPoint.shape).toEqual([]);
    expect(Array.from(zeroPoint.data)).toEqual([128]);
    expect(Array.from(values.data)).toEqual([255, 128, 1, 128]);
    expect(scale.data[1]).toBe(1);
  });

  it('become zero if they are denormal', () => {
    const { values, scale } = quantizeWeights(weights([2], [1e-40, -1e-41]), { dtype: 'int8' });
    expect([Array.from(values.data), Array.from(scale.data)]).toEqual([[0, 0], [1]]);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    'that hold %s are refused',
    (bad) => {
      for (const axis of [0, 1]) {
        expect(() => quantizeWeights(weights([2, 2], [1, bad, 2, 3]), { dtype: 'int8', axis })).toThrow(
          expect.objectContaining({
            code: 'ERR_INLAY_MODEL_INVALID',
            message: expect.stringContaining('"w"') as string,
          }),
        );
      }
    },
  );

  it('take larger scales than their own', () => {
    const { values } = applyScales(
      weights([2], [1, -0.5]),
      { scales: Float32Array.of(0.25), zeroPoint: 0 },
      { dtype: 'int8' },
    );
    expect(Array.from(values.data)).toEqual([4, -2]);
  });

  it('of 16 bits are read as the floats that they stand for', () => {
    const read = (dataType: number, bits: number[]): number[] =>
      Array.from(
        readWeights({
          dims: [2],
          dataType,
          name: 'h',
          rawData: new Uint8Array(Uint16Array.from(bits).buffer),
        }).data,
      );
    expect(read(10, [0x3c00, 0xc100])).toEqual([1, -2.5]);
    expect(read(16, [0x3f80, 0xc020])).toEqual([1, -2.5]);
    expect(() => readWeights({ dims: [1], dataType: 1, name: 'e', dataLocation: 1 })).toThrow(
      /"e".*inlineExternal/,
    );
    expect(() => readWeights({ dims: [1], dataType: 11, name: 'd', rawData: new Uint8Array(8) })).toThrow(
      /"d" are float64/,
    );
  });

  it('of 16 bits are read bit for bit as one at a time', () => {
    const all = Uint16Array.from({ length: 65_536 }, (_, bits) => bits);
    const values = fromFloat16Array(all);
    expect(all.findIndex((bits) => !Object.is(values[bits], fromFloat16Bits(bits)))).toBe(-1);
  });

  it('that lie anywhere in a file are read one after the other, in the same memory', () => {
    const read = createWeightReader();
    const at = (offset: number, values: number[]): Weights => {
      const file = new Uint8Array(64);
      file.set(new Uint8Array(Float32Array.from(values).buffer), offset);
      const rawData = file.subarray(offset, offset + 4 * values.length);
      return read({ dims: [values.length], dataType: 1, name: 'w', rawData });
    };
    const first = at(2, [1, 2, 3]);
    expect(Array.from(first.data)).toEqual([1, 2, 3]);
    const second = at(3, [4, 5]);
    expect(Array.from(second.data)).toEqual([4, 5]);
    expect(second.data.buffer).toBe(first.data.buffer);
    expect(Array.from(at(4, [6]).data)).toEqual([6]);
  });

  it('have their axes swapped whatever their size', () => {
    const [rows, columns] = [67, 130];
    const data = Int8Array.from({ length: rows * columns }, (_, at) => at % 251);
    const matrix = quantizeWeights(weights([rows, columns], Array.from(data)), { dtype: 'int8' }).values;
    const swapped = transposeBytes(matrix);
    expect(swapped.shape).toEqual([columns, rows]);
    expect(swapped.data[5 * rows + 66]).toBe(matrix.data[66 * columns + 5]);
    expect(transposeBytes(swapped)).toEqual(matrix);
  });
});
