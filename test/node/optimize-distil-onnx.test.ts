/** Networks of TensorFlow.js against the ONNX that is written of them, on the real libraries. */
import * as tf from '@tensorflow/tfjs';
import * as ort from 'onnxruntime-node';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { toOnnxModel, type ToOnnxOptions } from '../../src/optimize/distil/to-onnx.ts';
import { createRandom } from '../../src/stats/random.ts';

beforeAll(async () => {
  tf.enableProdMode();
  await tf.setBackend('cpu');
});

const layers = tf.layers;
type Layer = tf.layers.Layer;

/** Gives every weight random values, also biases and moving averages. */
function randomize(model: tf.LayersModel, random: () => number): void {
  tf.tidy(() =>
    model.setWeights(
      model.getWeights().map((weight, index) => {
        const isVariance = /variance/.test(model.weights[index]?.name ?? '');
        const values = Float32Array.from(
          { length: weight.size },
          () => (isVariance ? 0.3 : -0.6) + 1.2 * random(),
        );
        return tf.tensor(values, weight.shape);
      }),
    ),
  );
}

/** Largest difference of any output on random feeds, relative to its largest element. */
async function differenceOf(
  model: tf.LayersModel,
  { batch = 2, integers = 0, size = 9 } = {},
  options: ToOnnxOptions = {},
): Promise<{ difference: number; onnx: ModelProto; dims: (readonly number[])[] }> {
  const random = createRandom(7);
  randomize(model, random);
  const onnx = await toOnnxModel(model, options);
  const session = await ort.InferenceSession.create(encodeModel(onnx), { intraOpNumThreads: 1 });
  const feeds = model.inputs.map(({ shape }) => {
    const full = shape.map((length, axis) => length ?? (axis === 0 ? batch : size));
    const values = Float32Array.from({ length: full.reduce((a, b) => a * b, 1) }, () =>
      integers > 0 ? Math.floor(random() * integers) : 4 * random() - 2,
    );
    return { shape: full, values };
  });
  const tensors = feeds.map(({ shape, values }) => tf.tensor(values, shape));
  const expected = [model.predictOnBatch(tensors.length === 1 ? (tensors[0] as tf.Tensor) : tensors)].flat();
  const actual = await session.run(
    Object.fromEntries(
      session.inputNames.map((name, at) => [
        name,
        new ort.Tensor('float32', feeds[at]?.values ?? [], feeds[at]?.shape ?? []),
      ]),
    ),
  );
  await session.release();
  let difference = 0;
  const dims = session.outputNames.map((name, at) => {
    const want = Float32Array.from(expected[at]?.dataSync() ?? []);
    const got = actual[name]?.data as Float32Array;
    expect(actual[name]?.dims).toEqual(expected[at]?.shape);
    const scale = want.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
    want.forEach((value, index) => {
      difference = Math.max(difference, Math.abs(value - (got[index] ?? Number.NaN)) / scale);
    });
    return actual[name]?.dims ?? [];
  });
  tf.dispose([...tensors, ...expected]);
  model.dispose();
  return { difference, onnx, dims };
}

/** Image of 9 rows, 8 columns, 3 channels, or another shape, through layers in sequence. */
const through = (sequence: readonly Layer[], shape: (number | null)[] = [9, 8, 3]): tf.LayersModel => {
  const input = tf.input({ shape, name: 'x' });
  let value: tf.SymbolicTensor = input;
  for (const layer of sequence) value = layer.apply(value) as tf.SymbolicTensor;
  return tf.model({ inputs: input, outputs: value });
};

const ops = ({ graph }: ModelProto): string[] => graph.node.map(({ opType = '' }) => opType);
const count = (onnx: ModelProto, op: string): number => ops(onnx).filter((one) => one === op).length;

/** Not all of them are in the types of the library. */
const activations = [
  'elu',
  'gelu',
  'gelu_new',
  'hardSigmoid',
  'linear',
  'logSoftmax',
  'mish',
  'relu',
  'relu6',
  'selu',
  'sigmoid',
  'softmax',
  'softplus',
  'softsign',
  'swish',
  'tanh',
] as const;

const cases: Readonly<Record<string, () => tf.LayersModel>> = {
  'dense on rows': () => through([layers.dense({ units: 4 })], [5]),
  'dense without bias': () => through([layers.dense({ units: 4, useBias: false })], [5]),
  'dense on sequences': () => through([layers.dense({ units: 4, activation: 'tanh' })], [6, 5]),
  'convolution, valid': () => through([layers.conv2d({ filters: 4, kernelSize: [3, 2] })]),
  'convolution, strided': () => through([layers.conv2d({ filters: 4, kernelSize: 3, strides: [2, 3] })]),
  'convolution, same': () => through([layers.conv2d({ filters: 4, kernelSize: 4, padding: 'same' })]),
  'convolution, same and strided': () =>
    through([layers.conv2d({ filters: 4, kernelSize: [4, 3], strides: 2, padding: 'same' })]),
  'convolution, same and dilated': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3, dilationRate: 2, padding: 'same' })]),
  'convolution of any size': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3, padding: 'same' })], [null, null, 3]),
  'depthwise convolution': () =>
    through([layers.depthwiseConv2d({ kernelSize: 3, depthMultiplier: 2, padding: 'same', strides: 2 })]),
  'separable convolution': () =>
    through([
      layers.separableConv2d({
        filters: 5,
        kernelSize: 3,
        depthMultiplier: 2,
        padding: 'same',
        activation: 'relu',
      }),
    ]),
  'largest of windows': () => through([layers.maxPooling2d({ poolSize: 3, strides: 2, padding: 'same' })]),
  'mean of windows, same': () =>
    through([layers.averagePooling2d({ poolSize: 3, strides: 2, padding: 'same' })]),
  'mean of windows, valid': () => through([layers.averagePooling2d({ poolSize: [2, 3] })]),
  'mean of an image': () => through([layers.globalAveragePooling2d({})]),
  'largest of an image after a convolution': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.globalMaxPooling2d({})]),
  'mean of a sequence': () => through([layers.globalAveragePooling1d()], [6, 5]),
  'batch normalization of images': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.batchNormalization()]),
  'batch normalization of rows, without scale': () =>
    through([layers.batchNormalization({ scale: false })], [5]),
  'batch normalization of what was flattened': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.flatten(), layers.batchNormalization()]),
  'layer normalization': () => through([layers.layerNormalization()], [6, 5]),
  'layer normalization of several axes': () =>
    through([layers.layerNormalization({ axis: [1, 2], center: false })], [6, 5]),
  'relu with a bound': () => through([layers.reLU({ maxValue: 1.5 })], [5]),
  'leaky relu': () => through([layers.leakyReLU({ alpha: 0.2 })], [5]),
  elu: () => through([layers.elu()], [5]),
  'thresholded relu': () => through([layers.thresholdedReLU({ theta: 0.7 })], [5]),
  softmax: () => through([layers.softmax()], [5]),
  'prelu of images': () => through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.prelu()]),
  'prelu with shared axes': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.prelu({ sharedAxes: [1, 2] })]),
  'flatten of an image': () => through([layers.flatten()]),
  'flatten as an output': () => through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.flatten()]),
  'flatten before dense': () =>
    through([
      layers.conv2d({ filters: 4, kernelSize: 3 }),
      layers.flatten(),
      layers.dropout({ rate: 0.5 }),
      layers.activation({ activation: 'tanh' }),
      layers.dense({ units: 3 }),
    ]),
  reshape: () => through([layers.reshape({ targetShape: [4, -1, 3] })], [6, 4]),
  'reshape of an image': () =>
    through([layers.conv2d({ filters: 4, kernelSize: 3 }), layers.reshape({ targetShape: [12, 14] })]),
  permute: () => through([layers.permute({ dims: [2, 1, 3] })]),
  'padding with zeros': () =>
    through([
      layers.zeroPadding2d({
        padding: [
          [1, 2],
          [0, 3],
        ],
      }),
    ]),
  'padding with zeros between convolutions': () =>
    through([
      layers.conv2d({ filters: 2, kernelSize: 3 }),
      layers.zeroPadding2d({ padding: 2 }),
      layers.conv2d({ filters: 2, kernelSize: 3 }),
    ]),
  'nearest enlargement': () => through([layers.upSampling2d({ size: [2, 3] })]),
  'linear enlargement': () => through([layers.upSampling2d({ size: [2, 2], interpolation: 'bilinear' })]),
  'dropout and noise': () =>
    through(
      [layers.dropout({ rate: 0.5 }), layers.gaussianNoise({ stddev: 1 }), layers.dense({ units: 2 })],
      [5],
    ),
};

describe('a layer as ONNX', () => {
  it.each(Object.entries(cases))('computes what TensorFlow.js computes: %s', async (_, make) => {
    const { difference } = await differenceOf(make());
    expect(difference).toBeLessThanOrEqual(1e-5);
  });

  it.each(activations)('keeps the activation %s, of rows and of images', async (activation) => {
    const settings = { activation: activation as 'relu' };
    const rows = await differenceOf(through([layers.dense({ units: 6, ...settings })], [5]));
    const images = await differenceOf(through([layers.conv2d({ filters: 4, kernelSize: 3, ...settings })]));
    expect(Math.max(rows.difference, images.difference)).toBeLessThanOrEqual(1e-5);
  });

  it('looks up embeddings by whole numbers that TensorFlow.js holds as floats', async () => {
    const model = through([layers.embedding({ inputDim: 7, outputDim: 3 }), layers.flatten()], [4]);
    const { difference } = await differenceOf(model, { integers: 7 });
    expect(difference).toBe(0);
  });

  it.each(['add', 'multiply', 'average', 'maximum', 'minimum', 'concatenate'] as const)(
    'merges images by %s, one of them from a convolution and one as it came',
    async (kind) => {
      const input = tf.input({ shape: [6, 5, 4], name: 'x' });
      const convolved = layers.conv2d({ filters: 4, kernelSize: 3, padding: 'same' }).apply(input);
      const merged = layers[kind]({}).apply([convolved as tf.SymbolicTensor, input, input]);
      const { difference } = await differenceOf(
        tf.model({ inputs: input, outputs: merged as tf.SymbolicTensor }),
      );
      expect(difference).toBeLessThanOrEqual(1e-5);
    },
  );
});

describe('a network as ONNX', () => {
  const residual = (): tf.LayersModel => {
    const input = tf.input({ shape: [12, 12, 3], name: 'image' });
    const first = layers
      .conv2d({ filters: 8, kernelSize: 3, padding: 'same', activation: 'relu' })
      .apply(input);
    const normal = layers
      .batchNormalization()
      .apply(layers.conv2d({ filters: 8, kernelSize: 3, padding: 'same' }).apply(first)) as tf.SymbolicTensor;
    const sum = layers.add().apply([first as tf.SymbolicTensor, normal]);
    const small = layers.maxPooling2d({ poolSize: 2 }).apply(layers.reLU().apply(sum));
    const gate = layers
      .dense({ units: 8, activation: 'sigmoid' })
      .apply(layers.globalAveragePooling2d({}).apply(small));
    const gated = layers
      .multiply()
      .apply([
        small as tf.SymbolicTensor,
        layers.reshape({ targetShape: [1, 1, 8] }).apply(gate) as tf.SymbolicTensor,
      ]);
    const flat = layers.flatten().apply(gated);
    const logits = layers.dense({ units: 5, name: 'logits' }).apply(flat) as tf.SymbolicTensor;
    return tf.model({ inputs: input, outputs: [logits, gated as tf.SymbolicTensor] });
  };

  it('keeps a residual network with a gate, two outputs, and the batch as it comes', async () => {
    for (const batch of [1, 5]) {
      const { difference, dims } = await differenceOf(residual(), { batch });
      expect(difference).toBeLessThanOrEqual(1e-5);
      expect(dims).toEqual([
        [batch, 5],
        [batch, 6, 6, 8],
      ]);
    }
  });

  it('turns images round where they come in and go out, not in between', async () => {
    const { onnx } = await differenceOf(residual());
    expect(count(onnx, 'Transpose')).toBe(2);
    const one = through([
      layers.conv2d({ filters: 4, kernelSize: 3 }),
      layers.maxPooling2d({ poolSize: 2 }),
      layers.flatten(),
      layers.dense({ units: 3 }),
    ]);
    expect(count((await differenceOf(one)).onnx, 'Transpose')).toBe(1);
  });

  it('takes images as they come, if they come channels first and are permuted at once', async () => {
    const model = through(
      [
        layers.permute({ dims: [2, 3, 1] }),
        layers.conv2d({ filters: 4, kernelSize: 3 }),
        layers.flatten(),
        layers.dense({ units: 3 }),
      ],
      [3, 9, 8],
    );
    const { difference, onnx } = await differenceOf(model);
    expect(difference).toBeLessThanOrEqual(1e-5);
    expect(ops(onnx)).toEqual(['Conv', 'Flatten', 'Gemm']);
  });

  it('keeps a layer that is used twice, a network inside of a network, and an input that is an output', async () => {
    const input = tf.input({ shape: [6], name: 'x' });
    const shared = layers.dense({ units: 6, activation: 'tanh' });
    const inner = tf.sequential({ layers: [layers.dense({ units: 4, inputShape: [6] }), layers.reLU()] });
    const twice = shared.apply(shared.apply(input)) as tf.SymbolicTensor;
    const model = tf.model({
      inputs: input,
      outputs: [inner.apply(twice) as tf.SymbolicTensor, input, twice],
    });
    const { difference, onnx } = await differenceOf(model, {}, { outputs: ['inner', 'same', 'twice'] });
    expect(difference).toBeLessThanOrEqual(1e-5);
    expect(onnx.graph.output.map(({ name }) => name)).toEqual(['inner', 'same', 'twice']);
    // One kernel and one bias for each of two layers.
    expect(onnx.graph.initializer).toHaveLength(4);
  });

  it('keeps names, and takes those that are given, also where a layer has the same', async () => {
    const named = through([layers.dense({ units: 3, name: 'y' })], [4]);
    const onnx = await toOnnxModel(named);
    expect([onnx.graph.input[0]?.name, onnx.graph.output[0]?.name]).toEqual(['x', 'y']);
    const { onnx: renamed, difference } = await differenceOf(
      named,
      {},
      { inputs: [{ name: 'y/kernel' }], outputs: ['y/Gemm'] },
    );
    expect(difference).toBeLessThanOrEqual(1e-5);
    expect([renamed.graph.input[0]?.name, renamed.graph.output[0]?.name]).toEqual(['y/kernel', 'y/Gemm']);
  });
});

describe('inputs of another dtype', () => {
  it('are taken as they are by embeddings, and as floats by what computes', async () => {
    const run = async (model: tf.LayersModel): Promise<[string[], Float32Array, Float32Array]> => {
      randomize(model, createRandom(3));
      const onnx = await toOnnxModel(model, { inputs: [{ name: 'ids', dtype: 'int64' }], outputs: ['y'] });
      const session = await ort.InferenceSession.create(encodeModel(onnx), { intraOpNumThreads: 1 });
      const { y } = await session.run({
        ids: new ort.Tensor('int64', BigInt64Array.of(3n, 0n, 6n, 2n), [2, 2]),
      });
      await session.release();
      const expected = tf.tidy(() =>
        (model.predict(tf.tensor2d([3, 0, 6, 2], [2, 2])) as tf.Tensor).dataSync(),
      );
      model.dispose();
      return [ops(onnx), y?.data as Float32Array, Float32Array.from(expected)];
    };
    const [gathers, found, table] = await run(
      through([layers.embedding({ inputDim: 7, outputDim: 3 }), layers.globalAveragePooling1d()], [2]),
    );
    expect(gathers).toEqual(['Gather', 'ReduceMean']);
    const [products, got, want] = await run(through([layers.dense({ units: 2 })], [2]));
    expect(products).toEqual(['Cast', 'Gemm']);
    for (const [actual, expected] of [
      [found, table],
      [got, want],
    ] as const) {
      expect(actual).toHaveLength(expected.length);
      actual.forEach((value, at) => expect(value).toBeCloseTo(expected[at] ?? Number.NaN, 5));
    }
  });
});

it('refuses names that are given twice, or too few', async () => {
  const model = through([layers.dense({ units: 2 })], [2]);
  await expect(toOnnxModel(model, { outputs: ['x'] })).rejects.toThrow(/x, x/);
  await expect(toOnnxModel(model, { outputs: [] })).rejects.toThrow(/1 outputs, but 0 names/);
  model.dispose();
});

describe('a layer without an ONNX form', () => {
  const refused: Readonly<Record<string, readonly [() => tf.LayersModel, RegExp]>> = {
    'of an unknown class': [
      () => through([layers.lstm({ units: 3, name: 'memory' })], [4, 3]),
      /"memory" \(LSTM\)/,
    ],
    'whose padding depends on the size': [
      () =>
        through(
          [layers.conv2d({ filters: 2, kernelSize: 3, strides: 2, padding: 'same', name: 'c' })],
          [null, null, 3],
        ),
      /"c" \(Conv2D\).*"same".*not fixed/,
    ],
    'with channels first': [
      () =>
        through(
          [layers.conv2d({ filters: 2, kernelSize: 3, dataFormat: 'channelsFirst', name: 'c' })],
          [3, 8, 8],
        ),
      /"c" \(Conv2D\).*channelsFirst/,
    ],
    'that normalizes a batch along another axis': [
      () => through([layers.batchNormalization({ axis: 1, name: 'n' })]),
      /"n" \(BatchNormalization\).*axis/,
    ],
    'that masks': [
      () => through([layers.embedding({ inputDim: 3, outputDim: 2, maskZero: true, name: 'e' })], [4]),
      /"e".*maskZero/,
    ],
    'that normalizes axes in front': [
      () => through([layers.layerNormalization({ axis: 1, name: 'n' })], [6, 5]),
      /"n" \(LayerNormalization\).*not the last/,
    ],
  };

  it.each(Object.entries(refused))('is refused by name: %s', async (_, [make, message]) => {
    const model = make();
    await expect(toOnnxModel(model)).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
      message: expect.stringMatching(message),
    });
    model.dispose();
  });
});
