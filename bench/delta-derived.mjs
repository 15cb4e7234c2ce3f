/** Networks that come of trained ones without training. */
import { zipSync } from 'fflate';
import { mulberry32, normal } from './delta-train.mjs';

/** Rank of the adapters. */
const RANK = 8;
/** Root mean square of what adapters add, as a share of that of the weights. */
const STRENGTH = 0.02;

/**
 * Adds an adapter of low rank to each matrix of weights (LoRA, arXiv:2106.09685 §4.1), in float32 as libraries merge them.
 * @param {import('./delta-train.mjs').Layer[]} layers
 */
export function mergeAdapters(layers) {
  const random = mulberry32(21);
  return layers.map(({ inputs, outputs, w, b }) => {
    const square = w.reduce((sum, value) => sum + value * value, 0) / w.length;
    // Of both factors alike, so that their product has the strength.
    const scale = Math.sqrt((STRENGTH * Math.sqrt(square)) / Math.sqrt(RANK));
    const draw = (length) => Float32Array.from({ length }, () => normal(random) * scale);
    const [down, up] = [draw(inputs * RANK), draw(RANK * outputs)];
    const merged = w.map((value, k) => {
      const [i, j] = [Math.floor(k / outputs), k % outputs];
      let sum = 0;
      for (let r = 0; r < RANK; r += 1)
        sum = Math.fround(sum + Math.fround(down[i * RANK + r] * up[r * outputs + j]));
      return value + sum;
    });
    return { inputs, outputs, w: merged, b };
  });
}

/**
 * Folds a batch normalization into the convolutions of `delta-tfjs.mjs`: each output channel is stretched by what its
 * statistics say, and those move a little from version to version.
 * @param {Float32Array} values @param {number} drift Root mean square of what channels are stretched by more, a share.
 */
export function foldNormalization(values, drift) {
  const folded = values.slice();
  const [gains, drifts] = [mulberry32(31), mulberry32(32)];
  let at = 0;
  for (const [outputs, each] of [
    [32, 9],
    [64, 288],
  ]) {
    const biases = at + outputs * each;
    for (let channel = 0; channel < outputs; channel += 1) {
      const gain = (0.5 + gains()) * (1 + drift * normal(drifts));
      for (let k = 0; k < each; k += 1, at += 1) folded[at] *= gain;
      folded[biases + channel] *= gain;
    }
    at = biases + outputs;
  }
  return folded;
}

/**
 * A dense network as TensorFlow.js saves it, in one ZIP archive that stores its files: `model.json`, and weights in shards of at
 * most 512 KiB.
 * @param {import('./delta-train.mjs').Layer[]} layers
 */
export function tfjsArchive(layers) {
  const SHARD = 2 ** 19;
  const weights = layers.flatMap(({ inputs, outputs }, i) => [
    { name: `dense_${i}/kernel`, shape: [inputs, outputs], dtype: 'float32' },
    { name: `dense_${i}/bias`, shape: [outputs], dtype: 'float32' },
  ]);
  const data = Buffer.concat(
    layers.flatMap(({ w, b }) => [w, b].map((part) => new Uint8Array(part.slice().buffer))),
  );
  const count = Math.ceil(data.length / SHARD);
  const paths = Array.from({ length: count }, (_, i) => `group1-shard${i + 1}of${count}.bin`);
  const shards = paths.map((path, i) => [path, new Uint8Array(data.subarray(i * SHARD, (i + 1) * SHARD))]);
  const dense = layers.map(({ outputs }, i) => ({
    class_name: 'Dense',
    config: {
      name: `dense_${i}`,
      units: outputs,
      activation: i === layers.length - 1 ? 'linear' : 'relu',
      ...(i === 0 && { batch_input_shape: [null, layers[0].inputs] }),
    },
  }));
  const model = {
    format: 'layers-model',
    modelTopology: {
      model_config: { class_name: 'Sequential', config: { name: 'mlp', layers: dense } },
      keras_version: 'tfjs-layers',
      backend: 'tensor_flow.js',
    },
    weightsManifest: [{ paths, weights }],
  };
  const files = {
    'model.json': new Uint8Array(Buffer.from(JSON.stringify(model))),
    ...Object.fromEntries(shards),
  };
  return zipSync(files, { level: 0, mtime: '2024-01-01' });
}
