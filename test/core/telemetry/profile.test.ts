import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex, toUtf8 } from '../../../src/core/bytes.ts';
import { DTYPES, isDType, storageLength, type DType, type DTypeStorage } from '../../../src/core/dtype.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { createSha256 } from '../../../src/core/hash.ts';
import { readElements, Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { readFeature, type FeatureValue } from '../../../src/telemetry/feature-reading.ts';
import { slotsOf } from '../../../src/telemetry/feature-slots.ts';
import type { FeatureReading, Profile } from '../../../src/telemetry/profile.ts';
import { chooseFeatures, createProfileBuilder } from '../../../src/telemetry/profile-builder.ts';
import { createCounter } from '../../../src/telemetry/profile-counter.ts';
import { profileHash, readProfile } from '../../../src/telemetry/profile-reader.ts';
import { testPlatform } from '../platform.ts';

const profile: Profile = {
  v: 1,
  inputs: {
    length: { type: 'number', tensor: 'text', reading: 'elements', edges: [0, 1, 2.5], counts: [5, 5, 0, 0] },
  },
  outputs: {
    y: {
      type: 'category',
      tensor: 'scores',
      reading: 'argmax',
      values: ['0', '1', '2'],
      counts: [3, 3, 4, 0, 0],
    },
    sure: { type: 'number', tensor: 'scores', reading: 'max', edges: [0, 0.5, 1], counts: [5, 5, 0, 0] },
  },
  prediction: 'y',
  confidence: 'sure',
  accuracy: 0.9,
};
const encode = (value: unknown): Uint8Array => toUtf8(JSON.stringify(value));

function read(reading: FeatureReading, tensor: Tensor | undefined): FeatureValue[] {
  const values: FeatureValue[] = [];
  readFeature(reading, tensor, (value) => values.push(value));
  return values;
}

describe('readProfile', () => {
  it('reads what was written', () => {
    expect(readProfile(encode(profile))).toEqual(profile);
  });

  const { length } = profile.inputs;
  it.each<[string, unknown]>([
    ['another version', { ...profile, v: 2 }],
    ['an unknown key', { ...profile, note: 'hello' }],
    ['no outputs', { ...profile, outputs: undefined }],
    ['a name with a space', { ...profile, inputs: { 'a b': length } }],
    ['a name that every object has', { ...profile, inputs: { constructor: length } }],
    ['edges that do not ascend', { ...profile, inputs: { a: { ...length, edges: [0, 0, 1] } } }],
    ['one edge', { ...profile, inputs: { a: { ...length, edges: [0], counts: [0, 0, 0] } } }],
    ['counts of another length', { ...profile, inputs: { a: { ...length, counts: [1, 1, 1] } } }],
    ['a count below zero', { ...profile, inputs: { a: { ...length, counts: [1, 1, 1, -1] } } }],
    ['another reading', { ...profile, inputs: { a: { ...length, reading: 'median' } } }],
    [
      'a category twice',
      { ...profile, outputs: { y: { ...profile.outputs['y'], values: ['0', '1', '1'] } } },
    ],
    ['a prediction that is a number', { ...profile, prediction: 'sure' }],
    ['a confidence that is not there', { ...profile, confidence: 'toString' }],
    ['an accuracy above one', { ...profile, accuracy: 1.1 }],
    ['a calibration of other bins', { ...profile, calibration: [[1, 1, 1]] }],
    ['a list', []],
  ])('refuses %s', (_, value) => {
    expect(() => readProfile(encode(value))).toThrow(ModelError);
  });

  it('refuses what is no JSON, and what is too long', () => {
    expect(() => readProfile(toUtf8('{'))).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_MODEL_INVALID' }),
    );
    expect(() => readProfile(Uint8Array.of(0xff))).toThrow(ModelError);
    expect(() => readProfile(new Uint8Array(2 ** 19 + 1).fill(0x20))).toThrow(/524289 bytes/);
  });

  it('throws nothing else, whatever bytes come', () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), fc.jsonValue().map(encode)), (bytes) => {
        expect(() => readProfile(bytes)).toThrow(ModelError);
      }),
    );
  });

  it('names a profile by its bytes', () => {
    const bytes = encode(profile);
    const hash = createSha256();
    hash.update(bytes);
    expect(profileHash(bytes, testPlatform())).toBe(toHex(hash.digest()).slice(0, 16));
  });
});

describe('readFeature', () => {
  it('reads every dtype as unpacking does', () => {
    const dtypes = Object.keys(DTYPES).filter(isDType);
    fc.assert(
      fc.property(
        fc.constantFrom(...dtypes.filter((dtype) => dtype !== 'string')),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        (dtype: DType, bytes) => {
          const { kind, bits, lanes, storage } = DTYPES[dtype];
          const Storage = storage as unknown as new (buffer: ArrayBuffer) => DTypeStorage[DType];
          const raw = new Storage(bytes.slice().buffer);
          const size = bits < 8 ? (32 * 8) / bits : raw.length / lanes;
          expect(storageLength(dtype, size)).toBe(raw.length);
          const tensor = new Tensor(dtype, [size], raw);
          const plain = kind === 'complex' || (kind === 'float' && bits < 16);
          const expected = plain
            ? Array.from({ length: size }, () => Number.NaN)
            : readElements(dtype, raw, size).map((value, i) => (kind === 'bool' ? bytes[i] : Number(value)));
          expect(read('elements', tensor)).toEqual(expected);
        },
      ),
    );
    expect(read('elements', tensorFrom('string', ['a', 'b']))).toEqual(['a', 'b']);
  });

  it('looks at 256 elements at most, from the whole tensor', () => {
    const values = read(
      'elements',
      new Tensor(
        'float32',
        [100_000],
        Float32Array.from({ length: 100_000 }, (_, i) => i),
      ),
    );
    expect(values).toHaveLength(256);
    expect(values[0]).toBe(0);
    expect(values.at(-1)).toBeGreaterThan(99_000);
  });

  it('computes mean and spread', () => {
    const tensor = tensorFrom('float64', [2, 4, 4, 4, 5, 5, 7, 9]);
    expect(read('mean', tensor)[0]).toBeCloseTo(5, 12);
    expect(read('std', tensor)[0]).toBeCloseTo(2, 12);
    expect(read('mean', tensorFrom('string', ['a']))).toEqual([Number.NaN]);
  });

  it('finds the best of each row, the first of several, and none among NaN', () => {
    const rows = tensorFrom('float32', [
      [0, 3, 3],
      [-Infinity, -Infinity, -Infinity],
      [Number.NaN, -1, -2],
      [Number.NaN, Number.NaN, Number.NaN],
    ]);
    expect(read('argmax', rows)).toEqual([1, 0, 1, Number.NaN]);
    expect(read('max', rows)).toEqual([3, -Infinity, -1, Number.NaN]);
    expect(read('argmax', tensorFrom('int64', [1n, 5n, 2n]))).toEqual([1]);
    expect(read('argmax', new Tensor('float32', [10_000], new Float32Array(10_000)))).toEqual([Number.NaN]);
    expect(read('argmax', new Tensor('float32', [500, 100], new Float32Array(50_000)))).toHaveLength(40);
  });

  it('has one null for what is absent or empty, and nothing for memory that was handed over', () => {
    expect(read('elements', undefined)).toEqual([Number.NaN]);
    expect(read('size', undefined)).toEqual([Number.NaN]);
    expect(read('argmax', new Tensor('float32', [0, 3], new Float32Array(0)))).toEqual([Number.NaN]);
    expect(read('size', new Tensor('float32', [0, 3], new Float32Array(0)))).toEqual([0]);
    const gone = new Tensor('float32', [4], new Float32Array(4));
    structuredClone(gone.data, { transfer: [gone.data.buffer] });
    for (const reading of ['elements', 'mean', 'std', 'argmax', 'max'] as const)
      expect(read(reading, gone)).toEqual([]);
  });
});

describe('slotsOf', () => {
  it('has half-open bins, then null, then out of range', () => {
    const { slotOf, length } = slotsOf({ type: 'number', edges: [0, 1, 2, 4], counts: [] });
    expect(length).toBe(5);
    expect([0, 0.001, 1, 1.001, 2, 4].map(slotOf)).toEqual([4, 0, 0, 1, 1, 2]);
    expect([-1, 4.1, Infinity, -Infinity].map(slotOf)).toEqual([4, 4, 4, 4]);
    expect([Number.NaN, 'text'].map(slotOf)).toEqual([3, 3]);
  });

  it('agrees with a search from the start for any edges', () => {
    const edges = fc
      .uniqueArray(fc.double({ noNaN: true, min: -100, max: 100 }), { minLength: 2, maxLength: 65 })
      .map((list) => [...new Set(list.map((edge) => edge + 0))].sort((a, b) => a - b))
      .filter((list) => list.length > 1);
    fc.assert(
      fc.property(edges, fc.double({ min: -120, max: 120, noNaN: true }), fc.nat(), (list, any, pick) => {
        const { slotOf } = slotsOf({ type: 'number', edges: list, counts: [] });
        for (const value of [any, list[pick % list.length] as number]) {
          const bin = list.findIndex((edge, i) => value > edge && value <= (list[i + 1] ?? -Infinity));
          expect(slotOf(value)).toBe(bin === -1 ? list.length : bin);
        }
      }),
    );
  });

  it('knows categories as text and as numbers', () => {
    const { slotOf } = slotsOf({ type: 'category', values: ['7', 'cat', '01'], counts: [] });
    expect([7, '7', 'cat', '01', 1, 8, Number.NaN, 'NaN'].map(slotOf)).toEqual([0, 0, 1, 2, 4, 4, 3, 4]);
  });
});

describe('createCounter', () => {
  const feeds = { text: tensorFrom('float32', [0.5, 1, 2, 9, Number.NaN]) };
  const outputs = { scores: tensorFrom('float32', [[0.1, 0.7, 0.2]]) };

  it('counts a call into the bins of the profile', () => {
    const counts = createCounter(profile).open();
    counts.count(feeds, outputs);
    counts.count({}, outputs);
    expect(counts.snapshot()).toEqual({
      x: { length: [2, 1, 2, 1] },
      p: { y: [0, 2, 0, 0, 0], sure: [0, 2, 0, 0] },
    });
  });

  it('counts each window from zero', () => {
    const counter = createCounter(profile);
    const first = counter.open();
    first.count(feeds, outputs);
    expect(counter.open().snapshot().x).toEqual({ length: [0, 0, 0, 0] });
  });

  it('counts one value of each input through the noise, and outputs without', () => {
    const counts = createCounter(profile).open();
    const { random } = testPlatform();
    for (let i = 0; i < 4000; i += 1)
      counts.count({ text: tensorFrom('float32', [0.5, 0.6]) }, outputs, { epsilon: 1, random });
    const { x, p } = counts.snapshot();
    expect(p?.['y']).toEqual([0, 4000, 0, 0, 0]);
    const length = x?.['length'] ?? [];
    expect(length.reduce((sum, count) => sum + count, 0)).toBe(4000);
    // e / (e + 3) of them are true.
    expect((length[0] as number) / 4000).toBeCloseTo(Math.E / (Math.E + 3), 1);
    expect(Math.min(...length)).toBeGreaterThan(500);
  });

  it('says the prediction of the first row, and where labels are counted', () => {
    const counter = createCounter(profile);
    expect(counter.predictionOf(outputs)).toEqual({ value: 1, slot: 1, confidence: expect.closeTo(0.7, 6) });
    expect([2, '2', 'none'].map((label) => counter.slotOfLabel(label))).toEqual([2, 2, 4]);
    expect(createCounter({ v: 1, inputs: {}, outputs: {} }).predictionOf(outputs)).toBeUndefined();
  });
});

describe('createProfileBuilder', () => {
  const { random } = testPlatform();
  const calls = Array.from({ length: 1000 }, (_, i) => {
    const scores = [random(), random(), random()];
    const feeds = { x: tensorFrom('float32', [random() * 10]), flag: tensorFrom('bool', [i % 4 === 0]) };
    return {
      feeds,
      outputs: { scores: tensorFrom('float32', [scores]) },
      label: scores.indexOf(Math.max(...scores)),
    };
  });
  const [first] = calls;
  const choice = chooseFeatures(first?.feeds ?? {}, first?.outputs ?? {});
  const build = (): Profile => {
    const builder = createProfileBuilder(choice);
    for (const [i, { feeds, outputs, label }] of calls.entries())
      builder.add(feeds, outputs, i % 10 === 0 ? 99 : label);
    return builder.build();
  };

  it('chooses values of small tensors, flags, and class and confidence of scores', () => {
    expect(choice).toEqual({
      inputs: {
        x: { type: 'number', tensor: 'x', reading: 'elements' },
        flag: { type: 'category', tensor: 'flag', reading: 'elements' },
      },
      outputs: {
        'scores.class': { type: 'category', tensor: 'scores', reading: 'argmax' },
        'scores.confidence': { type: 'number', tensor: 'scores', reading: 'max' },
      },
      prediction: 'scores.class',
      confidence: 'scores.confidence',
    });
  });

  it('chooses mean and spread of large tensors, and no texts: the most frequent would be published', () => {
    const feeds = {
      'input:0': new Tensor('float32', [1, 28, 28], new Float32Array(784)),
      text: tensorFrom('string', ['Dear Ann']),
    };
    expect(Object.keys(chooseFeatures(feeds, {}).inputs)).toEqual(['input_0.mean', 'input_0.std']);
  });

  it('makes bins of equal mass, the same ones each time, that devices read back', () => {
    const built = build();
    expect(build()).toEqual(built);
    expect(readProfile(encode(built))).toEqual(built);
    const x = built.inputs['x'];
    expect(x?.counts).toHaveLength(12);
    expect(x?.counts.slice(0, 10).every((count) => Math.abs(count - 100) <= 1)).toBe(true);
    expect(x?.counts.slice(10)).toEqual([0, 0]);
    expect(built.inputs['flag']).toMatchObject({ values: ['0', '1'], counts: [750, 250, 0, 0] });
    expect(built.accuracy).toBe(0.9);
    expect(built.calibration?.reduce((sum, [n]) => sum + n, 0)).toBe(1000);
  });

  it('counts as devices do', () => {
    const built = build();
    const counts = createCounter(built).open();
    for (const { feeds, outputs } of calls) counts.count(feeds, outputs);
    const { p, x } = counts.snapshot();
    for (const [name, { counts: reference }] of Object.entries(built.outputs))
      expect(p?.[name]).toEqual(reference);
    for (const [name, { counts: reference }] of Object.entries(built.inputs))
      expect(x?.[name]).toEqual(reference);
  });

  it('makes a valid profile of any values', () => {
    const value = fc.oneof(
      fc.double({ min: -1e15, max: 1e15 }),
      fc.constantFrom(0, 1, Number.NaN, Infinity, -Infinity),
    );
    fc.assert(
      fc.property(
        fc.array(value, { minLength: 1, maxLength: 60 }),
        fc.constantFrom('number', 'category'),
        (values, type) => {
          const builder = createProfileBuilder({
            inputs: { a: { type, tensor: 'a', reading: 'elements' } },
            outputs: {},
          });
          for (const one of values) builder.add({ a: tensorFrom('float64', [one]) }, {});
          const built = builder.build();
          expect(readProfile(encode(built))).toEqual(JSON.parse(JSON.stringify(built)));
          const counts = built.inputs['a']?.counts ?? [];
          expect(counts.reduce((sum, count) => sum + count, 0)).toBe(values.length);
          if (type === 'number') {
            // All finite references are in some bin.
            expect(counts.at(-1)).toBe(values.filter((one) => Math.abs(one) === Infinity).length);
            expect(counts.at(-2)).toBe(values.filter((one) => Number.isNaN(one)).length);
          }
        },
      ),
    );
  });

  it('thins out evenly what is too much to keep', () => {
    const builder = createProfileBuilder({
      inputs: { a: { type: 'number', tensor: 'a', reading: 'elements' } },
      outputs: {},
    });
    const batch = new Float64Array(256);
    for (let i = 0; i < 1100; i += 1) {
      batch.fill(i);
      builder.add({ a: new Tensor('float64', [256], batch) }, {});
    }
    const { counts, edges } = builder.build().inputs['a'] as Extract<
      Profile['inputs'][string],
      { type: 'number' }
    >;
    const total = counts.reduce((sum, count) => sum + count, 0);
    expect(total).toBeLessThan(2 ** 17);
    expect(edges[5]).toBeGreaterThan(530);
    expect(edges[5]).toBeLessThan(570);
  });

  it('refuses to build from nothing', () => {
    expect(() => createProfileBuilder(choice).build()).toThrow(RangeError);
  });
});
