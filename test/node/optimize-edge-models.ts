/** Random models that onnxruntime takes: chains of layers, with the habits of exporters. */
import fc from 'fast-check';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { gauss } from './optimize-golden.ts';

/** Layers by the shape of what they take: rows, or images with channels first. */
const rowLayers = [
  ...['product', 'biased product', 'gemm', 'transposed gemm', 'scaled gemm', 'turned gemm', 'matrices'],
  ...['twice', 'tied', 'residual', 'concat', 'reshape', 'normalization', 'attention', 'branch', 'output'],
  ...['relu', 'sigmoid', 'clip', 'scale'],
] as const;
const imageLayers = [
  ...['conv', 'strided conv', 'depthwise conv', 'conv with a bias', 'residual', 'concat', 'output'],
  ...['batch normalization', 'max pool', 'average pool', 'relu', 'clip', 'scale', 'pad'],
] as const;

/** What a random model is made from; printed when a property fails. */
export interface Recipe {
  readonly seed: number;
  /** Length of rows, or channels of images. */
  readonly width: number;
  readonly images: readonly (typeof imageLayers)[number][];
  readonly rows: readonly (typeof rowLayers)[number][];
  readonly opset: number;
  /** Weights are `Constant` nodes. */
  readonly hasConstants: boolean;
  /** Nodes have no names. */
  readonly isUnnamed: boolean;
  /** Weights are inputs as well, so that callers can override them. */
  readonly isOverridable: boolean;
  readonly hasFixedBatch: boolean;
}

/** Random recipes. */
export const recipes: fc.Arbitrary<Recipe> = fc.record({
  seed: fc.integer({ min: 1, max: 1_000_000 }),
  width: fc.constantFrom(4, 8, 20, 32),
  images: fc.oneof(
    fc.constant([]),
    fc.array(fc.constantFrom(...imageLayers), { minLength: 1, maxLength: 5 }),
  ),
  rows: fc.array(fc.constantFrom(...rowLayers), { minLength: 1, maxLength: 5 }),
  opset: fc.constantFrom(12, 13, 17, 20, 21),
  hasConstants: fc.boolean(),
  isUnnamed: fc.boolean(),
  isOverridable: fc.boolean(),
  hasFixedBatch: fc.boolean(),
});

/** Rows of one call. */
const BATCH = 3;
const SIDE = 8;

/** Builds the model of a recipe. Its input is `x`, its last output `y`. */
export function build(recipe: Recipe): ModelProto {
  const { width, images, rows, opset, hasConstants, hasFixedBatch } = recipe;
  const graph = createGraph({ name: 'random', opset });
  let { seed } = recipe;
  const batch = hasFixedBatch ? BATCH : 'n';
  const weights = (name: string, shape: readonly number[], gain = 1): string => {
    const size = shape.reduce((elements, length) => elements * length, 1);
    const tensor = new Tensor(
      'float32',
      shape,
      gauss(size, (seed += 1)).map((value) => value * gain),
    );
    const unique = `${name}_${seed}`;
    return hasConstants ? graph.constant(unique, tensor) : graph.initializer(unique, tensor);
  };
  const integers = (values: readonly number[]): string =>
    graph.initializer(
      `shape_${(seed += 1)}`,
      new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt)),
    );

  let value = 'x';
  let length = width;
  const outputs = new Set<string>();
  const isImage = images.length > 0;
  graph.input('x', 'float32', isImage ? [batch, width, SIDE, SIDE] : [batch, width]);

  let side = SIDE;
  const convolve = (filters: number, stride: number, group: number, hasBias: boolean): string => {
    const w = weights('w', [filters, length / group, 3, 3], Math.sqrt(1 / (length / group) / 3));
    return graph.node('Conv', [value, w, ...(hasBias ? [weights('b', [filters], 0.5)] : [])], {
      pads: [1, 1, 1, 1],
      strides: [stride, stride],
      group,
    });
  };
  for (const layer of images) {
    if (layer === 'output') outputs.add(value);
    switch (layer) {
      case 'conv':
        value = convolve(12, 1, 1, false);
        length = 12;
        break;
      case 'conv with a bias':
        value = convolve(8, 1, 1, true);
        length = 8;
        break;
      case 'strided conv':
        value = convolve(8, 2, 1, true);
        length = 8;
        side = Math.ceil(side / 2);
        break;
      case 'depthwise conv':
        value = convolve(length, 1, length, true);
        break;
      case 'residual':
        value = graph.node('Add', [value, convolve(length, 1, 1, true)]);
        break;
      case 'concat':
        value = graph.node('Concat', [value, convolve(4, 1, 1, false)], { axis: 1 });
        length += 4;
        break;
      case 'batch normalization': {
        const [scale, bias, mean] = ['scale', 'bias', 'mean'].map((name) => weights(name, [length])) as [
          string,
          string,
          string,
        ];
        const one = graph.initializer(`variance_${(seed += 1)}`, ones(length));
        value = graph.node('BatchNormalization', [value, scale, bias, mean, one]);
        break;
      }
      case 'max pool':
      case 'average pool': {
        if (side < 2) break;
        const op = layer === 'max pool' ? 'MaxPool' : 'AveragePool';
        value = graph.node(op, [value], { kernel_shape: [2, 2], strides: [2, 2] });
        side = Math.floor(side / 2);
        break;
      }
      case 'pad':
        value = graph.node('Pad', [value, integers([0, 0, 1, 1, 0, 0, 1, 1])]);
        side += 2;
        break;
      default:
        value = simple(graph, layer, value, (shape) => weights('s', shape), [length, 1, 1]);
    }
  }
  if (isImage) value = graph.node('Flatten', [graph.node('GlobalAveragePool', [value])]);

  const matrix = (inputs: number, columns: number): string =>
    weights('w', [inputs, columns], 1 / Math.sqrt(inputs));
  const multiply = (by: string): string => graph.node('MatMul', [value, by]);
  for (const layer of rows) {
    if (layer === 'output') outputs.add(value);
    switch (layer) {
      case 'product':
        value = multiply(matrix(length, 24));
        length = 24;
        break;
      case 'biased product':
        value = graph.node('Add', [multiply(matrix(length, 16)), weights('b', [16], 0.3)]);
        length = 16;
        break;
      case 'gemm':
        value = graph.node('Gemm', [value, matrix(length, 20), weights('b', [20], 0.3)]);
        length = 20;
        break;
      case 'transposed gemm':
        value = graph.node('Gemm', [value, matrix(12, length), weights('b', [1, 12], 0.3)], { transB: 1 });
        length = 12;
        break;
      case 'scaled gemm':
        value = graph.node('Gemm', [value, matrix(length, 16), weights('b', [16], 0.3)], {
          alpha: 1.5,
          beta: 0.5,
        });
        length = 16;
        break;
      case 'turned gemm': {
        // onnxruntime 1.30 crashes in the fusion of Gemm, Transpose and Gemm, whatever is done to them.
        const turned = graph.node('Tanh', [graph.node('Transpose', [value], { perm: [1, 0] })]);
        value = graph.node('Gemm', [turned, matrix(length, 8)], { transA: 1 });
        length = 8;
        break;
      }
      case 'matrices': {
        const deep = graph.node('Reshape', [value, integers([-1, 1, length])]);
        const product = graph.node('MatMul', [deep, weights('w', [1, length, 16], 1 / Math.sqrt(length))]);
        value = graph.node('Reshape', [product, integers([-1, 16])]);
        length = 16;
        break;
      }
      case 'twice': {
        const w = matrix(length, length);
        value = graph.node('MatMul', [graph.node('Relu', [multiply(w)]), w]);
        break;
      }
      case 'tied': {
        const w = matrix(length, 20);
        const inner = graph.node('Tanh', [multiply(w)]);
        value = graph.node('MatMul', [inner, graph.node('Transpose', [w], { perm: [1, 0] })]);
        break;
      }
      case 'residual':
        value = graph.node('Add', [value, multiply(matrix(length, length))]);
        break;
      case 'concat':
        value = graph.node('Concat', [value, multiply(matrix(length, 4))], { axis: -1 });
        length += 4;
        break;
      case 'reshape': {
        const halves = graph.node('Reshape', [value, integers([-1, 2, length / 2])]);
        const swapped = graph.node('Transpose', [halves], { perm: [0, 2, 1] });
        value = graph.node('Reshape', [swapped, integers([-1, length])]);
        break;
      }
      case 'normalization': {
        const mean = graph.node('ReduceMean', [value, ...(opset >= 18 ? [integers([-1])] : [])], {
          ...(opset < 18 && { axes: [-1] }),
          keepdims: 1,
        });
        value = graph.node('Sub', [value, mean]);
        break;
      }
      case 'attention': {
        const [q, k] = [multiply(matrix(length, 8)), multiply(matrix(length, 8))];
        const scores = graph.node('MatMul', [q, graph.node('Transpose', [k], { perm: [1, 0] })]);
        value = graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), value]);
        break;
      }
      case 'branch': {
        const w = matrix(length, 16);
        const isPositive = graph.initializer(`flag_${(seed += 1)}`, tensorFrom('bool', seed % 2 === 0));
        const [then_branch, else_branch] = ['then', 'else'].map((name) => {
          const body = graph.subgraph(`${name}_${seed}`);
          const inner = body.node('MatMul', [value, w]);
          body.output(name === 'then' ? inner : body.node('Relu', [inner]), 'float32');
          return body;
        });
        value = graph.node('If', [isPositive], { then_branch, else_branch });
        length = 16;
        break;
      }
      default:
        value = simple(graph, layer, value, (shape) => weights('s', shape), [length]);
    }
  }
  outputs.delete('x');
  for (const output of outputs) graph.output(output, 'float32');
  graph.node('Identity', [value], {}, { outputs: 'y' });
  graph.output('y', 'float32', [batch, null]);
  return withHabits(graph.toModel(), recipe);
}

function simple(
  graph: ModelBuilder,
  layer: 'relu' | 'sigmoid' | 'clip' | 'scale' | 'output',
  value: string,
  weights: (shape: readonly number[]) => string,
  shape: readonly number[],
): string {
  switch (layer) {
    case 'relu':
      return graph.node('Relu', [value]);
    case 'sigmoid':
      return graph.node('Sigmoid', [value]);
    case 'clip': {
      const [low, high] = [-1, 1].map((limit) =>
        graph.node('Constant', [], { value: tensorFrom('float32', limit) }),
      ) as [string, string];
      return graph.node('Clip', [value, low, high]);
    }
    case 'scale':
      return graph.node('Mul', [value, weights(shape)]);
    default:
      return value;
  }
}

function ones(length: number): Tensor {
  return new Tensor('float32', [length], new Float32Array(length).fill(1));
}

function withHabits(model: ModelProto, { isUnnamed, isOverridable }: Recipe): ModelProto {
  const { graph } = model;
  const node = isUnnamed ? graph.node.map((one) => ({ ...one, name: '' })) : graph.node;
  const overridable = graph.initializer.filter(({ dataType }) => dataType === 1);
  const input = isOverridable
    ? [
        ...graph.input,
        ...overridable.map(({ name = '', dims }) => ({
          name,
          type: { tensorType: { elemType: 1, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
        })),
      ]
    : graph.input;
  return { ...model, graph: { ...graph, node, input } };
}

/** Feeds of a model of a recipe. */
export function feedsOf({ seed, width, images }: Recipe): Readonly<Record<string, Tensor>> {
  const shape = images.length > 0 ? [BATCH, width, SIDE, SIDE] : [BATCH, width];
  const size = shape.reduce((elements, length) => elements * length, 1);
  return { x: new Tensor('float32', shape, gauss(size, seed + 1000)) };
}
