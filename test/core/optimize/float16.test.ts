import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromFloat16Bits, toFloat16Array, toFloat16Bits } from '../../../src/core/float.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../../src/onnx/build.ts';
import type { ModelProto, NodeProto } from '../../../src/onnx/messages.ts';
import { fromTensorProto } from '../../../src/onnx/tensors.ts';
import { allNodes } from '../../../src/onnx/walk.ts';
import { toFloat16 } from '../../../src/optimize/float16.ts';
import type { Rewritten, TechniqueOptions } from '../../../src/optimize/technique.ts';

const FLOAT = 1;
const FLOAT16 = 10;

const start = (opset: number | Readonly<Record<string, number>> = 17): ModelBuilder =>
  createGraph({ name: 'test', opset });

const vector = (...values: number[]): Tensor =>
  new Tensor('float32', [values.length], Float32Array.from(values));

const halve = (model: ModelProto, keepsIo = true, options: TechniqueOptions = {}): Rewritten =>
  toFloat16(model, { kind: 'float16', keepsIo }, new Map(), options);

/** x → Add(bias) → y */
function adding(bias: Tensor): ModelProto {
  const graph = start();
  graph.input('x', 'float32', ['n']);
  graph.initializer('bias', bias);
  graph.node('Add', ['x', 'bias'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n']);
  return graph.toModel();
}

const ops = ({ graph }: ModelProto): readonly (string | undefined)[] =>
  graph.node.map(({ opType }) => opType);
const find = (model: ModelProto, op: string): NodeProto | undefined =>
  [...allNodes(model)].find(({ opType }) => opType === op);
const typeOf = (model: ModelProto, name: string): number | undefined =>
  [...model.graph.input, ...model.graph.output].find((value) => value.name === name)?.type?.tensorType
    ?.elemType;
const constantType = (model: ModelProto, name: string): number | undefined =>
  model.graph.initializer.find((constant) => constant.name === name)?.dataType;
/** Words of a constant. */
function words(model: ModelProto, name: string): readonly number[] {
  const constant = model.graph.initializer.find((one) => one.name === name);
  return constant === undefined ? [] : Array.from(fromTensorProto(constant).data as Uint16Array);
}

describe('rounding to float16', () => {
  it('rounds arrays as it rounds single numbers', () => {
    fc.assert(
      fc.property(fc.float32Array(), (values) => {
        expect([...toFloat16Array(values)]).toEqual(Array.from(values, toFloat16Bits));
      }),
      { numRuns: 50 },
    );
  });

  it('rounds arrays at the edges of what float16 can say', () => {
    const edges = [
      2 ** -14,
      2 ** -15,
      2 ** -24,
      2 ** -25,
      65504,
      65519,
      65520,
      1 + 2 ** -11,
      1 + 3 * 2 ** -11,
      0,
      -0,
    ];
    const values = Float32Array.from(
      [...edges, NaN, Infinity].flatMap((edge) => [
        edge,
        -edge,
        edge * (1 + 2 ** -23),
        edge * (1 - 2 ** -24),
      ]),
    );
    expect([...toFloat16Array(values)]).toEqual(Array.from(values, toFloat16Bits));
  });

  it('keeps every value that is a float16 already', () => {
    const bits = Array.from({ length: 2 ** 16 }, (_, i) => i).filter(
      (one) => !Number.isNaN(fromFloat16Bits(one)),
    );
    expect([...toFloat16Array(Float32Array.from(bits, fromFloat16Bits))]).toEqual(bits);
  });
});

describe('models in float16', () => {
  it('clamps what would become infinite or zero, and says how much', () => {
    const { model, warnings } = halve(adding(vector(1e6, -65505, -7e4, 1e-9, -1e-30, 0, 65504)));
    expect(words(model, 'bias')).toEqual([0x7bff, 0xfbff, 0xfbff, 0x0001, 0x8001, 0x0000, 0x7bff]);
    expect(warnings.join()).toContain('2 elements of "bias"');
  });

  it('keeps NaN, infinity and the sign of zero', () => {
    expect(words(halve(adding(vector(NaN, Infinity, -Infinity, -0))).model, 'bias')).toEqual([
      0x7e00, 0x7c00, 0xfc00, 0x8000,
    ]);
  });

  it('keeps inputs and outputs as they are, with casts at the edges', () => {
    const { model } = halve(adding(vector(1)));
    expect(ops(model)).toEqual(['Cast', 'Add', 'Cast']);
    expect([typeOf(model, 'x'), typeOf(model, 'y')]).toEqual([FLOAT, FLOAT]);
    expect(model.graph.node.at(-1)?.output).toEqual(['y']);
  });

  it('turns inputs and outputs over where that is asked for', () => {
    const { model } = halve(adding(vector(1)), false);
    expect(ops(model)).toEqual(['Add']);
    expect([typeOf(model, 'x'), typeOf(model, 'y')]).toEqual([FLOAT16, FLOAT16]);
  });

  it('leaves integers alone', () => {
    const graph = start();
    graph.input('x', 'int64', ['n']);
    graph.initializer('one', tensorFrom('int64', 1));
    graph.output(graph.node('Add', ['x', 'one'], {}, { outputs: 'y' }), 'int64', ['n']);
    const model = graph.toModel();
    const { model: same, changed } = halve(model);
    expect(changed).toEqual([]);
    expect(same.graph.node).toEqual(model.graph.node);
  });

  it('leaves operators without kernels in float32, and constants that only they read', () => {
    const graph = start();
    graph.input('x', 'float32', ['n']);
    graph.initializer('low', tensorFrom('float32', 0.1));
    graph.initializer('scale', vector(2));
    graph.node('Mul', ['x', 'scale'], {}, { outputs: 'scaled' });
    graph.node('Max', ['scaled', 'low'], {}, { outputs: 'capped' });
    graph.node('Min', ['capped', 'low'], {}, { outputs: 'bounded' });
    graph.output(graph.node('Relu', ['bounded'], {}, { outputs: 'y' }), 'float32', ['n']);
    const { model, kept } = halve(graph.toModel());
    expect(ops(model)).toEqual(['Cast', 'Mul', 'Cast', 'Max', 'Min', 'Cast', 'Relu', 'Cast']);
    expect([constantType(model, 'low'), constantType(model, 'scale')]).toEqual([FLOAT, FLOAT16]);
    expect(kept.map(({ op, reason }) => [op, reason.includes('no float16 kernel')])).toEqual([
      ['Max', true],
      ['Min', true],
    ]);
  });

  it('leaves nodes that are excluded, and those whose types nobody knows', () => {
    const graph = start({ '': 17, custom: 1 });
    graph.input('x', 'float32', ['n']);
    graph.node('Relu', ['x'], {}, { outputs: 'a', name: 'first' });
    graph.node('Mystery', ['a'], {}, { outputs: 'b', domain: 'custom' });
    graph.node('Neg', ['b'], {}, { outputs: 'c' });
    graph.output('c', 'float32', ['n']);
    const { model, kept } = halve(graph.toModel(), true, { exclude: [/^fir/] });
    expect(ops(model)).toEqual(['Relu', 'Mystery', 'Neg']);
    expect(kept.map(({ reason }) => reason)).toEqual([
      'it is excluded',
      expect.stringContaining('"custom"') as string,
      expect.stringContaining('"b" is not known') as string,
    ]);
  });

  it('leaves the scales of Resize in float32', () => {
    const graph = start();
    graph.input('x', 'float32', [1, 1, 2, 2]);
    graph.initializer('scales', vector(1, 1, 2, 2));
    graph.output(graph.node('Resize', ['x', '', 'scales'], {}, { outputs: 'y' }), 'float32', [1, 1, 4, 4]);
    const { model } = halve(graph.toModel(), false);
    expect(constantType(model, 'scales')).toBe(FLOAT);
    expect(find(model, 'Resize')?.input).toEqual(['x', '', 'scales']);
  });

  it('rewrites the types that attributes name, and constants of nodes', () => {
    const graph = start();
    graph.input('x', 'int64', ['n']);
    graph.node('Cast', ['x'], { to: FLOAT }, { outputs: 'cast' });
    graph.node('RandomNormal', [], { shape: [1] }, { outputs: 'noise' });
    graph.node('Shape', ['x'], {}, { outputs: 'shape' });
    graph.node('ConstantOfShape', ['shape'], {}, { outputs: 'zeros' });
    graph.node('Constant', [], { value_float: { float: 0.5 } }, { outputs: 'half' });
    graph.node('Sum', ['cast', 'noise', 'zeros', 'half'], {}, { outputs: 'y' });
    graph.output('y', 'float32', ['n']);
    const { model } = halve(graph.toModel());
    const attributesOf = (op: string): NodeProto['attribute'] => find(model, op)?.attribute ?? [];
    expect(attributesOf('Cast').map(({ i }) => i)).toEqual([BigInt(FLOAT16)]);
    expect(attributesOf('RandomNormal').find(({ name }) => name === 'dtype')?.i).toBe(BigInt(FLOAT16));
    expect(attributesOf('ConstantOfShape').map(({ t }) => t?.dataType)).toEqual([FLOAT16]);
    expect(attributesOf('Constant').map(({ name, t }) => [name, t?.dataType])).toEqual([['value', FLOAT16]]);
  });

  it('goes into the bodies of control flow, and casts what they read outside', () => {
    const graph = start();
    graph.input('x', 'float32', [2]);
    graph.input('flag', 'bool', []);
    const branch = (name: string, op: string): ReturnType<ModelBuilder['subgraph']> => {
      const body = graph.subgraph(name);
      body.initializer(`${name}_w`, vector(1, 2));
      body.node(op, ['x', `${name}_w`], {}, { outputs: `${name}_y` });
      body.output(`${name}_y`, 'float32', [2]);
      return body;
    };
    const branches = { then_branch: branch('then', 'Add'), else_branch: branch('else', 'Max') };
    graph.output(graph.node('If', ['flag'], branches, { outputs: 'y' }), 'float32', [2]);
    const { model, kept } = halve(graph.toModel());
    const bodies = (find(model, 'If')?.attribute ?? []).flatMap(({ g }) => g ?? []);
    expect(bodies.map(({ node }) => node.map(({ opType }) => opType))).toEqual([
      ['Cast', 'Add'],
      ['Max', 'Cast'],
    ]);
    expect(bodies.map(({ initializer }) => initializer[0]?.dataType)).toEqual([FLOAT16, FLOAT]);
    expect(bodies.map(({ output }) => output[0]?.type?.tensorType?.elemType)).toEqual([FLOAT16, FLOAT16]);
    expect(kept.map(({ op }) => op)).toEqual(['Max']);
  });

  it('drops an input that could override a constant, and says so', () => {
    const model = adding(vector(1));
    const [{ type } = {}] = model.graph.input;
    const graph = { ...model.graph, input: [...model.graph.input, { name: 'bias', ...(type && { type }) }] };
    const { model: half, warnings } = halve({ ...model, graph });
    expect(half.graph.input.map(({ name }) => name)).toEqual(['x']);
    expect(warnings.join()).toContain('"bias" can no longer be overridden');
  });

  it('refuses models that compute with integers, and opsets of strings', () => {
    const graph = start();
    graph.input('x', 'float32', ['n']);
    const [q = ''] = graph.node('DynamicQuantizeLinear', ['x'], {}, { outputs: 3 });
    graph.output(q, 'uint8', ['n']);
    expect(() => halve(graph.toModel())).toThrow(/quantized already/);
    expect(() => halve({ ...adding(vector(1)), opsetImport: [{ version: 5 }] })).toThrow(/opset 5/);
  });
});
