import { readDrawable } from './draw.ts';
import type { PixelImage } from './image.ts';
import { isDrawable, kindOf, sizeOfImage, type ImageSource } from './image-source.ts';

/** The part of a `VideoFrame` that gives its pixels. */
interface CopyableFrame {
  readonly visibleRect: { readonly width: number; readonly height: number } | null;
  readonly rotation?: number;
  readonly flip?: boolean;
  allocationSize(options: FrameCopyOptions): number;
  copyTo(destination: Uint8ClampedArray, options: FrameCopyOptions): Promise<unknown>;
}

interface FrameCopyOptions {
  readonly format: 'RGBA';
  readonly colorSpace: 'srgb';
}

/**
 * Reads the pixels of an image at its own size. A `VideoFrame` converts them off the thread where the browser can; anything
 * else is drawn, in sRGB.
 * @returns red, green, blue and alpha, in memory of their own; an image that has its pixels already is returned as it is.
 * @throws `TypeError` or `RangeError` for something that is no image; {@link InputError} `ERR_INLAY_FEED_DETACHED` if it
 * was closed, `ERR_INLAY_FEED_VALUE` if it has no pixels or its pixels belong to another origin.
 * @example
 * import { readPixels } from 'inlay/process';
 * const pixels = await readPixels(new VideoFrame(new OffscreenCanvas(64, 64), { timestamp: 0 }));
 */
export async function readPixels(image: ImageSource): Promise<PixelImage> {
  const { width, height } = sizeOfImage(image);
  if (!isDrawable(image)) return image;
  if (kindOf(image) === 'VideoFrame') {
    const frame = image as unknown as CopyableFrame;
    if (isShownAsStored(frame, width, height)) {
      const copied = await copyFrame(frame);
      if (copied !== undefined) return { data: copied, width, height };
    }
  }
  return readDrawable(image);
}

/** A copy has the stored pixels; only drawing turns and stretches them to what is seen. */
function isShownAsStored(
  { visibleRect, rotation = 0, flip = false }: CopyableFrame,
  width: number,
  height: number,
): boolean {
  return rotation === 0 && !flip && visibleRect?.width === width && visibleRect.height === height;
}

/** `undefined` where the browser cannot convert the frame's format (WebCodecs §9.4.6). */
async function copyFrame(frame: CopyableFrame): Promise<Uint8ClampedArray<ArrayBuffer> | undefined> {
  const options = { format: 'RGBA', colorSpace: 'srgb' } as const;
  try {
    const data = new Uint8ClampedArray(frame.allocationSize(options));
    await frame.copyTo(data, options);
    return data;
  } catch {
    return undefined;
  }
}
