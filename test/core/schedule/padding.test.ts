import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { DTYPES, type DType } from '../../../src/core/dtype.ts';
import { BackendError, ScheduleError } from '../../../src/core/errors.ts';
import type { Dimension, Signature } from '../../../src/core/signature.ts';
import { sizeOf, Tensor, tensorFrom, writeElements, type Scalar } from '../../../src/core/tensor.ts';
import {
  createPadding,
  createProvenPadding,
  provePadding,
  type PaddingOptions,
} from '../../../src/schedule/padding.ts';

const isPaddable = (dtype: DType): boolean => {
  const { kind, bits } = DTYPES[dtype];
  return bits === 0 || (kind !== 'complex' && bits >= (kind === 'float' ? 16 : 8));
};
const DTYPE_NAMES = (Object.keys(DTYPES) as DType[]).filter(isPaddable);

/** A value of each dtype that is no zero, and what it is in memory. */
const FILLS: Readonly<Record<string, readonly [Scalar, unknown]>> = {
  string: ['[PAD]', '[PAD]'],
  int64: [7, 7n],
  uint64: [2n ** 64n - 1n, 2n ** 64n - 1n],
  bool: [true, 1],
  float16: [1.5, 0x3e00],
  bfloat16: [1.5, 0x3fc0],
  float32: [-1.5, -1.5],
  float64: [0.1, 0.1],
};

/** A tensor whose elements can be told apart, as far as its dtype can. */
function numbered(dtype: DType, shape: readonly number[]): Tensor {
  const { kind } = DTYPES[dtype];
  const elements = Array.from({ length: sizeOf(shape) }, (_, at) =>
    kind === 'string' ? `text ${at}` : kind === 'bool' ? at % 2 : (at % 120) + 1,
  );
  return new Tensor(dtype, shape, writeElements(dtype, elements));
}

const plain = (tensors: TensorMap): unknown =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, data }]) => [
      name,
      { dtype, shape: [...shape], data: Array.from(data as Iterable<unknown>) },
    ]),
  );

/** A model that gives its inputs back, `x` as `y`. */
const echo = (shape: readonly Dimension[], dtype: DType = 'float32'): Signature => ({
  inputs: [
    { name: 'x', dtype, shape },
    { name: 'mask', dtype: 'int64', shape: ['batch', 'length'] },
    { name: 'scale', dtype: 'float32', shape: ['batch', 2] },
  ],
  outputs: [
    { name: 'x', dtype, shape },
    { name: 'scale', dtype: 'float32', shape: ['batch', 2] },
  ],
});

const OPTIONS: PaddingOptions = {
  dimension: 'length',
  values: { x: 0, mask: 0 },
  mask: 'mask',
  sizes: [4, 8],
};

const feedsOf = (shape: readonly Dimension[], dtype: DType, batch: number, length: number): TensorMap => {
  const sizes = shape.map((each) =>
    each === 'batch' ? batch : each === 'length' ? length : (each as number),
  );
  return {
    x: numbered(dtype, sizes),
    mask: new Tensor('int64', [batch, length], new BigInt64Array(batch * length).fill(1n)),
    scale: numbered('float32', [batch, 2]),
  };
};

const SHAPES: readonly (readonly Dimension[])[] = [
  ['batch', 'length'],
  ['batch', 'length', 3],
  ['batch', 2, 'length'],
  ['batch', 'length', 'length'],
  ['batch', 2, 'length', 'length', 2],
  ['batch', 'length', 3, 'length'],
];

describe('padding', () => {
  it.each(DTYPE_NAMES)('is undone by strip, and fills with the value: %s', (dtype) => {
    const [value, stored] = FILLS[dtype] ?? [5, 5];
    fc.assert(
      fc.property(
        fc.constantFrom(...SHAPES),
        fc.nat({ max: 3 }),
        fc.nat({ max: 9 }),
        (shape, batch, length) => {
          const padding = createPadding(echo(shape, dtype), { ...OPTIONS, values: { x: value, mask: 0n } });
          const feeds = feedsOf(shape, dtype, batch, length);
          const before = plain(feeds);
          const padded = padding.pad(feeds);
          const size = padding.sizeFor(feeds);
          const fit = [4, 8].find((each) => each >= length);
          expect(size).toBe(length === 0 || length === fit ? undefined : fit);
          expect(padded.ratio).toBe(size === undefined ? 0 : 1 - length / size);
          const x = padded.feeds['x'] as Tensor;
          expect(x.shape).toEqual(
            shape.map((each, axis) => (each === 'length' ? (size ?? length) : feeds['x']?.shape[axis])),
          );
          const added = Array.from(x.data as Iterable<unknown>).filter((each) => each === stored).length;
          const own = Array.from(feeds['x']?.data as Iterable<unknown>).filter(
            (each) => each === stored,
          ).length;
          expect(added - own).toBe(x.size - (feeds['x'] as Tensor).size);
          expect(padded.feeds['mask']?.data.length).toBe(batch * (size ?? length));
          const { x: back, scale } = padded.strip({ x, scale: padded.feeds['scale'] as Tensor });
          expect(plain({ x: back as Tensor, scale: scale as Tensor })).toEqual(
            plain({ x: feeds['x'] as Tensor, scale: feeds['scale'] as Tensor }),
          );
          expect(plain(feeds)).toEqual(before);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('puts every element where its index says', () => {
    const padding = createPadding(echo(['batch', 'length', 'length'], 'int32'), {
      ...OPTIONS,
      values: { x: -1, mask: 0 },
    });
    const { feeds } = padding.pad({
      x: tensorFrom('int32', [
        [
          [1, 2, 3],
          [4, 5, 6],
          [7, 8, 9],
        ],
      ]),
      mask: tensorFrom('int64', [[1, 1, 0]]),
      scale: tensorFrom('float32', [[1, 2]]),
    });
    expect(feeds['x']?.toArray()).toEqual([
      [
        [1, 2, 3, -1],
        [4, 5, 6, -1],
        [7, 8, 9, -1],
        [-1, -1, -1, -1],
      ],
    ]);
    expect(feeds['mask']?.toArray()).toEqual([[1n, 1n, 0n, 0n]]);
  });

  it('passes feeds on that have a size already, are longer than all, or are empty', () => {
    const shape = ['batch', 'length'];
    const padding = createPadding(echo(shape), OPTIONS);
    for (const length of [4, 8, 9, 0]) {
      const feeds = feedsOf(shape, 'float32', 2, length);
      const padded = padding.pad(feeds);
      expect(padded.feeds).toBe(feeds);
      expect(padded.strip(feeds)).toBe(feeds);
      expect(padded.ratio).toBe(0);
    }
  });

  it('shares no memory of what it lengthens and cuts, and passes the rest on', () => {
    const padding = createPadding(echo(['batch', 'length']), OPTIONS);
    const feeds = feedsOf(['batch', 'length'], 'float32', 1, 3);
    const padded = padding.pad(feeds);
    expect(padded.feeds['x']?.data).not.toBe(feeds['x']?.data);
    expect((padded.feeds['x']?.data as Float32Array).buffer).not.toBe(
      (feeds['x']?.data as Float32Array).buffer,
    );
    expect(padded.feeds['scale']).toBe(feeds['scale']);
    const outputs = { x: numbered('float32', [1, 4]), scale: numbered('float32', [1, 2]) };
    const stripped = padded.strip(outputs);
    expect((stripped['x']?.data as Float32Array).buffer).not.toBe((outputs.x.data as Float32Array).buffer);
    expect(stripped['scale']).toBe(outputs.scale);
    expect(outputs.x.shape).toEqual([1, 4]);
  });

  it('cuts only outputs that were asked for, along any axis', () => {
    const signature: Signature = {
      ...echo(['batch', 'length']),
      outputs: [
        { name: 'first', dtype: 'string', shape: ['length', 2] },
        { name: 'other', dtype: 'complex64', shape: [null, 'length'] },
        { name: 'unknown', dtype: 'float32', shape: null },
      ],
    };
    const { strip } = createPadding(signature, OPTIONS).pad(feedsOf(['batch', 'length'], 'float32', 1, 3));
    const unknown = numbered('float32', [4]);
    expect(plain(strip({ first: numbered('string', [4, 2]), unknown }))).toEqual(
      plain({ first: numbered('string', [3, 2]), unknown }),
    );
    expect(
      strip({
        other: new Tensor(
          'complex64',
          [2, 4],
          Float32Array.from({ length: 16 }, (_, at) => at + 1),
        ),
      })['other']?.data,
    ).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14));
  });

  it('refuses to cut an output that is not of the padded length', () => {
    const { strip } = createPadding(echo(['batch', 'length']), OPTIONS).pad(
      feedsOf(['batch', 'length'], 'float32', 1, 3),
    );
    expect(() => strip({ x: numbered('float32', [1, 3]) })).toThrow(
      expect.objectContaining({
        code: 'ERR_INLAY_RUN_FAILED',
        details: { output: 'x', reason: 'padded-axis' },
      }),
    );
  });

  it('pads up to multiples of 8 by default, of an eighth of the next power of two from 64 on', () => {
    const padding = createPadding(SUM, ONES);
    const sizeFor = (length: number): number => padding.sizeFor(ramp(length)) ?? length;
    expect([1, 8, 9, 20, 57, 64, 65, 81, 128, 129, 1000].map(sizeFor)).toEqual([
      8, 8, 16, 24, 64, 64, 80, 96, 128, 160, 1024,
    ]);
    const lengths = Array.from({ length: 1024 }, (_, at) => at + 1);
    expect(new Set(lengths.map(sizeFor)).size).toBe(24);
    for (const length of lengths.slice(32)) expect(1 - length / sizeFor(length)).toBeLessThanOrEqual(0.2);
  });

  it.each<[string, Partial<PaddingOptions>, string]>([
    ['a dimension that no input has', { dimension: 'width' }, 'dimension "width"'],
    ['the first axis', { dimension: 'batch' }, 'first axis'],
    ['an input without a value', { values: { mask: 0 } }, 'lacks input "x"'],
    ['a value for an input without the dimension', { values: { x: 0, mask: 0, scale: 0 } }, '"scale"'],
    ['a value for no input', { values: { x: 0, mask: 0, z: 0 } }, '"z"'],
    ['a mask without the dimension', { mask: 'scale' }, 'got "scale"'],
    ['no sizes', { sizes: [] }, 'ascending'],
    ['sizes out of order', { sizes: [8, 4] }, 'ascending'],
    ['a size twice', { sizes: [4, 4] }, 'ascending'],
    ['a size of zero', { sizes: [0, 4] }, 'ascending'],
    ['half a size', { sizes: [4.5] }, 'ascending'],
  ])('refuses %s', (_case, change, words) => {
    const create = (): unknown => createPadding(echo(['batch', 'length']), { ...OPTIONS, ...change });
    expect(create).toThrow(RangeError);
    expect(create).toThrow(words);
  });

  it.each<[DType, Scalar]>([
    ['float32', 1n],
    ['int64', 0.5],
    ['uint8', 256],
    ['bool', 2],
    ['string', 0],
    ['int32', '0'],
  ])('refuses a value that is no %s: %s', (dtype, value) => {
    expect(() =>
      createPadding(echo(['batch', 'length'], dtype), { ...OPTIONS, values: { x: value, mask: 0 } }),
    ).toThrow(TypeError);
  });

  it.each((Object.keys(DTYPES) as DType[]).filter((dtype) => !isPaddable(dtype)))(
    'refuses inputs of %s',
    (dtype) => {
      expect(() => createPadding(echo(['batch', 'length'], dtype), OPTIONS)).toThrow(RangeError);
    },
  );

  it('refuses outputs that are packed', () => {
    const signature: Signature = {
      ...echo(['batch', 'length']),
      outputs: [{ name: 'y', dtype: 'uint4', shape: ['batch', 'length'] }],
    };
    expect(() => createPadding(signature, OPTIONS)).toThrow(RangeError);
  });
});

const SUM: Signature = {
  inputs: [
    { name: 'x', dtype: 'float32', shape: ['batch', 'length'] },
    { name: 'mask', dtype: 'float32', shape: ['batch', 'length'] },
  ],
  outputs: [{ name: 'y', dtype: 'float32', shape: ['batch'] }],
};
const ONES: PaddingOptions = { dimension: 'length', values: { x: 1, mask: 0 }, mask: 'mask' };
const ramp = (length: number): TensorMap => ({
  x: new Tensor(
    'float32',
    [1, length],
    Float32Array.from({ length }, (_, at) => at + 1),
  ),
  mask: new Tensor('float32', [1, length], new Float32Array(length).fill(1)),
});
const sum = async ({ x, mask }: TensorMap): Promise<TensorMap> => {
  const [data, weights] = [x?.data as Float32Array, mask?.data as Float32Array];
  return {
    y: new Tensor(
      'float32',
      [1],
      Float32Array.of(data.reduce((all, each, at) => all + each * (weights[at] as number), 0)),
    ),
  };
};
/** A sum that does not heed the mask. */
const blindSum = (feeds: TensorMap): Promise<TensorMap> =>
  sum({
    ...feeds,
    mask: new Tensor(
      'float32',
      [1, feeds['x']?.size as number],
      new Float32Array(feeds['x']?.size as number).fill(1),
    ),
  });
const lengthOf = ({ x }: TensorMap): number => x?.shape[1] as number;
const runFailed = new BackendError('ERR_INLAY_RUN_FAILED', 'It is too long.');

describe('provePadding', () => {
  const padding = createPadding(SUM, ONES);

  it('has nothing to say against a model that heeds its mask', async () => {
    expect(await provePadding({ run: sum }, padding, ramp(3))).toBeUndefined();
  });

  it('tells what differs in a model that does not', async () => {
    const fault = await provePadding({ run: blindSum }, padding, ramp(3));
    expect(fault).toEqual({
      reason: 'padded and unpadded results differ: output "y" differs at element 0 by 5.0',
      isOfSize: false,
    });
  });

  it('heeds the tolerance', async () => {
    expect(
      await provePadding({ run: blindSum }, padding, ramp(3), { absolute: 1, relative: 0 }),
    ).toBeUndefined();
  });

  it.each([runFailed, new BackendError('ERR_INLAY_WORKER_LOST', 'It is too long.')])(
    'lays it upon the size when only the padded run fails: $code',
    async (error) => {
      const run = async (feeds: TensorMap): Promise<TensorMap> => {
        if (lengthOf(feeds) > 5) throw error;
        return sum(feeds);
      };
      expect(await provePadding({ run }, padding, ramp(3))).toEqual({
        reason: 'it fails when padded to 8: It is too long.',
        isOfSize: true,
      });
    },
  );

  it('throws what has nothing to do with padding', async () => {
    const closed = new ScheduleError('ERR_INLAY_OVERLOADED', 'Too much waits.');
    const failing =
      (after: number, error: Error) =>
      async (feeds: TensorMap): Promise<TensorMap> => {
        if (lengthOf(feeds) > after) throw error;
        return sum(feeds);
      };
    await expect(provePadding({ run: failing(0, runFailed) }, padding, ramp(3))).rejects.toBe(runFailed);
    await expect(provePadding({ run: failing(3, closed) }, padding, ramp(3))).rejects.toBe(closed);
  });

  it('wants feeds that are padded', async () => {
    await expect(provePadding({ run: sum }, padding, ramp(8))).rejects.toThrow(RangeError);
  });
});

describe('proven padding', () => {
  const padding = createPadding(SUM, ONES);

  it('pads to a size from the moment at which a call has proven it', async () => {
    const proven = createProvenPadding(padding, sum);
    const feeds = ramp(3);
    expect(proven.pad(feeds).feeds).toBe(feeds);
    expect(proven.pad(feeds).feeds).toBe(feeds);
    expect(proven.info()).toEqual({ sizes: [] });
    await proven.settled();
    expect(proven.info()).toEqual({ sizes: [8] });
    expect(lengthOf(proven.pad(ramp(5)).feeds)).toBe(8);
    expect(proven.pad(ramp(5)).ratio).toBe(1 - 5 / 8);
    expect(lengthOf(proven.pad(ramp(9)).feeds)).toBe(9);
    await proven.settled();
    expect(proven.info()).toEqual({ sizes: [8, 16] });
  });

  it('proves each size once, with a copy that the caller cannot change', async () => {
    const seen: number[][] = [];
    const proven = createProvenPadding(padding, async (feeds) => {
      await Promise.resolve();
      seen.push([...(feeds['x']?.data as Float32Array)]);
      return sum(feeds);
    });
    const feeds = ramp(2);
    for (let call = 0; call < 3; call += 1) proven.pad(feeds);
    (feeds['x']?.data as Float32Array).fill(100);
    (feeds['mask']?.data as Float32Array).fill(0);
    await proven.settled();
    expect(seen).toEqual([
      [1, 2],
      [1, 2, 1, 1, 1, 1, 1, 1],
    ]);
  });

  it('pads no more once an answer differs, at any size', async () => {
    let run = sum;
    const proven = createProvenPadding(padding, (feeds) => run(feeds));
    proven.pad(ramp(3));
    await proven.settled();
    run = blindSum;
    proven.pad(ramp(9));
    await proven.settled();
    expect(proven.info()).toEqual({ sizes: [], refusal: expect.stringContaining('results differ') });
    const feeds = ramp(3);
    expect(proven.pad(feeds).feeds).toBe(feeds);
  });

  it('takes no proof that ends after padding was refused', async () => {
    let finish = (): void => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const proven = createProvenPadding(padding, async (feeds) => {
      if (lengthOf(feeds) > 8) await gate;
      return lengthOf(feeds) > 8 ? sum(feeds) : blindSum(feeds);
    });
    proven.pad(ramp(9));
    proven.pad(ramp(3));
    while (proven.info().refusal === undefined) await Promise.resolve();
    finish();
    await proven.settled();
    expect(proven.info()).toEqual({ sizes: [], refusal: expect.stringContaining('results differ') });
  });

  it('keeps shorter sizes where a model has a longest input', async () => {
    let runs = 0;
    const proven = createProvenPadding(padding, async (feeds) => {
      runs += 1;
      if (lengthOf(feeds) > 12) throw runFailed;
      return sum(feeds);
    });
    for (const length of [20, 3, 10]) {
      proven.pad(ramp(length));
      await proven.settled();
    }
    expect(proven.info()).toEqual({ sizes: [8], refusal: 'it fails when padded to 16: It is too long.' });
    const before = runs;
    for (const length of [10, 40]) expect(lengthOf(proven.pad(ramp(length)).feeds)).toBe(length);
    await proven.settled();
    expect(runs).toBe(before);
    expect(lengthOf(proven.pad(ramp(7)).feeds)).toBe(8);
  });

  it('tries again after feeds that the model refuses, and after what is no fault of it', async () => {
    const errors = [
      runFailed,
      new ScheduleError('ERR_INLAY_OVERLOADED', 'Too much waits.'),
      new Error('Worker gone.'),
    ];
    const proven = createProvenPadding(padding, async (feeds) => {
      const error = errors.shift();
      if (error !== undefined) throw error;
      return sum(feeds);
    });
    for (let call = 0; call < 3; call += 1) {
      proven.pad(ramp(3));
      await proven.settled();
      expect(proven.info()).toEqual({ sizes: [] });
    }
    proven.pad(ramp(3));
    await proven.settled();
    expect(proven.info()).toEqual({ sizes: [8] });
  });
});
