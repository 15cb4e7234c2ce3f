import { InputError, type ErrorCode } from '../core/errors.ts';
import { nameOf } from '../core/tensor.ts';
import { channelsOf, type PixelImage } from './image.ts';

/**
 * What a browser can draw: an `ImageBitmap`, a `VideoFrame`, a canvas of either kind, an `<img>` or a `<video>`. Declared by
 * its members, so that this module means the same where there is no DOM.
 */
export type DrawableImage =
  | { readonly width: number; readonly height: number; close(): void }
  | { readonly displayWidth: number; readonly displayHeight: number; close(): void }
  | { readonly width: number; readonly height: number; getContext(...args: never[]): unknown }
  | { readonly naturalWidth: number; readonly naturalHeight: number; readonly complete: boolean }
  | { readonly videoWidth: number; readonly videoHeight: number; readonly readyState: number };

/** An image: its pixels, or something that a browser can draw. */
export type ImageSource = PixelImage | DrawableImage;

/** How one kind of drawable tells its size, and what to do when it has none. */
interface Kind {
  readonly width: string;
  readonly height: string;
  readonly isReady?: (image: object) => boolean;
  readonly code: ErrorCode<'InputError'>;
  readonly advice: string;
}

const closeable = {
  code: 'ERR_INLAY_FEED_DETACHED',
  advice: 'was closed or transferred; read it before that.',
} as const;
const canvas = {
  width: 'width',
  height: 'height',
  code: 'ERR_INLAY_FEED_VALUE',
  advice: 'has no pixels; give it a width and a height above 0, and read it before it is transferred.',
} as const;

/** By the name that a platform object has in every realm, frames and workers included. */
const KINDS: Readonly<Record<string, Kind>> = {
  ImageBitmap: { width: 'width', height: 'height', ...closeable },
  VideoFrame: { width: 'displayWidth', height: 'displayHeight', ...closeable },
  HTMLCanvasElement: canvas,
  OffscreenCanvas: canvas,
  HTMLImageElement: {
    width: 'naturalWidth',
    height: 'naturalHeight',
    isReady: (image) => Reflect.get(image, 'complete') === true,
    code: 'ERR_INLAY_FEED_VALUE',
    advice: 'is not loaded, is broken, or is a vector image without a size; await its decode() first.',
  },
  HTMLVideoElement: {
    width: 'videoWidth',
    height: 'videoHeight',
    // HAVE_CURRENT_DATA (HTML §4.8.11.7): below it, there is a size but no frame, and a canvas would stay transparent.
    isReady: (image) => Number(Reflect.get(image, 'readyState')) >= 2,
    code: 'ERR_INLAY_FEED_VALUE',
    advice: 'shows no frame yet; wait for its event "loadeddata".',
  },
};

/** Name of the interface of a platform object: `VideoFrame`. */
export function kindOf(image: unknown): string {
  return Object.prototype.toString.call(image).slice('[object '.length, -1);
}

/** Tells what has to be drawn from what holds its pixels. */
export function isDrawable(image: ImageSource): image is DrawableImage {
  return Object.hasOwn(KINDS, kindOf(image));
}

/**
 * Size of an image in pixels, as it is seen: after the rotation and the aspect ratio that it asks for.
 * @throws `TypeError` or `RangeError` for something that is no image; {@link InputError} `ERR_INLAY_FEED_DETACHED` or
 * `ERR_INLAY_FEED_VALUE` for one that was closed or has no pixels yet.
 */
export function sizeOfImage(image: ImageSource): { readonly width: number; readonly height: number } {
  if (!isDrawable(image)) {
    if (typeof image !== 'object' || image === null) {
      throw new TypeError(`An image is pixels, or something that a browser can draw, got ${nameOf(image)}.`);
    }
    channelsOf(image);
    return image;
  }
  const name = kindOf(image);
  const kind = KINDS[name] as Kind;
  const width = Number(Reflect.get(image, kind.width));
  const height = Number(Reflect.get(image, kind.height));
  if (width > 0 && height > 0 && kind.isReady?.(image) !== false) return { width, height };
  throw new InputError(kind.code, `The ${name} ${kind.advice}`, { details: { source: name } });
}
