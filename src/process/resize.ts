import { checkChoice, checkRange } from './arguments.ts';
import { readDrawable, type Drawing, type DrawnImage } from './draw.ts';
import { fitAxes, fitImage, type AxisFit, type FitOptions, type ImageFit } from './fit.ts';
import { channelsOf, type PixelImage } from './image.ts';
import { isDrawable, type DrawableImage, type ImageSource } from './image-source.ts';

/**
 * How pixels are made from pixels. Centres lie at half pixels: the centre of target pixel `i` falls on
 * `(i + 0.5) * source / target - 0.5`, and what lies beyond the border repeats it.
 * - `nearest`: the pixel that holds the centre; `INTER_NEAREST_EXACT` of OpenCV, `NEAREST` of Pillow.
 * - `bilinear`: the two nearest pixels per axis, also when shrinking, where it skips pixels in between; `INTER_LINEAR` of
 *   OpenCV, and `linear` with `half_pixel` of ONNX Resize.
 * - `area`: along an axis that shrinks, the mean of everything that a target pixel covers, as `INTER_AREA` of OpenCV does;
 *   along an axis that grows, `bilinear`.
 */
export type ImageFilter = 'bilinear' | 'nearest' | 'area';

/** Options of {@link resizeImage}. */
export interface ResizeOptions extends FitOptions {
  /** Default `area`. */
  readonly filter?: ImageFilter;
  /**
   * Colour of the bars of `contain`, 0 to 255: one value for all channels, or one per channel. Alpha is 255 unless it is
   * given. Default 0: black.
   */
  readonly background?: number | readonly number[];
  /**
   * Whether something that a browser draws is resized here, from all of its pixels, as pixels are: the same result in every
   * runtime. Otherwise the browser scales it while drawing, several times faster and almost alike. In Chromium, `nearest` and
   * `bilinear` then differ by less than one level of 255 on average, `area` by 1 to 4 and more at hard edges, since browsers shrink
   * in halves and blend between them. Default false.
   */
  readonly exact?: boolean;
}

/** What {@link resizeImage} gives. */
export interface ResizedImage extends PixelImage {
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  /** Where the original lies in this image, and the way back. */
  readonly fit: ImageFit;
}

/**
 * Brings an image to a size.
 *
 * Values are rounded to the nearest integer, halves to the even one. Every channel is resized by itself; alpha does not
 * weigh the colours, except where a browser draws. What it draws comes in sRGB with four channels, and has no colours left where it
 * is transparent; see `exact`.
 * @returns an image with as many channels, in memory of its own.
 * @throws `TypeError` or `RangeError` for something that is no image, or an option out of range; {@link InputError}
 * `ERR_INLAY_FEED_DETACHED` for an image that was closed, `ERR_INLAY_FEED_VALUE` for one that has no pixels, or whose pixels belong to another origin.
 * @example
 * import { imageToTensor, resizeImage } from 'inlay/process';
 * const photo = new ImageData(1920, 1080);
 * const small = resizeImage(photo, { width: 640, height: 640, fit: 'contain', background: 114 });
 * await model.run({ images: imageToTensor(small) });
 * const corner = small.fit.toSource(0, 140); // { x: 0, y: 0 }
 */
export function resizeImage(image: ImageSource, options: ResizeOptions): ResizedImage {
  const { width, height } = options;
  const fit = fitImage(image, options);
  if (isDrawable(image) && options.exact !== true) return { ...drawResized(image, options), fit };
  const pixels = isDrawable(image) ? readDrawable(image) : image;
  const stride = width * channelsOf(pixels);
  const data = new Uint8ClampedArray(stride * height);
  resizeRows(pixels, options, (row, line) => data.set(line, row * stride));
  return { data, width, height, fit };
}

/** How a browser comes closest to each filter. */
const SMOOTHING: Readonly<Record<ImageFilter, Drawing['smoothing']>> = {
  nearest: 'none',
  bilinear: 'low',
  area: 'medium',
};

/** Lets the browser resize. */
export function drawResized(image: DrawableImage, options: ResizeOptions): DrawnImage {
  const { width, height } = options;
  const [across, down] = fitAxes(image, options);
  const background = colourOf(options, 4);
  return readDrawable(image, {
    width,
    height,
    across,
    down,
    background,
    smoothing: SMOOTHING[filterOf(options)],
  });
}

function filterOf({ filter = 'area' }: ResizeOptions): ImageFilter {
  return checkChoice('filter', filter, ['bilinear', 'nearest', 'area']);
}

/**
 * Resizes without rounding, row by row.
 * @param take gets each row of the result once, in order; the line is reused for the next one.
 */
export function resizeRows(
  image: PixelImage,
  options: ResizeOptions,
  take: (row: number, line: Float64Array) => void,
): void {
  const channels = channelsOf(image);
  const filter = filterOf(options);
  const [across, down] = fitAxes(image, options);
  const columns = tapsOf(across, image.width, filter);
  const rows = tapsOf(down, image.height, filter);
  const bar = barOf(options, channels);
  const line = bar.slice();
  const blend = new Float64Array(image.width * channels);
  for (let row = 0; row < options.height; row += 1) {
    const inner = row - down.start;
    const isBar = inner < 0 || inner >= down.length;
    if (!isBar) {
      blendRows(image.data, rows, inner, blend);
      blendColumns(blend, columns, channels, line, across.start * channels);
    }
    take(row, isBar ? bar : line);
  }
}

/** Which source pixels make up each target pixel of one axis: `size` in a row, from `starts[i]`. */
interface Taps {
  readonly size: number;
  readonly starts: Int32Array;
  readonly weights: Float64Array;
}

function tapsOf({ length, from, span }: AxisFit, available: number, filter: ImageFilter): Taps {
  const isMean = filter === 'area' && span > length;
  const reach = isMean ? Math.ceil(span / length) + 1 : filter === 'nearest' ? 1 : 2;
  const size = Math.min(reach, available);
  const starts = new Int32Array(length);
  const weights = new Float64Array(length * size);
  for (let index = 0; index < length; index += 1) {
    const low = from + (index * span) / length;
    const high = from + ((index + 1) * span) / length;
    const centre = from + ((index + 0.5) * span) / length;
    const first = Math.floor(isMean ? low : filter === 'nearest' ? centre : centre - 0.5);
    const start = Math.min(Math.max(first, 0), available - size);
    for (let tap = 0; tap < reach; tap += 1) {
      const pixel = first + tap;
      const weight = isMean
        ? Math.max(Math.min(high, pixel + 1) - Math.max(low, pixel), 0) / (high - low)
        : filter === 'nearest'
          ? 1
          : 1 - Math.abs(centre - 0.5 - pixel);
      const at = index * size + Math.min(Math.max(pixel, 0), available - 1) - start;
      // Beyond the last pixel of a mean there are only weights of 0, which may have no place.
      if (weight > 0) weights[at] = (weights[at] as number) + weight;
    }
    starts[index] = start;
  }
  return { size, starts, weights };
}

function blendRows(data: PixelImage['data'], taps: Taps, row: number, into: Float64Array): void {
  into.fill(0);
  for (let tap = 0; tap < taps.size; tap += 1) {
    const weight = taps.weights[row * taps.size + tap] as number;
    if (weight === 0) continue;
    const from = ((taps.starts[row] as number) + tap) * into.length;
    for (let at = 0; at < into.length; at += 1) {
      into[at] = (into[at] as number) + weight * (data[from + at] as number);
    }
  }
}

function blendColumns(
  source: Float64Array,
  { size, starts, weights }: Taps,
  channels: number,
  into: Float64Array,
  offset: number,
): void {
  let at = offset;
  for (let column = 0; column < starts.length; column += 1) {
    const from = (starts[column] as number) * channels;
    for (let channel = 0; channel < channels; channel += 1) {
      let sum = 0;
      for (let tap = 0; tap < size; tap += 1) {
        sum += (weights[column * size + tap] as number) * (source[from + tap * channels + channel] as number);
      }
      into[at] = sum;
      at += 1;
    }
  }
}

/** One row of nothing but background. */
function barOf(options: ResizeOptions, channels: number): Float64Array {
  const colour = colourOf(options, channels);
  return Float64Array.from(
    { length: options.width * channels },
    (_, index) => colour[index % channels] as number,
  );
}

/** At least one value per channel. */
function colourOf({ background = 0 }: ResizeOptions, channels: number): readonly number[] {
  const colours = channels === 4 ? 3 : channels;
  const given = typeof background === 'number' ? Array<number>(colours).fill(background) : background;
  if (given.length !== channels && given.length !== colours) {
    throw new RangeError(`background must have ${channels} values, one per channel, got ${given.length}.`);
  }
  return [...given.map((value) => checkRange('background', value, 0, 255)), 255];
}
