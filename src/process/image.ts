/** A decoded image. An `ImageData` fits as it is. */
export interface PixelImage {
  /** Channels of each pixel, row by row, 0 to 255: red, green, blue, alpha; red, green, blue; or grey alone. */
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/**
 * Channels per pixel: 1, 3 or 4.
 * @throws `TypeError` if this is no image, `RangeError` if its size and its data disagree.
 */
export function channelsOf({ data, width, height }: PixelImage): number {
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new TypeError('An image holds its pixels in a Uint8Array or a Uint8ClampedArray.');
  }
  const channels = data.length / (width * height);
  if (Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0) {
    if (channels === 1 || channels === 3 || channels === 4) return channels;
  }
  throw new RangeError(
    `An image of ${width} × ${height} pixels has 1, 3 or 4 values per pixel, got ${data.length} values.`,
  );
}
