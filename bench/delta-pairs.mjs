import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Tensor } from 'inlay';
import { createGraph, encodeModel, fromTensorProto, parseModel } from 'inlay/onnx';
import { toFloat16Array } from '../build/core/float.js';
import { foldNormalization, mergeAdapters, tfjsArchive } from './delta-derived.mjs';
import { BAG, SIZES, taskOf, trainAll } from './delta-nets.mjs';
import { classesOf, createNet, lossOf, mulberry32 } from './delta-train.mjs';
import { variantsOf } from './delta-variants.mjs';

/** First half of the SHA-256 of weights as they have to come out, on any machine. */
const PINNED = {
  base: 'efd3a90c33bece1e',
  strong: 'a53d7802e9d1bd2c',
  mild: '4a892fa703c48480',
  far: 'd23b924fc0bc3ed5',
  last: 'd172626ee5e7e018',
  scratch: 'b61bd17f2d3ccdb0',
  words: '6c255c606e0be9cf',
  wordsTuned: '73bda7d031d8c0ff',
};

const EXAMPLES = 2000;
/** How far folded gains of channels move, a share. */
const DRIFT = 0.03;
/** What the weights depend on. */
const SOURCES = ['delta-nets.mjs', 'delta-train.mjs', 'delta-tfjs.mjs'];

/**
 * An old and a new version of a model, as files.
 * @typedef {object} Pair
 * @property {string} name
 * @property {Uint8Array<ArrayBuffer>} base
 * @property {Uint8Array<ArrayBuffer>} next
 */

/**
 * Trains all models, or reads what an earlier run has trained.
 * @param {(text: string) => void} tell Hears the hashes of the weights.
 * @returns {Promise<{ pairs: Record<string, Pair>, large: Record<'base' | 'strong' | 'merged', Uint8Array<ArrayBuffer>>, quality: (file: Uint8Array) => { loss: number, classes: number[] } }>}
 * `large` has the layers of a base, of its fine-tune and of a merged adapter four times, for measurements that small files disturb. `quality` judges files of the first pair on examples of the new domain that no training has seen.
 */
export async function openPairs(tell) {
  const weights = await cached(tell);
  const net = (name) => netOf(weights[name]);
  const [base, strong, mild] = ['base', 'strong', 'mild'].map((name) => net(name));
  const block = createNet([512, 512], 9);
  const [grown] = [base.slice(0, 2).concat(block, base.slice(2))];
  const all = {
    'fine-tune': [mlp(base), mlp(strong)],
    'mild fine-tune': [mlp(base), mlp(mild)],
    'strong fine-tune': [mlp(base), mlp(net('far'))],
    'LoRA of rank 8, merged': [mlp(base), mlp(mergeAdapters(base))],
    'TensorFlow.js archive': [tfjsArchive(base), tfjsArchive(strong)],
    'last layer': [mlp(base), mlp(net('last'))],
    'block added': [mlp(base), mlp(grown)],
    'from scratch': [mlp(base), mlp(net('scratch'))],
    identical: [mlp(base), mlp(base)],
    'int8 per tensor': [int8Mlp(base), int8Mlp(strong)],
    'int8 per tensor, mild': [int8Mlp(base), int8Mlp(mild)],
    float16: [mlp(base, 'float16'), mlp(strong, 'float16')],
    'float16, mild': [mlp(base, 'float16'), mlp(mild, 'float16')],
    'embedding, sparse rows': [bagModel(weights.words), bagModel(weights.wordsTuned)],
    'convolutional, tfjs': [convolutions(weights.convBase), convolutions(weights.convTuned)],
    'convolutional, tfjs, folded': [
      convolutions(foldNormalization(weights.convBase, 0)),
      convolutions(foldNormalization(weights.convTuned, DRIFT)),
    ],
  };
  const draw = taskOf(0.3);
  const random = mulberry32(99);
  const examples = Array.from({ length: EXAMPLES }, () => draw(random));
  const inputs = examples.map(({ x }) => x);
  const variants = await variantsOf([mlp(base), mlp(strong), mlp(mild)], inputs);
  for (const [name, [from, to, near]] of Object.entries(variants)) {
    all[name] = [from, to];
    all[`${name}, mild`] = [from, near];
  }
  return {
    pairs: Object.fromEntries(
      Object.entries(all).map(([name, [from, to]]) => [name, { name, base: from, next: to }]),
    ),
    large: {
      base: mlp(fourfold(base)),
      strong: mlp(fourfold(strong)),
      merged: mlp(fourfold(mergeAdapters(base))),
    },
    quality: (file) => {
      const layers = layersOf(file);
      return { loss: lossOf(layers, examples), classes: classesOf(layers, examples) };
    },
  };
}

/** What {@link trainAll} gives, kept under `build/` for as long as the code of the training stays as it is. */
async function cached(tell) {
  const texts = await Promise.all(
    SOURCES.map((name) => readFile(fileURLToPath(new URL(name, import.meta.url)), 'utf8')),
  );
  const key = sha256(texts.join('')).slice(0, 16);
  const folder = fileURLToPath(new URL(`../build/delta-pairs/${key}`, import.meta.url));
  let weights = await readAll(folder).catch(() => undefined);
  if (weights === undefined) {
    tell('training the models of the bench, which takes a minute the first time');
    weights = await trainAll();
    await mkdir(folder, { recursive: true });
    for (const [name, values] of Object.entries(weights)) {
      const path = join(folder, `${name}.bin`);
      await writeFile(`${path}.${process.pid}`, new Uint8Array(values.buffer));
      await rename(`${path}.${process.pid}`, path);
    }
  }
  for (const [name, values] of Object.entries(weights)) {
    const hash = sha256(new Uint8Array(values.buffer)).slice(0, 16);
    const pinned = PINNED[name];
    tell(`weights ${name}: ${hash}${pinned === undefined ? ', which depends on the version of tfjs' : ''}`);
    if (pinned !== undefined && pinned !== hash)
      throw new Error(
        `The weights "${name}" have the hash ${hash} instead of ${pinned}: the trainer differs here.`,
      );
  }
  return weights;
}

async function readAll(folder) {
  const names = [...Object.keys(PINNED), 'convBase', 'convTuned'];
  return Object.fromEntries(
    await Promise.all(
      names.map(async (name) => {
        const bytes = await readFile(join(folder, `${name}.bin`));
        return [name, new Float32Array(new Uint8Array(bytes).buffer)];
      }),
    ),
  );
}

function sha256(data) {
  return createHash('sha256').update(data).digest('hex');
}

function netOf(values) {
  let at = 0;
  const take = (length) => values.subarray(at, (at += length));
  return SIZES.slice(1).map((outputs, i) => {
    const inputs = SIZES[i];
    return { inputs, outputs, w: take(inputs * outputs), b: take(outputs) };
  });
}

/** Reads back what {@link mlp} wrote. */
function layersOf(file) {
  const model = parseModel(file);
  const tensors = new Map(model.graph.initializer.map((proto) => [proto.name, fromTensorProto(proto)]));
  const layers = [];
  for (let i = 0; tensors.has(`w${i}`); i += 1) {
    const [w, b] = [tensors.get(`w${i}`), tensors.get(`b${i}`)];
    layers.push({ inputs: w.shape[0], outputs: w.shape[1], w: w.data, b: b.data });
  }
  return layers;
}

/** Layers that nobody can run one after the other. */
const fourfold = (layers) => [layers, layers, layers, layers].flat();

function mlp(layers, dtype = 'float32') {
  const convert = (values) => (dtype === 'float16' ? toFloat16Array(values) : values);
  return dense(layers, dtype, (graph, name, shape, values) =>
    graph.initializer(name, new Tensor(dtype, shape, convert(values))),
  );
}

/** Weights as whole numbers with one scale for each tensor; biases as they are. */
function int8Mlp(layers) {
  return dense(layers, 'float32', (graph, name, shape, values) => {
    if (shape.length === 1) return graph.initializer(name, new Tensor('float32', shape, values));
    const scale = Math.fround(values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127);
    const whole = Int8Array.from(values, (value) => Math.round(value / scale));
    graph.initializer(`${name}_q`, new Tensor('int8', shape, whole));
    graph.initializer(`${name}_scale`, new Tensor('float32', [], Float32Array.of(scale)));
    return graph.node('DequantizeLinear', [`${name}_q`, `${name}_scale`], {}, { outputs: [name] });
  });
}

function dense(layers, dtype, constant) {
  const graph = createGraph({ name: 'mlp', opset: 17 });
  graph.input('x', dtype, ['batch', layers[0].inputs]);
  let value = 'x';
  layers.forEach(({ inputs, outputs, w, b }, i) => {
    constant(graph, `w${i}`, [inputs, outputs], w);
    constant(graph, `b${i}`, [outputs], b);
    const sum = graph.node('Add', [graph.node('MatMul', [value, `w${i}`]), `b${i}`]);
    value = i === layers.length - 1 ? sum : graph.node('Relu', [sum]);
  });
  graph.node('Identity', [value], {}, { outputs: ['y'] });
  graph.output('y', dtype, ['batch', layers.at(-1).outputs]);
  return encodeModel(graph.toModel());
}

function bagModel(values) {
  const { words, width, classes } = BAG;
  const graph = createGraph({ name: 'bag', opset: 17 });
  const split = words * width;
  graph.input('x', 'int64', ['batch', 'words']);
  graph.initializer('table', new Tensor('float32', [words, width], values.subarray(0, split)));
  const w = values.subarray(split, split + width * classes);
  graph.initializer('w', new Tensor('float32', [width, classes], w));
  graph.initializer('b', new Tensor('float32', [classes], values.subarray(split + width * classes)));
  const mean = graph.node('ReduceMean', [graph.node('Gather', ['table', 'x'])], { axes: [1], keepdims: 0 });
  graph.node('Add', [graph.node('MatMul', [mean, 'w']), 'b'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', classes]);
  return encodeModel(graph.toModel());
}

/** Kernels are [outputs, inputs, height, width], as `delta-tfjs.mjs` gives them. */
function convolutions(values) {
  const graph = createGraph({ name: 'convolutions', opset: 17 });
  let at = 0;
  const constant = (name, shape) => {
    const length = shape.reduce((a, b) => a * b, 1);
    graph.initializer(name, new Tensor('float32', shape, values.subarray(at, (at += length))));
    return name;
  };
  graph.input('x', 'float32', ['batch', 1, 16, 16]);
  const convolve = (from, name, shape) =>
    graph.node('Relu', [
      graph.node('Conv', [from, constant(`${name}_w`, shape), constant(`${name}_b`, [shape[0]])], {
        kernel_shape: [3, 3],
        strides: [2, 2],
        pads: [0, 0, 1, 1],
      }),
    ]);
  const features = convolve(convolve('x', 'c0', [32, 1, 3, 3]), 'c1', [64, 32, 3, 3]);
  const flat = graph.node('Flatten', [features], { axis: 1 });
  const hidden = graph.node('MatMul', [flat, constant('d0_w', [1024, 128])]);
  const active = graph.node('Relu', [graph.node('Add', [hidden, constant('d0_b', [128])])]);
  const scores = graph.node('MatMul', [active, constant('d1_w', [128, 10])]);
  graph.node('Add', [scores, constant('d1_b', [10])], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 10]);
  if (at !== values.length) throw new Error(`${values.length - at} weights are left over.`);
  return encodeModel(graph.toModel());
}
