import { checkChoice, checkInteger } from './arguments.ts';
import { sizeOfImage, type ImageSource } from './image-source.ts';

/**
 * How an image comes into a frame of other proportions.
 * - `fill`: stretched to the frame.
 * - `contain`: whole, with bars beside it (letterbox).
 * - `cover`: fills the frame, and loses what does not fit.
 */
export type ImageFitting = 'fill' | 'contain' | 'cover';

/** The frame that an image is brought into. */
export interface FitOptions {
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
  /** Default `fill`. */
  readonly fit?: ImageFitting;
  /** Where `contain` puts the image and `cover` cuts it: in the middle, or at the left and top. Default `center`. */
  readonly align?: 'center' | 'start';
}

/**
 * Where an image lies in a frame: `x` of the image is at `x * scaleX + offsetX` of the frame. Coordinates are
 * continuous, in pixels: the first pixel reaches from 0 to 1 and has its centre at 0.5.
 */
export interface ImageFit {
  readonly scaleX: number;
  readonly scaleY: number;
  readonly offsetX: number;
  readonly offsetY: number;
  /** Leads a point of the frame back to the image; beside the image, it gives coordinates outside of it. */
  toSource(x: number, y: number): { readonly x: number; readonly y: number };
}

/** One axis: `span` pixels of the image, beginning at `from`, come to lie on `length` pixels, beginning at `start`. */
export interface AxisFit {
  readonly start: number;
  readonly length: number;
  readonly from: number;
  readonly span: number;
}

/**
 * Works out where an image comes to lie in a frame, without touching a pixel: what {@link resizeImage} and
 * {@link imageToTensor} do with the same options.
 *
 * `contain` rounds the scaled image to whole pixels, at least one, and the bar before it down; the scales are those of
 * the rounded image, so that the way back is exact.
 * @throws `TypeError` or `RangeError` for something that is no image, or an option out of range; {@link InputError} for an
 * image that was closed or has no pixels yet.
 * @example
 * import { fitImage, imageToTensor } from 'inlay/process';
 * const photo = new ImageData(1920, 1080);
 * const size = { width: 640, height: 640, fit: 'contain' } as const;
 * const outputs = await model.run({ images: imageToTensor(photo, { size }) });
 * const { x, y } = fitImage(photo, size).toSource(320, 320); // 960, 540
 */
export function fitImage(image: ImageSource, options: FitOptions): ImageFit {
  const [across, down] = fitAxes(image, options);
  const scaleX = across.length / across.span;
  const scaleY = down.length / down.span;
  const offsetX = across.start - across.from * scaleX;
  const offsetY = down.start - down.from * scaleY;
  return {
    scaleX,
    scaleY,
    offsetX,
    offsetY,
    toSource: (x, y) => ({ x: (x - offsetX) / scaleX, y: (y - offsetY) / scaleY }),
  };
}

/** The two axes of {@link fitImage}: x, then y. */
export function fitAxes(image: ImageSource, options: FitOptions): readonly [AxisFit, AxisFit] {
  const size = sizeOfImage(image);
  const width = checkInteger('width', options.width);
  const height = checkInteger('height', options.height);
  const fit = checkChoice('fit', options.fit ?? 'fill', ['fill', 'contain', 'cover']);
  const share = checkChoice('align', options.align ?? 'center', ['center', 'start']) === 'start' ? 0 : 0.5;
  const scales = [width / size.width, height / size.height];
  const scale = fit === 'contain' ? Math.min(...scales) : Math.max(...scales);
  const fitAxis = (frame: number, source: number): AxisFit => {
    if (fit === 'contain') {
      const length = Math.min(Math.max(Math.round(source * scale), 1), frame);
      return { start: Math.floor((frame - length) * share), length, from: 0, span: source };
    }
    const span = fit === 'cover' ? Math.min(frame / scale, source) : source;
    return { start: 0, length: frame, from: (source - span) * share, span };
  };
  return [fitAxis(width, size.width), fitAxis(height, size.height)];
}
