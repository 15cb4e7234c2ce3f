/** Small models, and the libraries' own answers to them, for {@link testBackend} and for tests of what uses a backend. */
import type { TensorMap } from '../../src/core/backend.ts';
import type { DType, DTypeStorage } from '../../src/core/dtype.ts';
import type { Dimension } from '../../src/core/signature.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';

/** The models that a backend is tested with, in the format of its library. */
export interface BackendModels {
  /** Ending of the names of files that hold such models. */
  readonly extension: string;
  /** Whether models name their symbolic dimensions; otherwise they are `null`. */
  readonly namesDimensions: boolean;
  /** `y = a + b`, float32 [n, 4]. */
  add(): Uint8Array;
  /** `y = x`. */
  identity(dtype: DType, shape?: readonly Dimension[] | null): Uint8Array;
  /** `logits` float32 [batch, 10] of `image` float32 [batch, 64]. */
  perceptron(): Uint8Array;
  /** `y` of `x` float32 with {@link BackendModels.convolutionAxes} after its first axis. */
  convolution(): Uint8Array;
  readonly convolutionAxes: readonly number[];
  /** The two largest `values` of `x` float32 [n, 5], their `indices`, and its `mean`. */
  several(): Uint8Array;
  /** `y = a + b` of float32 [n] and [m], which fails where they differ. */
  failing(): Uint8Array;
  /** `y` float32 [n] of packed 4-bit integers `x` [n], where there are such. */
  readonly dequantize?: (dtype: 'int4' | 'uint4') => Uint8Array;
  /** Three elements of each dtype that can be fed. */
  readonly samples: Partial<Record<DType, Tensor>>;
  readonly scalar: Tensor;
  /** Valid models with an operator or an element type that the library does not know. */
  readonly unsupported: readonly (() => Uint8Array)[];
  /** A model that is refused with a message of this form. */
  readonly refused: { readonly model: () => Uint8Array; readonly message: RegExp };
}

/** The part of both libraries that a comparison needs. */
interface Library {
  readonly Tensor: new (type: never, data: never, dims: readonly number[]) => object;
  readonly InferenceSession: {
    create(
      bytes: Uint8Array,
      options: { executionProviders: string[] },
    ): Promise<{ run(feeds: never): Promise<object>; release(): Promise<void> }>;
  };
}

/** Runs models through a library without Inlay. */
export function runRawWith(library: Library, provider: string) {
  return async (model: Uint8Array, feeds: TensorMap): Promise<TensorMap> => {
    const session = await library.InferenceSession.create(model, { executionProviders: [provider] });
    const entries = Object.entries(feeds).map(([name, { dtype, shape, data }]) => [
      name,
      new library.Tensor(dtype as never, data as never, shape),
    ]);
    const outputs = await session.run(Object.fromEntries(entries) as never);
    await session.release();
    return Object.fromEntries(
      Object.entries(outputs as Record<string, { type: DType; dims: number[]; data: unknown }>).map(
        ([name, { type, dims, data }]) => [name, new Tensor(type, dims, data as DTypeStorage[DType])],
      ),
    );
  };
}

/** Pseudo-random float32 values in [-1, 1), the same ones each time. */
export function floats(length: number, seed = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** `y = a + b`, float32 [n, 4]. */
export function addModel(): Uint8Array {
  const graph = createGraph({ name: 'add', opset: 17 });
  graph.input('a', 'float32', ['n', 4]);
  graph.input('b', 'float32', ['n', 4]);
  graph.node('Add', ['a', 'b'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n', 4]);
  return encodeModel(graph.toModel());
}

/** `y = x`, of any dtype. */
export function identityModel(
  dtype: DType,
  shape: readonly Dimension[] | null = ['n'],
  opset = 17,
): Uint8Array {
  const graph = createGraph({ name: 'identity', opset });
  graph.input('x', dtype, shape);
  graph.node('Identity', ['x'], {}, { outputs: 'y' });
  graph.output('y', dtype, shape);
  return encodeModel(graph.toModel());
}

/** Two dense layers: `logits` float32 [batch, 10] of `image` float32 [batch, 64]. */
export function mlpModel(width = 32): Uint8Array {
  const graph = createGraph({ name: 'mlp', opset: 17 });
  graph.input('image', 'float32', ['batch', 64]);
  graph.initializer('w1', new Tensor('float32', [64, width], floats(64 * width, 2)));
  graph.initializer('b1', new Tensor('float32', [width], floats(width, 3)));
  graph.initializer('w2', new Tensor('float32', [width, 10], floats(width * 10, 4)));
  const hidden = graph.node('Relu', [graph.node('Add', [graph.node('MatMul', ['image', 'w1']), 'b1'])]);
  graph.node('MatMul', [hidden, 'w2'], {}, { outputs: 'logits' });
  graph.output('logits', 'float32', ['batch', 10]);
  return encodeModel(graph.toModel());
}

/** A convolution: `y` float32 [n, 4, 8, 8] of `x` float32 [n, 1, 8, 8]. */
function convModel(): Uint8Array {
  const graph = createGraph({ name: 'conv', opset: 17 });
  graph.input('x', 'float32', ['n', 1, 8, 8]);
  graph.initializer('w', new Tensor('float32', [4, 1, 3, 3], floats(36, 5)));
  graph.node('Conv', ['x', 'w'], { pads: [1, 1, 1, 1] }, { outputs: 'y' });
  graph.output('y', 'float32', ['n', 4, 8, 8]);
  return encodeModel(graph.toModel());
}

/** Three outputs of two dtypes: the two largest `values` of `x` float32 [n, 5], their `indices` int64, and `sum`. */
function topModel(): Uint8Array {
  const graph = createGraph({ name: 'top', opset: 17 });
  graph.input('x', 'float32', ['n', 5]);
  graph.initializer('k', new Tensor('int64', [1], new BigInt64Array([2n])));
  graph.node('TopK', ['x', 'k'], {}, { outputs: ['values', 'indices'] });
  graph.node('ReduceMean', ['x'], { axes: [1], keepdims: 0 }, { outputs: 'mean' });
  graph.output('values', 'float32', ['n', 2]);
  graph.output('indices', 'int64', ['n', 2]);
  graph.output('mean', 'float32', ['n']);
  return encodeModel(graph.toModel());
}

/** `y` float32 [n] of packed 4-bit integers `x` [n]. */
function dequantizeModel(dtype: 'int4' | 'uint4'): Uint8Array {
  const graph = createGraph({ name: 'dequantize', opset: 21 });
  graph.input('x', dtype, ['n']);
  graph.initializer('scale', new Tensor('float32', [], new Float32Array([0.5])));
  graph.node('DequantizeLinear', ['x', 'scale'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n']);
  return encodeModel(graph.toModel());
}

/** Adds float32 [2, 3] and [2, 4] in the middle of the run, which fails for any feed. */
function failingModel(): Uint8Array {
  const graph = createGraph({ name: 'failing', opset: 17 });
  graph.input('a', 'float32', ['n']);
  graph.input('b', 'float32', ['m']);
  graph.node('Add', ['a', 'b'], {}, { outputs: 'y' });
  graph.output('y', 'float32', null);
  return encodeModel(graph.toModel());
}

/** Multiplies a float32 [size, size] matrix by itself `times` times: a run that takes as long as one likes. */
export function slowModel(size: number, times: number): Uint8Array {
  const graph = createGraph({ name: 'slow', opset: 17 });
  graph.input('x', 'float32', [size, size]);
  let value = 'x';
  for (let i = 1; i < times; i += 1) value = graph.node('MatMul', [value, 'x']);
  graph.node('MatMul', [value, 'x'], {}, { outputs: 'y' });
  graph.output('y', 'float32', [size, size]);
  return encodeModel(graph.toModel());
}

/** One tensor of three elements per dtype that ONNX Runtime can be fed with. */
export const SAMPLES: { readonly [D in DType]?: Tensor<D> } = {
  float32: sample('float32', new Float32Array([1.5, -0, Number.NaN])),
  float64: sample('float64', new Float64Array([Math.PI, -1e300, 0])),
  float16: sample('float16', new Uint16Array([0x3c00, 0x8000, 0x7c00])),
  int8: sample('int8', new Int8Array([-128, 0, 127])),
  uint8: sample('uint8', new Uint8Array([0, 128, 255])),
  int16: sample('int16', new Int16Array([-32_768, 0, 32_767])),
  uint16: sample('uint16', new Uint16Array([0, 1, 65_535])),
  int32: sample('int32', new Int32Array([-(2 ** 31), 0, 2 ** 31 - 1])),
  uint32: sample('uint32', new Uint32Array([0, 1, 2 ** 32 - 1])),
  int64: sample('int64', new BigInt64Array([-(2n ** 63n), 0n, 2n ** 63n - 1n])),
  uint64: sample('uint64', new BigUint64Array([0n, 1n, 2n ** 64n - 1n])),
  bool: sample('bool', new Uint8Array([1, 0, 1])),
  string: sample('string', ['', 'naïve', '日本 \u{1f600}']),
};

function sample<D extends DType>(dtype: D, data: DTypeStorage[D]): Tensor<D> {
  return new Tensor(dtype, [3], data);
}

/** The models of ONNX. */
export const onnxModels: BackendModels = {
  extension: 'onnx',
  namesDimensions: true,
  add: addModel,
  identity: identityModel,
  perceptron: mlpModel,
  convolution: convModel,
  convolutionAxes: [1, 8, 8],
  several: topModel,
  failing: failingModel,
  dequantize: dequantizeModel,
  samples: SAMPLES,
  scalar: new Tensor('int64', [], new BigInt64Array([16_000n])),
  unsupported: [
    () => encodeModel(oneNode('Frobnicate').toModel()),
    () => identityModel('complex64'),
    () => identityModel('float8e4m3fn', ['n'], 21),
  ],
  refused: {
    model: () => encodeModel({ ...oneNode('Relu').toModel(), irVersion: 99 }),
    message: /^The model of \d+ bytes [^\n]*IR version: 99[^\n]*\.$/,
  },
};

function oneNode(operator: string): ReturnType<typeof createGraph> {
  const graph = createGraph({ name: 'one', opset: 17 });
  graph.input('x', 'float32', ['n']);
  graph.node(operator, ['x'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n']);
  return graph;
}
