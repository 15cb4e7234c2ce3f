import jpeg from 'jpeg-js';
import { PNG } from 'pngjs';

/**
 * Red, green, blue and alpha of each pixel, row by row, 0 to 255.
 * @typedef {{ width: number, height: number, data: Uint8Array }} Image
 */

/** @param {Uint8Array} bytes JPEG or PNG. @returns {Image | undefined} `undefined` if the bytes are neither. */
export function decodeImage(bytes) {
  try {
    return bytes[0] === 0xff ? jpeg.decode(bytes, { useTArray: true }) : PNG.sync.read(Buffer.from(bytes));
  } catch {
    return undefined;
  }
}

/** @param {Image} image */
export function encodePng({ width, height, data }) {
  return PNG.sync.write({ width, height, data });
}
