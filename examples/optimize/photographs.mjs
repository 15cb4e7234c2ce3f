#!/usr/bin/env node
/**
 * Makes samples for UltraFace out of photographs: what `--inputs` and `--calib` of `inlay optimize` take.
 *
 *   node examples/optimize/photographs.mjs IMAGE… --out FILE.npy [--crops 8]
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { imagesToTensor } from 'inlay/process';
import { readImage } from '../faces/files.mjs';
import { toNpy } from './npy.mjs';

/** What the network was trained on. */
const INPUT = { size: { width: 320, height: 240, filter: 'bilinear' }, scale: 1, mean: 127, std: 128 };

try {
  const { paths, out, crops } = parseCommand(process.argv.slice(2));
  const images = await Promise.all(paths.map(readImage));
  const samples = crops === 0 ? images : images.flatMap((image) => cropsOf(image, crops));
  await writeFile(out, toNpy(imagesToTensor(samples, INPUT)));
  console.log(`${out}: ${samples.length} samples of ${images.length} photographs`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

function parseCommand(args) {
  const options = { out: { type: 'string' }, crops: { type: 'string', default: '0' } };
  const { values, positionals: paths } = parseArgs({ args, options, allowPositionals: true });
  const crops = Number(values.crops);
  if (paths.length === 0 || values.out === undefined || !Number.isInteger(crops) || crops < 0) {
    throw new Error('Usage: node examples/optimize/photographs.mjs IMAGE… --out FILE.npy [--crops 8]');
  }
  return { paths, out: values.out, crops };
}

/**
 * Takes parts of a photograph, from two fifths of it to nearly all, each from another place.
 * @param {import('../faces/image.mjs').Image} image
 * @param {number} count
 */
function cropsOf(image, count) {
  return Array.from({ length: count }, (_, i) => {
    const share = 0.4 + (0.6 * i) / count;
    const [width, height] = [Math.floor(image.width * share), Math.floor(image.height * share)];
    const left = Math.floor((image.width - width) * (((i * 37) % 11) / 11));
    const top = Math.floor((image.height - height) * (((i * 53) % 7) / 7));
    return crop(image, { left, top, width, height });
  });
}

function crop(image, { left, top, width, height }) {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y += 1) {
    const start = ((top + y) * image.width + left) * 4;
    data.set(image.data.subarray(start, start + width * 4), y * width * 4);
  }
  return { width, height, data };
}
