import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../../src/onnx/build.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import { fromTensorProto } from '../../../src/onnx/tensors.ts';
import { fromCalibrationFile, toCalibrationFile } from '../../../src/optimize/calibrate-file.ts';
import { quantizeStatic } from '../../../src/optimize/static.ts';
import type { Ranges } from '../../../src/optimize/technique.ts';

const floats = (shape: readonly number[], ...values: number[]): Tensor<'float32'> =>
  new Tensor('float32', shape, Float32Array.from(values));
const wide: Ranges = new Map(['x', 'm', 'n', 'y'].map((name) => [name, { min: -1, max: 1 }]));

function modelOf(build: (graph: ModelBuilder) => void, opset = 17): ModelProto {
  const graph = createGraph({ name: 'g', opset });
  graph.input('x', 'float32', ['n', 2]);
  graph.initializer('w', floats([2, 2], 1, -2, 3, -4));
  build(graph);
  graph.output('y', 'float32', ['n', 2]);
  return graph.toModel();
}
const node = (graph: ModelBuilder, op: string, inputs: string[], outputs: string, attributes = {}): void =>
  void graph.node(op, inputs, attributes, { outputs, name: `${op}_${outputs}` });
const opsOf = ({ graph }: ModelProto): string[] => graph.node.map(({ opType = '' }) => opType);

describe('static quantization', () => {
  it('leaves inputs and outputs as they are', () => {
    const model = modelOf((graph) => node(graph, 'MatMul', ['x', 'w'], 'y'));
    const { model: made } = quantizeStatic(model, { kind: 'static' }, wide);
    expect(made.graph.input).toEqual(model.graph.input);
    expect(made.graph.output).toEqual(model.graph.output);
    expect(opsOf(made)).toEqual([
      'QuantizeLinear',
      'DequantizeLinear',
      'DequantizeLinear',
      'MatMul',
      'QuantizeLinear',
      'DequantizeLinear',
    ]);
    expect(made.graph.node.at(-1)?.output).toEqual(['y']);
  });

  it.each([
    ['it is excluded', { exclude: [/^MatMul/] }, wide],
    ['no range is known of "y"', {}, new Map([...wide].filter(([name]) => name !== 'y'))],
  ])('keeps a node float and says: %s', (reason, options, ranges) => {
    const model = modelOf((graph) => node(graph, 'MatMul', ['x', 'w'], 'y'));
    const { model: made, kept } = quantizeStatic(model, { kind: 'static' }, ranges, options);
    expect(made).toBe(model);
    expect(kept).toEqual([{ node: 'MatMul_y', op: 'MatMul', reason }]);
  });

  it('takes a clamp off only where the range of the integers ends there', () => {
    const model = modelOf((graph) => {
      node(graph, 'MatMul', ['x', 'w'], 'm');
      node(graph, 'Relu', ['m'], 'n');
      node(graph, 'MatMul', ['n', 'w'], 'y');
    });
    const withRange = (max: number): Ranges => new Map([...wide, ['n', { min: 0, max }]]);
    expect(opsOf(quantizeStatic(model, { kind: 'static' }, withRange(3)).model)).not.toContain('Relu');
    // Nothing but zeros was seen: int8 would then let negative values through.
    const { model: kept } = quantizeStatic(model, { kind: 'static', activations: 'int8' }, withRange(0));
    expect(opsOf(kept)).toContain('Relu');
  });

  it('stores weights once that two nodes share, and a bias for each scale', () => {
    const model = modelOf((graph) => {
      graph.initializer('b', floats([2], 1, 2));
      node(graph, 'Gemm', ['x', 'w', 'b'], 'm');
      node(graph, 'Gemm', ['m', 'w', 'b'], 'y');
    });
    const ranges = new Map([...wide, ['m', { min: -3, max: 3 }] as const]);
    const { model: made, warnings } = quantizeStatic(model, { kind: 'static' }, ranges);
    const dtypes = made.graph.initializer
      .map((proto) => fromTensorProto(proto))
      .filter(({ shape }) => shape.length === 2);
    expect(dtypes.map(({ dtype }) => dtype)).toEqual(['int8']);
    const biases = made.graph.initializer.filter(({ name = '' }) => /^b_quantized(_\d+)?$/.test(name));
    expect(biases).toHaveLength(2);
    expect(warnings).toEqual([]);
  });

  it('makes scales of weights larger where the bias would not fit into 32 bits', () => {
    const model = modelOf((graph) => {
      graph.initializer('b', floats([2], 1e6, 0));
      node(graph, 'Gemm', ['x', 'w', 'b'], 'y');
    });
    const ranges = new Map([...wide, ['x', { min: -1e-5, max: 1e-5 }] as const]);
    const { model: made, warnings } = quantizeStatic(model, { kind: 'static' }, ranges);
    const constant = (name: string): Tensor =>
      fromTensorProto(made.graph.initializer.find((one) => one.name === name) ?? { dims: [] });
    const [bias = 0] = constant('b_quantized').data as Int32Array;
    const [scale = 0] = constant('b_quantized_scale').data as Float32Array;
    expect((bias * scale) / 1e6).toBeCloseTo(1, 6);
    expect(warnings).toEqual([expect.stringContaining('had to grow')]);
  });

  it('refuses int8 activations beside uint8 weights, and ranges that are none', () => {
    const model = modelOf((graph) => node(graph, 'MatMul', ['x', 'w'], 'y'));
    expect(() =>
      quantizeStatic(model, { kind: 'static', activations: 'int8', weights: 'uint8' }, wide),
    ).toThrow(RangeError);
    expect(() => quantizeStatic(model, { kind: 'static' }, new Map([['x', { min: 1, max: 0 }]]))).toThrow(
      RangeError,
    );
  });
});

describe('a stored calibration', () => {
  const calibration = { ranges: wide, method: 'minmax', samples: 3, ignored: 0, warnings: ['few'] } as const;
  const file = JSON.parse(JSON.stringify(toCalibrationFile(calibration, 'key'))) as Record<string, unknown>;

  it('is read back as it was', () => {
    expect(fromCalibrationFile(file, 'key')).toEqual(calibration);
  });

  it.each([
    ['of something else', file, 'other'],
    ['without a format', { ...file, format: 'x' }, 'key'],
    ['with an unknown method', { ...file, method: 'guess' }, 'key'],
    ['without samples', { ...file, samples: 0 }, 'key'],
    ['with a range upside down', { ...file, ranges: { x: [1, 0] } }, 'key'],
    ['with a range of null', { ...file, ranges: { x: [null, 0] } }, 'key'],
    ['that is no object', [], 'key'],
  ])('is refused %s', (_, json, key) => {
    expect(() => fromCalibrationFile(json, key)).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_FEED_VALUE' }),
    );
  });
});
