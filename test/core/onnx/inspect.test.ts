import { describe, expect, it } from 'vitest';
import { tensorFrom } from '../../../src/core/tensor.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import { inspectModel } from '../../../src/onnx/inspect.ts';
import type { ModelProto, TypeProto } from '../../../src/onnx/messages.ts';
import { signatureOf } from '../../../src/onnx/signature.ts';
import { sampleModel } from './sample.ts';

const withOutput = (type: TypeProto | undefined): ModelProto => {
  const model = sampleModel();
  return { ...model, graph: { ...model.graph, output: [{ name: 'y', ...(type && { type }) }] } };
};

describe('signatureOf', () => {
  it('gives names, dtypes and shapes with symbolic axes', () => {
    expect(signatureOf(sampleModel())).toEqual({
      inputs: [
        { name: 'x', dtype: 'float32', shape: ['batch', 3] },
        { name: 'flag', dtype: 'bool', shape: [] },
      ],
      outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 2] }],
    });
  });

  it('leaves out inputs that have an initializer', () => {
    const model = sampleModel();
    const weight = { name: 'weight', type: { tensorType: { elemType: 1 } } };
    const sparse = { name: 'sparse', type: { tensorType: { elemType: 1 } } };
    const graph = {
      ...model.graph,
      input: [weight, sparse, ...model.graph.input],
      sparseInitializer: [{ dims: [4], values: { name: 'sparse', dims: [0], dataType: 1 } }],
    };
    expect(signatureOf({ ...model, graph })).toEqual(signatureOf(model));
  });

  it('gives null for what the model does not say', () => {
    const dim = [{}, { dimValue: -1 }, { dimParam: '' }, { dimValue: 0 }];
    const specs = [undefined, { dim }].map(
      (shape) =>
        signatureOf(withOutput({ tensorType: { elemType: 1, ...(shape && { shape }) } })).outputs[0]?.shape,
    );
    expect(specs).toEqual([null, [null, null, null, 0]]);
  });

  it.each<[string, TypeProto | undefined]>([
    ['unknown', undefined],
    ['unknown', { tensorType: { elemType: 0 } }],
    [
      'sequence(map(int64, float32))',
      { sequenceType: { elemType: { mapType: { keyType: 7, valueType: { tensorType: { elemType: 1 } } } } } },
    ],
    ['optional(float32)', { optionalType: { elemType: { tensorType: { elemType: 1 } } } }],
    ['sparse(int8)', { sparseTensorType: { elemType: 3 } }],
    ['opaque', { opaqueType: {} }],
  ])('refuses an output of type %s, which inspectModel reports', (formatted, type) => {
    const model = withOutput(type);
    expect(() => signatureOf(model)).toThrow(ModelError);
    expect(() => signatureOf(model)).toThrow(`"y" is of type ${formatted},`);
    expect(inspectModel(model).outputs).toEqual([{ name: 'y', type: formatted, shape: null }]);
  });
});

describe('inspectModel', () => {
  it('counts operators and constants, those in branches included', () => {
    expect(inspectModel(sampleModel())).toEqual({
      name: 'sample',
      irVersion: 8,
      producer: { name: 'inlay', version: '1.2.3' },
      opsets: { 'ai.onnx': 17 },
      customDomains: [],
      inputs: [
        { name: 'x', type: 'float32', shape: ['batch', 3] },
        { name: 'flag', type: 'bool', shape: [] },
      ],
      outputs: [{ name: 'y', type: 'float32', shape: ['batch', 2] }],
      operators: { Add: 1, Cast: 1, Constant: 1, If: 1, MatMul: 1, Mul: 1, Relu: 1 },
      nodes: 7,
      subgraphs: 2,
      functions: [],
      parameters: { tensors: 3, elements: 9, sizeBytes: 32 },
      parametersByDtype: {
        float16: { tensors: 1, elements: 2, sizeBytes: 4 },
        float32: { tensors: 2, elements: 7, sizeBytes: 28 },
      },
      externalFiles: [],
      metadata: {},
    });
  });

  it('counts the nodes of functions and names custom domains', () => {
    const graph = createGraph({
      name: 'g',
      opset: { '': 21, 'com.microsoft': 1, 'org.example': 2, 'ai.onnx.ml': 3 },
    });
    const x = graph.input('x', 'float32', [4]);
    graph.node('Gelu', [x], {}, { domain: 'com.microsoft' });
    graph.node('Twice', [x], {}, { domain: 'org.example' });
    const body = { input: ['a'], output: ['b'], opType: 'Add', attribute: [] };
    const twice = {
      name: 'Twice',
      domain: 'org.example',
      input: ['a'],
      output: ['b'],
      node: [body],
      opsetImport: [],
    };
    const report = inspectModel({ ...graph.toModel(), functions: [twice] });
    expect(report.operators).toEqual({ Add: 1, 'com.microsoft::Gelu': 1, 'org.example::Twice': 1 });
    expect(report.customDomains).toEqual(['com.microsoft', 'org.example']);
    expect(report.functions).toEqual(['org.example::Twice']);
    expect(report.opsets).toEqual({ 'ai.onnx': 21, 'ai.onnx.ml': 3, 'com.microsoft': 1, 'org.example': 2 });
  });

  it('counts packed, text and external constants, and every form of Constant', () => {
    const graph = createGraph({ name: 'g', opset: 21 });
    graph.initializer('int4', tensorFrom('int4', [1, 2, 3]));
    graph.initializer('words', tensorFrom('string', ['a', 'bc']));
    graph.node('Constant', [], { value_floats: [0.5, 1.5] });
    graph.node('Constant', [], { value_int: 3 });
    graph.node('Constant', [], { value_string: 'abc' });
    const model = graph.toModel();
    const external = (name: string, length?: string): ModelProto['graph']['initializer'][number] => ({
      name,
      dims: [2, 2],
      dataType: 10,
      dataLocation: 1,
      externalData: [
        { key: 'location', value: 'w.bin' },
        ...(length ? [{ key: 'length', value: length }] : []),
      ],
    });
    const initializer = [...model.graph.initializer, external('a'), external('b', '4096')];
    const report = inspectModel({ ...model, graph: { ...model.graph, initializer } });
    expect(report.parametersByDtype).toEqual({
      float16: { tensors: 2, elements: 8, sizeBytes: 8 + 4096 },
      float32: { tensors: 1, elements: 2, sizeBytes: 8 },
      int4: { tensors: 1, elements: 3, sizeBytes: 2 },
      int64: { tensors: 1, elements: 1, sizeBytes: 8 },
      string: { tensors: 2, elements: 3, sizeBytes: 6 },
    });
    expect(report.externalFiles).toEqual(['w.bin']);
  });

  it('gives metadata as a record, also under names that objects inherit', () => {
    const graph = createGraph({ name: 'g', opset: 17 });
    graph.metadata('labels', 'cat,dog');
    graph.metadata('__proto__', 'x');
    const { metadata } = inspectModel(graph.toModel());
    expect(Object.entries(metadata)).toEqual([
      ['__proto__', 'x'],
      ['labels', 'cat,dog'],
    ]);
  });
});
