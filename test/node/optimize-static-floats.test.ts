import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { calibrate } from '../../src/optimize/calibrate.ts';
import type { OptimizationLevel, OptimizeRuntime } from '../../src/optimize/runtime.ts';
import { quantizeStatic } from '../../src/optimize/static.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { createWasmRuntime } from '../../src/optimize-node/wasm.ts';
import { createNoise, sqnrDb } from './optimize-static-fixture.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

describe('nodes that stay float beside integers', () => {
  const withoutClamps = (model: ModelProto): ModelProto => {
    const clamps = model.graph.node.filter(({ opType }) => opType === 'Clip');
    const sources = new Map(clamps.map(({ input, output }) => [output[0], input[0] ?? '']));
    const node = model.graph.node
      .filter((one) => !clamps.includes(one))
      .map((one) => ({ ...one, input: one.input.map((value) => sources.get(value) ?? value) }));
    return { ...model, graph: { ...model.graph, node } };
  };

  describe.each<[string, OptimizeRuntime['target']]>([
    ['natively', 'node-cpu'],
    ['in WebAssembly', 'wasm'],
  ])('with layers that stay float, %s', (_, target) => {
    /** The convolutions c1 and c2 read the same value, c5 one that was moved; all are between others. */
    const branched = (): ModelProto => {
      const noise = createNoise(11);
      const graph = createGraph({ name: 'g', opset: 17 });
      graph.input('x', 'float32', [1, 8, 8, 8]);
      const conv = (input: string, name: string, group = 1): string => {
        const weights = graph.initializer(`${name}_w`, noise([8, 8 / group, 3, 3], 0.2));
        const bias = graph.initializer(`${name}_b`, noise([8], 0.1));
        return graph.node(
          'Conv',
          [input, weights, bias],
          { group, pads: [1, 1, 1, 1] },
          { name, outputs: name },
        );
      };
      const first = graph.node('Relu', [conv('x', 'c0')], {}, { outputs: 'r0' });
      const shape = graph.initializer('shape', new Tensor('int64', [4], BigInt64Array.of(1n, 8n, 8n, 8n)));
      const moved = graph.node('Reshape', [conv(first, 'c3'), shape], {}, { name: 'moved', outputs: 'm3' });
      const left = conv(graph.node('Relu', [conv(first, 'c1', 8)]), 'c4');
      const right = graph.node('Add', [conv(conv(first, 'c2'), 'c6'), conv(conv(moved, 'c5', 8), 'c7')]);
      graph.node('Mul', [left, right], {}, { outputs: 'y' });
      graph.output('y', 'float32', null);
      return graph.toModel();
    };
    const exclude = ['c1', 'c2', 'c5', 'moved'];

    it('gives them their own weights, behind one clamp for each value, and answers as those do', async () => {
      const place = target === 'wasm' ? createWasmRuntime() : runtime;
      const model = branched();
      const feeds = { x: createNoise(3)([1, 8, 8, 8]) };
      const { ranges } = await calibrate(model, runtime, [feeds], { method: 'minmax' });
      const { model: made } = quantizeStatic(model, { kind: 'static' }, ranges, { exclude });
      expect(made.graph.node.filter(({ opType }) => opType === 'Clip')).toHaveLength(2);

      if (place.optimized !== undefined) {
        const floatWeights = async (one: ModelProto): Promise<(string | undefined)[]> => {
          const { graph } = parseModel(
            (await place.optimized?.(encodeModel(one), 'extended')) ?? new Uint8Array(),
          );
          const floats = graph.initializer.filter(({ dataType }) => dataType === 1).map(({ name }) => name);
          return graph.node
            .filter(({ opType = '' }) => /^(Fused)?Conv$/.test(opType))
            .flatMap(({ input }) => input[1] ?? [])
            .filter((name) => floats.includes(name))
            .sort();
        };
        expect(await floatWeights(made)).toEqual(['c1_w', 'c2_w', 'c5_w']);
        expect(await floatWeights(withoutClamps(made))).toEqual([]);
      }

      const answersAt = async (one: ModelProto, level: OptimizationLevel): Promise<Float32Array> => {
        const session = await place.open(encodeModel(one), { level });
        try {
          return (await session.run(feeds))['y']?.data as Float32Array;
        } finally {
          await session.release();
        }
      };
      // Each node by itself, as it is written.
      const exact = await answersAt(made, 'disabled');
      expect(sqnrDb(exact, await answersAt(made, 'all'))).toBeGreaterThan(60);
      expect(sqnrDb(exact, await answersAt(withoutClamps(made), 'all'))).toBeLessThan(45);
      if (place !== runtime) await place.close();
    });
  });

  it('lets float nodes read what float nodes gave, before it is rounded', async () => {
    const noise = createNoise(9);
    const graph = createGraph({ name: 'g', opset: 17 });
    graph.input('x', 'float32', ['n', 8]);
    graph.node('Softplus', ['x'], {}, { outputs: 'p' });
    graph.node('MatMul', ['p', graph.initializer('w', noise([8, 8]))], {}, { outputs: 'm' });
    graph.node('Softplus', ['p'], {}, { outputs: 'q' });
    graph.output('m', 'float32', null);
    graph.output('p', 'float32', null);
    graph.output('q', 'float32', null);
    const model = graph.toModel();
    const feeds = { x: noise([4, 8]) };
    const { ranges } = await calibrate(model, runtime, [feeds], { method: 'minmax' });
    const { model: made } = quantizeStatic(model, { kind: 'static' }, ranges);
    const answersOf = async (one: ModelProto): Promise<TensorMap> => {
      const session = await runtime.open(encodeModel(one));
      try {
        return await session.run(feeds);
      } finally {
        await session.release();
      }
    };
    const [before, after] = [await answersOf(model), await answersOf(made)];
    expect([after['p'], after['q']]).toEqual([before['p'], before['q']]);
    expect(after['m']).not.toEqual(before['m']);
  });
});
