import * as ort from 'onnxruntime-web/wasm';
import { afterAll, describe, expect, it } from 'vitest';
import { onnxruntimeWeb } from '../../../src/backends/onnxruntime-web.ts';
import type { Session, TensorMap } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { calibrate, tryBatching } from '../../../src/engine/batching.ts';
import { createGraph, encodeModel, type GraphBuilder } from '../../../src/onnx/index.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import { createScheduler, type Queue } from '../../../src/schedule/scheduler.ts';
import { manualClock } from './fakes.ts';

ort.env.wasm.numThreads = 1;
const backend = onnxruntimeWeb({ ort });
afterAll(() => backend.close());

/** Describes a model with an input `x` float32 [n, 4] unless it says otherwise, and an output `y`. */
type Draw = (graph: GraphBuilder) => void;

const x = (graph: GraphBuilder): void => void graph.input('x', 'float32', ['n', 4]);
const y = (graph: GraphBuilder): void => void graph.output('y', 'float32', ['n', 4]);
const ints = (...values: number[]): Tensor =>
  new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt));

/** A constant of which the library cannot know that it is one. */
const hidden = (graph: GraphBuilder, ...values: number[]): string => {
  const largest = graph.node('ReduceMax', ['x'], { keepdims: 0 });
  const zero = graph.node('Sub', [largest, largest]);
  return graph.node('Add', [
    graph.node('Cast', [zero], { to: 7 }),
    graph.constant('hidden', ints(...values)),
  ]);
};

const MODELS = {
  'a dense layer': [
    (graph) => {
      x(graph);
      graph.initializer(
        'w',
        new Tensor(
          'float32',
          [4, 4],
          Float32Array.from({ length: 16 }, (_, i) => i - 8),
        ),
      );
      graph.node('Softmax', [graph.node('MatMul', ['x', 'w'])], { axis: 1 }, { outputs: 'y' });
      y(graph);
    },
    undefined,
  ],
  'a classifier with integers': [
    (graph) => {
      x(graph);
      graph.node('ArgMax', ['x'], { axis: 1, keepdims: 0 }, { outputs: 'y' });
      graph.output('y', 'int64', ['n']);
    },
    undefined,
  ],
  strings: [
    (graph) => {
      graph.input('x', 'string', ['n', 2]);
      graph.node('Identity', ['x'], {}, { outputs: 'y' });
      graph.output('y', 'string', ['n', 2]);
    },
    undefined,
  ],
  'a look-up that refuses made-up indices': [
    (graph) => {
      graph.input('x', 'int64', ['n', 4]);
      graph.initializer('table', new Tensor('float32', [1], new Float32Array([7])));
      graph.node('Gather', ['table', 'x'], {}, { outputs: 'y' });
      y(graph);
    },
    undefined,
  ],
  'a fixed first axis': [
    (graph) => {
      graph.input('x', 'float32', [1, 4]);
      graph.node('Relu', ['x'], {}, { outputs: 'y' });
      graph.output('y', 'float32', [1, 4]);
    },
    'the first axis of input "x" is fixed at 1',
  ],
  'a fixed first axis of its output': [
    (graph) => {
      x(graph);
      graph.node('ReduceSum', ['x', graph.constant('axes', ints(0))], { keepdims: 1 }, { outputs: 'y' });
      graph.output('y', 'float32', [1, 4]);
    },
    'the first axis of output "y" is fixed at 1',
  ],
  'a scalar output, of which the library tells no rank': [
    (graph) => {
      x(graph);
      graph.node('ReduceSum', ['x'], { keepdims: 0 }, { outputs: 'y' });
      graph.output('y', 'float32', []);
    },
    'the rank of output "y" is unknown',
  ],
  'an output of unknown rank': [
    (graph) => {
      x(graph);
      graph.input('shape', 'int64', ['k']);
      graph.node('Reshape', ['x', 'shape'], {}, { outputs: 'y' });
      graph.output('y', 'float32', null);
    },
    'the rank of output "y" is unknown',
  ],
  'packed integers': [
    (graph) => {
      graph.input('x', 'int4', ['n']);
      graph.constant('scale', new Tensor('float32', [], new Float32Array([1])));
      graph.node('DequantizeLinear', ['x', 'scale'], {}, { outputs: 'y' });
      graph.output('y', 'float32', ['n']);
    },
    'input "x" is of packed int4',
  ],
  'no input': [
    (graph) => {
      graph.node('Identity', [graph.constant('c', ints(1))], {}, { outputs: 'y' });
      graph.output('y', 'int64', ['n']);
    },
    'it has no inputs',
  ],
  'a softmax over the batch': [
    (graph) => {
      x(graph);
      graph.node('Softmax', ['x'], { axis: 0 }, { outputs: 'y' });
      y(graph);
    },
    /^batched and solo results differ: output "y" differs at element \d/,
  ],
  'a scale that depends on the batch': [
    (graph) => {
      x(graph);
      graph.node('DynamicQuantizeLinear', ['x'], {}, { outputs: ['q', 'scale', 'zero'] });
      graph.node('DequantizeLinear', ['q', 'scale', 'zero'], {}, { outputs: 'y' });
      y(graph);
    },
    /^batched and solo results differ: /,
  ],
  'an output that only claims to have the rows of its input': [
    (graph) => {
      x(graph);
      graph.node('ReduceSum', ['x', hidden(graph, 0)], { keepdims: 1 }, { outputs: 'y' });
      graph.output('y', 'float32', ['m', 4]);
    },
    '3 rows give outputs of another number of rows',
  ],
  'an output of twice the rows': [
    (graph) => {
      x(graph);
      graph.node('Concat', ['x', 'x'], { axis: 0 }, { outputs: 'y' });
      graph.output('y', 'float32', ['m', 4]);
    },
    'a single row gives outputs of another number of rows',
  ],
  'a shape that is made for one row': [
    (graph) => {
      x(graph);
      graph.node('Reshape', ['x', hidden(graph, 1, 4)], {}, { outputs: 'y' });
      y(graph);
    },
    /^it fails on 3 rows at once: /,
  ],
} satisfies Record<string, readonly [Draw, string | RegExp | undefined]>;

const open = (draw: Draw): Promise<Session> => {
  const graph = createGraph({ name: 'tried', opset: 21 });
  draw(graph);
  return backend.createSession({ bytes: encodeModel(graph.toModel()) }, { provider: 'wasm' });
};

describe('tryBatching', () => {
  it.each(Object.entries(MODELS))('judges %s', async (_name, [draw, reason]) => {
    const session = await open(draw);
    const found = await tryBatching(session, {});
    if (reason instanceof RegExp) expect(found).toMatch(reason);
    else expect(found).toBe(reason);
    await session.release();
  });

  it('runs nothing for a model of which it is told that batches have one sample', async () => {
    const session = await open(MODELS['a dense layer'][0]);
    const never: Session = { ...session, run: () => expect.fail('It ran.') };
    expect(await tryBatching(never, { maxBatch: 1 })).toBe('maxBatch is 1');
    await session.release();
  });

  it('takes results that differ within the tolerance of the host', async () => {
    const session = await open(MODELS['a scale that depends on the batch'][0]);
    expect(await tryBatching(session, { tolerance: { absolute: 0.02, relative: 0 } })).toBeUndefined();
    expect(await tryBatching(session, { tolerance: { absolute: 0, relative: 0 } })).toMatch(/differ/);
    await session.release();
  });
});

describe('calibrate', () => {
  const setUp = (ms: (samples: number) => number, onRun = (): void => {}) => {
    const platform = manualClock();
    const sizes: number[] = [];
    const session: Session = {
      signature: {
        inputs: [{ name: 'x', dtype: 'float32', shape: ['n', 4] }],
        outputs: [{ name: 'y', dtype: 'float32', shape: ['n', 4] }],
      },
      provider: 'cpu',
      placement: 'worker',
      run: async (feeds) => {
        const samples = (feeds['x'] as Tensor).shape[0] as number;
        sizes.push(samples);
        onRun();
        platform.advance(ms(samples));
        return { y: feeds['x'] as Tensor };
      },
      release: async () => {},
    };
    const queue: Queue = createScheduler({ platform }).open({ session, metrics: createMetrics() });
    const feeds: TensorMap = { x: new Tensor('float32', [1, 4], new Float32Array(4)) };
    return { sizes, cap: () => queue.cap(feeds).samples, run: () => calibrate(platform, session, queue) };
  };

  it('finds that batches pay where they cost as much as one sample', async () => {
    const { cap, run } = setUp(() => 0.1);
    await run();
    expect(cap()).toBe(128);
  });

  it('finds that batches do not pay where each sample costs the same', async () => {
    const { cap, run } = setUp((samples) => samples);
    await run();
    expect(cap()).toBeLessThanOrEqual(2);
  });

  it('tries no further size when the first one has taken long', async () => {
    const { sizes, run } = setUp(() => 100);
    await run();
    expect(new Set(sizes)).toEqual(new Set([1]));
    expect(sizes.length).toBeLessThan(6);
  });

  it('ends quietly when the model takes no feeds that are made up', async () => {
    const { sizes, cap, run } = setUp(
      () => 0,
      () => {
        throw new BackendError('ERR_INLAY_RUN_FAILED', 'Out of range.');
      },
    );
    await run();
    expect([sizes.length, cap()]).toEqual([1, 1]);
  });
});
