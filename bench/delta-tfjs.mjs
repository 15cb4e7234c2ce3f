import * as tf from '@tensorflow/tfjs';
import { mulberry32, normal } from './delta-train.mjs';

/**
 * A convolutional network as people train it, and the same one trained on: its own layers, optimiser and losses, on the `cpu`
 * backend, with seeds. The same version of tfjs gives the same bits.
 * @returns {Promise<{ convBase: Float32Array, convTuned: Float32Array }>} kernels as ONNX has them, each with its biases after it
 */
export async function convolutionalPair() {
  await tf.setBackend('cpu');
  await tf.ready();
  const init = (seed) => tf.initializers.heNormal({ seed });
  const model = tf.sequential({
    layers: [
      tf.layers.conv2d({
        inputShape: [16, 16, 1],
        filters: 32,
        kernelSize: 3,
        strides: 2,
        padding: 'same',
        activation: 'relu',
        kernelInitializer: init(1),
      }),
      tf.layers.conv2d({
        filters: 64,
        kernelSize: 3,
        strides: 2,
        padding: 'same',
        activation: 'relu',
        kernelInitializer: init(2),
      }),
      tf.layers.permute({ dims: [3, 1, 2] }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 128, activation: 'relu', kernelInitializer: init(3) }),
      tf.layers.dense({ units: 10, activation: 'softmax', kernelInitializer: init(4) }),
    ],
  });
  const fit = async (rate, examples) => {
    model.compile({ optimizer: tf.train.adam(rate), loss: 'categoricalCrossentropy' });
    await model.fit(examples.x, examples.y, { epochs: 1, batchSize: 32, shuffle: false });
    tf.dispose([examples.x, examples.y]);
  };
  await fit(1e-3, drawImages({ count: 768, seed: 11, noise: 0.3 }));
  const convBase = weightsOf(model);
  await fit(1e-4, drawImages({ count: 384, seed: 12, noise: 0.6 }));
  const convTuned = weightsOf(model);
  model.dispose();
  return { convBase, convTuned };
}

/** Ten blurred shapes, each moved a little and covered with noise. */
function drawImages({ count, seed, noise }) {
  const shapes = mulberry32(1);
  const kinds = Array.from({ length: 10 }, () => Float32Array.from({ length: 64 }, () => normal(shapes)));
  const random = mulberry32(seed);
  const pixels = new Float32Array(count * 256);
  const labels = new Int32Array(count);
  for (let i = 0; i < count; i += 1) {
    const kind = Math.floor(random() * 10);
    labels[i] = kind;
    const [dx, dy] = [Math.floor(random() * 3), Math.floor(random() * 3)];
    for (let at = 0; at < 256; at += 1) {
      const [x, y] = [((at & 15) + dx) >> 1, ((at >> 4) + dy) >> 1];
      pixels[i * 256 + at] = kinds[kind][((y & 7) << 3) | (x & 7)] + noise * normal(random);
    }
  }
  const y = tf.tidy(() => tf.oneHot(tf.tensor1d(labels, 'int32'), 10).toFloat());
  return { x: tf.tensor4d(pixels, [count, 16, 16, 1]), y };
}

function weightsOf(model) {
  const parts = tf.tidy(() =>
    model.getWeights().map((weight) =>
      // From [height, width, inputs, outputs] to [outputs, inputs, height, width].
      (weight.rank === 4 ? weight.transpose([3, 2, 0, 1]) : weight).dataSync().slice(),
    ),
  );
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
