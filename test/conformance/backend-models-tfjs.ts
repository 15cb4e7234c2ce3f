/** Small models in the format of TensorFlow.js, and the library's own answers to them. */
import { zipSync, type Zippable } from 'fflate';
import type { TensorMap } from '../../src/core/backend.ts';
import type { DType } from '../../src/core/dtype.ts';
import type { Dimension } from '../../src/core/signature.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { floats, SAMPLES, type BackendModels } from './backend-models.ts';

/** Names that TensorFlow has for dtypes. */
const TYPES: Readonly<Partial<Record<DType, string>>> = {
  float32: 'DT_FLOAT',
  int32: 'DT_INT32',
  bool: 'DT_BOOL',
  string: 'DT_STRING',
  complex64: 'DT_COMPLEX64',
  float8e4m3fn: 'DT_FLOAT8_E4M3FN',
};

type Shape = readonly Dimension[] | null;

/** A graph that is put together node by node. */
export interface GraphBuilder {
  input(name: string, dtype: DType, shape: Shape): void;
  weight(name: string, tensor: Tensor): void;
  node(op: string, name: string, inputs: readonly string[], attr?: Readonly<Record<string, object>>): void;
  /** Says which tensor an output is; without any, each node that nobody reads is one. */
  output(name: string, tensor: string, dtype: DType, shape: Shape): void;
  /** The `model.json`, and the bytes of its weights. */
  files(): { readonly json: Readonly<Record<string, unknown>>; readonly weights: Uint8Array };
  /** A ZIP archive of both. */
  zip(level?: 0 | 6): Uint8Array;
}

/** Starts a graph model as the converter writes it. */
export function createTfGraph(): GraphBuilder {
  const node: object[] = [];
  const weights: { name: string; shape: readonly number[]; dtype: string }[] = [];
  const data: Uint8Array[] = [];
  const signature: { inputs: Record<string, object>; outputs: Record<string, object> } = {
    inputs: {},
    outputs: {},
  };
  const tensorShape = (shape: Shape): object =>
    shape === null
      ? { unknownRank: true }
      : { dim: shape.map((size) => ({ size: String(typeof size === 'number' ? size : -1) })) };
  const builder: GraphBuilder = {
    input: (name, dtype, shape) => {
      node.push({
        name,
        op: 'Placeholder',
        attr: { dtype: { type: TYPES[dtype] }, shape: { shape: tensorShape(shape) } },
      });
      signature.inputs[name] = { name: `${name}:0`, dtype: TYPES[dtype], tensorShape: tensorShape(shape) };
    },
    weight: (name, { dtype, shape, data: values }) => {
      node.push({ name, op: 'Const', attr: { dtype: { type: TYPES[dtype] }, value: { tensor: {} } } });
      weights.push({ name, shape, dtype });
      const view = values as Uint8Array;
      data.push(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    },
    node: (op, name, inputs, attr = {}) => {
      node.push({ name, op, input: inputs, attr });
    },
    output: (name, tensor, dtype, shape) => {
      signature.outputs[name] = { name: tensor, dtype: TYPES[dtype], tensorShape: tensorShape(shape) };
    },
    files: () => ({
      json: {
        format: 'graph-model',
        modelTopology: { node, versions: { producer: 1, minConsumer: 1 } },
        ...(Object.keys(signature.outputs).length > 0 && { signature }),
        weightsManifest: weights.length === 0 ? [] : [{ paths: ['group1-shard1of1.bin'], weights }],
      },
      weights: joined(data),
    }),
    zip: (level = 0) => {
      const { json, weights: bytes } = builder.files();
      return toZip(json, bytes.length === 0 ? {} : { 'group1-shard1of1.bin': bytes }, level);
    },
  };
  return builder;
}

/** A ZIP archive of a `model.json` and its weights. */
export function toZip(
  json: unknown,
  weights: Readonly<Record<string, Uint8Array>>,
  level: 0 | 6 = 0,
): Uint8Array {
  const files: Zippable = { 'model.json': new TextEncoder().encode(JSON.stringify(json)), ...weights };
  // The archive is the same each time.
  return zipSync(files, { level, mtime: '2024-01-01' });
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function binary(op: string, a: readonly Dimension[], b: readonly Dimension[], y: Shape): Uint8Array {
  const graph = createTfGraph();
  graph.input('a', 'float32', a);
  graph.input('b', 'float32', b);
  graph.node(op, 'y', ['a', 'b']);
  graph.output('y', 'y:0', 'float32', y);
  return graph.zip();
}

function identity(dtype: DType, shape: Shape = ['n'], op = 'Identity'): Uint8Array {
  const graph = createTfGraph();
  graph.input('x', dtype, shape);
  graph.node(op, 'y', ['x']);
  graph.output('y', 'y:0', dtype, shape);
  return graph.zip();
}

const noTranspose = { transpose_a: { b: false }, transpose_b: { b: false } };

/** Two dense layers: `logits` float32 [batch, 10] of `image` float32 [batch, 64]. */
export function tfPerceptron(width = 32, level: 0 | 6 = 6): Uint8Array {
  return perceptron(width).zip(level);
}

/** The same, its weights in two groups, the first of three files. */
export function tfPerceptronParts(): {
  readonly json: Readonly<Record<string, unknown>>;
  readonly shards: Readonly<Record<string, Uint8Array>> & { readonly 'b.bin': Uint8Array };
} {
  const { json, weights } = perceptron(32).files();
  const [group] = json['weightsManifest'] as [{ weights: object[] }];
  const end = 64 * 32 * 4 + 32 * 4;
  const weightsManifest = [
    { paths: ['a1.bin', 'a2.bin', 'sub/a3.bin'], weights: group.weights.slice(0, 2) },
    { paths: ['b.bin'], weights: group.weights.slice(2) },
  ];
  return {
    json: { ...json, weightsManifest },
    shards: {
      'a1.bin': weights.subarray(0, 1001),
      'a2.bin': weights.subarray(1001, 5000),
      'sub/a3.bin': weights.subarray(5000, end),
      'b.bin': weights.subarray(end),
    },
  };
}

function perceptron(width: number): GraphBuilder {
  const graph = createTfGraph();
  graph.input('image', 'float32', ['batch', 64]);
  graph.weight('w1', new Tensor('float32', [64, width], floats(64 * width, 2)));
  graph.weight('b1', new Tensor('float32', [width], floats(width, 3)));
  graph.weight('w2', new Tensor('float32', [width, 10], floats(width * 10, 4)));
  graph.node('MatMul', 'product', ['image', 'w1'], noTranspose);
  graph.node('AddV2', 'sum', ['product', 'b1']);
  graph.node('Relu', 'hidden', ['sum']);
  graph.node('MatMul', 'scores', ['hidden', 'w2'], noTranspose);
  graph.output('logits', 'scores:0', 'float32', ['batch', 10]);
  return graph;
}

function convolution(): Uint8Array {
  const graph = createTfGraph();
  graph.input('x', 'float32', ['n', 8, 8, 1]);
  graph.weight('w', new Tensor('float32', [3, 3, 1, 4], floats(36, 5)));
  graph.node('Conv2D', 'y', ['x', 'w'], {
    strides: { list: { i: ['1', '1', '1', '1'] } },
    dilations: { list: { i: ['1', '1', '1', '1'] } },
    padding: { s: btoa('SAME') },
    data_format: { s: btoa('NHWC') },
  });
  graph.output('y', 'y:0', 'float32', ['n', 8, 8, 4]);
  return graph.zip();
}

function several(): Uint8Array {
  const graph = createTfGraph();
  graph.input('x', 'float32', ['n', 5]);
  graph.weight('k', new Tensor('int32', [], new Int32Array([2])));
  graph.weight('axis', new Tensor('int32', [1], new Int32Array([1])));
  graph.node('TopKV2', 'top', ['x', 'k'], { sorted: { b: true } });
  graph.node('Mean', 'average', ['x', 'axis'], { keep_dims: { b: false } });
  graph.output('values', 'top:0', 'float32', ['n', 2]);
  graph.output('indices', 'top:1', 'int32', ['n', 2]);
  graph.output('mean', 'average:0', 'float32', ['n']);
  return graph.zip();
}

/**
 * A model with control flow: `y` is `x` + 1 where the largest of `x` is above 0, else `x` - 1. It waits for that value in
 * the middle of the run.
 */
export function tfBranching(op = 'AddV2'): Uint8Array {
  const graph = createTfGraph();
  graph.input('x', 'float32', ['n', 3]);
  graph.weight('one', new Tensor('float32', [], new Float32Array([1])));
  graph.weight('zero', new Tensor('float32', [], new Float32Array([0])));
  graph.weight('axes', new Tensor('int32', [2], new Int32Array([0, 1])));
  graph.node('Max', 'largest', ['x', 'axes'], { keep_dims: { b: false } });
  graph.node('Greater', 'isPositive', ['largest', 'zero']);
  graph.node('Switch', 'fork', ['x', 'isPositive']);
  graph.node('Sub', 'less', ['fork', 'one']);
  graph.node(op, 'more', ['fork:1', 'one']);
  graph.node('Merge', 'joined', ['less', 'more']);
  graph.node('Identity', 'y', ['joined']);
  graph.output('y', 'y:0', 'float32', ['n', 3]);
  return graph.zip();
}

const { float32, int32, bool, string } = SAMPLES as Required<
  Pick<typeof SAMPLES, 'float32' | 'int32' | 'bool' | 'string'>
>;

/** The models of TensorFlow.js. */
export const tfjsModels: BackendModels = {
  extension: 'zip',
  namesDimensions: false,
  add: () => binary('AddV2', ['n', 4], ['n', 4], ['n', 4]),
  identity: (dtype, shape) => identity(dtype, shape),
  perceptron: () => tfPerceptron(),
  convolution,
  convolutionAxes: [8, 8, 1],
  several,
  failing: () => binary('AddV2', ['n'], ['m'], null),
  samples: { float32, int32, bool, string },
  scalar: new Tensor('int32', [], new Int32Array([16_000])),
  unsupported: [
    () => identity('float32', ['n'], 'Frobnicate'),
    () => identity('complex64'),
    () => identity('float8e4m3fn'),
  ],
  refused: {
    model: () => identity('float32', ['n'], 'Frobnicate'),
    message:
      /^The model of \d+ bytes cannot be run by the TensorFlow\.js backend "\w+": [^\n]*Frobnicate[^\n]*\.$/,
  },
};

/** The part of the library that a comparison needs. */
interface Library {
  setBackend(name: string): Promise<boolean>;
  loadGraphModel(
    handler: never,
  ): Promise<{ execute(feeds: never, outputs: string[]): unknown; dispose(): void }>;
  tensor(data: never, shape: never, dtype: never): Disposable;
}

interface Disposable {
  readonly dtype: string;
  readonly shape: number[];
  data(): Promise<unknown>;
  dispose(): void;
}

/** Runs graph models through the library without Inlay. */
export function runRawTfjs(
  tf: Library,
  provider: string,
  unzip: (bytes: Uint8Array) => Record<string, Uint8Array>,
) {
  return async (model: Uint8Array, feeds: TensorMap): Promise<TensorMap> => {
    const { 'model.json': manifest, ...shards } = unzip(model);
    const { weightsManifest, ...json } = JSON.parse(new TextDecoder().decode(manifest)) as {
      weightsManifest: { weights: object[] }[];
      signature: { outputs: Record<string, object> };
    };
    await tf.setBackend(provider);
    const artifacts = {
      ...json,
      weightSpecs: weightsManifest.flatMap(({ weights }) => weights),
      weightData: joined(Object.values(shards)).buffer,
    };
    const loaded = await tf.loadGraphModel({ load: () => Promise.resolve(artifacts) } as never);
    const inputs = Object.entries(feeds).map(([name, { dtype, shape, data }]): [string, Disposable] => [
      name,
      tf.tensor((data as Uint8Array).slice() as never, shape as never, dtype as never),
    ]);
    const names = Object.keys(json.signature.outputs);
    const results = [loaded.execute(Object.fromEntries(inputs) as never, names)].flat() as Disposable[];
    const outputs: Record<string, Tensor> = {};
    for (const [index, name] of names.entries()) {
      const { dtype, shape } = results[index] as Disposable;
      const data = (await results[index]?.data()) as Uint8Array;
      outputs[name] = new Tensor(dtype as DType, shape, data.slice());
    }
    for (const tensor of [...results, ...inputs.map(([, input]) => input)]) tensor.dispose();
    loaded.dispose();
    return outputs;
  };
}
