import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { DTYPES, storageLength, type DType, type TypedArray } from '../../../src/core/dtype.ts';
import type { Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import {
  cutFeeds,
  hasRows,
  joinFeeds,
  joinOutputs,
  refuseBatching,
  samplesOf,
  splitOutputs,
  unionOfOutputs,
} from '../../../src/schedule/batch.ts';

/** Every dtype whose rows can be told apart in memory. */
const DTYPE_NAMES = (Object.keys(DTYPES) as DType[]).filter((dtype) => {
  const { bits } = DTYPES[dtype];
  return bits === 0 || bits >= 8;
});

/** A tensor whose elements are all different, as far as its dtype can tell. */
function numbered(dtype: DType, shape: readonly number[], from = 0): Tensor {
  const length = storageLength(
    dtype,
    shape.reduce((size, each) => size * each, 1),
  );
  if (dtype === 'string')
    return new Tensor(
      dtype,
      shape,
      Array.from({ length }, (_, at) => `text ${from + at}`),
    );
  const Storage = DTYPES[dtype].storage as unknown as new (length: number) => TypedArray;
  const data = new Storage(length);
  const isBig = data instanceof BigInt64Array || data instanceof BigUint64Array;
  for (let at = 0; at < length; at += 1) data[at] = isBig ? BigInt(from + at) : (from + at) % 251;
  return new Tensor(dtype, shape, data);
}

const plain = (tensors: TensorMap): unknown =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, data }]) => [
      name,
      { dtype, shape, data: [...(data as Iterable<unknown>)] },
    ]),
  );

const spec = (shape: Signature['inputs'][number]['shape'], dtype: DType = 'float32'): Signature => ({
  inputs: [{ name: 'x', dtype, shape }],
  outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 2] }],
});

describe('joining and splitting', () => {
  it.each(DTYPE_NAMES)('gives every caller its own rows back: %s', (dtype) => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 5 }), { minLength: 1, maxLength: 8 }),
        fc.nat({ max: 3 }),
        (sizes, width) => {
          const parts = sizes.map((samples, at) => ({
            feeds: {
              x: numbered(dtype, [samples, width, 2], at * 40),
              z: numbered(dtype, [samples], at * 7),
            },
            samples,
            outputs: undefined,
          }));
          const together = joinFeeds(parts);
          const total = sizes.reduce((sum, samples) => sum + samples, 0);
          expect(samplesOf(together)).toBe(total);
          expect(together['x']?.shape).toEqual([total, width, 2]);
          if (total === 0) return;
          expect(splitOutputs(together, parts).map(plain)).toEqual(parts.map(({ feeds }) => plain(feeds)));
        },
      ),
      { numRuns: 40 },
    );
  });

  it.each(DTYPE_NAMES)('puts what was cut together again: %s', (dtype) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 12 }),
        fc.nat({ max: 3 }),
        (samples, rows, width) => {
          const feeds = { x: numbered(dtype, [samples, width]) };
          const parts = cutFeeds(feeds, samples, rows);
          expect(parts.length).toBe(Math.ceil(samples / rows));
          expect(parts.every((part) => (samplesOf(part) as number) <= rows)).toBe(true);
          expect(plain(joinOutputs(parts))).toEqual(plain(feeds));
        },
      ),
      { numRuns: 40 },
    );
  });

  it('shares no memory between callers, nor with the batch', () => {
    const batch = { y: numbered('float32', [4, 3]) };
    const parts = [1, 3].map((samples) => ({ feeds: {}, samples, outputs: undefined }));
    const [first, second] = splitOutputs(batch, parts) as [TensorMap, TensorMap];
    const buffers = [batch, first, second].map(({ y }) => (y?.data as Float32Array).buffer);
    expect(new Set(buffers).size).toBe(3);
    expect(buffers[1]?.byteLength).toBe(12);
    (first['y']?.data as Float32Array).fill(99);
    expect((second['y']?.data as Float32Array)[0]).toBe(3);
  });

  it('copies feeds into a batch, so that handing it over takes nothing from the callers', () => {
    const feeds = { x: numbered('float32', [1, 3]) };
    const joined = joinFeeds([{ feeds }, { feeds }]);
    expect((joined['x']?.data as Float32Array).buffer).not.toBe((feeds.x.data as Float32Array).buffer);
  });

  it('cuts without copying', () => {
    const feeds = { x: numbered('float32', [5, 2]) };
    for (const part of cutFeeds(feeds, 5, 2)) {
      expect((part['x']?.data as Float32Array).buffer).toBe((feeds.x.data as Float32Array).buffer);
    }
  });

  it('gives every caller the outputs that it asked for, and no others', () => {
    const parts = [['a'], ['b', 'a'], undefined].map((outputs) => ({ feeds: {}, samples: 1, outputs }));
    const outputs = { a: numbered('float32', [3, 1]), b: numbered('int64', [3, 1]) };
    expect(splitOutputs(outputs, parts).map((own) => Object.keys(own))).toEqual([
      ['a'],
      ['b', 'a'],
      ['a', 'b'],
    ]);
  });

  it('computes all that somebody asked for', () => {
    const part = (
      outputs?: string[],
    ): { feeds: TensorMap; samples: number; outputs: string[] | undefined } => ({
      feeds: {},
      samples: 1,
      outputs,
    });
    expect(unionOfOutputs([part(['a']), part(['b', 'a'])])).toEqual(['a', 'b']);
    expect(unionOfOutputs([part(['a']), part()])).toBeUndefined();
  });

  it.each([{ shape: [1, 2] }, { shape: [5, 2] }, { shape: [] }, { shape: [3, 4] }])(
    'refuses an output of shape $shape for a batch of 4',
    ({ shape }) => {
      const parts = [{ feeds: {}, samples: 4, outputs: undefined }];
      const outputs = { right: numbered('float32', [4, 1]), wrong: numbered('float32', shape) };
      expect(() => splitOutputs(outputs, parts)).toThrow(
        expect.objectContaining({
          code: 'ERR_INLAY_RUN_FAILED',
          details: { output: 'wrong', reason: 'batch-axis' },
          message: `Output "wrong" of a batch of 4 has shape [${shape.join(', ')}]: its first axis is no batch axis.`,
        }),
      );
      expect(hasRows(outputs, 4)).toBe(false);
    },
  );
});

describe('number of samples', () => {
  it('is the length of the axis that all feeds share', () => {
    expect(samplesOf({ a: numbered('float32', [3, 2]), b: numbered('int64', [3]) })).toBe(3);
    expect(samplesOf({ a: numbered('float32', [0, 2]) })).toBe(0);
  });

  it('is unknown where feeds differ, are scalars, or are none', () => {
    expect(samplesOf({ a: numbered('float32', [3]), b: numbered('float32', [2]) })).toBeUndefined();
    expect(samplesOf({ a: numbered('float32', []) })).toBeUndefined();
    expect(samplesOf({ a: numbered('float32', [3]), b: numbered('float32', []) })).toBeUndefined();
    expect(samplesOf({})).toBeUndefined();
  });
});

describe('batching by signature', () => {
  it('is possible where the first axis is free everywhere', () => {
    expect(refuseBatching(spec(['batch', 3]))).toBeUndefined();
    expect(refuseBatching(spec([null, 3]))).toBeUndefined();
    expect(refuseBatching(spec(['batch'], 'string'))).toBeUndefined();
  });

  it.each([
    { signature: spec(null), reason: 'the rank of input "x" is unknown' },
    { signature: spec([]), reason: 'input "x" is a scalar' },
    { signature: spec([1, 3]), reason: 'the first axis of input "x" is fixed at 1' },
    { signature: spec(['batch', 3], 'int4'), reason: 'input "x" is of packed int4' },
    { signature: { ...spec(['batch']), inputs: [] }, reason: 'it has no inputs' },
    {
      signature: {
        ...spec(['batch']),
        outputs: [{ name: 'y', dtype: 'float32', shape: [] }],
      } satisfies Signature,
      reason: 'output "y" is a scalar',
    },
    {
      signature: {
        ...spec(['batch']),
        outputs: [{ name: 'y', dtype: 'float32', shape: [1, 2] }],
      } satisfies Signature,
      reason: 'the first axis of output "y" is fixed at 1',
    },
  ])('is refused with a reason: $reason', ({ signature, reason }) => {
    expect(refuseBatching(signature)).toBe(reason);
  });
});
