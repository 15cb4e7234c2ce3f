import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { optimizeModel } from '../../src/optimize/optimize.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { timedBySize } from './optimize-fixture.ts';
import { gauss } from './optimize-golden.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

const [inputs, channels, hidden, steps] = [32, 96, 24, 20];

/** A convolution over time, and an LSTM behind it, as in models of speech. */
function speech(): ModelProto {
  const graph = createGraph({ name: 'speech', opset: 17 });
  const constant = (name: string, shape: readonly number[], seed: number): string => {
    const length = shape.reduce((product, one) => product * one, 1);
    return graph.initializer(
      name,
      new Tensor(
        'float32',
        shape,
        gauss(length, seed).map((value) => value / 6),
      ),
    );
  };
  graph.input('x', 'float32', ['n', inputs, steps]);
  const filtered = graph.node('Conv', ['x', constant('filters', [channels, inputs, 3], 1)], { pads: [1, 1] });
  const ordered = graph.node('Transpose', [graph.node('Relu', [filtered])], { perm: [2, 0, 1] });
  const weights = [constant('w', [1, 4 * hidden, channels], 2), constant('r', [1, 4 * hidden, hidden], 3)];
  const [all = ''] = graph.node('LSTM', [ordered, ...weights], { hidden_size: hidden }, { outputs: 1 });
  graph.node(
    'Squeeze',
    [all, graph.initializer('axes', new Tensor('int64', [1], BigInt64Array.of(1n)))],
    {},
    {
      outputs: 'y',
    },
  );
  graph.output('y', 'float32', [steps, 'n', hidden]);
  return graph.toModel();
}

const samples = (from: number): TensorMap[] =>
  Array.from({ length: 16 }, (_, at) => ({
    x: new Tensor('float32', [1, inputs, steps], gauss(inputs * steps, from + at)),
  }));

describe('a model with convolutions and an LSTM', () => {
  it('has both of them in integers, in one model, where that is the fastest that holds the goal', async () => {
    const { model, decision } = await optimizeModel(speech(), {
      runtime: timedBySize(runtime),
      monotonicMs: () => performance.now(),
      runs: 2,
      samples: samples(100),
      calibration: { data: samples(500) },
      goal: { maxSizeRatio: 0.9 },
    });
    const chosen = decision.attempts.find(({ outcome }) => outcome === 'chosen');
    expect(chosen?.name).toBe('int8-static-lstm');
    expect(chosen?.accuracy?.sqnrDb).toBeGreaterThan(25);
    const ops = model.graph.node.map(({ opType }) => opType);
    expect(ops).toEqual(expect.arrayContaining(['QuantizeLinear', 'Conv', 'DynamicQuantizeLSTM']));
    expect(ops).not.toContain('LSTM');
  });
});
