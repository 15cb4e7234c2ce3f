import { Tensor as OrtTensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { toFloat16Bits } from '../../src/core/float.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { quantizeDynamic } from '../../src/optimize/dynamic.ts';
import { quantizeBlocks } from '../../src/optimize/nbits.ts';
import type { DynamicInt8, Rewritten } from '../../src/optimize/technique.ts';
import {
  constantsOf,
  evaluationInputs,
  floats,
  gauss,
  goldenModel,
  goldenSqnr,
  hasGolden,
  opsOf,
  runOnce,
  sqnrDb,
  type Feeds,
} from './optimize-golden.ts';

const reference: Readonly<Record<string, Partial<DynamicInt8>>> = {
  'mlp.dynamic.s8': { perChannel: false },
  'mlp.dynamic.u8': { perChannel: false, weights: 'uint8' },
  'mlp.dynamic.s8.channel': {},
  'mlp.dynamic.s8.reduced': { perChannel: false, reduceRange: true },
  'cnn.dynamic.u8': { perChannel: false, weights: 'uint8', convolutions: true },
};

describe.skipIf(!hasGolden)('dynamic int8 beside the Python reference', () => {
  it.each(Object.entries(reference))('gives the constants and the answers of %s', async (name, how) => {
    const family = name.startsWith('mlp') ? 'mlp' : 'cnn';
    const float = goldenModel(family);
    const feeds = evaluationInputs(family);
    const tensor = quantizeDynamic(float, { kind: 'dynamic', mode: 'tensor', ...how }).model;
    const row = quantizeDynamic(float, { kind: 'dynamic', mode: 'row', ...how }).model;

    const ours = constantsOf(tensor);
    // The reference has a zero point of 0 for each channel, which kernels do not take for 3-D weights.
    const theirs = constantsOf(goldenModel(name)).filter((text) => !/^int8 \[\d+\] A+=*$/.test(text));
    expect(theirs.filter((text) => !ours.includes(text))).toEqual([]);

    const expected = await runOnce(float, feeds);
    expect(Math.abs(sqnrDb(expected, await runOnce(tensor, feeds)) - goldenSqnr(name))).toBeLessThan(0.2);
    expect(sqnrDb(expected, await runOnce(row, feeds))).toBeGreaterThan(goldenSqnr(name) - 1);
  });
});

const float32 = (shape: readonly number[], seed = 1): Tensor =>
  new Tensor(
    'float32',
    shape,
    gauss(
      shape.reduce((size, length) => size * length, 1),
      seed,
    ),
  );

function model(build: (graph: ModelBuilder) => void, opset = 17): ModelProto {
  const graph = createGraph({ name: 'small', opset });
  build(graph);
  return graph.toModel();
}

/** Every way in which products are quantized. */
const techniques: Readonly<Record<string, (float: ModelProto) => Rewritten>> = {
  'dynamic by tensor': (float) => quantizeDynamic(float, { kind: 'dynamic', mode: 'tensor' }),
  'dynamic by row': (float) => quantizeDynamic(float, { kind: 'dynamic' }),
  'dynamic uint8': (float) => quantizeDynamic(float, { kind: 'dynamic', weights: 'uint8' }),
  'blocks of 8 bits': (float) => quantizeBlocks(float, { kind: 'nbits', bits: 8, blockSize: 16 }),
};

describe.each(Object.entries(techniques))('%s', (_, quantize) => {
  const expectClose = async (float: ModelProto, feeds: Feeds, atLeastDb = 30): Promise<Rewritten> => {
    const rewritten = quantize(float);
    const expected = await runOnce(float, feeds);
    const actual = await runOnce(rewritten.model, feeds);
    expect(actual.length).toBe(expected.length);
    expect(sqnrDb(expected, actual)).toBeGreaterThan(atLeastDb);
    expect(rewritten.changed.length).toBeGreaterThan(0);
    return rewritten;
  };

  it.each([
    ['plain', {}, [5, 32], [32, 24]],
    ['alpha, beta and a constant transposed', { alpha: 0.3, beta: 2.5, transB: 1 }, [5, 32], [24, 32]],
    ['a transposed input', { transA: 1, alpha: -1.5 }, [32, 5], [32, 24]],
    ['no bias left', { beta: { float: 0 } }, [5, 32], [32, 24]],
  ])('keeps what a Gemm with %s means', async (_case, attributes, input, weights) => {
    const float = model((graph) => {
      graph.input('x', 'float32', input);
      graph.initializer('w', float32(weights));
      graph.initializer('c', float32([24], 5));
      graph.node('Gemm', ['x', 'w', 'c'], attributes, { outputs: 'y' });
      graph.output('y', 'float32');
    });
    const { model: small } = await expectClose(float, { x: floats(input) });
    expect(opsOf(small)).not.toContain('Gemm');
    expect(small.graph.initializer.map(({ name }) => name)).not.toContain('w');
  });

  it('keeps the number of axes that weights with leading ones give', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', [5, 32]);
      graph.initializer('w', float32([1, 1, 32, 24]));
      graph.node('MatMul', ['x', 'w'], {}, { outputs: 'm' });
      graph.node('Shape', ['m'], {}, { outputs: 's' });
      graph.node('Cast', ['s'], { to: 1 }, { outputs: 'y' });
      graph.output('y', 'float32');
    });
    const { model: small } = quantize(float);
    expect(Array.from(await runOnce(small, { x: floats([5, 32]) }))).toEqual([1, 1, 5, 24]);
  });

  it('computes with weights of 16 bits, and gives 16 bits', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.node('Cast', ['x'], { to: 10 }, { outputs: 'h' });
      graph.initializer('w', new Tensor('float16', [32, 24], Uint16Array.from(gauss(768), toFloat16Bits)));
      graph.node('MatMul', ['h', 'w'], {}, { outputs: 'm' });
      graph.initializer('b', new Tensor('float16', [24], Uint16Array.from(gauss(24, 3), toFloat16Bits)));
      graph.node('Add', ['m', 'b'], {}, { outputs: 'a' });
      graph.node('Cast', ['a'], { to: 1 }, { outputs: 'y' });
      graph.output('y', 'float32');
    });
    await expectClose(float, { x: floats([5, 32]) });
  });

  it('rewrites bodies that use weights of the graph around them, and Constant nodes in bodies', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', float32([32, 24]));
      graph.initializer('isLarge', tensorFrom('bool', true));
      const branch = (name: string, seed: number): ModelBuilder => {
        const body = graph.subgraph(name);
        body.node('MatMul', ['x', 'w'], {}, { outputs: `${name}_m` });
        body.constant(`${name}_v`, float32([24, 16], seed));
        body.node('MatMul', [`${name}_m`, `${name}_v`], {}, { outputs: `${name}_y` });
        body.output(`${name}_y`, 'float32');
        return body as ModelBuilder;
      };
      graph.node(
        'If',
        ['isLarge'],
        { then_branch: branch('yes', 3), else_branch: branch('no', 4) },
        { outputs: 'y' },
      );
      graph.output('y', 'float32');
    });
    const { model: small, changed } = await expectClose(float, { x: floats([5, 32]) });
    expect(changed).toHaveLength(4);
    expect(encodeModel(small).length).toBeLessThan(encodeModel(float).length);
  });

  it('stores tied weights once for each form, and no floats of them', async () => {
    const float = model((graph) => {
      graph.input('ids', 'int64', ['n']);
      graph.initializer('table', float32([300, 48]));
      graph.node('Gather', ['table', 'ids'], {}, { outputs: 'x' });
      graph.node('Transpose', ['table'], { perm: [1, 0] }, { outputs: 't' });
      graph.node('MatMul', ['x', 't'], {}, { outputs: 'y' });
      graph.output('y', 'float32');
    });
    const ids = new OrtTensor('int64', BigInt64Array.of(0n, 299n, -1n, 17n), [4]);
    const { model: small, warnings } = await expectClose(float, { ids });
    const ratio = encodeModel(small).length / encodeModel(float).length;
    if (warnings.length === 0) expect(ratio).toBeLessThan(0.35);
    else expect(warnings.join()).toContain('2 quantized forms');
    expect(ratio).toBeLessThan(0.8);
  });
});

describe('dynamic int8', () => {
  it('quantizes several matrices in one constant by columns, with one zero point', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', [3, 5, 32]);
      graph.initializer('w', float32([3, 32, 24]));
      graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
      graph.output('y', 'float32');
    });
    const feeds = { x: floats([3, 5, 32]) };
    const expected = await runOnce(float, feeds);
    for (const mode of ['row', 'tensor'] as const) {
      const small = quantizeDynamic(float, { kind: 'dynamic', mode }).model;
      expect(sqnrDb(expected, await runOnce(small, feeds))).toBeGreaterThan(35);
    }
    expect(quantizeBlocks(float, { kind: 'nbits', bits: 8 }).kept).toEqual([
      { node: 'MatMul_0', op: 'MatMul', reason: 'its weights are several matrices' },
    ]);
  });

  it.each([
    ['two axes', [2, 3, 9, 9], [8, 3, 3, 3], { pads: [1, 1, 1, 1], strides: [2, 2] }],
    ['one axis, in groups', [2, 4, 30], [8, 2, 5], { group: 2, dilations: [2] }],
  ])('convolves over %s by channels', async (_case, input, weights, attributes) => {
    const float = model((graph) => {
      graph.input('x', 'float32', input);
      graph.initializer('w', float32(weights));
      graph.initializer('b', float32([8], 5));
      graph.node('Conv', ['x', 'w', 'b'], attributes, { outputs: 'y' });
      graph.output('y', 'float32');
    });
    const feeds = { x: floats(input) };
    const expected = await runOnce(float, feeds);
    for (const mode of ['row', 'tensor'] as const) {
      const { model: small } = quantizeDynamic(float, { kind: 'dynamic', mode, convolutions: true });
      expect(opsOf(small)).toContain('ConvInteger');
      expect(sqnrDb(expected, await runOnce(small, feeds))).toBeGreaterThan(30);
    }
    const { model: same, kept } = quantizeDynamic(float, { kind: 'dynamic' });
    expect(same).toBe(float);
    expect(kept[0]?.reason).toContain('only in WebAssembly');
  });

  it.each([
    ['forward', 1, true],
    ['bidirectional', 2, true],
    ['bidirectional', 2, false],
  ] as const)('runs a %s LSTM over integers (by channels: %#)', async (direction, directions, perChannel) => {
    const [inputs, hidden] = [20, 24];
    const float = model((graph) => {
      graph.input('x', 'float32', [6, 2, inputs]);
      graph.initializer('w', float32([directions, 4 * hidden, inputs]));
      graph.initializer('r', float32([directions, 4 * hidden, hidden], 4));
      graph.initializer('b', float32([directions, 8 * hidden], 5));
      graph.node(
        'LSTM',
        ['x', 'w', 'r', 'b'],
        { direction, hidden_size: hidden },
        { outputs: ['y', 'h', 'c'] },
      );
      graph.output('y', 'float32');
    });
    const feeds = { x: floats([6, 2, inputs]) };
    const { model: small, changed } = quantizeDynamic(float, { kind: 'dynamic', mode: 'tensor', perChannel });
    expect(changed.map(({ reason }) => reason)).toEqual(['DynamicQuantizeLSTM with int8 weights']);
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(25);
    const { kept } = quantizeDynamic(float, { kind: 'dynamic', mode: 'row' });
    expect(kept[0]?.reason).toMatch(/depend on those beside/);
  });

  it('takes ReduceMax as opset 18 has it', async () => {
    const build = (opset: number): ModelProto =>
      model((graph) => {
        graph.input('x', 'float32', ['n', 32]);
        graph.initializer('w', float32([32, 24]));
        graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
        graph.output('y', 'float32');
      }, opset);
    const [old, young] = await Promise.all(
      [11, 18].map(async (opset) =>
        runOnce(quantizeDynamic(build(opset), { kind: 'dynamic' }).model, { x: floats([5, 32]) }),
      ),
    );
    expect(young).toEqual(old);
  });
});
