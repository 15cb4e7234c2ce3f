import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { DTYPES, storageLength, type DType } from '../../../src/core/dtype.ts';
import { createSha256 } from '../../../src/core/hash.ts';
import { sizeOf, Tensor } from '../../../src/core/tensor.ts';
import { predictionKey } from '../../../src/schedule/prediction-key.ts';

const keyOf = (feeds: TensorMap, model = 1): string => predictionKey(createSha256(), model, feeds);

/** A tensor whose bytes count up from `first`. */
function tensorOf(dtype: DType, shape: readonly number[], first = 0): Tensor {
  const length = storageLength(dtype, sizeOf(shape));
  if (dtype === 'string') {
    return new Tensor(
      dtype,
      shape,
      Array.from({ length }, (_, at) => String(first + at)),
    );
  }
  const data = new (DTYPES[dtype].storage as new (length: number) => Uint8Array)(length);
  new Uint8Array(data.buffer).forEach((_, at, bytes) => {
    bytes[at] = first + at;
  });
  return new Tensor<DType>(dtype, shape, data);
}

const strings = (...texts: string[]): Tensor => new Tensor('string', [texts.length], texts);
const floats = (...values: number[]): Tensor =>
  new Tensor('float32', [values.length], Float32Array.from(values));

describe('predictionKey', () => {
  it('is 32 bytes, the same for the same question', () => {
    const key = keyOf({ x: floats(1, 2) });
    expect(key).toMatch(/^[\0-\xff]{32}$/);
    expect(keyOf({ x: floats(1, 2) })).toBe(key);
  });

  it('does not depend on the order of the inputs', () => {
    const a = floats(1);
    const b = floats(2);
    expect(keyOf({ a, b })).toBe(keyOf({ b, a }));
  });

  it('reads the elements of a view, not its buffer', () => {
    const buffer = Float32Array.of(7, 1, 2, 9);
    expect(keyOf({ x: new Tensor('float32', [2], buffer.subarray(1, 3)) })).toBe(keyOf({ x: floats(1, 2) }));
  });

  it.each<[string, TensorMap, TensorMap]>([
    ['shapes', { x: tensorOf('uint8', [2, 3]) }, { x: tensorOf('uint8', [3, 2]) }],
    ['ranks', { x: tensorOf('uint8', [6]) }, { x: tensorOf('uint8', [6, 1]) }],
    ['a scalar and a vector of one', { x: tensorOf('uint8', []) }, { x: tensorOf('uint8', [1]) }],
    ['empty shapes', { x: tensorOf('uint8', [0, 2]) }, { x: tensorOf('uint8', [2, 0]) }],
    ['dtypes', { x: tensorOf('int8', [4]) }, { x: tensorOf('uint8', [4]) }],
    ['dtypes of one storage type', { x: tensorOf('float16', [4]) }, { x: tensorOf('bfloat16', [4]) }],
    ['zeros', { x: floats(0) }, { x: floats(-0) }],
    ['names', { a: floats(1) }, { b: floats(1) }],
    ['names that are swapped', { a: floats(1), b: floats(2) }, { a: floats(2), b: floats(1) }],
    ['names that join alike', { a: floats(1), bc: floats(2) }, { ab: floats(1), c: floats(2) }],
    ['inputs that join alike', { a: floats(1), b: floats(2, 3) }, { a: floats(1, 2), b: floats(3) }],
    ['strings that join alike', { x: strings('a', 'bc') }, { x: strings('ab', 'c') }],
    ['strings that look like JSON', { x: strings('a","b') }, { x: strings('a', 'b') }],
    ['broken surrogates', { x: strings('\ud800') }, { x: strings('\ufffd') }],
    ['broken surrogates and their escapes', { x: strings('\ud800') }, { x: strings('\\ud800') }],
    ['no inputs and an empty one', {}, { '': tensorOf('uint8', [0]) }],
  ])('tells %s apart', (_, one, other) => {
    expect(keyOf(one)).not.toBe(keyOf(other));
  });

  it('tells models apart', () => {
    expect(keyOf({ x: floats(1) }, 1)).not.toBe(keyOf({ x: floats(1) }, 11));
  });

  it('takes names that objects have of their own', () => {
    const feeds = (value: number): TensorMap => Object.fromEntries([['__proto__', floats(value)]]);
    expect(keyOf(feeds(1))).not.toBe(keyOf(feeds(2)));
    expect(keyOf(feeds(1))).not.toBe(keyOf({}));
  });

  it('tells inputs apart by their true lengths, whatever became of their shapes', () => {
    const reshaped = (...values: number[]): Tensor => {
      const shape = [values.length];
      const tensor = new Tensor('float32', shape, Float32Array.from(values));
      shape[0] = 9;
      return tensor;
    };
    expect(keyOf({ a: reshaped(1), b: reshaped(2, 3) })).not.toBe(
      keyOf({ a: reshaped(1, 2), b: reshaped(3) }),
    );
  });

  it('is equal exactly where model, names, dtypes, shapes and bytes are', () => {
    const tensor = fc
      .record({
        dtype: fc.constantFrom<DType>('uint8', 'int8', 'float32', 'int64', 'int4', 'string'),
        shape: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 }),
        first: fc.integer({ min: 0, max: 1 }),
      })
      .map(({ dtype, shape, first }) => tensorOf(dtype, shape, first));
    const question = fc.record({
      model: fc.integer({ min: 1, max: 2 }),
      feeds: fc.dictionary(fc.constantFrom('a', 'b', 'ab', '["a'), tensor, { maxKeys: 2 }),
    });
    const plain = ({ model, feeds }: { model: number; feeds: TensorMap }): unknown => ({
      model,
      inputs: Object.fromEntries(
        Object.entries(feeds).map(([name, { dtype, shape, data }]) => [
          name,
          { dtype, shape, data: ArrayBuffer.isView(data) ? new Uint8Array(data.buffer) : data },
        ]),
      ),
    });
    const texts = new Map<string, unknown>();
    fc.assert(
      fc.property(question, (asked) => {
        const key = keyOf(asked.feeds, asked.model);
        const before = texts.get(key);
        if (before !== undefined) expect(plain(asked)).toEqual(before);
        else for (const other of texts.values()) expect(other).not.toEqual(plain(asked));
        texts.set(key, plain(asked));
      }),
      { numRuns: 400 },
    );
    expect(texts.size).toBeGreaterThan(50);
    expect(texts.size).toBeLessThan(400);
  });
});
