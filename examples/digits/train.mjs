import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs';
import { createRandom, drawDigit, SIDE } from './draw.mjs';
import { evaluate } from './evaluate.mjs';
import { exportModel } from './export.mjs';
import { createWeights, NETWORKS, toLogits } from './networks.mjs';

const BATCH = 32;
const LEARNING_RATE = 0.003;
const AREA = SIDE * SIDE;
/** Held-out digits: drawn from seeds that training never uses. */
const HELD_OUT = { count: 10_000, seed: 1_000_003 };

/** Digits that each version is trained on by default; each is drawn afresh and seen once. @type {Record<string, number>} */
const SAMPLES = { '1.0.0': 120_000, '1.1.0': 100_000 };

/**
 * Trains a network on digits drawn as it goes and measures it with ONNX Runtime on digits it has not seen. Equal
 * options give equal bytes on one version of Node. Makes the CPU the backend of tfjs for the whole process.
 * @param {object} options
 * @param {string} options.version a key of `NETWORKS`
 * @param {number} options.samples digits to train on
 * @param {number} [options.until] stop after so many of them, as an early version of the same network would
 * @param {number} [options.seed]
 * @param {{ count: number, seed: number }} [options.heldOut]
 * @param {(progress: { seen: number, loss: number }) => void} [options.onProgress] called about 20 times; `loss` is
 * the mean since the last call
 * @returns {Promise<{ model: Uint8Array, accuracy: number }>}
 */
export async function train({
  version,
  samples,
  until = samples,
  seed = 1,
  heldOut = HELD_OUT,
  onProgress = () => {},
}) {
  const layers = NETWORKS[version];
  if (layers === undefined) throw new RangeError(`There is no network of version ${version}.`);
  if (!(Number.isSafeInteger(samples) && samples > 0)) {
    throw new RangeError(`A number of samples is a positive integer, got ${samples}.`);
  }
  if (!Number.isSafeInteger(seed)) throw new RangeError(`A seed is an integer, got ${seed}.`);
  tf.enableProdMode();
  await tf.setBackend('cpu');
  const weights = createWeights(layers, seed);
  fit(layers, weights, { samples, until, seed }, onProgress);
  const { accuracy } = await evaluate(exportModel(layers, weights, {}), heldOut);
  const { version: inlayVersion } = JSON.parse(
    await readFile(new URL('../../package.json', import.meta.url), 'utf8'),
  );
  const model = exportModel(layers, weights, {
    description: `Reads a handwritten digit, ${layers[0].op === 'conv' ? 'convolutional' : 'dense'} network.`,
    version,
    accuracy: String(accuracy),
    accuracy_samples: String(heldOut.count),
    accuracy_seed: String(heldOut.seed),
    training_samples: String(Math.min(until, samples)),
    training_seed: String(seed),
    inlay_version: inlayVersion,
  });
  tf.dispose(weights);
  return { model, accuracy };
}

/**
 * Fits the weights in place, by Adam with a learning rate that falls to 0 in a straight line.
 * @param {import('./networks.mjs').Layer[]} layers @param {import('./networks.mjs').Weights[]} weights
 * @param {{ samples: number, until: number, seed: number }} plan
 * @param {(progress: { seen: number, loss: number }) => void} onProgress
 */
function fit(layers, weights, { samples, until, seed }, onProgress) {
  const variables = weights.flatMap(({ kernel, bias }) => [kernel, bias]);
  const random = createRandom(seed);
  const optimizer = tf.train.adam(LEARNING_RATE);
  const steps = Math.ceil(samples / BATCH);
  const perReport = Math.ceil(steps / 20);
  let loss = 0;
  for (let step = 0; step < steps && step * BATCH < until; step += 1) {
    Object.assign(optimizer, { learningRate: LEARNING_RATE * (1 - step / steps) });
    loss += tf.tidy(() => {
      const { images, labels } = drawBatch(random);
      const lossOf = () =>
        tf.losses.softmaxCrossEntropy(labels, toLogits(layers, weights, images)).asScalar();
      return optimizer.minimize(lossOf, true, variables)?.dataSync()[0] ?? Number.NaN;
    });
    if ((step + 1) % perReport === 0) {
      onProgress({ seen: (step + 1) * BATCH, loss: loss / perReport });
      loss = 0;
    }
  }
  optimizer.dispose();
}

/** @param {import('./draw.mjs').Random} random */
function drawBatch(random) {
  const pixels = new Float32Array(BATCH * AREA);
  const labels = new Int32Array(BATCH);
  for (let index = 0; index < BATCH; index += 1) {
    const digit = drawDigit(random);
    pixels.set(digit.pixels, index * AREA);
    labels[index] = digit.label;
  }
  return {
    images: tf.tensor4d(pixels, [BATCH, SIDE, SIDE, 1]),
    labels: tf.oneHot(tf.tensor1d(labels, 'int32'), 10),
  };
}

async function main() {
  const { values } = parseArgs({
    options: {
      version: { type: 'string', multiple: true, default: Object.keys(NETWORKS) },
      samples: { type: 'string' },
      until: { type: 'string' },
      seed: { type: 'string', default: '1' },
      out: { type: 'string', default: fileURLToPath(new URL('.', import.meta.url)) },
    },
  });
  await mkdir(values.out, { recursive: true });
  for (const version of values.version) {
    const samples = Number(values.samples ?? SAMPLES[version]);
    const until = Number(values.until ?? samples);
    console.log(`digits ${version}: ${Math.min(until, samples)} digits of seed ${values.seed}`);
    const started = performance.now();
    const { model, accuracy } = await train({
      version,
      samples,
      until,
      seed: Number(values.seed),
      onProgress: ({ seen, loss }) => console.log(`  ${seen}: loss ${loss.toFixed(4)}`),
    });
    await writeFile(join(values.out, `digits-${version}.onnx`), model);
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    console.log(
      `  ${(100 * accuracy).toFixed(2)} % of ${HELD_OUT.count}, ${model.length} bytes, ${seconds} s`,
    );
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
