import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { decodeImage, encodePng } from './image.mjs';

/** Reads a JPEG or PNG file. @param {string} path */
export async function readImage(path) {
  const bytes = await readFile(path).catch((error) => {
    throw new Error(`The image ${path} cannot be read (${error.code}).`, { cause: error });
  });
  const image = decodeImage(bytes);
  if (image === undefined) throw new Error(`${path} is not a JPEG or PNG file that can be decoded.`);
  return image;
}

/** Writes a PNG file, with its folder. @param {string} path @param {import('./image.mjs').Image} image */
export async function writeImage(path, image) {
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, encodePng(image));
  } catch (error) {
    throw new Error(`The image ${path} cannot be written (${error.code}).`, { cause: error });
  }
}
