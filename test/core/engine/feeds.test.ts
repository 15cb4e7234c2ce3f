import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isInlayError } from '../../../src/core/errors.ts';
import type { Dimension, Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createFeedBinder, type Feed } from '../../../src/engine/feeds.ts';

function signature(
  inputs: Record<string, readonly Dimension[] | null>,
  dtype: 'float32' | 'int64' | 'uint8' | 'bool' | 'string' = 'float32',
): Signature {
  return { inputs: Object.entries(inputs).map(([name, shape]) => ({ name, dtype, shape })), outputs: [] };
}

const shapeOf = (bound: Readonly<Record<string, Tensor>>, name: string): readonly number[] | undefined =>
  bound[name]?.shape;

const refused = (code: string, text?: RegExp): Error =>
  expect.objectContaining({ code, ...(text && { message: expect.stringMatching(text) as string }) }) as Error;

describe('createFeedBinder', () => {
  const image = createFeedBinder(signature({ image: ['batch', 1, 28, 28] }));

  it('takes a flat typed array and reads the open size off its length', () => {
    const pixels = new Float32Array(2 * 784);
    const bound = image({ image: pixels });
    expect(shapeOf(bound, 'image')).toEqual([2, 1, 28, 28]);
    expect(bound['image']?.data).toBe(pixels);
  });

  it('takes a flat array of numbers like a typed array', () => {
    expect(shapeOf(image({ image: Array.from({ length: 784 }, () => 0.5) }), 'image')).toEqual([
      1, 1, 28, 28,
    ]);
  });

  it('takes a tensor as it is', () => {
    const tensor = new Tensor('float32', [3, 1, 28, 28], new Float32Array(3 * 784));
    expect(image({ image: tensor })['image']).toBe(tensor);
  });

  it('takes a tensor of another copy of the package', () => {
    const { dtype, shape, data } = new Tensor('float32', [1, 1, 28, 28], new Float32Array(784));
    expect(shapeOf(image({ image: { dtype, shape, data } as Tensor }), 'image')).toEqual([1, 1, 28, 28]);
  });

  it('takes a view of pooled memory without copying', () => {
    const pool = new ArrayBuffer(8000);
    const view = new Float32Array(pool, 64, 784);
    expect(image({ image: view })['image']?.data).toBe(view);
  });

  it('takes clamped bytes for uint8, as a canvas gives them', () => {
    const bind = createFeedBinder(signature({ rgba: ['height', 2, 4] }, 'uint8'));
    expect(shapeOf(bind({ rgba: new Uint8ClampedArray(16) }), 'rgba')).toEqual([2, 2, 4]);
  });

  it('makes a scalar fit any shape of one element', () => {
    const bind = createFeedBinder(signature({ rate: [], one: [1], any: ['n', 1] }, 'int64'));
    const bound = bind({ rate: 16000, one: 2n, any: 3 });
    expect([shapeOf(bound, 'rate'), shapeOf(bound, 'one'), shapeOf(bound, 'any')]).toEqual([[], [1], [1, 1]]);
    expect(bound['rate']?.data).toEqual(new BigInt64Array([16000n]));
  });

  it('settles flat inputs one after the other when one names what the next one lacks', () => {
    const bind = createFeedBinder(signature({ samples: ['batch', 'time'], state: [2, 'batch', 4] }));
    const bound = bind({ samples: new Float32Array(3 * 512), state: new Float32Array(24) });
    expect(shapeOf(bound, 'samples')).toEqual([3, 512]);
    expect(shapeOf(bound, 'state')).toEqual([2, 3, 4]);
  });

  it('takes the root of the length when one open size stands on several axes', () => {
    const bind = createFeedBinder(signature({ square: ['n', 'n', 2] }));
    expect(shapeOf(bind({ square: new Float32Array(18) }), 'square')).toEqual([3, 3, 2]);
    expect(() => bind({ square: new Float32Array(16) })).toThrow(refused('ERR_INLAY_FEED_SHAPE'));
  });

  it('asks for a tensor when a flat array leaves the shape open', () => {
    const bind = createFeedBinder(signature({ x: ['a', 'b'] }));
    expect(() => bind({ x: new Float32Array(6) })).toThrow(
      refused('ERR_INLAY_FEED_SHAPE', /more than one.*Tensor/),
    );
    const bindNull = createFeedBinder(signature({ x: [null, null] }));
    expect(() => bindNull({ x: new Float32Array(6) })).toThrow(refused('ERR_INLAY_FEED_SHAPE'));
  });

  it('takes any shape where the model does not say its rank', () => {
    const bind = createFeedBinder(signature({ x: null }));
    expect(shapeOf(bind({ x: new Float32Array(6) }), 'x')).toEqual([6]);
    expect(shapeOf(bind({ x: [[1, 2]] }), 'x')).toEqual([1, 2]);
  });

  it.each<[string, Record<string, unknown>, string, RegExp]>([
    ['a missing input', {}, 'ERR_INLAY_FEED_MISSING', /"image" is missing.*\[batch, 1, 28, 28\]/],
    ['undefined', { image: undefined }, 'ERR_INLAY_FEED_MISSING', /"image"/],
    [
      'an unknown input',
      { image: new Float32Array(784), imgae: 1 },
      'ERR_INLAY_FEED_UNKNOWN',
      /no input "imgae"/,
    ],
    [
      'a wrong dtype',
      { image: new Float64Array(784) },
      'ERR_INLAY_FEED_DTYPE',
      /a Float64Array.*a Float32Array/,
    ],
    [
      'an int8 tensor',
      { image: new Tensor('int8', [1, 1, 28, 28], new Int8Array(784)) },
      'ERR_INLAY_FEED_DTYPE',
      /int8 tensor/,
    ],
    ['a DataView', { image: new DataView(new ArrayBuffer(8)) }, 'ERR_INLAY_FEED_DTYPE', /DataView/],
    ['a plain object', { image: { width: 28 } }, 'ERR_INLAY_FEED_DTYPE', /Object/],
    [
      'a wrong length',
      { image: new Float32Array(783) },
      'ERR_INLAY_FEED_SHAPE',
      /783 elements.*multiple of 784/,
    ],
    [
      'a wrong rank',
      { image: new Tensor('float32', [784], new Float32Array(784)) },
      'ERR_INLAY_FEED_SHAPE',
      /rank 1 is not 4/,
    ],
    [
      'a wrong size',
      { image: new Tensor('float32', [1, 1, 14, 56], new Float32Array(784)) },
      'ERR_INLAY_FEED_SHAPE',
      /axis 2 is 14, not 28/,
    ],
    ['text', { image: 'cat.png' }, 'ERR_INLAY_FEED_VALUE', /not a number/],
    ['ragged arrays', { image: [[1, 2], [3]] }, 'ERR_INLAY_FEED_SHAPE', /image.*rectangular/],
  ])('refuses %s by name', (_, feeds, code, message) => {
    expect(() => image(feeds as Record<string, Feed>)).toThrow(refused(code, message));
  });

  it('refuses sizes that disagree about one symbolic dimension, naming both inputs', () => {
    const bind = createFeedBinder(signature({ a: ['n', 2], b: ['n'] }));
    const a = new Tensor('float32', [3, 2], new Float32Array(6));
    const b = new Tensor('float32', [4], new Float32Array(4));
    expect(() => bind({ a, b })).toThrow(refused('ERR_INLAY_FEED_SHAPE', /"n", is 4, but 3 in input "a"/));
    const same = createFeedBinder(signature({ m: ['n', 'n'] }));
    const m = new Tensor('float32', [2, 3], new Float32Array(6));
    expect(() => same({ m })).toThrow(refused('ERR_INLAY_FEED_SHAPE', /earlier axis/));
  });

  it('refuses arrays and tensors whose buffer was transferred away', () => {
    for (const make of [
      (data: Float32Array): Feed => data,
      (data: Float32Array): Feed => new Tensor('float32', [1, 1, 28, 28], data),
    ]) {
      const data = new Float32Array(784);
      const feed = make(data);
      structuredClone(data.buffer, { transfer: [data.buffer] });
      expect(() => image({ image: feed })).toThrow(refused('ERR_INLAY_FEED_DETACHED', /transferred/));
    }
  });

  it('takes an empty batch', () => {
    const empty = new Tensor('float32', [0, 1, 28, 28], new Float32Array(0));
    expect(image({ image: empty })['image']).toBe(empty);
    expect(shapeOf(image({ image: new Float32Array(0) }), 'image')).toEqual([0, 1, 28, 28]);
  });

  it('refuses feeds that are no object', () => {
    // @ts-expect-error: feeds are a record
    expect(() => image(null)).toThrow(TypeError);
  });

  const dimension = fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constantFrom('a', 'b'), fc.constant(null));

  it('accepts every tensor of a shape that the signature allows, and no other', () => {
    fc.assert(
      fc.property(
        fc.array(dimension, { maxLength: 4 }),
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
        (spec, shape) => {
          const bind = createFeedBinder(signature({ x: spec }));
          const size = shape.reduce((all, length) => all * length, 1);
          const tensor = new Tensor('float32', shape, new Float32Array(size));
          const named = new Map<string, number>();
          const allowed =
            spec.length === shape.length &&
            spec.every((want, axis) => {
              const got = shape[axis] as number;
              if (want === null) return true;
              if (typeof want === 'number') return want === got;
              const earlier = named.get(want);
              named.set(want, got);
              return earlier === undefined || earlier === got;
            });
          if (allowed) expect(bind({ x: tensor })['x']).toBe(tensor);
          else expect(() => bind({ x: tensor })).toThrow(refused('ERR_INLAY_FEED_SHAPE'));
        },
      ),
    );
  });

  it('binds flat data to a shape that fits, or refuses with a typed error', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('x', 'y', 'z'), fc.array(dimension, { maxLength: 3 })),
        fc.infiniteStream(fc.nat(40)),
        (inputs, lengths) => {
          const bind = createFeedBinder(signature(inputs));
          const feeds: Record<string, Feed> = {};
          for (const name of Object.keys(inputs))
            feeds[name] = new Float32Array(lengths.next().value as number);
          try {
            const bound = bind(feeds);
            const named = new Map<string, number>();
            for (const [name, spec] of Object.entries(inputs)) {
              const shape = shapeOf(bound, name) as readonly number[];
              expect(shape).toHaveLength(spec.length);
              spec.forEach((want, axis) => {
                if (typeof want === 'number') expect(shape[axis]).toBe(want);
                if (typeof want === 'string') {
                  expect(named.get(want) ?? shape[axis]).toBe(shape[axis]);
                  named.set(want, shape[axis] as number);
                }
              });
            }
          } catch (error) {
            expect(isInlayError(error), String(error)).toBe(true);
          }
        },
      ),
    );
  });

  it('answers anything at all with tensors or a typed error', () => {
    fc.assert(
      fc.property(fc.anything({ withTypedArray: true, withBigInt: true, withSparseArray: true }), (feed) => {
        try {
          image({ image: feed as Feed });
        } catch (error) {
          expect(isInlayError(error), String(error)).toBe(true);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
