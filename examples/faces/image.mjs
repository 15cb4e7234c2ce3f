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

/**
 * Scales an image to a size, whatever its proportions, by bilinear interpolation between the centres of pixels.
 * @param {Image} image
 * @param {(value: number) => number} normalize Applied to each value of the result.
 * @returns {Float32Array} Its planes of red, green and blue: [3, height, width].
 */
export function toPlanes(image, width, height, normalize) {
  const columns = pairs(width, image.width);
  const rows = pairs(height, image.height);
  const planes = new Float32Array(3 * height * width);
  let at = 0;
  for (let channel = 0; channel < 3; channel += 1) {
    const value = (row, column) => image.data[(row * image.width + column) * 4 + channel];
    for (const { first: top, second: bottom, ratio: down } of rows) {
      for (const { first: left, second: right, ratio: across } of columns) {
        const above = mix(value(top, left), value(top, right), across);
        const below = mix(value(bottom, left), value(bottom, right), across);
        planes[at] = normalize(mix(above, below, down));
        at += 1;
      }
    }
  }
  return planes;
}

/** Per target pixel the two source pixels around its centre, and how far it lies from the first to the second. */
function pairs(length, sourceLength) {
  return Array.from({ length }, (_, index) => {
    const centre = ((index + 0.5) * sourceLength) / length - 0.5;
    const inside = Math.min(Math.max(centre, 0), sourceLength - 1);
    const first = Math.floor(inside);
    return { first, second: Math.min(first + 1, sourceLength - 1), ratio: inside - first };
  });
}

function mix(a, b, ratio) {
  return a + (b - a) * ratio;
}
