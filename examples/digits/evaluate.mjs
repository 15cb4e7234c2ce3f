import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import * as ort from 'onnxruntime-node';
import { drawSet, SIDE } from './draw.mjs';

const BATCH = 250;
const AREA = SIDE * SIDE;

/**
 * Lets a model read freshly drawn digits.
 * @param {Uint8Array} model ONNX
 * @param {{ count: number, seed: number }} options
 * @returns {Promise<{ accuracy: number, confusion: number[][] }>} `accuracy`: ratio in [0, 1]; `confusion[label][guess]`
 */
export async function evaluate(model, { count, seed }) {
  const { labels, pixels } = drawSet(seed, count);
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
  const confusion = Array.from({ length: 10 }, () => Array.from({ length: 10 }, () => 0));
  for (let from = 0; from < count; from += BATCH) {
    const size = Math.min(BATCH, count - from);
    const images = pixels.subarray(from * AREA, (from + size) * AREA);
    const { logits } = await session.run({ image: new ort.Tensor('float32', images, [size, 1, SIDE, SIDE]) });
    const scoresOf = /** @type {Float32Array} */ (logits.data);
    for (let index = 0; index < size; index += 1) {
      const scores = scoresOf.subarray(index * 10, index * 10 + 10);
      confusion[labels[from + index]][scores.indexOf(Math.max(...scores))] += 1;
    }
  }
  await session.release();
  const correct = confusion.reduce((sum, row, label) => sum + row[label], 0);
  return { accuracy: correct / count, confusion };
}

/** The mistakes made most often, most frequent first. @param {number[][]} confusion */
function worstOf(confusion) {
  return confusion
    .flatMap((row, label) => row.map((times, guess) => ({ label, guess, times })))
    .filter(({ label, guess, times }) => label !== guess && times > 0)
    .sort((a, b) => b.times - a.times)
    .slice(0, 8);
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { count: { type: 'string', default: '2000' }, seed: { type: 'string', default: '7' } },
  });
  const [file] = positionals;
  const [count, seed] = [Number(values.count), Number(values.seed)];
  if (file === undefined || !(count > 0) || !Number.isInteger(count) || !Number.isInteger(seed)) {
    throw new Error('Usage: node examples/digits/evaluate.mjs FILE [--count 2000] [--seed 7]');
  }
  const { accuracy, confusion } = await evaluate(await readFile(file), { count, seed });
  console.log(`${(100 * accuracy).toFixed(2)} % of ${count} digits of seed ${seed}`);
  for (const [label, row] of confusion.entries()) {
    const written = row.reduce((sum, times) => sum + times, 0);
    console.log(`  ${label}: ${row[label]} of ${written}`);
  }
  for (const { label, guess, times } of worstOf(confusion))
    console.log(`  ${label} read as ${guess}: ${times}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
