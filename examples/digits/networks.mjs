import * as tf from '@tensorflow/tfjs';

/**
 * A layer of a network; all but the last are followed by ReLU. A dense layer behind a convolution takes its rows,
 * columns and channels as one axis.
 * @typedef {{ op: 'conv', kernel: number, stride: number, from: number, to: number }
 *   | { op: 'dense', from: number, to: number }} Layer
 * @typedef {{ kernel: tf.Variable, bias: tf.Variable }} Weights `kernel` is float32 [inputs, outputs]; the inputs of
 * a convolution are row, column and channel of its window, outermost first
 */

/** The networks by version, as data that training and export both read. @type {Record<string, Layer[]>} */
export const NETWORKS = {
  '1.0.0': [
    { op: 'dense', from: 784, to: 40 },
    { op: 'dense', from: 40, to: 10 },
  ],
  '1.1.0': [
    { op: 'conv', kernel: 5, stride: 2, from: 1, to: 10 },
    { op: 'conv', kernel: 3, stride: 2, from: 10, to: 20 },
    { op: 'dense', from: 500, to: 64 },
    { op: 'dense', from: 64, to: 10 },
  ],
};

/**
 * Draws first weights: He's uniform distribution, biases 0.
 * @param {Layer[]} layers @param {number} seed
 * @returns {Weights[]} owned by the caller, who disposes them
 */
export function createWeights(layers, seed) {
  return tf.tidy(() =>
    layers.map((layer, index) => {
      const inputs = layer.op === 'conv' ? layer.kernel ** 2 * layer.from : layer.from;
      const limit = Math.sqrt(6 / inputs);
      const kernel = tf.randomUniform([inputs, layer.to], -limit, limit, 'float32', seed + index);
      return { kernel: tf.variable(kernel), bias: tf.variable(tf.zeros([layer.to])) };
    }),
  );
}

/**
 * Runs a network.
 * @param {Layer[]} layers @param {Weights[]} weights
 * @param {tf.Tensor4D} images float32 [batch, 28, 28, 1]
 * @returns {tf.Tensor2D} float32 [batch, 10]
 */
export function toLogits(layers, weights, images) {
  const batch = images.shape[0];
  /** @type {tf.Tensor} */
  let values = images;
  for (const [index, layer] of layers.entries()) {
    const { kernel, bias } = weights[index];
    if (layer.op === 'conv') {
      const input = /** @type {tf.Tensor4D} */ (values);
      const side = sideAfter(layer, input.shape[1]);
      const windows = unfold(input, layer.kernel, layer.stride);
      values = windows.matMul(kernel).add(bias).reshape([batch, side, side, layer.to]);
    } else {
      values = values.reshape([batch, layer.from]).matMul(kernel).add(bias);
    }
    if (index < layers.length - 1) values = values.relu();
  }
  return /** @type {tf.Tensor2D} */ (values);
}

/**
 * Side of the image that a convolution without padding leaves.
 * @param {{ kernel: number, stride: number }} layer @param {number} side
 */
export function sideAfter(layer, side) {
  return Math.floor((side - layer.kernel) / layer.stride) + 1;
}

/**
 * Lays out the windows of a convolution as rows, so that it becomes a matrix product, which the CPU backend
 * computes several times faster than `conv2d` and its gradients.
 * @param {tf.Tensor4D} images float32 [batch, side, side, channels]
 * @param {number} kernel @param {number} stride
 * @returns {tf.Tensor} float32 [batch * windows, kernel * kernel * channels]
 */
function unfold(images, kernel, stride) {
  const [batch, side, , channels] = images.shape;
  const after = sideAfter({ kernel, stride }, side);
  const run = kernel * channels;
  /** @param {(image: number, row: number) => void} copy takes the offsets of each run that both layouts hold */
  const eachRun = (copy) => {
    let row = 0;
    for (let image = 0; image < batch; image += 1) {
      for (let window = 0; window < after * after; window += 1) {
        const top = Math.floor(window / after) * stride;
        const left = (window % after) * stride;
        for (let y = top; y < top + kernel; y += 1, row += run) {
          copy(((image * side + y) * side + left) * channels, row);
        }
      }
    }
  };
  return tf.customGrad(() => {
    const source = images.dataSync();
    const rows = new Float32Array(batch * after * after * kernel * run);
    eachRun((image, row) => {
      for (let at = 0; at < run; at += 1) rows[row + at] = source[image + at];
    });
    const gradFunc = (/** @type {tf.Tensor} */ gradient) => {
      const perRow = gradient.dataSync();
      const perPixel = new Float32Array(source.length);
      eachRun((image, row) => {
        for (let at = 0; at < run; at += 1) perPixel[image + at] += perRow[row + at];
      });
      return tf.tensor(perPixel, images.shape);
    };
    return { value: tf.tensor2d(rows, [batch * after * after, kernel * run]), gradFunc };
  })(images);
}
