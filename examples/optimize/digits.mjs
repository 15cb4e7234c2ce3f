#!/usr/bin/env node
/**
 * Makes the digit classifier smaller or faster for this machine, judged by how many digits it reads.
 *
 *   node examples/optimize/digits.mjs [--size 0.5] [--out FILE.onnx]
 */
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Tensor } from 'inlay';
import { createNodeRuntime, openModelFile, optimizeModel, saveModelFile } from 'inlay/optimize';
import { drawSet, SIDE } from '../digits/draw.mjs';

const { values } = parseArgs({ options: { size: { type: 'string' }, out: { type: 'string' } } });
const runtime = createNodeRuntime();
try {
  const { model } = await openModelFile(
    fileURLToPath(new URL('../digits/digits-1.1.0.onnx', import.meta.url)),
  );
  const optimized = await optimizeModel(model, {
    runtime,
    batches: [1, 32],
    samples: samplesOf(1, 64),
    calibration: { data: samplesOf(2, 128) },
    ...(values.size && { goal: { maxSizeRatio: Number(values.size) } }),
    evaluate: { score: accuracyOf, maxLoss: 0.005 },
    monotonicMs: () => performance.now(),
    onProgress: ({ step, candidate = '', ratio }) => console.error(Math.round(100 * ratio), step, candidate),
  });
  console.log(optimized.report.toMarkdown());
  if (values.out && optimized.isChanged) await saveModelFile(values.out, optimized.model);
} finally {
  await runtime.close();
}

/** Digits that are drawn for a seed, one for each sample. */
function samplesOf(seed, count) {
  const { pixels } = drawSet(seed, count);
  return Array.from({ length: count }, (_, i) => ({ image: imagesOf(pixels, i, i + 1) }));
}

/** Share of digits that a model reads as they were meant. */
async function accuracyOf(session) {
  const count = 1000;
  const { labels, pixels } = drawSet(3, count);
  const { logits } = await session.run({ image: imagesOf(pixels, 0, count) });
  const read = Array.from(labels, (_, i) => {
    const scores = logits.data.subarray(10 * i, 10 * i + 10);
    return scores.indexOf(Math.max(...scores));
  });
  return read.filter((digit, i) => digit === labels[i]).length / count;
}

function imagesOf(pixels, from, to) {
  return new Tensor(
    'float32',
    [to - from, 1, SIDE, SIDE],
    pixels.slice(from * SIDE * SIDE, to * SIDE * SIDE),
  );
}
