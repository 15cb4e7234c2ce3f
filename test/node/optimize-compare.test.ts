import { afterAll, describe, expect, it } from 'vitest';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { compareLayers } from '../../src/optimize/compare-layers.ts';
import { compareModels } from '../../src/optimize/compare-models.ts';
import { quantizeDynamic } from '../../src/optimize/dynamic.ts';
import { toFloat16 } from '../../src/optimize/float16.ts';
import { checkInvariance } from '../../src/optimize/invariance.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { gauss } from './optimize-golden.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

/** Two layers; the first has a weight that float16 cannot hold exactly if `isRough`. */
function layers(scale = 0.1): ModelProto {
  const graph = createGraph({ name: 'layers', opset: 17 });
  graph.input('x', 'float32', ['batch', 64]);
  graph.initializer(
    'v',
    new Tensor(
      'float32',
      [64, 64],
      gauss(4096, 1).map((value) => scale * value),
    ),
  );
  graph.initializer('w', new Tensor('float32', [64, 8], gauss(512, 2)));
  graph.node('MatMul', ['x', 'v'], {}, { outputs: 'a', name: 'first' });
  graph.node('Relu', ['a'], {}, { outputs: 'b' });
  graph.node('MatMul', ['b', 'w'], {}, { outputs: 'y', name: 'second' });
  graph.output('y', 'float32', ['batch', 8]);
  return graph.toModel();
}

const samples = [1, 2, 3].map((seed) => ({ x: new Tensor('float32', [1, 64], gauss(64, seed)) }));
const half = (exclude: readonly string[] = []): ModelProto =>
  toFloat16(layers(), { kind: 'float16' }, new Map(), { exclude }).model;

describe('comparing layers', () => {
  it('tells at which layer two models come apart', async () => {
    const compared = await compareLayers(runtime, layers(), half(['first', 'b']), samples);
    const [a, b, y] = compared.map(({ sqnrDb }) => sqnrDb);
    expect(compared.map(({ name, op }) => [name, op])).toEqual([
      ['a', 'MatMul'],
      ['b', 'Relu'],
      ['y', 'MatMul'],
    ]);
    expect([a, b]).toEqual([Infinity, Infinity]);
    expect(y).toBeGreaterThan(50);
    expect(y).toBeLessThan(90);
  });

  it('gives the same in small portions of memory', async () => {
    const whole = await compareLayers(runtime, layers(), half(), samples);
    let opened = 0;
    const counting = {
      ...runtime,
      open: (...given: Parameters<typeof runtime.open>): ReturnType<typeof runtime.open> => {
        opened += 1;
        return runtime.open(...given);
      },
    };
    expect(await compareLayers(counting, layers(), half(), samples, { maxBytes: 1 })).toEqual(whole);
    expect(opened).toBe(2 + 2 * 3);
  });

  it('leaves out what one of the models lacks', async () => {
    const { graph, ...rest } = layers();
    const renamed = graph.node.map((node) => ({
      ...node,
      input: node.input.map((value) => (value === 'a' ? 'fused' : value)),
      output: node.output.map((value) => (value === 'a' ? 'fused' : value)),
    }));
    const compared = await compareLayers(
      runtime,
      layers(),
      { ...rest, graph: { ...graph, node: renamed } },
      samples,
    );
    expect(compared.map(({ name }) => name)).toEqual(['b', 'y']);
  });

  it('takes a value as it is after rounding, which does the work of a Relu', async () => {
    const build = (isRounded: boolean): ModelProto => {
      const graph = createGraph({ name: 'relu', opset: 17 });
      graph.input('x', 'float32', ['n', 4]);
      graph.initializer('step', tensorFrom('float32', 0.01));
      graph.initializer('zero', tensorFrom('uint8', 0));
      const inner = graph.node('Neg', ['x'], {}, { outputs: isRounded ? 'a' : 'before' });
      let a = inner;
      if (isRounded) {
        const rounded = graph.node('QuantizeLinear', ['a', 'step', 'zero']);
        a = graph.node('DequantizeLinear', [rounded, 'step', 'zero']);
      } else graph.node('Relu', [inner], {}, { outputs: 'a' });
      graph.node('Neg', [isRounded ? a : 'a'], {}, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 4]);
      return graph.toModel();
    };
    const x = tensorFrom('float32', [[-1, 1, -0.503, 2]]);
    const compared = await compareLayers(runtime, build(false), build(true), [{ x }]);
    expect(compared.map(({ name }) => name)).toEqual(['a', 'y']);
    for (const { sqnrDb } of compared) expect(sqnrDb).toBeGreaterThan(40);
  });

  it('ends when it is aborted', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(compareLayers(runtime, layers(), half(), samples, { signal })).rejects.toThrow('enough');
  });
});

describe('what a row gets in company', () => {
  const rows = samples.map(({ x }) => ({ x }));

  it('does not depend on the neighbour in a model of floats', async () => {
    expect(await checkInvariance(encodeModel(layers()), runtime, rows)).toMatchObject({
      isInvariant: true,
      sqnrDb: Infinity,
    });
  });

  it('depends on it where a batch shares a scale, and not where each row has one', async () => {
    const quantized = (mode: 'tensor' | 'row'): Uint8Array =>
      encodeModel(quantizeDynamic(layers(), { kind: 'dynamic', mode }).model);
    const [tensor, row] = [
      await checkInvariance(quantized('tensor'), runtime, rows),
      await checkInvariance(quantized('row'), runtime, rows),
    ];
    expect(tensor).toMatchObject({ isInvariant: false, isSameAlone: false });
    expect(tensor?.sqnrDb).toBeLessThan(40);
    expect(row).toEqual({ isInvariant: true, isSameAlone: true, sqnrDb: Infinity });
  });

  it('is not told for a model without batches', async () => {
    const graph = createGraph({ name: 'fixed', opset: 17 });
    graph.input('x', 'float32', [1, 4]);
    graph.output(graph.node('Neg', ['x'], {}, { outputs: 'y' }), 'float32', [1, 4]);
    const sample = { x: tensorFrom('float32', [[1, 2, 3, 4]]) };
    expect(await checkInvariance(encodeModel(graph.toModel()), runtime, [sample])).toBeUndefined();
  });

  it('is tried with another row where inputs are integers', async () => {
    const graph = createGraph({ name: 'mean', opset: 17 });
    graph.input('x', 'int64', ['n', 2]);
    const mean = graph.node('ReduceMean', [graph.node('Cast', ['x'], { to: 1 })], { axes: [0], keepdims: 1 });
    const rest = graph.node('Sub', [graph.node('Cast', ['x'], { to: 1 }), mean], {}, { outputs: 'y' });
    graph.output(rest, 'float32', ['n', 2]);
    const model = encodeModel(graph.toModel());
    const given = [
      [1, 2],
      [5, 9],
    ].map((row) => ({ x: tensorFrom('int64', [row]) }));
    expect(await checkInvariance(model, runtime, given)).toMatchObject({ isInvariant: false });
    expect(await checkInvariance(model, runtime, given.slice(0, 1))).toBeUndefined();
  });
});

describe('comparing models', () => {
  const bytes = encodeModel(layers());
  const monotonicMs = (): number => performance.now();

  it('gives answers, sizes, speed and what rows depend on in one', async () => {
    const steps: string[] = [];
    const compared = await compareModels(runtime, bytes, encodeModel(half()), samples, {
      layers: true,
      batches: [1, 4],
      runs: 2,
      monotonicMs,
      onProgress: (step) => steps.push(step),
    });
    expect(compared.samples).toBe(3);
    expect(compared.sqnrDb).toBeGreaterThan(55);
    expect(compared.sizeRatio).toBeLessThan(0.6);
    expect(compared.speed.map(({ batch, speedup }) => [batch, speedup > 0])).toEqual([
      [1, true],
      [4, true],
    ]);
    expect(compared.batchInvariance?.isInvariant).toBe(true);
    expect(compared.layers?.length).toBe(3);
    expect(steps).toEqual(['comparing answers', 'measuring speed', 'comparing layers']);
  });

  it('finds a model with other outputs, and goes on', async () => {
    const { graph, ...rest } = layers();
    const node = graph.node.map((one) => ({
      ...one,
      output: one.output.map((value) => (value === 'y' ? 'z' : value)),
    }));
    const other = encodeModel({
      ...rest,
      graph: { ...graph, node, output: [{ ...graph.output[0], name: 'z' }] },
    });
    const { sqnrDb, findings } = await compareModels(runtime, bytes, other, samples, {
      batches: [],
      monotonicMs,
    });
    expect([sqnrDb, findings.map(({ kind }) => kind)]).toEqual([-Infinity, ['missing']]);
  });

  it('refuses outputs that the model has not', async () => {
    const options = { batches: [], monotonicMs, outputs: ['nothing'] };
    await expect(compareModels(runtime, bytes, bytes, samples, options)).rejects.toThrow(
      /no output "nothing"/,
    );
  });
});
