import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DTYPES,
  dtypeFromOnnx,
  isDType,
  sizeBytesOf,
  storageLength,
  type DType,
} from '../../src/core/dtype.ts';
import { InputError } from '../../src/core/errors.ts';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../../src/core/float.ts';
import { readElements, Tensor, tensorFrom, writeElements } from '../../src/core/tensor.ts';

const dtypes = Object.keys(DTYPES).filter(isDType);

describe('DTYPES', () => {
  it('gives every dtype its own ONNX number, from 1 without gaps', () => {
    expect(dtypes.map((name) => DTYPES[name].onnx).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 26 }, (_, i) => i + 1),
    );
  });

  it('is found again by ONNX number', () => {
    for (const name of dtypes) expect(dtypeFromOnnx(DTYPES[name].onnx)).toBe(name);
    expect(dtypeFromOnnx(0)).toBeUndefined();
    expect(dtypeFromOnnx(27)).toBeUndefined();
  });

  it('rounds packed sizes up to whole bytes', () => {
    expect(storageLength('int4', 5)).toBe(3);
    expect(storageLength('uint2', 5)).toBe(2);
    expect(sizeBytesOf('int4', 5)).toBe(3);
    expect(storageLength('complex64', 3)).toBe(6);
    expect(sizeBytesOf('float64', 3)).toBe(24);
  });
});

describe('float16', () => {
  it('survives a round trip for every finite bit pattern', () => {
    for (let bits = 0; bits < 2 ** 16; bits += 1) {
      const value = fromFloat16Bits(bits);
      if (!Number.isNaN(value)) expect(toFloat16Bits(value)).toBe(bits);
    }
  });

  it('rounds to the nearest value, ties to even', () => {
    fc.assert(
      fc.property(fc.double({ min: -65504, max: 65504, noNaN: true }), (value) => {
        const bits = toFloat16Bits(value);
        const error = Math.abs(fromFloat16Bits(bits) - value);
        for (const neighbour of [bits - 1, bits + 1]) {
          const other = fromFloat16Bits(neighbour & 0xffff);
          if (Number.isNaN(other) || Math.sign(other) !== Math.sign(value)) continue;
          const otherError = Math.abs(other - value);
          expect(error < otherError || (error === otherError && bits % 2 === 0)).toBe(true);
        }
      }),
    );
  });

  it('overflows to infinity from 65520 and keeps NaN', () => {
    expect(toFloat16Bits(65519)).toBe(0x7bff);
    expect(toFloat16Bits(65520)).toBe(0x7c00);
    expect(toFloat16Bits(Number.NEGATIVE_INFINITY)).toBe(0xfc00);
    expect(fromFloat16Bits(toFloat16Bits(Number.NaN))).toBeNaN();
    expect(Object.is(fromFloat16Bits(toFloat16Bits(-0)), -0)).toBe(true);
  });
});

describe('bfloat16', () => {
  it('survives a round trip for every bit pattern that is a number', () => {
    for (let bits = 0; bits < 2 ** 16; bits += 1) {
      const value = fromBfloat16Bits(bits);
      if (!Number.isNaN(value)) expect(toBfloat16Bits(value)).toBe(bits);
    }
    expect(fromBfloat16Bits(toBfloat16Bits(Number.NaN))).toBeNaN();
  });

  it('rounds ties to even', () => {
    expect(toBfloat16Bits(1 + 2 ** -8)).toBe(0x3f80);
    expect(toBfloat16Bits(1 + 3 * 2 ** -8)).toBe(0x3f82);
  });
});

const integers: Partial<Record<DType, [bigint, bigint]>> = {
  int2: [-2n, 1n],
  uint2: [0n, 3n],
  int4: [-8n, 7n],
  uint4: [0n, 15n],
  int8: [-128n, 127n],
  uint8: [0n, 255n],
  int16: [-32768n, 32767n],
  uint16: [0n, 65535n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
};

describe('writeElements', () => {
  for (const [dtype, [min, max]] of Object.entries(integers) as [DType, [bigint, bigint]][]) {
    it(`gives ${dtype} back as written, over its whole range`, () => {
      fc.assert(
        fc.property(fc.array(fc.bigInt({ min, max }), { maxLength: 9 }), (values) => {
          const data = writeElements(dtype, values);
          expect(readElements(dtype, data, values.length).map(BigInt)).toEqual(values);
        }),
      );
    });

    it(`refuses for ${dtype} what is out of range or no integer`, () => {
      for (const value of [min - 1n, max + 1n, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '1', true]) {
        expect(() => writeElements(dtype, [value])).toThrow(
          expect.objectContaining({ code: 'ERR_INLAY_FEED_VALUE' }) as Error,
        );
      }
    });
  }

  it('takes true, false, 0 and 1 for bool, nothing else', () => {
    expect(writeElements('bool', [true, false, 1, 0])).toEqual(new Uint8Array([1, 0, 1, 0]));
    expect(() => writeElements('bool', [2])).toThrow(InputError);
  });

  it('packs 4-bit integers with the first element in the low bits', () => {
    expect(writeElements('uint4', [1, 2, 3])).toEqual(new Uint8Array([0x21, 0x03]));
    expect(writeElements('int4', [-1, 7])).toEqual(new Uint8Array([0x7f]));
  });
});

describe('Tensor', () => {
  it('keeps the array that it was given', () => {
    const data = new Float32Array(6);
    expect(new Tensor('float32', [2, 3], data).data).toBe(data);
  });

  it.each([
    [[7], 'ERR_INLAY_FEED_SHAPE'],
    [[-1, 6], 'ERR_INLAY_FEED_SHAPE'],
    [[1.5, 4], 'ERR_INLAY_FEED_SHAPE'],
    [[Number.NaN], 'ERR_INLAY_FEED_SHAPE'],
  ])('refuses shape %j for six elements', (shape, code) => {
    expect(() => new Tensor('float32', shape, new Float32Array(6))).toThrow(
      expect.objectContaining({ code }) as Error,
    );
  });

  it('refuses storage of another type', () => {
    // @ts-expect-error: float32 is held in a Float32Array
    expect(() => new Tensor('float32', [2], new Float64Array(2))).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_FEED_DTYPE' }) as Error,
    );
  });

  it('nests elements by shape', () => {
    expect(new Tensor('int64', [2, 1, 2], new BigInt64Array([1n, 2n, 3n, 4n])).toArray()).toEqual([
      [[1n, 2n]],
      [[3n, 4n]],
    ]);
    expect(new Tensor('float32', [], new Float32Array([5])).toArray()).toBe(5);
    expect(new Tensor('bool', [0, 3], new Uint8Array(0)).toArray()).toEqual([]);
    expect(new Tensor('float16', [1], new Uint16Array([0x3c00])).toArray()).toEqual([1]);
  });

  it('is rebuilt from its nested arrays', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 }),
        fc.infiniteStream(fc.integer({ min: -1000, max: 1000 })),
        (shape, numbers) => {
          const size = shape.reduce((all, length) => all * length, 1);
          const tensor = new Tensor('int32', shape, Int32Array.from(numbers.take(size)));
          const again = tensorFrom('int32', tensor.toArray());
          expect(again.shape).toEqual(shape);
          expect(again.data).toEqual(tensor.data);
        },
      ),
    );
  });

  it.each([
    [[[1, 2], [3]]],
    [[[1], 2]],
    [[1, [2]]],
    [
      [
        [1, 2],
        [3, [4]],
      ],
    ],
  ])('refuses the ragged array %j', (nested) => {
    expect(() => tensorFrom('float32', nested)).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_FEED_SHAPE' }) as Error,
    );
  });
});
