import { Tensor } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';

/**
 * Models to optimise, with random Gaussian weights that are the same at each call.
 * @typedef {object} ZooModel
 * @property {string} name
 * @property {Uint8Array} model
 * @property {(rows: number, seed: number) => Record<string, Tensor>} feeds Inputs of so many rows.
 */

/** Dense layers K → K with bias and Relu. @param {{ width?: number, layers?: number }} options */
export function mlp({ width = 1024, layers = 4, seed = 1 } = {}) {
  const { graph, weight } = start(`mlp-${width}`, seed);
  graph.input('x', 'float32', ['batch', width]);
  let value = 'x';
  for (let i = 0; i < layers; i += 1) {
    const product = graph.node(
      'MatMul',
      [value, weight(`w${i}`, [width, width], width)],
      {},
      named(`fc${i}`),
    );
    const sum = graph.node('Add', [product, weight(`b${i}`, [width], 100)], {}, named(`bias${i}`));
    value = i === layers - 1 ? sum : graph.node('Relu', [sum], {}, named(`relu${i}`));
  }
  return finish(graph, value, ['batch', width], { x: gaussianFeed(() => [width]) });
}

/** Convolutions C → C with bias and Relu, of which `kernel` is the size. Depthwise: a group for each channel. */
export function convolutions({
  channels = 64,
  size = 56,
  kernel = 3,
  layers = 4,
  depthwise = false,
  seed = 2,
} = {}) {
  const kind = depthwise ? 'depthwise' : `${kernel}x${kernel}`;
  const { graph, weight } = start(`conv-${kind}-c${channels}-${size}`, seed);
  const shape = ['batch', channels, size, size];
  graph.input('x', 'float32', shape);
  let value = 'x';
  for (let i = 0; i < layers; i += 1) {
    const inner = depthwise ? 1 : channels;
    const weights = weight(`w${i}`, [channels, inner, kernel, kernel], (inner * kernel * kernel) / 2);
    const attributes = {
      pads: Array(4).fill((kernel - 1) / 2),
      kernel_shape: [kernel, kernel],
      group: depthwise ? channels : 1,
    };
    const sum = graph.node(
      'Conv',
      [value, weights, weight(`b${i}`, [channels], 100)],
      attributes,
      named(`conv${i}`),
    );
    value = i === layers - 1 ? sum : graph.node('Relu', [sum], {}, named(`relu${i}`));
  }
  return finish(graph, value, shape, { x: gaussianFeed(() => shape.slice(1)) });
}

/** A residual network of 12 convolutions: a stem, blocks beside a branch, pooling and a dense layer. */
export function residual({ size = 56, channels = [64, 128, 256], classes = 100, seed = 3 } = {}) {
  const { graph, weight } = start('residual', seed);
  graph.input('image', 'float32', ['batch', 3, size, size]);
  let made = 0;
  const conv = (x, from, to, kernel, stride) => {
    const i = made;
    made += 1;
    const weights = weight(`w${i}`, [to, from, kernel, kernel], (from * kernel * kernel) / 2);
    const attributes = {
      pads: Array(4).fill((kernel - 1) / 2),
      strides: [stride, stride],
      kernel_shape: [kernel, kernel],
    };
    return graph.node('Conv', [x, weights, weight(`b${i}`, [to], 100)], attributes, named(`conv${i}`));
  };
  const relu = (x) => graph.node('Relu', [x]);
  let width = channels[0] / 2;
  let value = relu(conv('image', 3, width, 3, 1));
  const block = (x, from, to) => {
    const stride = from === to ? 1 : 2;
    const inner = conv(relu(conv(x, from, to, 3, stride)), to, to, 3, 1);
    const branch = from === to ? x : conv(x, from, to, 1, stride);
    return relu(graph.node('Add', [inner, branch], {}, named(`add${made}`)));
  };
  for (const to of [...channels, channels.at(-1)]) {
    value = block(value, width, to);
    width = to;
  }
  value = graph.node('Flatten', [graph.node('GlobalAveragePool', [value], {}, named('pool'))]);
  value = graph.node(
    'Gemm',
    [value, weight('head.weight', [width, classes], width), weight('head.bias', [classes], 100)],
    {},
    named('head'),
  );
  return finish(graph, value, ['batch', classes], { image: gaussianFeed(() => [3, size, size]) });
}

/** A transformer encoder over tokens, with an embedding, attention, Gelu and layer normalization. */
export function encoder({
  layers = 6,
  hidden = 384,
  heads = 12,
  inner = 4 * hidden,
  vocabulary = 8000,
  length = 128,
  seed = 4,
} = {}) {
  const { graph, weight, constant } = start(`encoder-${layers}`, seed);
  graph.input('ids', 'int64', ['batch', 'length']);
  const dense = (x, name, from, to) =>
    graph.node('Add', [
      graph.node('MatMul', [x, weight(`${name}.weight`, [from, to], from)], {}, named(name)),
      weight(`${name}.bias`, [to], 100),
    ]);
  const norm = (x, name) =>
    graph.node(
      'LayerNormalization',
      [x, constant(`${name}.scale`, [hidden], 1), constant(`${name}.shift`, [hidden], 0)],
      { axis: -1 },
      named(name),
    );
  graph.initializer('split', int64([0, 0, heads, hidden / heads]));
  graph.initializer('join', int64([0, 0, hidden]));
  const root = constant('root', [], Math.sqrt(hidden / heads));
  const [half, one, sqrt2] = [
    constant('half', [], 0.5),
    constant('one', [], 1),
    constant('sqrt2', [], Math.SQRT2),
  ];
  let value = norm(
    graph.node('Gather', [weight('embedding', [vocabulary, hidden], 1), 'ids'], {}, named('embed')),
    'norm',
  );
  for (let i = 0; i < layers; i += 1) {
    const at = `layer${i}`;
    const split = (name, perm) =>
      graph.node(
        'Transpose',
        [graph.node('Reshape', [dense(value, `${at}.${name}`, hidden, hidden), 'split'])],
        { perm },
      );
    const scores = graph.node(
      'MatMul',
      [split('query', [0, 2, 1, 3]), split('key', [0, 2, 3, 1])],
      {},
      named(`${at}.scores`),
    );
    const shares = graph.node(
      'Softmax',
      [graph.node('Div', [scores, root])],
      { axis: -1 },
      named(`${at}.softmax`),
    );
    const mixed = graph.node('MatMul', [shares, split('value', [0, 2, 1, 3])], {}, named(`${at}.mix`));
    const joined = graph.node('Reshape', [graph.node('Transpose', [mixed], { perm: [0, 2, 1, 3] }), 'join']);
    const attended = norm(
      graph.node('Add', [value, dense(joined, `${at}.out`, hidden, hidden)]),
      `${at}.norm1`,
    );
    const up = dense(attended, `${at}.up`, hidden, inner);
    const erf = graph.node('Add', [graph.node('Erf', [graph.node('Div', [up, sqrt2])]), one]);
    const gelu = graph.node('Mul', [graph.node('Mul', [up, erf]), half]);
    value = norm(graph.node('Add', [attended, dense(gelu, `${at}.down`, inner, hidden)]), `${at}.norm2`);
  }
  return finish(graph, value, ['batch', 'length', hidden], { ids: tokenFeed(length, vocabulary) });
}

/** What one step of a decoder does at batch 1: a single row through large weights, and a wide head. */
export function decodeStep({ width = 2048, layers = 2, vocabulary = 4096, seed = 5 } = {}) {
  const { graph, weight, constant } = start(`decode-${width}`, seed);
  graph.input('x', 'float32', [1, width]);
  let value = 'x';
  for (let i = 0; i < layers; i += 1) {
    const gate = graph.node(
      'MatMul',
      [value, weight(`gate${i}`, [width, width], width)],
      {},
      named(`gate${i}.product`),
    );
    const up = graph.node(
      'MatMul',
      [value, weight(`up${i}`, [width, width], width)],
      {},
      named(`up${i}.product`),
    );
    const mixed = graph.node('Mul', [graph.node('Sigmoid', [gate]), up]);
    const down = graph.node(
      'MatMul',
      [mixed, weight(`down${i}`, [width, width], width)],
      {},
      named(`down${i}.product`),
    );
    const scale = constant(`scale${i}`, [width], 1);
    value = graph.node('LayerNormalization', [graph.node('Add', [value, down]), scale], { axis: -1 });
  }
  value = graph.node(
    'MatMul',
    [value, weight('head', [width, vocabulary], width)],
    {},
    named('head.product'),
  );
  return finish(graph, value, [1, vocabulary], { x: gaussianFeed(() => [width]) });
}

/** A model so small that calls cost more than it computes: nothing makes it faster. */
export function tiny({ seed = 6 } = {}) {
  return { ...mlp({ width: 8, layers: 2, seed }), name: 'tiny' };
}

function start(name, seed) {
  const random = gaussian(seed);
  const graph = createGraph({ name, opset: 17 });
  return {
    graph,
    /** A constant of variance `1 / fanIn`. */
    weight: (at, shape, fanIn) => {
      const scale = 1 / Math.sqrt(fanIn);
      return graph.initializer(
        at,
        float32(shape, () => random() * scale),
      );
    },
    constant: (at, shape, value) =>
      graph.initializer(
        at,
        float32(shape, () => value),
      ),
  };
}

function finish(graph, value, shape, inputs) {
  graph.output(value, 'float32', shape);
  const model = graph.toModel();
  const rename = (names) => names.map((one) => (one === value ? 'y' : one));
  const node = model.graph.node.map((one) => ({ ...one, output: rename(one.output) }));
  const output = model.graph.output.map((one) => ({ ...one, name: 'y' }));
  return {
    name: model.graph.name,
    model: encodeModel({ ...model, graph: { ...model.graph, node, output } }),
    feeds: (rows, seed = 1) => {
      const random = gaussian(1000 + seed);
      return Object.fromEntries(Object.entries(inputs).map(([name, make]) => [name, make(rows, random)]));
    },
  };
}

const named = (name) => ({ name });
const gaussianFeed = (shapeOf) => (rows, random) => float32([rows, ...shapeOf()], random);
const tokenFeed = (length, vocabulary) => (rows, random) => {
  const data = BigInt64Array.from({ length: rows * length }, () =>
    BigInt(Math.floor(Math.abs(random()) * 1e4) % vocabulary),
  );
  return new Tensor('int64', [rows, length], data);
};
const int64 = (values) => new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt));

function float32(shape, next) {
  const data = new Float32Array(shape.reduce((product, length) => product * length, 1));
  for (let i = 0; i < data.length; i += 1) data[i] = next();
  return new Tensor('float32', shape, data);
}

/** Normal numbers by Marsaglia's polar method over mulberry32. */
function gaussian(seed) {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  let spare;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    for (;;) {
      const [u, v] = [2 * uniform() - 1, 2 * uniform() - 1];
      const square = u * u + v * v;
      if (square > 0 && square < 1) {
        const factor = Math.sqrt((-2 * Math.log(square)) / square);
        spare = v * factor;
        return u * factor;
      }
    }
  };
}
