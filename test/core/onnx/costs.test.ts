import { describe, expect, it } from 'vitest';
import type { DType } from '../../../src/core/dtype.ts';
import type { Dimension } from '../../../src/core/signature.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph, type Attributes } from '../../../src/onnx/build.ts';
import { costsOf, type CostOptions, type NodeCost } from '../../../src/onnx/costs.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import type { ValueTypes } from '../../../src/onnx/types.ts';
import { sampleModel } from './sample.ts';

type Shape = readonly Dimension[] | null;

/** A model of one node; its inputs are `x0`, `x1` …, and its result is declared. */
function modelOf(
  op: string,
  inputs: readonly Shape[],
  output: Shape,
  attributes: Attributes = {},
  domain = '',
): ModelProto {
  const graph = createGraph({ name: 'g', opset: { '': 17, 'com.microsoft': 1, 'org.example': 1 } });
  const names = inputs.map((shape, i) => graph.input(`x${i}`, 'float32', shape));
  graph.node(op, names, attributes, { outputs: 'y', name: 'only', domain });
  graph.output('y', 'float32', output);
  return graph.toModel();
}

const only = (model: ModelProto, options?: CostOptions): NodeCost => {
  const { nodes } = costsOf(model, options);
  expect(nodes).toHaveLength(1);
  return nodes[0] as NodeCost;
};

const types = (entries: Readonly<Record<string, readonly [DType, Shape]>>): ValueTypes =>
  new Map(Object.entries(entries).map(([name, [dtype, shape]]) => [name, { dtype, shape }]));

describe('costsOf', () => {
  it.each<[string, ModelProto, number, number]>([
    [
      'a product',
      modelOf(
        'MatMul',
        [
          [2, 5, 8],
          [8, 3],
        ],
        [2, 5, 3],
      ),
      2 * 5 * 3 * 8,
      0,
    ],
    [
      'a product of integers',
      modelOf(
        'MatMulInteger',
        [
          [4, 8],
          [8, 3],
        ],
        [4, 3],
      ),
      4 * 3 * 8,
      0,
    ],
    [
      'a product of a transposed matrix',
      modelOf(
        'FusedMatMul',
        [
          [8, 4],
          [8, 3],
        ],
        [4, 3],
        { transA: 1 },
        'com.microsoft',
      ),
      4 * 3 * 8,
      0,
    ],
    ['Gemm with a bias', modelOf('Gemm', [[8, 4], [8, 3], [3]], [4, 3], { transA: 1 }), 4 * 3 * 8, 4 * 3],
    [
      'Gemm without one',
      modelOf(
        'Gemm',
        [
          [4, 8],
          [3, 8],
        ],
        [4, 3],
        { transB: 1 },
      ),
      4 * 3 * 8,
      0,
    ],
    [
      'a product with blocks',
      modelOf(
        'MatMulNBits',
        [
          [4, 64],
          [3, 2, 16],
          [3, 2],
        ],
        [4, 3],
        { K: 64, N: 3, bits: 4, block_size: 32 },
        'com.microsoft',
      ),
      4 * 3 * 64,
      0,
    ],
    ['a convolution', modelOf('Conv', [[1, 6, 9, 9], [4, 6, 3, 3], [4]], [1, 4, 7, 7]), 4 * 49 * 54, 4 * 49],
    [
      'a depthwise convolution',
      modelOf(
        'Conv',
        [
          [1, 6, 9, 9],
          [6, 1, 3, 3],
        ],
        [1, 6, 7, 7],
        { group: 6 },
      ),
      6 * 49 * 9,
      0,
    ],
    [
      'a convolution of integers',
      modelOf(
        'ConvInteger',
        [
          [1, 6, 9],
          [4, 6, 3],
        ],
        [1, 4, 7],
      ),
      4 * 7 * 18,
      0,
    ],
    [
      'a convolution between scales',
      modelOf('QLinearConv', [[1, 6, 9], [], [], [4, 6, 3], [], [], [], [], [4]], [1, 4, 7]),
      4 * 7 * 18,
      28,
    ],
    [
      'a transposed convolution',
      modelOf(
        'ConvTranspose',
        [
          [1, 6, 5, 5],
          [6, 4, 3, 3],
        ],
        [1, 4, 7, 7],
      ),
      6 * 25 * 36,
      0,
    ],
    [
      'an LSTM',
      modelOf(
        'LSTM',
        [
          [7, 2, 5],
          [1, 12, 5],
          [1, 12, 3],
        ],
        [7, 1, 2, 3],
        { hidden_size: 3 },
      ),
      14 * 12 * 8,
      0,
    ],
    [
      'a GRU of two directions',
      modelOf(
        'GRU',
        [
          [7, 2, 5],
          [2, 9, 5],
          [2, 9, 3],
        ],
        [7, 2, 2, 3],
        { hidden_size: 3 },
      ),
      14 * 18 * 8,
      0,
    ],
    ['a pool', modelOf('MaxPool', [[1, 6, 8, 8]], [1, 6, 4, 4], { kernel_shape: [2, 2] }), 0, 6 * 16 * 4],
    ['a pool of all', modelOf('GlobalAveragePool', [[1, 6, 8, 8]], [1, 6, 1, 1]), 0, 6 * 64],
    ['a sum of three', modelOf('Sum', [[4], [4], [4]], [4]), 0, 8],
    ['a broadcast sum', modelOf('Add', [[4, 1], [3]], [4, 3]), 0, 12],
    ['a softmax', modelOf('Softmax', [[4, 3]], [4, 3]), 0, 5 * 12],
    ['a norm', modelOf('LayerNormalization', [[4, 3], [3], [3]], [4, 3]), 0, 7 * 12],
    ['a reduction', modelOf('ReduceMax', [[4, 3]], [4]), 0, 12],
    ['what only moves', modelOf('Gather', [[100, 3], [7]], [7, 3]), 0, 0],
    ['nearest neighbours', modelOf('Resize', [[1, 1, 2, 2]], [1, 1, 4, 4], { mode: 'nearest' }), 0, 0],
    ['linear mixing', modelOf('Resize', [[1, 1, 2, 2]], [1, 1, 4, 4], { mode: 'linear' }), 0, 16 * 7],
  ])('counts %s', (_, model, macs, others) => {
    expect(only(model)).toMatchObject({ macs, flops: 2 * macs + others });
  });

  it.each<[string, ModelProto]>([
    [
      'an operator of another domain',
      modelOf(
        'MatMul',
        [
          [2, 8],
          [8, 3],
        ],
        [2, 3],
        {},
        'org.example',
      ),
    ],
    [
      'an operator that is not in the table',
      modelOf(
        'Einsum',
        [
          [2, 8],
          [8, 3],
        ],
        [2, 3],
        { equation: 'ab,bc->ac' },
      ),
    ],
    ['one with the name of what every object has', modelOf('toString', [[2]], [2])],
    [
      'a result of unknown rank',
      modelOf(
        'MatMul',
        [
          [2, 8],
          [8, 3],
        ],
        null,
      ),
    ],
    ['a symbolic axis without a length', modelOf('Relu', [['batch', 8]], ['batch', 8])],
    ['a filter of unknown shape', modelOf('Conv', [[1, 6, 9, 9], null], [1, 4, 7, 7])],
    ['cubic mixing', modelOf('Resize', [[1, 1, 2, 2]], [1, 1, 4, 4], { mode: 'cubic' })],
  ])('calls the work of %s unknown, never 0', (_, model) => {
    expect(only(model)).toMatchObject({ macs: null, flops: null });
    expect(costsOf(model).total).toMatchObject({ flops: 0, unknown: 1 });
  });

  it('takes lengths of symbolic axes, and only those it is given', () => {
    const model = modelOf(
      'MatMul',
      [
        ['batch', 8],
        [8, 3],
      ],
      ['batch', 3],
    );
    expect(only(model, { lengths: { batch: 5 } })).toMatchObject({ macs: 5 * 3 * 8, outputBytes: 60 });
    expect(only(model, { lengths: { other: 5 } })).toMatchObject({ macs: null, outputBytes: null });
  });

  it('takes types that it is given, and fills them from what the model declares', () => {
    const model = modelOf('Relu', [['batch', 8]], ['batch', 8]);
    expect(only(model, { types: types({ y: ['float32', [2, 8]] }) }).flops).toBe(16);
    expect(only(model, { types: types({ y: ['float16', [2, null]] }) })).toMatchObject({
      flops: 16,
      outputBytes: 32,
    });
    expect(only(model, { types: types({ y: ['float32', null] }), lengths: { batch: 2 } }).flops).toBe(16);
  });

  it('lists tensors by size, with readers, whatever kind of constant they are', () => {
    const graph = createGraph({ name: 'g', opset: 21 });
    graph.input('x', 'float32', [1, 4]);
    graph.initializer('w', new Tensor('float32', [4, 100], new Float32Array(400)));
    graph.constant('q', new Tensor('int4', [100, 3], new Uint8Array(150)));
    graph.initializer('words', tensorFrom('string', ['a', 'bcd']));
    const product = graph.node('MatMul', ['x', 'w'], {}, { outputs: 'p', name: 'first' });
    graph.node('MatMul', [product, 'q'], {}, { outputs: 'y', name: 'second' });
    graph.node('Add', ['w', 'w'], {}, { outputs: 'z', name: 'third' });
    graph.output('y', 'float32');
    const model = graph.toModel();
    const sparse = {
      dims: [50],
      values: { name: 's', dims: [2], dataType: 1 },
      indices: { dims: [2], dataType: 7 },
    };
    const { tensors, total, operators } = costsOf({
      ...model,
      graph: { ...model.graph, sparseInitializer: [sparse] },
    });
    expect(tensors.map(({ name, role, sizeBytes, readers }) => [name, role, sizeBytes, readers])).toEqual([
      ['w', 'constant', 1600, 2],
      ['q', 'constant', 150, 1],
      ['s', 'constant', 24, 0],
      ['x', 'input', 16, 1],
      ['words', 'constant', 4, 0],
      ['p', 'value', null, 1],
      ['y', 'output', null, 0],
      ['z', 'value', null, 0],
    ]);
    expect(total).toEqual({ macs: 0, flops: 0, unknown: 3, weightBytes: 1600 + 150 + 24 + 4 });
    const weights = Object.fromEntries(operators.map(({ op, weightBytes }) => [op, weightBytes]));
    expect(weights).toEqual({ MatMul: 1750, Add: 1600, Constant: 0 });
  });

  it('adds up operators, most arithmetic first, and keeps bodies out of the total', () => {
    const model = sampleModel();
    const between: ValueTypes = new Map(
      model.graph.node
        .slice(0, 3)
        .map(({ opType, output }) => [
          output[0] ?? '',
          { dtype: 'float32', shape: opType === 'Cast' ? [2] : [5, 2] },
        ]),
    );
    const { operators, nodes, total } = costsOf(model, { types: between, lengths: { batch: 5 } });
    expect(operators.map(({ op, flops, unknown }) => [op, flops, unknown])).toEqual([
      ['MatMul', 60, 0],
      ['Mul', 10, 0],
      ['Add', 10, 0],
      ['Relu', 10, 0],
      ['Cast', 0, 0],
      ['If', 0, 1],
      ['Constant', 0, 0],
    ]);
    expect(nodes.filter(({ isInBody }) => isInBody).map(({ op }) => op)).toEqual(['Relu', 'Constant', 'Mul']);
    expect(total).toEqual({ macs: 30, flops: 70, unknown: 1, weightBytes: 24 + 4 + 4 });
  });
});
