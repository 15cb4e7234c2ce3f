import { Tensor } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';
import { SIDE } from './draw.mjs';
import { sideAfter } from './networks.mjs';

/**
 * Writes a network as an ONNX model: `image` float32 [batch, 1, 28, 28] to `logits` float32 [batch, 10].
 * @param {import('./networks.mjs').Layer[]} layers
 * @param {import('./networks.mjs').Weights[]} weights
 * @param {Record<string, string>} metadata
 * @returns {Uint8Array}
 */
export function exportModel(layers, weights, metadata) {
  const graph = createGraph({ name: 'digits', opset: 17 });
  let value = graph.input('image', 'float32', ['batch', 1, SIDE, SIDE]);
  let [side, channels, isFlat] = [SIDE, 1, false];
  for (const [index, layer] of layers.entries()) {
    const isLast = index === layers.length - 1;
    const kernel = valuesOf(weights[index].kernel);
    const biases = new Tensor('float32', [layer.to], valuesOf(weights[index].bias));
    const bias = graph.initializer(`bias${index}`, biases);
    const outputs = isLast ? 'logits' : undefined;
    if (layer.op === 'conv') {
      const shape = [layer.to, layer.from, layer.kernel, layer.kernel];
      const tensor = new Tensor('float32', shape, toOutputFirst(kernel, layer));
      value = graph.node('Conv', [value, graph.initializer(`kernel${index}`, tensor), bias], {
        strides: [layer.stride, layer.stride],
      });
      [side, channels] = [sideAfter(layer, side), layer.to];
    } else {
      if (!isFlat) value = graph.node('Flatten', [value]);
      const rows = isFlat ? kernel : toChannelFirst(kernel, side * side, channels);
      const tensor = new Tensor('float32', [layer.from, layer.to], rows);
      isFlat = true;
      value = graph.node('Gemm', [value, graph.initializer(`kernel${index}`, tensor), bias], {}, { outputs });
    }
    if (!isLast) value = graph.node('Relu', [value]);
  }
  graph.output('logits', 'float32', ['batch', 10]);
  for (const [key, text] of Object.entries(metadata)) graph.metadata(key, text);
  return encodeModel(graph.toModel());
}

/** @param {import('@tensorflow/tfjs').Tensor} tensor */
function valuesOf(tensor) {
  return /** @type {Float32Array} */ (tensor.dataSync());
}

/**
 * Reorders a convolution's kernel from [row, column, input, output] to ONNX's [output, input, row, column].
 * @param {Float32Array} kernel @param {{ kernel: number, from: number, to: number }} layer
 */
function toOutputFirst(kernel, { kernel: size, from, to }) {
  const area = size * size;
  return Float32Array.from(kernel, (_, at) => {
    const output = Math.floor(at / (from * area));
    const input = Math.floor(at / area) % from;
    return kernel[((at % area) * from + input) * to + output];
  });
}

/**
 * Reorders the rows of a dense kernel from [place, channel] to [channel, place], as ONNX flattens an image.
 * @param {Float32Array} kernel @param {number} places @param {number} channels
 */
function toChannelFirst(kernel, places, channels) {
  const outputs = kernel.length / (places * channels);
  return Float32Array.from(kernel, (_, at) => {
    const row = Math.floor(at / outputs);
    const from = (row % places) * channels + Math.floor(row / places);
    return kernel[from * outputs + (at % outputs)];
  });
}
