import { describe, expect, it } from 'vitest';
import { tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../../src/onnx/build.ts';
import type { GraphProto, ModelProto, NodeProto } from '../../../src/onnx/messages.ts';
import {
  attributeOf,
  floatOf,
  intOf,
  intsOf,
  isStandardOp,
  labelOf,
  openBody,
  openScope,
} from '../../../src/onnx/scope.ts';
import { bodiesOf } from '../../../src/onnx/walk.ts';
import { sampleModel } from './sample.ts';

const two = tensorFrom('float32', 2);

function createModel(): ModelBuilder {
  const graph = createGraph({ name: 'g', opset: 17 });
  graph.input('x', 'float32', [4]);
  return graph;
}

const operators = (nodes: readonly NodeProto[]): (string | undefined)[] => nodes.map(({ opType }) => opType);

function bodyOf(model: ModelProto, index: number): GraphProto {
  const body = model.graph.node.flatMap((node) => bodiesOf(node))[index];
  if (body === undefined) throw new Error(`The model has no body ${index}.`);
  return body;
}

describe('openScope', () => {
  it('lists the readers of a value in order, those inside of bodies included', () => {
    const model = sampleModel();
    const scope = openScope(model);
    const sum = model.graph.node.find(({ opType }) => opType === 'Add')?.output[0] ?? '';
    expect(operators(scope.readers(sum))).toEqual(['Relu', 'Mul']);
    expect(operators(scope.readers('flag'))).toEqual(['If']);
    expect(scope.readers('nothing')).toEqual([]);
  });

  it('counts a node that reads a value twice once', () => {
    const graph = createModel();
    graph.node('Add', ['x', 'x']);
    expect(openScope(graph.toModel()).readers('x')).toHaveLength(1);
  });

  it('does not take a value of a body for one of the same name around it', () => {
    const graph = createModel();
    graph.input('flag', 'bool', []);
    const branch = (op: string): GraphProto => ({
      node: [
        { opType: op, input: ['x'], output: ['y'], attribute: [] },
        { opType: 'Neg', input: ['y'], output: ['z'], attribute: [] },
      ],
      initializer: [],
      input: [],
      output: [{ name: 'z' }],
    });
    const [yes, no] = [branch('Exp'), branch('Abs')];
    graph.node('If', ['flag'], { then_branch: { toGraph: () => yes }, else_branch: { toGraph: () => no } });
    graph.node('Relu', ['x'], {}, { outputs: 'y' });
    const scope = openScope(graph.toModel());
    expect(scope.readers('y')).toEqual([]);
    expect(operators(scope.readers('x'))).toEqual(['Exp', 'Abs', 'Relu']);
    const inner = openBody(yes, scope);
    expect(inner.producer('y')?.opType).toBe('Exp');
    expect(operators(inner.readers('y'))).toEqual(['Neg']);
    expect(inner.definer('y')).toBe(inner);
    expect(inner.definer('x')).toBe(scope);
    expect(inner.isOutput('z')).toBe(true);
    expect(scope.isOutput('z')).toBe(false);
  });

  it('counts a node whose body gives a value back as a reader', () => {
    const graph = createModel();
    graph.input('flag', 'bool', []);
    const bare: GraphProto = { node: [], initializer: [], input: [], output: [{ name: 'x' }] };
    graph.node('If', ['flag'], {
      then_branch: { toGraph: () => bare },
      else_branch: { toGraph: () => bare },
    });
    expect(operators(openScope(graph.toModel()).readers('x'))).toEqual(['If']);
  });

  it('gives constants of initializers and Constant nodes, also those of outer graphs', () => {
    const model = sampleModel();
    const scope = openScope(model);
    expect(scope.constant('weight')?.dims).toEqual([3, 2]);
    expect(scope.constant('x')).toBeUndefined();
    expect(scope.constant('nothing')).toBeUndefined();
    const inner = openBody(bodyOf(model, 1), scope);
    expect(inner.constant('two')?.dims).toEqual([]);
    expect(inner.constant('weight')).toBe(scope.constant('weight'));
    expect(scope.constant('two')).toBeUndefined();
  });

  it('takes no Constant of another domain or without a tensor for a constant', () => {
    const graph = createGraph({ name: 'g', opset: { '': 17, 'org.example': 1 } });
    graph.node('Constant', [], { value: two }, { domain: 'org.example', outputs: 'foreign' });
    graph.node('Constant', [], { value_float: { float: 2 } }, { outputs: 'scalar' });
    const scope = openScope(graph.toModel());
    expect(scope.constant('foreign')).toBeUndefined();
    expect(scope.constant('scalar')).toBeUndefined();
    expect(scope.producer('scalar')?.opType).toBe('Constant');
  });

  it('tells inputs that have a default, constant outputs and sparse constants', () => {
    const graph = createModel();
    graph.initializer('w', two);
    const model = graph.toModel();
    const scope = openScope({
      ...model,
      graph: {
        ...model.graph,
        input: [...model.graph.input, { name: 'w' }],
        output: [{ name: 'w' }, { name: 'x' }],
        sparseInitializer: [{ dims: [4], values: { name: 'sparse', dims: [0], dataType: 1 } }],
      },
    });
    expect(scope.isInput('w')).toBe(true);
    expect(scope.isOutput('w')).toBe(true);
    expect(scope.isOutput('x')).toBe(true);
    expect(scope.constant('w')).toBeDefined();
    expect(scope.definer('sparse')).toBe(scope);
    expect(scope.constant('sparse')).toBeUndefined();
  });
});

describe('what a node says', () => {
  const graph = createGraph({ name: 'g', opset: { '': 17, 'ai.onnx': 17, 'org.example': 1 } });
  graph.input('x', 'float32', [4]);
  graph.node('A', ['x'], { axis: 2, alpha: { float: 0.5 }, pads: [1, 2] }, { name: 'a' });
  graph.node('B', ['x'], {}, { domain: 'org.example', outputs: 'b' });
  const [a, b] = graph.toModel().graph.node as [NodeProto, NodeProto];

  it('is read by name, or else what the operator takes without it', () => {
    expect(attributeOf(a, 'axis')?.i).toBe(2n);
    expect([intOf(a, 'axis', 7), intOf(b, 'axis', 7)]).toEqual([2, 7]);
    expect([floatOf(a, 'alpha', 1), floatOf(b, 'alpha', 1)]).toEqual([0.5, 1]);
    expect([intsOf(a, 'pads'), intsOf(b, 'pads')]).toEqual([[1, 2], undefined]);
  });

  it('is its name, or that of its first output that it has', () => {
    expect(labelOf(a)).toBe('a');
    expect(labelOf({ input: [], output: ['', 'second'], attribute: [] })).toBe('second');
    expect([isStandardOp(a), isStandardOp(b), isStandardOp({ ...a, domain: 'ai.onnx' })]).toEqual([
      true,
      false,
      true,
    ]);
  });
});
