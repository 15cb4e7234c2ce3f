import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../../src/onnx/build.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import { fromTensorProto } from '../../../src/onnx/tensors.ts';
import { quantizeDynamic } from '../../../src/optimize/dynamic.ts';
import { assertQuantizable } from '../../../src/optimize/refusals.ts';

const ones = (...shape: number[]): Tensor =>
  new Tensor('float32', shape, new Float32Array(shape.reduce((size, length) => size * length, 1)).fill(0.5));

function model(build: (graph: ModelBuilder) => void, opset = 17): ModelProto {
  const graph = createGraph({ name: 'small', opset });
  graph.input('x', 'float32', ['n', 4]);
  build(graph);
  graph.output('y', 'float32');
  return graph.toModel();
}

const product = (opset?: number, weights: Tensor = ones(4, 3)): ModelProto =>
  model((graph) => {
    graph.initializer('w', weights);
    graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y', name: 'mm' });
  }, opset);

const opsOf = ({ graph }: ModelProto): string[] => graph.node.map(({ opType = '' }) => opType);
const quantize = (of: ModelProto): ReturnType<typeof quantizeDynamic> =>
  quantizeDynamic(of, { kind: 'dynamic', mode: 'tensor' });
const unsupported = (message: RegExp): unknown =>
  expect.objectContaining({
    code: 'ERR_INLAY_MODEL_UNSUPPORTED',
    message: expect.stringMatching(message) as string,
  });

describe('quantizeDynamic', () => {
  it('leaves its input as it was, and keeps the names of inputs and outputs', () => {
    const float = product();
    const before = structuredClone(float);
    const { model: small } = quantize(float);
    expect(float).toEqual(before);
    expect(small.graph.input).toEqual(float.graph.input);
    expect(small.graph.output).toEqual(float.graph.output);
    expect(small.irVersion).toBe(float.irVersion);
    expect(small.opsetImport).toEqual(float.opsetImport);
  });

  it('emits the form that onnxruntime fuses, with a scalar zero point', () => {
    const { model: small, changed } = quantize(product());
    expect(opsOf(small)).toEqual(['DynamicQuantizeLinear', 'MatMulInteger', 'Mul', 'Cast', 'Mul']);
    expect(small.graph.node.at(-1)?.output).toEqual(['y']);
    expect(small.graph.initializer.map(({ name, dims }) => [name, ...dims])).toEqual([
      ['w_quantized', 4, 3],
      ['w_zero_point'],
      ['w_scale', 3],
    ]);
    expect(changed).toEqual([{ node: 'mm', op: 'MatMul', reason: 'MatMulInteger with int8 weights' }]);
  });

  it('says of each node that stays why', () => {
    const float = model((graph) => {
      graph.initializer('w', ones(4, 4));
      graph.initializer('v', ones(4));
      graph.initializer('d', new Tensor('float64', [4, 4], new Float64Array(16)));
      graph.initializer('e', ones(4, 0));
      const label = (name: string): { name: string } => ({ name });
      const a = graph.node('MatMul', ['x', 'w'], {}, label('excluded'));
      const b = graph.node('Transpose', [a]);
      graph.node('MatMul', [a, b], {}, label('computed'));
      graph.node('MatMul', [a, 'v'], {}, label('vector'));
      graph.node('MatMul', [a, 'd'], {}, label('double'));
      graph.node('MatMul', [a, 'e'], {}, label('empty'));
      graph.node('Gemm', [a, 'w'], { alpha: { float: 0 } }, label('zero'));
      graph.node('Relu', [a], {}, { outputs: 'y' });
    });
    const {
      kept,
      changed,
      model: same,
    } = quantizeDynamic(float, { kind: 'dynamic' }, { exclude: [/^excl/] });
    expect(same).toBe(float);
    expect(changed).toEqual([]);
    expect(kept.map(({ node, reason }) => [node, reason])).toEqual([
      ['excluded', 'it is excluded'],
      ['computed', 'its weights are no constant'],
      ['vector', 'its weights are a vector'],
      ['double', 'its weights are of a type that is not quantized'],
      ['empty', 'its weights are empty'],
      ['zero', 'its alpha is 0'],
    ]);
  });

  it('quantizes a shared activation and shared weights once', () => {
    const { model: small, warnings } = quantize(
      model((graph) => {
        graph.initializer('w', ones(4, 4));
        const a = graph.node('MatMul', ['x', 'w']);
        const b = graph.node('MatMul', ['x', 'w']);
        graph.node('Add', [a, b], {}, { outputs: 'y' });
      }),
    );
    expect(opsOf(small).filter((op) => op === 'DynamicQuantizeLinear')).toHaveLength(1);
    expect(small.graph.initializer).toHaveLength(3);
    expect(warnings).toEqual([]);
  });

  it('warns of weights that a float node needs as well, and of inputs that are overridden no more', () => {
    const float = model((graph) => {
      graph.initializer('w', ones(4, 4));
      const a = graph.node('MatMul', ['x', 'w']);
      graph.node('Add', [a, 'w'], {}, { outputs: 'y', name: 'adds' });
    });
    const [input] = float.graph.input;
    const overridable = {
      ...float,
      graph: { ...float.graph, input: [...float.graph.input, { ...input, name: 'w' }] },
    };
    expect(quantize(float).warnings).toEqual([
      'The weights "w" are stored twice: quantized, and as floats for node "adds".',
    ]);
    expect(quantize(overridable).warnings[0]).toMatch(/"w" were an input as well/);
  });

  it('drops an input by which weights could be overridden', () => {
    const float = product();
    const [input] = float.graph.input;
    const { model: small, warnings } = quantize({
      ...float,
      graph: { ...float.graph, input: [...float.graph.input, { ...input, name: 'w' }] },
    });
    expect(small.graph.input.map(({ name }) => name)).toEqual(['x']);
    expect(warnings).toHaveLength(1);
  });

  it('takes weights in Constant nodes, and drops those', () => {
    const { model: small } = quantize(
      model((graph) => {
        graph.constant('w', ones(4, 3));
        graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
      }),
    );
    expect(opsOf(small)).not.toContain('Constant');
    expect(opsOf(small)).toContain('MatMulInteger');
  });

  it('leaves rows that are too short, and what a Gather looks up besides tables of floats', () => {
    const { kept, changed } = quantize(
      model((graph) => {
        graph.initializer('short', ones(9, 4));
        graph.initializer('table', ones(9, 16));
        graph.initializer('ids', new Tensor('int64', [2], BigInt64Array.of(1n, 2n)));
        graph.node('Gather', ['short', 'ids'], {}, { name: 'short' });
        graph.node('Gather', ['table', 'ids'], { axis: 1 }, { name: 'columns' });
        graph.node('Gather', ['x', 'ids'], {}, { name: 'computed' });
        graph.node('Gather', ['table', 'ids'], { axis: -2 }, { outputs: 'y', name: 'rows' });
      }),
    );
    expect(kept.map(({ node }) => node)).toEqual(['short']);
    expect(changed.map(({ node }) => node)).toEqual(['rows']);
  });

  it('takes alpha into scales of their own, once for each value of it', () => {
    const { model: small } = quantize(
      model((graph) => {
        graph.initializer('w', ones(4, 4));
        const a = graph.node('Gemm', ['x', 'w'], { alpha: { float: 2 } });
        const b = graph.node('Gemm', [a, 'w'], { alpha: { float: 2 } });
        graph.node('MatMul', [b, 'w'], {}, { outputs: 'y' });
      }),
    );
    const scales = small.graph.initializer
      .map((proto) => fromTensorProto(proto))
      .filter(({ dtype }) => dtype === 'float32')
      .map(({ data }) => data[0]);
    expect(scales).toEqual([Math.fround(1 / 127), Math.fround(0.5 / 127)]);
    expect(small.graph.initializer).toHaveLength(4);
  });

  it('names weights that are no numbers', () => {
    const bad = ones(4, 3);
    (bad.data as Float32Array)[7] = Number.NaN;
    expect(() => quantize(product(17, bad))).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_MODEL_INVALID', details: { tensor: 'w' } }),
    );
  });
});

describe('assertQuantizable', () => {
  it('refuses operator sets without the operators that are needed, and says what to do', () => {
    expect(() => assertQuantizable(product(10))).toThrow(unsupported(/opset 10.*needs 11.*raiseOpset/));
    expect(() => assertQuantizable(product(11))).not.toThrow();
  });

  it('refuses models that are quantized already, unless forced', () => {
    const { model: once } = quantize(product());
    expect(() => quantize(once)).toThrow(unsupported(/quantized already.*DynamicQuantizeLinear/));
    expect(quantizeDynamic(once, { kind: 'dynamic' }, { isForced: true }).model).toBe(once);
  });

  it('refuses local functions, whose nodes would stay as they are', () => {
    const functions = [
      { name: 'Gelu', domain: 'own', input: ['x'], output: ['y'], node: [], opsetImport: [] },
    ];
    expect(() => assertQuantizable({ ...product(), functions })).toThrow(unsupported(/"Gelu".*prepare/));
  });
});
