import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { createRandom, drawDigit, SIDE } from '../digits/draw.mjs';

const SAMPLES = 256;

/** Draws digits that a rounded release is judged by, as NumPy keeps arrays (format 1.0). */
export async function writeSamples(to) {
  const random = createRandom(43);
  const pixels = new Float32Array(SAMPLES * SIDE * SIDE);
  for (let i = 0; i < SAMPLES; i += 1) pixels.set(drawDigit(random).pixels, i * SIDE * SIDE);
  const shape = `(${SAMPLES}, 1, ${SIDE}, ${SIDE})`;
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`;
  const start = Buffer.alloc(10);
  start.write('\u0093NUMPY\u0001\u0000', 'latin1');
  const padded = `${header.padEnd(117)}\n`;
  start.writeUInt16LE(padded.length, 8);
  await writeFile(to, Buffer.concat([start, Buffer.from(padded), Buffer.from(pixels.buffer)]));
}

/** What the patch of a tool that knows nothing of models takes. @returns bytes; `undefined` where there is no zstd */
export async function zstdPatchBytes(base, next) {
  const args = ['-q', '-c', '-19', '--long=27', `--patch-from=${base}`, next];
  try {
    const { stdout } = await promisify(execFile)('zstd', args, { encoding: 'buffer', maxBuffer: 2 ** 28 });
    return stdout.length;
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}
