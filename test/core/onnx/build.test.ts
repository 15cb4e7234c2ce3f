import { describe, expect, it } from 'vitest';
import { fromUtf8 } from '../../../src/core/bytes.ts';
import type { DType } from '../../../src/core/dtype.ts';
import { tensorFrom, type Tensor } from '../../../src/core/tensor.ts';
import { toAttribute, type AttributeValue } from '../../../src/onnx/attributes.ts';
import { createGraph, type ModelBuilder } from '../../../src/onnx/build.ts';
import { encodeModel, parseModel } from '../../../src/onnx/model.ts';
import { ATTRIBUTE } from '../../../src/onnx/schema.ts';

const start = (): ModelBuilder => {
  const graph = createGraph({ name: 'g', opset: 17 });
  graph.input('x', 'float32', ['batch', 2]);
  return graph;
};

describe('createGraph', () => {
  it('builds nodes in order, and gives names to what has none', () => {
    const graph = start();
    const a = graph.node('Relu', ['x']);
    const b = graph.node('Relu', [a]);
    expect(a).not.toBe(b);
    const [top, bottom] = graph.node(
      'TopK',
      [b, graph.constant('k', tensorFrom('int64', [1n]))],
      {},
      { outputs: 2 },
    );
    graph.node('Add', [top as string, 'x'], undefined, { outputs: 'y', name: 'last' });
    graph.output('y', 'float32');
    const { graph: built } = graph.toModel();
    expect(built.node.map(({ opType }) => opType)).toEqual(['Relu', 'Relu', 'Constant', 'TopK', 'Add']);
    expect(built.node[3]?.output).toEqual([top, bottom]);
    expect(built.node[4]).toMatchObject({ name: 'last', input: [top, 'x'], output: ['y'] });
    expect(built.output).toEqual([{ name: 'y', type: { tensorType: { elemType: 1 } } }]);
  });

  it('never makes up a name that is taken', () => {
    const graph = start();
    graph.input('Relu_0', 'float32', []);
    expect(graph.node('Relu', ['x'])).not.toBe('Relu_0');
  });

  it('declares outputs before or after the node that computes them', () => {
    const graph = start();
    graph.output('y', 'float32', ['batch', 2]);
    expect(() => graph.toModel()).toThrow(RangeError);
    graph.node('Relu', ['x'], {}, { outputs: 'y' });
    expect(graph.toModel().graph.output).toHaveLength(1);
  });

  it.each([
    [17, 8],
    [20, 9],
    [21, 10],
    [22, 10],
    [23, 11],
    [24, 12],
    [26, 13],
  ])('takes the IR version that came with opset %i', (opset, irVersion) => {
    expect(createGraph({ name: 'g', opset }).toModel().irVersion).toBe(irVersion);
    expect(createGraph({ name: 'g', opset, irVersion: 9 }).toModel().irVersion).toBe(9);
  });

  it('writes metadata, producer and operator sets', () => {
    const graph = createGraph({ name: 'g', opset: { '': 21, 'com.microsoft': 1 }, producer: { name: 'p' } });
    graph.metadata('key', 'value');
    const model = parseModel(encodeModel(graph.toModel()));
    expect(model.metadataProps).toEqual([{ key: 'key', value: 'value' }]);
    expect(model.producerName).toBe('p');
    expect(model.opsetImport).toEqual([
      { domain: '', version: 21 },
      { domain: 'com.microsoft', version: 1 },
    ]);
  });

  it('lets bodies see the values around them, but not the other way round', () => {
    const graph = start();
    const body = graph.subgraph('body');
    const inner = body.node('Relu', ['x']);
    body.output(inner, 'float32');
    expect(() => body.initializer('x', tensorFrom('float32', 1))).toThrow(RangeError);
    expect(() => graph.node('Relu', [inner])).toThrow(RangeError);
    expect(body.toGraph().node).toHaveLength(1);
  });

  it('refuses a body that gives out a value of the graph around it', () => {
    const body = start().subgraph('body');
    body.output('x', 'float32');
    expect(() => body.toGraph()).toThrow(RangeError);
  });

  it.each<[string, (graph: ModelBuilder) => unknown]>([
    ['a taken input name', (graph) => graph.input('x', 'float32', [])],
    ['a taken constant name', (graph) => graph.initializer('x', tensorFrom('float32', 1))],
    ['a taken output name', (graph) => graph.node('Relu', ['x'], {}, { outputs: 'x' })],
    ['an empty name', (graph) => graph.input('', 'float32', [])],
    ['an unknown input', (graph) => graph.node('Relu', ['z'])],
    ['an empty operator', (graph) => graph.node('', ['x'])],
    ['a domain without opset', (graph) => graph.node('Gelu', ['x'], {}, { domain: 'com.microsoft' })],
    ['a fractional axis', (graph) => graph.input('z', 'float32', [1.5])],
    ['a negative axis', (graph) => graph.input('z', 'float32', [-1])],
    ['a fractional opset', () => createGraph({ name: 'g', opset: 1.5 })],
    ['a node name twice', (graph) => [1, 2].map(() => graph.node('Relu', ['x'], {}, { name: 'n' }))],
    ['an output twice', (graph) => [1, 2].map(() => graph.output('x', 'float32'))],
    ['metadata twice', (graph) => [1, 2].map(() => graph.metadata('key', 'value'))],
  ])('refuses %s', (_, call) => {
    expect(() => call(start())).toThrow(RangeError);
  });

  it('refuses a dtype that ONNX has not and a constant that is no tensor', () => {
    const graph = start();
    expect(() => graph.input('z', 'float' as DType, [])).toThrow(TypeError);
    expect(() => graph.initializer('z', new Float32Array(1) as unknown as Tensor)).toThrow(TypeError);
    expect(graph.input('z', 'float32', [])).toBe('z');
  });

  it('leaves out optional inputs and undefined attributes', () => {
    const graph = start();
    graph.node('Clip', ['x', '', 'x'], { a: undefined, b: 1 });
    const [node] = graph.toModel().graph.node;
    expect(node?.input).toEqual(['x', '', 'x']);
    expect(node?.attribute.map(({ name }) => name)).toEqual(['b']);
  });
});

describe('toAttribute', () => {
  it.each<[AttributeValue, object]>([
    [3, { i: 3n, type: ATTRIBUTE.int }],
    [-(2n ** 40n), { i: -(2n ** 40n), type: ATTRIBUTE.int }],
    [true, { i: 1n, type: ATTRIBUTE.int }],
    [0.5, { f: 0.5, type: ATTRIBUTE.float }],
    [{ float: 1 }, { f: 1, type: ATTRIBUTE.float }],
    [[1, 2], { ints: BigInt64Array.of(1n, 2n), type: ATTRIBUTE.ints }],
    [[1n], { ints: BigInt64Array.of(1n), type: ATTRIBUTE.ints }],
    [{ ints: [] }, { ints: new BigInt64Array(0), type: ATTRIBUTE.ints }],
    [[1, 0.5], { floats: Float32Array.of(1, 0.5), type: ATTRIBUTE.floats }],
    [{ floats: [1, 2] }, { floats: Float32Array.of(1, 2), type: ATTRIBUTE.floats }],
    [{ strings: [] }, { strings: [], type: ATTRIBUTE.strings }],
    [Uint8Array.of(1), { s: Uint8Array.of(1), type: ATTRIBUTE.string }],
  ])('writes %o', (value, expected) => {
    expect(toAttribute('a', value)).toEqual({ name: 'a', ...expected });
  });

  it('writes text, tensors and graphs, alone and in lists', () => {
    const tensor = tensorFrom('float32', [1]);
    expect(fromUtf8(toAttribute('a', 'tanh').s as Uint8Array)).toBe('tanh');
    expect(toAttribute('a', ['a', 'b']).strings).toHaveLength(2);
    expect(toAttribute('a', tensor)).toMatchObject({ type: ATTRIBUTE.tensor, t: { dims: [1] } });
    expect(toAttribute('a', [tensor, tensor])).toMatchObject({ type: ATTRIBUTE.tensors });
    expect(toAttribute('a', start())).toMatchObject({ type: ATTRIBUTE.graph, g: { name: 'g' } });
    expect(toAttribute('a', [start()])).toMatchObject({ type: ATTRIBUTE.graphs });
  });

  it.each([[[]], [null], [{}], [[1, 'a']], [[{}]], [() => 1]])('refuses %o', (value) => {
    expect(() => toAttribute('a', value as unknown as AttributeValue)).toThrow(TypeError);
  });
});
