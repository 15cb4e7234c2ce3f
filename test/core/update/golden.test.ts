import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { DTYPES, storageLength, type DType, type TypedArray } from '../../../src/core/dtype.ts';
import { toBfloat16Bits, toFloat16Bits } from '../../../src/core/float.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { decodeBase64, encodeBase64 } from '../../../src/update/golden-base64.ts';
import {
  compareGolden,
  goldenLimits,
  readGolden,
  writeGolden,
  type GoldenCase,
} from '../../../src/update/golden.ts';

const exact = { absoluteE6: 0, relativeE6: 0 };
const dtypes = Object.keys(DTYPES) as DType[];

/** Any tensor, of any bits. */
const tensor: fc.Arbitrary<Tensor> = fc
  .tuple(fc.constantFrom(...dtypes), fc.array(fc.nat(3), { maxLength: 3 }))
  .chain(([dtype, shape]) => {
    const size = shape.reduce((product, length) => product * length, 1);
    if (dtype === 'string')
      return fc
        .array(fc.string({ unit: 'grapheme' }), { minLength: size, maxLength: size })
        .map((data): Tensor => new Tensor(dtype, shape, data));
    const length = storageLength(dtype, size);
    const Storage = DTYPES[dtype].storage as unknown as {
      readonly BYTES_PER_ELEMENT: number;
      new (buffer: ArrayBuffer): TypedArray;
    };
    const bytes = length * Storage.BYTES_PER_ELEMENT;
    const byte = fc.nat(dtype === 'bool' ? 1 : 255);
    return fc
      .array(byte, { minLength: bytes, maxLength: bytes })
      .map((all): Tensor => new Tensor<DType>(dtype, shape, new Storage(Uint8Array.from(all).buffer)));
  });
const tensors = fc.dictionary(fc.string({ minLength: 1 }), tensor, { maxKeys: 3, noNullPrototype: true });
const goldenCase = fc.record({
  inputs: tensors,
  outputs: fc.tuple(tensors, tensor).map(([more, one]) => ({ ...more, y: one })),
});

const read = (value: unknown): GoldenCase[] => readGolden(toUtf8(JSON.stringify(value)));
const one = (output: unknown): unknown => ({ v: 1, cases: [{ inputs: {}, outputs: { y: output } }] });

describe('golden files', () => {
  it('give back the cases that were written, of all dtypes', () => {
    fc.assert(
      fc.property(fc.array(goldenCase, { minLength: 1, maxLength: 3 }), (cases) => {
        const back = readGolden(writeGolden(cases));
        expect(back).toEqual(cases);
        back.forEach(({ outputs }, i) => {
          expect(compareGolden(outputs, cases[i]?.outputs ?? {}, exact)).toBeUndefined();
        });
      }),
    );
  });

  it('are little-endian base64 under names, as documented', () => {
    const y = new Tensor('float32', [2], Float32Array.of(1, -2));
    expect(fromUtf8(writeGolden([{ inputs: { x: tensorFrom('string', 'a') }, outputs: { y } }]))).toBe(
      '{"v":1,"cases":[{"inputs":{"x":{"dtype":"string","dims":[],"data":["a"]}},"outputs":{"y":{"dtype":"float32","dims":[2],"data":"AACAPwAAAMA="}}}]}',
    );
    // A part of a larger array is written as that part.
    const part = new Tensor('float32', [1], new Float32Array(Float32Array.of(7, 8, 9).buffer, 4, 1));
    const [back] = readGolden(writeGolden([{ inputs: {}, outputs: { y: part } }]));
    expect(back?.outputs['y']?.data).toEqual(Float32Array.of(8));
  });

  it.each([
    ['another version', { v: 2, cases: [] }],
    ['no cases', { v: 1, cases: [] }],
    ['cases that are no list', { v: 1, cases: {} }],
    [
      'more than 64 cases',
      {
        v: 1,
        cases: Array.from({ length: 65 }, () => ({ inputs: {}, outputs: { y: tensorFrom('int8', 1) } })),
      },
    ],
    ['a field that is not known', { v: 1, cases: [{ inputs: {}, outputs: {}, name: '' }] }],
    ['a case without outputs', { v: 1, cases: [{ inputs: {}, outputs: {} }] }],
    ['inputs that are a list', { v: 1, cases: [{ inputs: [], outputs: {} }] }],
    [
      'too many outputs',
      {
        v: 1,
        cases: [
          {
            inputs: {},
            outputs: Object.fromEntries(
              Array.from({ length: 65 }, (_, i) => [i, { dtype: 'int8', dims: [0], data: '' }]),
            ),
          },
        ],
      },
    ],
    ['no such dtype', one({ dtype: 'float31', dims: [], data: '' })],
    ['a dtype from the prototype', one({ dtype: 'toString', dims: [], data: '' })],
    ['negative dims', one({ dtype: 'int8', dims: [-1], data: '' })],
    ['dims with a fraction', one({ dtype: 'int8', dims: [1.5], data: 'AQ==' })],
    [
      'dims of too many axes',
      one({ dtype: 'int8', dims: Array.from({ length: 33 }, () => 1), data: 'AQ==' }),
    ],
    ['dims whose product is no safe integer', one({ dtype: 'int8', dims: [2 ** 50, 2 ** 50], data: 'AQ==' })],
    ['dims of more than there is', one({ dtype: 'int8', dims: [2], data: 'AQ==' })],
    ['data of more than dims say', one({ dtype: 'int8', dims: [1], data: 'AQEB' })],
    ['data that is no base64', one({ dtype: 'int8', dims: [1], data: 'A*==' })],
    ['base64 without padding', one({ dtype: 'int8', dims: [1], data: 'AQ' })],
    ['base64 with bits left over', one({ dtype: 'int8', dims: [1], data: 'AR==' })],
    ['a bool of 2', one({ dtype: 'bool', dims: [1], data: 'Ag==' })],
    ['strings that are no strings', one({ dtype: 'string', dims: [1], data: [1] })],
    ['too few strings', one({ dtype: 'string', dims: [2], data: ['a'] })],
    ['strings in base64', one({ dtype: 'string', dims: [1], data: 'AQ==' })],
  ])('are refused with %s', (_, value) => {
    expect(() => read(value)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_METADATA_INVALID' }));
  });

  it('are refused beyond 8 MiB before anything is parsed', () => {
    const large = new Uint8Array(goldenLimits.bytes + 1).fill(0x20);
    expect(() => readGolden(large)).toThrow(/more than 8388608 bytes/);
    const y = new Tensor('uint8', [7_000_000], new Uint8Array(7_000_000));
    expect(() => writeGolden([{ inputs: {}, outputs: { y } }])).toThrow(RangeError);
  });

  it('are read or refused with one kind of error, whatever is in them', () => {
    const field = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom(...dtypes),
      fc.array(fc.nat(4)),
      fc.base64String(),
    );
    const anything = fc.record({ dtype: field, dims: field, data: field }, { requiredKeys: [] });
    const survives = (bytes: Uint8Array): void => {
      try {
        readGolden(bytes);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_INLAY_METADATA_INVALID' });
      }
    };
    fc.assert(fc.property(anything, (value) => survives(toUtf8(JSON.stringify(one(value))))));
    fc.assert(fc.property(fc.uint8Array(), survives));
    fc.assert(
      fc.property(goldenCase, fc.nat(), fc.nat(255), (item, at, byte) => {
        const bytes = writeGolden([item]);
        bytes[at % bytes.length] = byte;
        survives(bytes);
        survives(bytes.subarray(0, at % bytes.length));
      }),
    );
  });
});

describe('base64', () => {
  it('is that of everyone else, and has one form only', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const text = encodeBase64(bytes);
        expect(text).toBe(btoa(String.fromCharCode(...bytes)));
        expect(decodeBase64(text)).toEqual(new Uint8Array(bytes));
      }),
    );
    fc.assert(
      fc.property(fc.oneof(fc.base64String(), fc.stringMatching(/^[A-Za-z0-9+/=]{0,12}$/)), (text) => {
        const bytes = decodeBase64(text);
        if (bytes !== undefined) expect(encodeBase64(bytes)).toBe(text);
      }),
    );
  });
});

describe('compareGolden', () => {
  const loose = { absoluteE6: 1000, relativeE6: 10_000 };
  const differ = (dtype: DType, got: Tensor, want: Tensor): string | undefined =>
    compareGolden({ y: got }, { y: want }, dtype === 'float64' ? loose : exact);

  it.each([
    [1, 1, true],
    [1.0109, 1, true],
    [1.0111, 1, false],
    [0.9891, 1, true],
    [0.9889, 1, false],
    [0.001, 0, true],
    [0.00101, 0, false],
    [-0, 0, true],
    [Number.NaN, Number.NaN, true],
    [Number.NaN, 1, false],
    [1, Number.NaN, false],
    [Infinity, Infinity, true],
    [Infinity, -Infinity, false],
    [1, Infinity, false],
    [Infinity, 1, false],
    [1e308, Infinity, false],
  ])('takes %d for %d: %s', (got, want, isEqual) => {
    const pair = [got, want].map((value) => new Tensor('float64', [1], Float64Array.of(value))) as [
      Tensor,
      Tensor,
    ];
    const found = differ('float64', ...pair);
    expect(found === undefined).toBe(isEqual);
    if (!isEqual) expect(found).toBe(`output "y" differs at element 0: got ${got}, want ${want}`);
  });

  it('compares 16-bit floats as numbers', () => {
    for (const [dtype, toBits] of [
      ['float16', toFloat16Bits],
      ['bfloat16', toBfloat16Bits],
    ] as const) {
      const of = (...values: number[]): Tensor =>
        new Tensor(dtype, [values.length], Uint16Array.from(values, toBits));
      expect(compareGolden({ y: of(0, 1.008) }, { y: of(-0, 1) }, loose)).toBeUndefined();
      expect(compareGolden({ y: of(0, 1.04) }, { y: of(0, 1) }, loose)).toMatch(
        /element 1: got 1.0\d+, want 1$/,
      );
      expect(compareGolden({ y: of(Number.NaN) }, { y: of(Number.NaN) }, exact)).toBeUndefined();
    }
  });

  it('compares integers, bools, strings and small floats exactly, whatever the tolerance', () => {
    const all = { absoluteE6: 1e9, relativeE6: 1e9 };
    const cases: readonly (readonly [Tensor, Tensor])[] = [
      [tensorFrom('int64', [1n, 2n ** 53n + 1n]), tensorFrom('int64', [1n, 2n ** 53n])],
      [tensorFrom('uint8', [1, 2]), tensorFrom('uint8', [1, 3])],
      [tensorFrom('bool', [true, true]), tensorFrom('bool', [true, false])],
      [tensorFrom('string', ['a', 'b']), tensorFrom('string', ['a', 'c'])],
      [tensorFrom('int4', [1, -2]), tensorFrom('int4', [1, -3])],
      [
        new Tensor('float8e5m2', [2], Uint8Array.of(1, 2)),
        new Tensor('float8e5m2', [2], Uint8Array.of(1, 3)),
      ],
    ];
    for (const [got, want] of cases) {
      expect(compareGolden({ y: got }, { y: want }, all)).toMatch(
        /^output "y" differs at element 1: got .+, want /,
      );
      expect(compareGolden({ y: want }, { y: want }, all)).toBeUndefined();
    }
  });

  it('does not look at what is left over in the last byte of packed elements', () => {
    const got = new Tensor('uint4', [3], Uint8Array.of(0x21, 0xf3));
    expect(
      compareGolden({ y: got }, { y: new Tensor('uint4', [3], Uint8Array.of(0x21, 0x03)) }, exact),
    ).toBeUndefined();
  });

  it('tells outputs that are missing, or of another dtype or shape, and leaves others alone', () => {
    const y = tensorFrom('float32', [1, 2]);
    expect(compareGolden({}, { y }, exact)).toBe('output "y" is missing');
    expect(compareGolden({}, { toString: y }, exact)).toBe('output "toString" is missing');
    expect(compareGolden({ y: tensorFrom('float64', [1, 2]) }, { y }, exact)).toBe(
      'output "y" is float64, not float32',
    );
    expect(compareGolden({ y: tensorFrom('float32', [[1, 2]]) }, { y }, exact)).toBe(
      'output "y" has shape [1, 2], not [2]',
    );
    expect(compareGolden({ y, z: tensorFrom('int8', 1) }, { y }, exact)).toBeUndefined();
  });

  it('finds one changed element wherever it is', () => {
    fc.assert(
      fc.property(fc.array(fc.float({ noNaN: true }), { minLength: 1 }), fc.nat(), (values, at) => {
        const i = at % values.length;
        const changed = [...values];
        changed[i] = changed[i] === 7 ? 8 : 7;
        const found = compareGolden(
          { y: tensorFrom('float32', changed) },
          { y: tensorFrom('float32', values) },
          exact,
        );
        expect(found).toContain(`element ${i}:`);
      }),
    );
  });
});
