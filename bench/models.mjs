import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tensor } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';

/** Writes models into a folder that goes away with the process. */
export function modelFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'inlay-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return (name, graph) => {
    const path = join(folder, `${name}.onnx`);
    writeFileSync(path, encodeModel(graph.toModel()));
    return path;
  };
}

/** `y = x + 1`, float32 [1, 4]: nothing but call overhead. */
export function trivial() {
  const graph = createGraph({ name: 'trivial', opset: 17 });
  graph.input('x', 'float32', [1, 4]);
  graph.initializer('one', new Tensor('float32', [1], new Float32Array([1])));
  graph.node('Add', ['x', 'one'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', [1, 4]);
  return graph;
}

/** Mean of a large input: all cost is in moving `x`, float32 [1, count]. */
export function mean(count) {
  const graph = createGraph({ name: 'mean', opset: 17 });
  graph.input('x', 'float32', [1, count]);
  graph.node('ReduceMean', ['x'], { keepdims: 0 }, { outputs: ['y'] });
  graph.output('y', 'float32', []);
  return graph;
}

/** Dense 784-128-10 on `image` float32 [batch, 784]; 0.1 M parameters. */
export function mlp() {
  const graph = createGraph({ name: 'mlp', opset: 17 });
  const weights = random(3);
  const add = (name, shape) => {
    const size = shape.reduce((all, length) => all * length, 1);
    const scale = Math.sqrt(2 / shape[0]);
    const data = Float32Array.from({ length: size }, () => (weights() - 0.5) * 2 * scale);
    graph.initializer(name, new Tensor('float32', shape, data));
    return name;
  };
  graph.input('image', 'float32', ['batch', 784]);
  const hidden = graph.node('Relu', [
    graph.node('Gemm', ['image', add('dense1.weight', [784, 128]), add('dense1.bias', [128])]),
  ]);
  graph.node(
    'Gemm',
    [hidden, add('dense2.weight', [128, 10]), add('dense2.bias', [10])],
    {},
    { outputs: ['logits'] },
  );
  graph.output('logits', 'float32', ['batch', 10]);
  return graph;
}

/** Two convolutions and two dense layers on `image` float32 [batch, 1, 28, 28]; 0.9 M parameters. */
export function cnn() {
  const graph = createGraph({ name: 'cnn', opset: 17 });
  const weights = random(7);
  const add = (name, shape) => {
    const size = shape.reduce((all, length) => all * length, 1);
    const scale = Math.sqrt(2 / (size / shape[0]));
    const data = Float32Array.from({ length: size }, () => (weights() - 0.5) * 2 * scale);
    graph.initializer(name, new Tensor('float32', shape, data));
    return name;
  };
  graph.input('image', 'float32', ['batch', 1, 28, 28]);
  const conv = (x, name, shape) =>
    graph.node('Relu', [
      graph.node('Conv', [x, add(`${name}.weight`, shape), add(`${name}.bias`, [shape[0]])], {
        pads: [1, 1, 1, 1],
      }),
    ]);
  const pool = (x) => graph.node('MaxPool', [x], { kernel_shape: [2, 2], strides: [2, 2] });
  const flat = graph.node('Flatten', [
    pool(conv(pool(conv('image', 'conv1', [32, 1, 3, 3])), 'conv2', [64, 32, 3, 3])),
  ]);
  const hidden = graph.node('Relu', [
    graph.node('Gemm', [flat, add('dense1.weight', [3136, 280]), add('dense1.bias', [280])]),
  ]);
  graph.node(
    'Gemm',
    [hidden, add('dense2.weight', [280, 10]), add('dense2.bias', [10])],
    {},
    { outputs: ['logits'] },
  );
  graph.output('logits', 'float32', ['batch', 10]);
  return graph;
}

/** mulberry32: small, seeded, good enough for weights. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
