import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  fitImage,
  resizeImage,
  type ImageFilter,
  type PixelImage,
  type ResizeOptions,
} from '../../../src/process/index.ts';

/** One grey row. */
const row = (...values: number[]): PixelImage => ({
  data: Uint8Array.from(values),
  width: values.length,
  height: 1,
});
const widthOf = (image: PixelImage, width: number, options: Partial<ResizeOptions> = {}): number[] => [
  ...resizeImage(image, { width, height: 1, ...options }).data,
];

const anyImage = fc
  .record({
    width: fc.integer({ min: 1, max: 9 }),
    height: fc.integer({ min: 1, max: 9 }),
    channels: fc.constantFrom(1, 3, 4),
    seed: fc.uint8Array({ minLength: 324, maxLength: 324 }),
  })
  .map(({ width, height, channels, seed }) => ({
    data: seed.subarray(0, width * height * channels),
    width,
    height,
  }));
const anySize = fc.record({
  width: fc.integer({ min: 1, max: 12 }),
  height: fc.integer({ min: 1, max: 12 }),
  fit: fc.constantFrom('fill', 'contain', 'cover'),
  align: fc.constantFrom('center', 'start'),
  filter: fc.constantFrom('nearest', 'bilinear', 'area'),
});

/** The definitions of the filters, one value at a time. */
function valueAt(image: PixelImage, channels: number, channel: number, x: number, y: number): number {
  const column = Math.min(Math.max(x, 0), image.width - 1);
  const line = Math.min(Math.max(y, 0), image.height - 1);
  return image.data[(line * image.width + column) * channels + channel] as number;
}

function resizedValue(
  image: PixelImage,
  size: { readonly width: number; readonly height: number },
  filter: ImageFilter,
  at: { readonly x: number; readonly y: number; readonly channel: number; readonly channels: number },
): number {
  const weigh = (index: number, target: number, source: number): [pixel: number, weight: number][] => {
    const scale = source / target;
    const centre = ((index + 0.5) * source) / target;
    if (filter === 'nearest') return [[Math.floor(centre), 1]];
    if (filter === 'area' && scale > 1) {
      return Array.from({ length: source }, (_, pixel): [number, number] => [
        pixel,
        Math.max(0, Math.min((index + 1) * scale, pixel + 1) - Math.max(index * scale, pixel)) / scale,
      ]);
    }
    const first = Math.floor(centre - 0.5);
    const ratio = centre - 0.5 - first;
    return [
      [first, 1 - ratio],
      [first + 1, ratio],
    ];
  };
  let sum = 0;
  for (const [y, down] of weigh(at.y, size.height, image.height)) {
    for (const [x, across] of weigh(at.x, size.width, image.width)) {
      sum += down * across * valueAt(image, at.channels, at.channel, x, y);
    }
  }
  return sum;
}

describe('resizing', () => {
  it('interpolates between the centres of pixels and repeats the border', () => {
    expect(widthOf(row(0, 100, 200, 40), 8, { filter: 'bilinear' })).toEqual([
      0, 25, 75, 125, 175, 160, 80, 40,
    ]);
    expect(widthOf(row(0, 100, 200, 40), 2, { filter: 'bilinear' })).toEqual([50, 120]);
  });

  it('takes the mean of what a target pixel covers when it shrinks by area', () => {
    expect(widthOf(row(0, 30, 60, 90, 120, 150), 2, { filter: 'area' })).toEqual([30, 120]);
    // Two thirds of a whole pixel and a half one: (0 + 90 / 2) / 1.5.
    expect(widthOf(row(0, 90, 0), 2)).toEqual([30, 30]);
  });

  it('takes the pixel that holds the centre when it is told to', () => {
    expect(widthOf(row(1, 2, 3), 6, { filter: 'nearest' })).toEqual([1, 1, 2, 2, 3, 3]);
    expect(widthOf(row(1, 2, 3, 4), 2, { filter: 'nearest' })).toEqual([2, 4]);
  });

  it('shrinks by area and grows by interpolation unless it is told otherwise', () => {
    const image = row(0, 100, 200, 40);
    expect(widthOf(image, 1)).toEqual([85 - 1 + 1]);
    expect(widthOf(image, 8)).toEqual(widthOf(image, 8, { filter: 'bilinear' }));
  });

  it('gives the values of its definition, whatever the image, the size and the filter', () => {
    fc.assert(
      fc.property(anyImage, anySize, (image, { width, height, filter }) => {
        const channels = image.data.length / image.width / image.height;
        const { data } = resizeImage(image, { width, height, filter });
        expect(data).toHaveLength(width * height * channels);
        data.forEach((value, index) => {
          const at = {
            channel: index % channels,
            channels,
            x: Math.floor(index / channels) % width,
            y: Math.floor(index / channels / width),
          };
          expect(Math.abs(value - resizedValue(image, { width, height }, filter, at))).toBeLessThan(
            0.5 + 1e-9,
          );
        });
      }),
    );
  });

  it('keeps an image that has the size already', () => {
    fc.assert(
      fc.property(anyImage, anySize, (image, { fit, filter }) => {
        const { width, height } = image;
        const same = resizeImage(image, { width, height, fit, filter });
        expect([...same.data]).toEqual([...image.data]);
        expect(same.fit).toMatchObject({ scaleX: 1, scaleY: 1, offsetX: 0, offsetY: 0 });
      }),
    );
  });

  it('keeps one colour at any size', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 4 }), anySize, (colour, size) => {
        const image = {
          data: Uint8Array.from({ length: 7 * 5 * 4 }, (_, i) => colour[i % 4] as number),
          width: 7,
          height: 5,
        };
        const { data } = resizeImage(image, { ...size, background: [...colour] });
        expect(data.every((value, i) => value === colour[i % 4])).toBe(true);
      }),
    );
  });
});

describe('fitting', () => {
  const wide = { data: new Uint8Array(400 * 100 * 3).fill(200), width: 400, height: 100 };

  it('keeps the proportions and puts bars beside the image with contain', () => {
    const small = resizeImage(wide, { width: 200, height: 200, fit: 'contain', background: [1, 2, 3] });
    const pixel = (x: number, y: number): number[] => [
      ...small.data.subarray((y * 200 + x) * 3, (y * 200 + x) * 3 + 3),
    ];
    expect(pixel(0, 74)).toEqual([1, 2, 3]);
    expect(pixel(0, 75)).toEqual([200, 200, 200]);
    expect(pixel(199, 124)).toEqual([200, 200, 200]);
    expect(pixel(199, 125)).toEqual([1, 2, 3]);
    expect(small.fit).toMatchObject({ scaleX: 0.5, scaleY: 0.5, offsetX: 0, offsetY: 75 });
    expect(fitImage(wide, { width: 200, height: 200, fit: 'contain', align: 'start' }).offsetY).toBe(0);
  });

  it('cuts what does not fit with cover, in the middle or at the start', () => {
    const image = row(10, 20, 30, 40);
    const square: ResizeOptions = { width: 2, height: 2, fit: 'cover', filter: 'nearest' };
    const doubled = { data: Uint8Array.from([10, 20, 30, 40, 10, 20, 30, 40]), width: 4, height: 2 };
    expect([...resizeImage(doubled, square).data]).toEqual([20, 30, 20, 30]);
    expect([...resizeImage(doubled, { ...square, align: 'start' }).data]).toEqual([10, 20, 10, 20]);
    expect(fitImage(image, { width: 2, height: 2, fit: 'cover' })).toMatchObject({ scaleX: 2, offsetX: -3 });
  });

  it('makes bars black and opaque unless it is told otherwise', () => {
    const image = { data: new Uint8Array([9, 9, 9, 9, 9, 9, 9, 9]), width: 2, height: 1 };
    const opaque = { width: 2, height: 2, fit: 'contain', align: 'start' } as const;
    expect([...resizeImage(image, opaque).data.subarray(8)]).toEqual([0, 0, 0, 255, 0, 0, 0, 255]);
    expect([...resizeImage(image, { ...opaque, background: [1, 2, 3, 4] }).data.subarray(8, 12)]).toEqual([
      1, 2, 3, 4,
    ]);
  });

  it('leads every corner back to where it came from', () => {
    fc.assert(
      fc.property(anyImage, anySize, (image, size) => {
        const { scaleX, scaleY, offsetX, offsetY, toSource } = fitImage(image, size);
        const back = toSource(image.width * scaleX + offsetX, offsetY);
        expect(back.x).toBeCloseTo(image.width, 9);
        expect(back.y).toBeCloseTo(0, 9);
        if (size.fit === 'cover') {
          expect(offsetX).toBeLessThanOrEqual(1e-9);
          expect(image.height * scaleY + offsetY).toBeGreaterThanOrEqual(size.height - 1e-9);
        } else {
          expect(offsetX).toBeGreaterThanOrEqual(0);
          expect(image.height * scaleY + offsetY).toBeLessThanOrEqual(size.height + 1e-9);
        }
      }),
    );
  });
});

describe('wrong arguments', () => {
  const image = row(1, 2, 3);

  it.each<[string, PixelImage, ResizeOptions, RegExp]>([
    ['a width of 0', image, { width: 0, height: 1 }, /width must be an integer of at least 1, got 0/],
    ['half a pixel', image, { width: 1, height: 1.5 }, /height must be .* got 1\.5/],
    ['too little data', { ...image, width: 2 }, { width: 1, height: 1 }, /2 × 1 pixels .* got 3 values/],
    ['an image of nothing', { ...image, width: 0 }, { width: 1, height: 1 }, /0 × 1 pixels/],
    [
      'a fit that there is not',
      image,
      { width: 1, height: 1, fit: 'stretch' as 'fill' },
      /fit must be "fill" or .* got "stretch"/,
    ],
    [
      'a filter that there is not',
      image,
      { width: 1, height: 1, filter: 'cubic' as 'area' },
      /filter .* got "cubic"/,
    ],
    [
      'a background of too many channels',
      image,
      { width: 1, height: 1, background: [1, 2] },
      /1 values, .* got 2/,
    ],
    [
      'a background that is no colour',
      image,
      { width: 1, height: 1, background: 256 },
      /between 0 and 255, got 256/,
    ],
  ])('name %s', (_, wrong, options, message) => {
    expect(() => resizeImage(wrong, options)).toThrow(RangeError);
    expect(() => resizeImage(wrong, options)).toThrow(message);
  });

  it('name pixels of another type', () => {
    const floats = { data: new Float32Array(3), width: 3, height: 1 } as unknown as PixelImage;
    expect(() => resizeImage(floats, { width: 1, height: 1 })).toThrow(TypeError);
  });
});
