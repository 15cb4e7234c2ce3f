import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { createGraph, type ModelBuilder } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { calibrate } from '../../src/optimize/calibrate.ts';
import type { CalibrationMethod } from '../../src/optimize/calibrate-options.ts';
import { quantizeStatic } from '../../src/optimize/static.ts';
import type { StaticInt8 } from '../../src/optimize/technique.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { createNoise, sqnrDb } from './optimize-static-fixture.ts';

const folder = new URL('../../../shared/data/quantize/', import.meta.url);
const isThere = existsSync(folder);
if (!isThere) console.warn('Skipped: the golden files of ../shared/data/quantize are not here.');

interface Golden {
  readonly inputs: Readonly<
    Record<string, Readonly<Record<'calibration' | 'evaluation', readonly number[]>>>
  >;
  readonly models: Readonly<
    Record<
      string,
      {
        readonly sqnr_db: number;
        readonly ops: readonly string[];
        readonly initializers: Readonly<Record<string, { readonly sha256: string }>>;
      }
    >
  >;
}

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

const read = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(name, folder)));
const golden = (): Golden => JSON.parse(Buffer.from(read('index.json')).toString()) as Golden;

function dataOf(name: string, part: 'calibration' | 'evaluation'): TensorMap {
  const { buffer } = read(`${name}.${part}.f32`);
  return { x: new Tensor('float32', golden().inputs[name]?.[part] ?? [], new Float32Array(buffer)) };
}

async function run(model: ModelProto, feeds: TensorMap): Promise<Float32Array> {
  const session = await runtime.open(encodeModel(model));
  try {
    return Object.values(await session.run(feeds))[0]?.data as Float32Array;
  } finally {
    await session.release();
  }
}

/** Operators of the graph that onnxruntime makes of a model, sorted. */
async function fusedOps(model: ModelProto): Promise<string[]> {
  const optimized = await runtime.optimized?.(encodeModel(model), 'all');
  return parseModel(optimized ?? new Uint8Array())
    .graph.node.map(({ opType = '' }) => opType)
    .sort();
}

describe.skipIf(!isThere)('static quantization next to the reference', () => {
  const cases = (['mlp', 'cnn'] as const).flatMap((name) =>
    (['minmax', 'percentile'] as const).map((method) => [name, method] as const),
  );
  it.each(cases)('gives %s the constants and the accuracy of the reference, by %s', async (name, method) => {
    const { sqnr_db: sqnr, initializers } = golden().models[
      `${name}.static.u8s8.channel.${method}`
    ] as Golden['models'][string];
    const model = parseModel(read(`${name}.onnx`));
    const { ranges } = await calibrate(model, runtime, [dataOf(name, 'calibration')], { method });
    const { model: quantized, kept } = quantizeStatic(model, { kind: 'static' }, ranges);
    expect(kept).toEqual([]);
    const hashes = Object.fromEntries(
      quantized.graph.initializer.map(({ name: key = '', rawData = new Uint8Array() }) => [
        key,
        createHash('sha256').update(rawData).digest('hex'),
      ]),
    );
    expect(hashes).toEqual(
      Object.fromEntries(Object.entries(initializers).map(([key, { sha256 }]) => [key, sha256])),
    );
    const feeds = dataOf(name, 'evaluation');
    const found = sqnrDb(await run(model, feeds), await run(quantized, feeds));
    expect(Math.abs(found - sqnr)).toBeLessThan(0.2);
  });
});

/** A residual network: each block is two convolutions of 3×3 beside nothing. */
function residualNet({
  blocks,
  channels,
  size,
}: {
  blocks: number;
  channels: number;
  size: number;
}): ModelProto {
  const noise = createNoise();
  const graph = createGraph({ name: 'residual', opset: 17 });
  const conv = (input: string, from: number): string => {
    const at = (conv.count += 1);
    return graph.node(
      'Conv',
      [
        input,
        graph.initializer(`w${at}`, noise([channels, from, 3, 3], Math.sqrt(1 / (from * 9)))),
        graph.initializer(`b${at}`, noise([channels], 0.1)),
      ],
      { pads: [1, 1, 1, 1], kernel_shape: [3, 3] },
    );
  };
  conv.count = 0;
  const relu = (value: string): string => graph.node('Relu', [value]);
  let value = relu(conv(graph.input('x', 'float32', ['n', 3, size, size]), 3));
  for (let block = 0; block < blocks; block += 1) {
    value = relu(graph.node('Add', [conv(relu(conv(value, channels)), channels), value]));
  }
  const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [value])]);
  graph.initializer('gw', noise([10, channels], 0.2));
  graph.initializer('gb', noise([10], 0.1));
  graph.node('Gemm', [pooled, 'gw', 'gb'], { transB: 1 }, { outputs: 'y' });
  graph.output('y', 'float32', ['n', 10]);
  return graph.toModel();
}

async function calibrated(
  model: ModelProto,
  samples: readonly TensorMap[],
  technique: StaticInt8 = { kind: 'static' },
  method: CalibrationMethod = 'minmax',
): Promise<ReturnType<typeof quantizeStatic>> {
  const { ranges } = await calibrate(model, runtime, samples, { method });
  return quantizeStatic(model, technique, ranges);
}

describe('what onnxruntime makes of statically quantized models', () => {
  it('has no float convolution and no float sum left of a residual network', async () => {
    const model = residualNet({ blocks: 3, channels: 16, size: 12 });
    const { model: made } = await calibrated(model, [{ x: createNoise(2)([4, 3, 12, 12]) }]);
    const ops = await fusedOps(made);
    const times = (op: string): number => ops.filter((one) => one === op).length;
    expect(times('QLinearConv')).toBe(7);
    expect(times('QLinearAdd')).toBe(3);
    expect(ops.filter((op) => /^(Conv|FusedConv|Add|Relu|Gemm)$/.test(op))).toEqual([]);
    expect(times('DequantizeLinear')).toBe(1);
  });

  it.each<[StaticInt8, number, number]>([
    [{ kind: 'static', activations: 'int8', perChannel: false }, 17, 25],
    [{ kind: 'static', weights: 'uint8' }, 17, 25],
    [{ kind: 'static', weights: 'uint8', perChannel: false }, 17, 25],
    [{ kind: 'static', reduceRange: true }, 17, 20],
    // Before opset 13 only the operators of Microsoft have scales for each channel.
    [{ kind: 'static' }, 12, 25],
  ])('answers almost as before with %o, opset %i', async (technique, opset, leastDb) => {
    const net = residualNet({ blocks: 1, channels: 8, size: 8 });
    const model = { ...net, opsetImport: [{ domain: '', version: opset }] };
    const feeds = { x: createNoise(2)([4, 3, 8, 8]) };
    const { model: made } = await calibrated(model, [feeds], technique);
    expect(sqnrDb(await run(model, feeds), await run(made, feeds))).toBeGreaterThan(leastDb);
    const convolutions = (await fusedOps(made)).filter((op) => op.endsWith('Conv'));
    if (technique.activations !== 'int8') expect(new Set(convolutions)).toEqual(new Set(['QLinearConv']));
  });

  it('leaves products of two activations float, depthwise convolutions only if asked, and says so', async () => {
    const noise = createNoise(7);
    const graph = createGraph({ name: 'g', opset: 17 });
    graph.input('x', 'float32', [1, 4, 6, 6]);
    graph.initializer('w', noise([4, 1, 3, 3]));
    graph.node('Conv', ['x', 'w'], { group: 4, pads: [1, 1, 1, 1] }, { outputs: 'c' });
    graph.node('MatMul', ['c', 'x'], {}, { outputs: 'y' });
    graph.output('y', 'float32', null);
    const model = graph.toModel();
    const samples = [{ x: noise([1, 4, 6, 6]) }];
    const { model: made, kept } = await calibrated(model, samples);
    expect(await fusedOps(made)).toContain('QLinearConv');
    expect(kept.map(({ op, reason }) => [op, reason])).toEqual([['MatMul', 'its weights are not constant']]);
    const float = await calibrated(model, samples, { kind: 'static', depthwise: false });
    expect(float.model).toBe(model);
    expect(float.kept[0]?.reason).toBe('it is depthwise, and those are to stay float');
  });

  it('leaves what comes after the last product float, but for its bias', async () => {
    const noise = createNoise(4);
    const graph = createGraph({ name: 'g', opset: 17 });
    graph.input('x', 'float32', ['n', 8]);
    graph.node('MatMul', ['x', graph.initializer('w', noise([8, 8]))], {}, { outputs: 'm' });
    graph.node('Add', ['m', graph.initializer('b', noise([8]))], {}, { outputs: 'a' });
    graph.node('Sigmoid', ['a'], {}, { outputs: 's' });
    graph.node('Mul', ['a', 's'], {}, { outputs: 'y' });
    graph.output('y', 'float32', null);
    const { model: made, changed, kept } = await calibrated(graph.toModel(), [{ x: noise([4, 8]) }]);
    expect(changed.map(({ op }) => op)).toEqual(['MatMul', 'Add']);
    expect(kept.map(({ op, reason }) => `${op}: ${reason}`)).toEqual([
      'Sigmoid: it comes after the last product, where integers gain nothing',
      'Mul: it comes after the last product, where integers gain nothing',
    ]);
    expect((await fusedOps(made)).filter((op) => /Sigmoid|Mul|Add/.test(op))).toEqual([
      'Mul',
      'QLinearAdd',
      'QLinearMatMul',
      'Sigmoid',
    ]);
  });

  const small = (
    build: (graph: ModelBuilder, value: string, noise: ReturnType<typeof createNoise>) => string,
  ): ModelProto => {
    const noise = createNoise(5);
    const graph = createGraph({ name: 'small', opset: 17 });
    graph.input('x', 'float32', ['n', 8, 6, 6]);
    const conv = (value: string, at: string): string =>
      graph.node('Conv', [value, graph.initializer(at, noise([8, 8, 3, 3], 0.1))], { pads: [1, 1, 1, 1] });
    const middle = build(graph, conv('x', 'w0'), noise);
    graph.node('Conv', [middle, graph.initializer('w1', noise([4, 8, 1, 1], 0.3))], {}, { outputs: 'y' });
    graph.output('y', 'float32', null);
    return graph.toModel();
  };
  const ints = (...values: number[]): Tensor =>
    new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt));
  const cases: Record<string, Parameters<typeof small>[0]> = {
    Sigmoid: (graph, value) => graph.node('Mul', [value, graph.node('Sigmoid', [value])]),
    LeakyRelu: (graph, value) => graph.node('LeakyRelu', [value], { alpha: 0.1 }),
    HardSwish: (graph, value) => graph.node('HardSwish', [value]),
    Clip: (graph, value) => {
      graph.initializer('low', new Tensor('float32', [], Float32Array.of(0)));
      graph.initializer('high', new Tensor('float32', [], Float32Array.of(6)));
      return graph.node('Clip', [value, 'low', 'high']);
    },
    MaxPool: (graph, value) => graph.node('MaxPool', [value], { kernel_shape: [2, 2] }),
    AveragePool: (graph, value) => graph.node('AveragePool', [value], { kernel_shape: [2, 2] }),
    Transpose: (graph, value) => graph.node('Transpose', [value], { perm: [0, 1, 3, 2] }),
    Concat: (graph, value) => {
      graph.initializer('sizes', ints(4, 4));
      const [a, b] = graph.node('Split', [value, 'sizes'], { axis: 1 }, { outputs: 2 });
      return graph.node('Concat', [b as string, graph.node('Relu', [a as string])], { axis: 1 });
    },
    Slice: (graph, value) =>
      graph.node('Slice', [
        value,
        graph.initializer('from', ints(1)),
        graph.initializer('to', ints(5)),
        graph.initializer('axis', ints(2)),
      ]),
    Pad: (graph, value) =>
      graph.node('Pad', [value, graph.initializer('pads', ints(0, 0, 1, 1, 0, 0, 1, 1))]),
    Resize: (graph, value) =>
      graph.node(
        'Resize',
        [value, '', graph.initializer('scales', new Tensor('float32', [4], Float32Array.of(1, 1, 2, 2)))],
        { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' },
      ),
    Softmax: (graph, value) => graph.node('Softmax', [value], { axis: 1 }),
    Squeeze: (graph, value) => {
      const axis = graph.initializer('axis', ints(0));
      return graph.node('Squeeze', [graph.node('Unsqueeze', [value, axis]), axis]);
    },
  };
  it.each(Object.keys(cases))(
    'keeps its answers with %s between convolutions, all of them fused',
    async (name) => {
      const model = small(cases[name] as (typeof cases)[string]);
      const feeds = { x: createNoise(3)([2, 8, 6, 6]) };
      const { model: made } = await calibrated(model, [feeds]);
      const ops = await fusedOps(made);
      expect(ops.filter((op) => op === 'QLinearConv')).toHaveLength(2);
      expect(sqnrDb(await run(model, feeds), await run(made, feeds))).toBeGreaterThan(25);
    },
  );
});
