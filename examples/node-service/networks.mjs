import { Tensor } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';

/**
 * Networks that take and give what the digits model does, with untrained weights: what they cost is real, what they say
 * is not. `image`: float32 [batch, 1, 28, 28] to `logits`: float32 [batch, 10].
 * @type {Record<string, () => Uint8Array>} ONNX by name
 */
export const networks = {
  /** Dense 784-2048-2048-10: reading 23 MB of weights is what costs, whatever the batch. */
  wide: () =>
    encode('wide', (graph, weights) => {
      const dense = (x, name, shape) => graph.node('MatMul', [x, weights(name, shape)]);
      const first = graph.node('Relu', [dense(graph.node('Flatten', ['image']), 'dense1', [784, 2048])]);
      return [graph.node('Relu', [dense(first, 'dense2', [2048, 2048])]), 2048];
    }),
  /** Three convolutions of 28 × 28 with 128 channels: arithmetic is what costs, and it grows with the batch. */
  deep: () =>
    encode('deep', (graph, weights) => {
      let x = 'image';
      for (const [name, from] of Object.entries({ conv1: 1, conv2: 128, conv3: 128 })) {
        const inputs = [x, weights(name, [128, from, 3, 3])];
        x = graph.node('Relu', [graph.node('Conv', inputs, { pads: [1, 1, 1, 1] })]);
      }
      return [graph.node('Flatten', [graph.node('GlobalAveragePool', [x])]), 128];
    }),
};

function encode(name, build) {
  const graph = createGraph({ name, opset: 17 });
  const weights = (tensor, shape) => {
    const size = shape.reduce((all, length) => all * length);
    const data = Float32Array.from({ length: size }, (_, i) => Math.sin(i * i) / Math.sqrt(shape[0]));
    graph.initializer(tensor, new Tensor('float32', shape, data));
    return tensor;
  };
  graph.input('image', 'float32', ['batch', 1, 28, 28]);
  const [features, width] = build(graph, weights);
  graph.node('MatMul', [features, weights('scores', [width, 10])], {}, { outputs: 'logits' });
  graph.output('logits', 'float32', ['batch', 10]);
  return encodeModel(graph.toModel());
}
