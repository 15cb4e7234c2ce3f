import { afterAll, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { parseModel } from '../../src/onnx/model.ts';
import { optimizeModel } from '../../src/optimize/optimize.ts';
import type { OptimizeRuntime } from '../../src/optimize/runtime.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

const wave = (...shape: number[]): Tensor<'float32'> => {
  const length = shape.reduce((product, one) => product * one, 1);
  return new Tensor(
    'float32',
    shape,
    Float32Array.from({ length }, (_, i) => Math.sin(0.7 * i + shape.length)),
  );
};

it('leaves early layers float as long as that is faster, never those that the user names, and says which', async () => {
  const graph = createGraph({ name: 'mobile', opset: 17 });
  let value = graph.input('x', 'float32', [1, 3, 8, 8]);
  const layers = [
    [8, 3],
    [8, 1],
    [8, 8],
    [8, 1],
    [4, 8],
  ] as const;
  for (const [i, [out, inner]] of layers.entries()) {
    const weights = graph.initializer(`w${i}`, wave(out, inner, 3, 3));
    value = graph.node(
      'Conv',
      [value, weights],
      { group: inner === 1 ? 8 : 1, pads: [1, 1, 1, 1] },
      { name: `c${i}`, outputs: `v${i}` },
    );
  }
  graph.output(value, 'float32', [1, 4, 8, 8]);

  // A machine on which the first two convolutions take twice as long with integers, and the others half as long.
  const timed: OptimizeRuntime = {
    ...runtime,
    open: async (model, options) => {
      const { node } = parseModel(model).graph;
      const isQuantized = (at: number): boolean =>
        node.some(({ name, input }) => name === `c${at}` && (input[1] ?? '').includes('Dequantize'));
      const ms = layers.reduce((sum, _, at) => sum + (isQuantized(at) ? (at < 2 ? 2 : 0.5) : 1), 0);
      const session = await runtime.open(model, options);
      return { ...session, time: async (__, runs) => Array.from({ length: runs }, () => ms) };
    },
  };
  const samples: TensorMap[] = [{ x: wave(1, 3, 8, 8) }];
  const { decision } = await optimizeModel(graph.toModel(), {
    runtime: timed,
    calibration: { data: samples },
    goal: { minSqnrDb: 15 },
    monotonicMs: () => performance.now(),
    runs: 2,
  });
  const tried = decision.attempts.filter(({ times }) => times !== undefined);
  expect(tried.map(({ name, excluded, outcome }) => [name, outcome, excluded])).toEqual([
    ['int8-static', 'rejected', undefined],
    ['int8-static-stem2', 'chosen', ['c0', 'c1']],
    ['int8-static-stem4', 'beaten', ['c0', 'c1', 'c2', 'c3']],
  ]);
});
