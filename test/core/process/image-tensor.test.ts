import { describe, expect, it, vi } from 'vitest';
import { fromFloat16Bits } from '../../../src/core/float.ts';
import { fitImage, imagesToTensor, imageToTensor, type PixelImage } from '../../../src/process/index.ts';

const rgba: PixelImage = { data: new Uint8ClampedArray([10, 20, 30, 1, 40, 50, 60, 2]), width: 2, height: 1 };
const raw = { scale: 1 };

describe('an image', () => {
  it('becomes planes or pixels, without alpha', () => {
    const planes = imageToTensor(rgba, raw);
    expect(planes).toMatchObject({ dtype: 'float32', shape: [1, 3, 1, 2] });
    expect([...planes.data]).toEqual([10, 40, 20, 50, 30, 60]);
    const pixels = imageToTensor(rgba, { ...raw, layout: 'NHWC' });
    expect(pixels.shape).toEqual([1, 1, 2, 3]);
    expect([...pixels.data]).toEqual([10, 20, 30, 40, 50, 60]);
  });

  it('can have its channels turned round, or mixed to grey', () => {
    expect([...imageToTensor(rgba, { ...raw, channels: 'BGR', layout: 'NHWC' }).data]).toEqual([
      30, 20, 10, 60, 50, 40,
    ]);
    const grey = imageToTensor(rgba, { ...raw, channels: 'gray' });
    expect(grey.shape).toEqual([1, 1, 1, 2]);
    expect(grey.data[0]).toBeCloseTo(0.299 * 10 + 0.587 * 20 + 0.114 * 30, 5);
  });

  it('of three channels or of one is taken as it is', () => {
    const rgb = { data: new Uint8Array([1, 2, 3, 4, 5, 6]), width: 1, height: 2 };
    expect([...imageToTensor(rgb, raw).data]).toEqual([1, 4, 2, 5, 3, 6]);
    const grey = { data: new Uint8Array([7, 8]), width: 2, height: 1 };
    expect([...imageToTensor(grey, { ...raw, channels: 'gray' }).data]).toEqual([7, 8]);
    expect([...imageToTensor(grey, raw).data]).toEqual([7, 8, 7, 8, 7, 8]);
  });

  it('is scaled, shifted by the mean and divided by the deviation, per channel of the tensor', () => {
    expect(imageToTensor(rgba).data[0]).toBe(Math.fround(10 / 255));
    const mean = [0.1, 0.2, 0.3];
    const std = [1, 2, 4];
    const { data } = imageToTensor(rgba, { mean, std, channels: 'BGR' });
    expect(data[0]).toBe(Math.fround(30 * (1 / 255) - 0.1));
    expect(data[5]).toBe(Math.fround((40 * (1 / 255) - 0.3) / 4));
  });

  it('becomes uint8 with its own values, rounded and held within the range', () => {
    const tensor = imageToTensor(rgba, { dtype: 'uint8' });
    expect(tensor.dtype).toBe('uint8');
    expect(tensor.data).toEqual(new Uint8Array([10, 40, 20, 50, 30, 60]));
    expect([...imageToTensor(rgba, { dtype: 'uint8', mean: 30.5, scale: 10 }).data.subarray(0, 2)]).toEqual([
      70, 255,
    ]);
  });

  it('becomes float16', () => {
    const tensor = imageToTensor(rgba, { dtype: 'float16' });
    expect(tensor.data).toBeInstanceOf(Uint16Array);
    expect(Math.abs(fromFloat16Bits(tensor.data[0] as number) - 10 / 255)).toBeLessThan(2 ** -15);
  });

  it('is resized on the way without rounding in between', () => {
    const image = { data: new Uint8Array([0, 1, 1]), width: 3, height: 1 };
    const options = { ...raw, channels: 'gray', size: { width: 2, height: 1 } } as const;
    expect([...imageToTensor(image, options).data]).toEqual([Math.fround(1 / 3), 1]);
  });
});

describe('an image that has to be drawn', () => {
  const bitmap = { width: 2, height: 2, close: () => {}, [Symbol.toStringTag]: 'ImageBitmap' };

  it('is refused where nothing can draw', () => {
    vi.stubGlobal('OffscreenCanvas', undefined);
    try {
      expect(() => imageToTensor(bitmap)).toThrow(
        /can draw the ImageBitmap: .* pass its pixels as an ImageData/,
      );
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it('is measured without being drawn', () => {
    expect(fitImage(bitmap, { width: 4, height: 2, fit: 'contain' })).toMatchObject({
      scaleX: 1,
      offsetX: 1,
    });
    expect(() => fitImage({ ...bitmap, width: 0 }, { width: 4, height: 2 })).toThrow(/closed or transferred/);
  });
});

describe('several images', () => {
  it('become one batch, in order', () => {
    const other = { data: new Uint8Array([1, 2, 3, 4, 5, 6]), width: 2, height: 1 };
    const batch = imagesToTensor([rgba, other], raw);
    expect(batch.shape).toEqual([2, 3, 1, 2]);
    expect([...batch.data]).toEqual([...imageToTensor(rgba, raw).data, ...imageToTensor(other, raw).data]);
  });

  it('of different sizes need a size', () => {
    const tall = { data: new Uint8Array(6), width: 1, height: 2 };
    expect(() => imagesToTensor([rgba, tall])).toThrow(/got 2 × 1 and 1 × 2; give a size/);
    expect(imagesToTensor([rgba, tall], { size: { width: 4, height: 4 } }).shape).toEqual([2, 3, 4, 4]);
  });

  it('must be at least one', () => {
    expect(() => imagesToTensor([])).toThrow(RangeError);
  });
});

it.each([
  [{ mean: [1, 2] }, /mean must have 3 values, one per channel, got 2/],
  [{ channels: 'gray', std: [1, 1, 1] }, /std must have 1 values, one per channel, got 3/],
  [{ std: 0 }, /std must not be 0/],
  [{ size: { width: -1, height: 4 } }, /size\.width must be an integer of at least 1, got -1/],
  [{ scale: Number.NaN }, /scale must be finite, got NaN/],
  [{ layout: 'CHW' as 'NCHW' }, /layout must be "NCHW" or "NHWC", got "CHW"/],
  [{ dtype: 'int8' as 'uint8' }, /dtype must be .* got "int8"/],
] as const)('wrong options are named: %o', (options, message) => {
  expect(() => imageToTensor(rgba, options)).toThrow(RangeError);
  expect(() => imageToTensor(rgba, options)).toThrow(message);
});
