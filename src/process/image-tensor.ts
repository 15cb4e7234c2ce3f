import { toFloat16Bits } from '../core/float.ts';
import type { DTypeStorage } from '../core/dtype.ts';
import { Tensor } from '../core/tensor.ts';
import { checkChoice, checkInteger } from './arguments.ts';
import { readDrawable } from './draw.ts';
import { channelsOf, type PixelImage } from './image.ts';
import { isDrawable, sizeOfImage, type ImageSource } from './image-source.ts';
import { drawResized, resizeRows, type ResizeOptions } from './resize.ts';

/** Element types that an image becomes. */
export type ImageDType = 'float32' | 'float16' | 'uint8';

/** Options of {@link imageToTensor}. */
export interface ImageTensorOptions<D extends ImageDType = ImageDType> {
  /** Order of the axes: N images, C channels, H rows, W columns. Default `NCHW`. */
  readonly layout?: 'NCHW' | 'NHWC';
  /**
   * Channels of the tensor; alpha is left out. `gray` is the luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601 §2.5.1), as
   * in OpenCV and Pillow. Default `RGB`.
   */
  readonly channels?: 'RGB' | 'BGR' | 'gray';
  /** Default `float32`. */
  readonly dtype?: D;
  /** What pixels of 0 to 255 are multiplied by, before `mean` and `std`. Default 1/255; 1 for `uint8`. */
  readonly scale?: number;
  /** What is subtracted after scaling: one value, or one per channel of the tensor, in its order. Default 0. */
  readonly mean?: number | readonly number[];
  /** What is divided by at last: one value, or one per channel of the tensor, in its order. Default 1. */
  readonly std?: number | readonly number[];
  /** Resizes on the way, without rounding in between unless the browser does it. Default: the image's own size. */
  readonly size?: ResizeOptions;
}

/**
 * Makes the input of a vision model from an image: `(pixel * scale - mean) / std`.
 *
 * uint8 is rounded to the nearest integer, halves to the even one, and held within 0 to 255.
 *
 * What a browser draws is scaled by it, in sRGB, unless `size.exact` is set. Large images belong in a worker: an `ImageBitmap`,
 * a `VideoFrame` and an `OffscreenCanvas` can be transferred to one.
 * @returns `[1, channels, height, width]`, or `[1, height, width, channels]` for `NHWC`.
 * @throws `TypeError` or `RangeError` for something that is no image, or an option out of range; {@link InputError}
 * `ERR_INLAY_FEED_DETACHED` for an image that was closed, `ERR_INLAY_FEED_VALUE` for one that has no pixels, or whose pixels belong to another origin.
 * @example
 * import { imageToTensor } from 'inlay/process';
 * const input = imageToTensor(new ImageData(640, 480), {
 *   size: { width: 224, height: 224, fit: 'cover' },
 *   mean: [0.485, 0.456, 0.406],
 *   std: [0.229, 0.224, 0.225],
 * });
 * const { logits } = await model.run({ input });
 */
export function imageToTensor<D extends ImageDType = 'float32'>(
  image: ImageSource,
  options: ImageTensorOptions<D> = {},
): Tensor<D> {
  return imagesToTensor([image], options);
}

/**
 * Makes one batch from several images, as {@link imageToTensor} does from one. They must have one size, or be given one
 * with `size`.
 * @returns `[images, channels, height, width]`, or `[images, height, width, channels]` for `NHWC`.
 * @throws `TypeError` or `RangeError` as {@link imageToTensor}; `RangeError` for no images, or images of different sizes.
 * @example
 * import { imagesToTensor } from 'inlay/process';
 * const frames = [new ImageData(64, 64), new ImageData(64, 64)];
 * const { logits } = await model.run({ input: imagesToTensor(frames, { layout: 'NHWC' }) });
 */
export function imagesToTensor<D extends ImageDType = 'float32'>(
  images: readonly ImageSource[],
  options: ImageTensorOptions<D> = {},
): Tensor<D> {
  const dtype: ImageDType = checkChoice('dtype', options.dtype ?? 'float32', ['float32', 'float16', 'uint8']);
  const layout = checkChoice('layout', options.layout ?? 'NCHW', ['NCHW', 'NHWC']);
  const order = checkChoice('channels', options.channels ?? 'RGB', ['RGB', 'BGR', 'gray']);
  const channels = order === 'gray' ? 1 : 3;
  const scale = checkFinite('scale', options.scale ?? (dtype === 'uint8' ? 1 : 1 / 255));
  const mean = perChannel('mean', options.mean ?? 0, channels);
  const std = perChannel('std', options.std ?? 1, channels);
  if (std.includes(0)) throw new RangeError('std must not be 0.');

  const { width, height } = sizeOf(images, options.size);
  const area = width * height;
  const data = createStorage(dtype, images.length * channels * area);
  const [channelStep, pixelStep] = layout === 'NCHW' ? [area, 1] : [1, channels];
  images.forEach((source, index) => {
    const { image, size } = pixelsOf(source, options.size);
    const sourceChannels = channelsOf(image);
    eachRow(image, size, (row, line) => {
      for (let channel = 0; channel < channels; channel += 1) {
        const pick = picker(order, sourceChannels, channel);
        let at = index * channels * area + channel * channelStep + row * width * pixelStep;
        for (let from = 0; from < line.length; from += sourceChannels) {
          const value = (pick(line, from) * scale - (mean[channel] as number)) / (std[channel] as number);
          data[at] = dtype === 'float16' ? toFloat16Bits(value) : value;
          at += pixelStep;
        }
      }
    });
  });
  const shape =
    layout === 'NCHW' ? [images.length, channels, height, width] : [images.length, height, width, channels];
  // A clamped array rounds as it is written; the tensor holds the same bytes under the type that its dtype asks for.
  const storage = data instanceof Uint8ClampedArray ? new Uint8Array(data.buffer) : data;
  return new Tensor<D>(dtype as D, shape, storage as DTypeStorage[D]);
}

function createStorage(
  dtype: ImageDType,
  length: number,
): Float32Array | Uint16Array | Uint8ClampedArray<ArrayBuffer> {
  if (dtype === 'uint8') return new Uint8ClampedArray(length);
  return dtype === 'float16' ? new Uint16Array(length) : new Float32Array(length);
}

/** The one size of all images. */
function sizeOf(images: readonly ImageSource[], size: ResizeOptions | undefined): ResizeOptions {
  if (images.length === 0) throw new RangeError('A batch needs at least one image.');
  if (size !== undefined) {
    checkInteger('size.width', size.width);
    checkInteger('size.height', size.height);
    return size;
  }
  const [first, ...rest] = images.map(sizeOfImage) as [ResizeOptions, ...ResizeOptions[]];
  const odd = rest.find(({ width, height }) => width !== first.width || height !== first.height);
  if (odd === undefined) return first;
  throw new RangeError(
    `Images of one batch must have one size, got ${first.width} × ${first.height} and ${odd.width} × ${odd.height}; give a size.`,
  );
}

/** The pixels of an image, and how they have to be resized still. */
function pixelsOf(
  image: ImageSource,
  size: ResizeOptions | undefined,
): { readonly image: PixelImage; readonly size: ResizeOptions | undefined } {
  if (!isDrawable(image)) return { image, size };
  if (size === undefined || size.exact === true) return { image: readDrawable(image), size };
  return { image: drawResized(image, size), size: undefined };
}

function eachRow(
  image: PixelImage,
  size: ResizeOptions | undefined,
  take: (row: number, line: Float64Array) => void,
): void {
  if (size !== undefined) return resizeRows(image, size, take);
  const line = new Float64Array(image.width * channelsOf(image));
  for (let row = 0; row < image.height; row += 1) {
    line.set(image.data.subarray(row * line.length, (row + 1) * line.length));
    take(row, line);
  }
}

/** Reads one channel of the tensor from the pixel that begins at `from`. */
function picker(
  order: 'RGB' | 'BGR' | 'gray',
  sourceChannels: number,
  channel: number,
): (line: Float64Array, from: number) => number {
  if (sourceChannels === 1) return (line, from) => line[from] as number;
  if (order === 'gray') {
    return (line, from) =>
      0.299 * (line[from] as number) +
      0.587 * (line[from + 1] as number) +
      0.114 * (line[from + 2] as number);
  }
  const offset = order === 'BGR' ? 2 - channel : channel;
  return (line, from) => line[from + offset] as number;
}

function perChannel(name: string, value: number | readonly number[], channels: number): readonly number[] {
  const values = typeof value === 'number' ? Array<number>(channels).fill(value) : value;
  if (values.length !== channels) {
    throw new RangeError(`${name} must have ${channels} values, one per channel, got ${values.length}.`);
  }
  return values.map((one) => checkFinite(name, one));
}

function checkFinite(name: string, value: number): number {
  if (Number.isFinite(value)) return value;
  throw new RangeError(`${name} must be finite, got ${String(value)}.`);
}
