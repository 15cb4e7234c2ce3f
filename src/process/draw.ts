import { InputError } from '../core/errors.ts';
import type { AxisFit } from './fit.ts';
import type { PixelImage } from './image.ts';
import { kindOf, sizeOfImage, type DrawableImage } from './image-source.ts';

/** Where to draw an image, and how to scale it. */
export interface Drawing {
  readonly width: number;
  readonly height: number;
  readonly across: AxisFit;
  readonly down: AxisFit;
  /** Red, green, blue, alpha beside the image, 0 to 255. */
  readonly background: readonly number[];
  /** `none` takes the nearest pixel, `low` blends the nearest ones, `medium` reduces in steps (HTML §4.12.5.1.6). */
  readonly smoothing: 'none' | 'low' | 'medium';
}

/** What was read from a canvas: red, green, blue, alpha. */
export interface DrawnImage extends PixelImage {
  readonly data: Uint8ClampedArray<ArrayBuffer>;
}

/** A larger canvas is not kept: 4 MiB of pixels. */
const MAX_KEPT_PIXELS = 2 ** 20;

/** Making a canvas takes longer than a small read, so the last one is used again. It never holds anything between calls. */
let kept: OffscreenCanvasRenderingContext2D | undefined;

/**
 * Reads the pixels of a drawable, in sRGB and without premultiplied alpha, at its own size or drawn into a frame.
 * @throws {@link InputError} `ERR_INLAY_FEED_DETACHED` if it was closed, `ERR_INLAY_FEED_VALUE` if it has no pixels or its
 * pixels belong to another origin.
 */
export function readDrawable(image: DrawableImage, drawing?: Drawing): DrawnImage {
  const size = sizeOfImage(image);
  const { width, height } = drawing ?? size;
  const context = takeContext(width, height, kindOf(image));
  const source = image as unknown as CanvasImageSource;
  try {
    if (drawing === undefined) context.drawImage(source, 0, 0, width, height);
    else drawInto(context, source, drawing);
    const { data } = context.getImageData(0, 0, width, height);
    if (width * height <= MAX_KEPT_PIXELS) kept = context;
    return { data, width, height };
  } catch (cause) {
    throw unreadable(image, cause);
  }
}

function drawInto(
  context: OffscreenCanvasRenderingContext2D,
  source: CanvasImageSource,
  { width, height, across, down, background, smoothing }: Drawing,
): void {
  const frame = [across.start, down.start, across.length, down.length] as const;
  if (across.length < width || down.length < height) {
    const [red, green, blue, alpha = 255] = background;
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${alpha / 255})`;
    context.fillRect(0, 0, width, height);
    // What is transparent in the image stays so, instead of showing the background.
    context.clearRect(...frame);
  }
  context.imageSmoothingEnabled = smoothing !== 'none';
  if (smoothing !== 'none') context.imageSmoothingQuality = smoothing;
  context.drawImage(source, across.from, down.from, across.span, down.span, ...frame);
}

/** An empty canvas of that size. Nobody else has it until its pixels were read. */
function takeContext(width: number, height: number, name: string): OffscreenCanvasRenderingContext2D {
  const context = kept;
  kept = undefined;
  if (context !== undefined && width * height <= MAX_KEPT_PIXELS) {
    if (context.canvas.width === width && context.canvas.height === height) {
      context.clearRect(0, 0, width, height);
    } else {
      context.canvas.width = width;
      context.canvas.height = height;
    }
    return context;
  }
  // Looked up at the call: that a value came which only a browser has does not tell that it has this, too.
  const fresh =
    typeof OffscreenCanvas === 'undefined'
      ? null
      : new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  if (fresh !== null) return fresh;
  throw new InputError(
    'ERR_INLAY_FEED_VALUE',
    `Nothing here can draw the ${name}: there is no OffscreenCanvas of ${width} × ${height} pixels; pass its pixels as an ImageData.`,
    { details: { source: name, width, height } },
  );
}

function unreadable(image: DrawableImage, cause: unknown): unknown {
  const name = kindOf(image);
  const parts = { cause, details: { source: name } };
  switch ((cause as Partial<Error> | null)?.name) {
    case 'SecurityError':
      return new InputError(
        'ERR_INLAY_FEED_VALUE',
        `The ${name} shows pixels of another origin, which a page may not read; have them served with Access-Control-Allow-Origin, and set crossOrigin to "anonymous" before src.`,
        parts,
      );
    case 'InvalidStateError':
      return new InputError(
        'ERR_INLAY_FEED_DETACHED',
        `The ${name} cannot be drawn: it is broken, or it was closed or transferred.`,
        parts,
      );
    default:
      return cause;
  }
}
