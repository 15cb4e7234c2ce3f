import { existsSync, readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import type { Attributes, GraphBuilder } from '../../src/onnx/build.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { opsetOf, raiseOpset } from '../../src/onnx/opset.ts';

const options = { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 4 } as const;

/** Answers of the first output to `x`, element by element. */
async function answersOf(model: ModelProto, x: ort.Tensor): Promise<unknown> {
  const session = await ort.InferenceSession.create(encodeModel(model), options);
  try {
    const outputs = await session.run({ x });
    return Object.fromEntries(
      Object.entries(outputs).map(([name, { dims, data }]) => [
        name,
        { dims, data: Array.from(data as Float32Array) },
      ]),
    );
  } finally {
    await session.release();
  }
}

const x = new ort.Tensor(
  'float32',
  Float32Array.from({ length: 48 }, (_, i) => Math.sin(i * 1.7) * 3),
  [1, 3, 4, 4],
);

/** A model of an old operator set that runs one operator on x, float32 [1, 3, 4, 4]. */
function modelOf(
  opset: number,
  op: string,
  attributes: Attributes = {},
  inputs: (graph: GraphBuilder) => readonly string[] = () => ['x'],
  outputs = 1,
): ModelProto {
  const graph = createGraph({ name: 'old', opset, irVersion: 4 });
  graph.input('x', 'float32', [1, 3, 4, 4]);
  const names = Array.from({ length: outputs }, (_, i) => `y${i}`);
  graph.node(op, inputs(graph), attributes, { outputs: names });
  for (const name of names) graph.output(name, name === 'y1' && op === 'TopK' ? 'int64' : 'float32');
  return graph.toModel();
}

const scales = (graph: GraphBuilder): readonly string[] => [
  'x',
  graph.initializer('scales', tensorFrom('float32', [1, 1, 2, 2])),
];

describe('a model of an older operator set', () => {
  it.each<[string, ModelProto]>([
    ['Slice', modelOf(9, 'Slice', { starts: [0, 1], ends: [1, 3], axes: [0, 2] })],
    ['Slice without axes', modelOf(9, 'Slice', { starts: [0n, 1n], ends: [1n, 2n ** 63n - 1n] })],
    ['Softmax over several axes', modelOf(9, 'Softmax', { axis: 2 })],
    ['Softmax without an axis', modelOf(11, 'Softmax')],
    ['LogSoftmax over the last axis', modelOf(9, 'LogSoftmax', { axis: 3 })],
    ['Hardmax', modelOf(9, 'Hardmax')],
    ['Squeeze', modelOf(9, 'Squeeze', { axes: [0] })],
    ['Squeeze of every axis of length one', modelOf(9, 'Squeeze')],
    ['Unsqueeze', modelOf(9, 'Unsqueeze', { axes: [0, 2] })],
    ['Split', modelOf(9, 'Split', { axis: 1, split: [1, 2] }, undefined, 2)],
    ['Split in equal parts', modelOf(9, 'Split', { axis: 2 }, undefined, 2)],
    ['ReduceSum', modelOf(9, 'ReduceSum', { axes: [1, 2], keepdims: 0 })],
    ['ReduceSum of everything', modelOf(9, 'ReduceSum')],
    ['ReduceMean', modelOf(9, 'ReduceMean', { axes: [1] })],
    ['Clip', modelOf(9, 'Clip', { min: { float: -1 }, max: { float: 2 } })],
    ['Clip with one bound', modelOf(9, 'Clip', { max: { float: 2 } })],
    ['Pad', modelOf(9, 'Pad', { pads: [0, 0, 1, 0, 0, 0, 0, 2], value: { float: 7 } })],
    ['Pad by reflection', modelOf(9, 'Pad', { pads: [0, 0, 1, 1, 0, 0, 1, 1], mode: 'reflect' })],
    ['Dropout', modelOf(9, 'Dropout', { ratio: { float: 0.9 } })],
    ['TopK', modelOf(9, 'TopK', { k: 2, axis: 3 }, undefined, 2)],
    ['Upsample, nearest', modelOf(9, 'Upsample', { mode: 'nearest' }, scales)],
    ['Upsample, linear', modelOf(9, 'Upsample', { mode: 'linear' }, scales)],
    ['Upsample by an attribute', modelOf(8, 'Upsample', { scales: { floats: [1, 1, 2, 3] } })],
    ['Resize', modelOf(10, 'Resize', { mode: 'nearest' }, scales)],
    ['AveragePool', modelOf(9, 'AveragePool', { kernel_shape: [2, 2], strides: [2, 2] })],
    ['Flatten', modelOf(9, 'Flatten', { axis: 2 })],
  ])('answers the same after it was carried over: %s', async (_, old) => {
    const raised = raiseOpset(old);
    expect(opsetOf(raised)).toBe(13);
    expect(await answersOf(raised, x)).toEqual(await answersOf(old, x));
  });

  it('is returned as it is where it is new enough', () => {
    const model = modelOf(13, 'Relu');
    expect(raiseOpset(model)).toBe(model);
  });

  it.each<[string, ModelProto, RegExp]>([
    ['of operator set 6', modelOf(6, 'Relu'), /operator set 6, and 7 is the oldest/],
    ['with an operator that is not known', modelOf(9, 'Quux'), /Quux "Quux_0": it is not known/],
    [
      'that makes its input smaller by a rule without a name',
      modelOf(10, 'Resize', {}, (graph) => [
        'x',
        graph.initializer('s', tensorFrom('float32', [1, 1, 0.5, 0.5])),
      ]),
      /may make its input smaller/,
    ],
    ['whose dropout mask is read', modelOf(9, 'Dropout', {}, undefined, 2), /its mask is read/],
  ])('is refused with the reason %s', (_, model, reason) => {
    expect(() => raiseOpset(model)).toThrow(reason);
    expect(() => raiseOpset(model)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' }));
  });

  it('keeps the dtype of what it clips', async () => {
    const graph = createGraph({ name: 'halves', opset: 9, irVersion: 4 });
    graph.input('x', 'float32', [1, 3, 4, 4]);
    graph.node('Cast', ['x'], { to: 10 }, { outputs: 'half' });
    graph.node('Clip', ['half'], { min: { float: -1 }, max: { float: 2 } }, { outputs: 'clipped' });
    graph.node(
      'Pad',
      ['clipped'],
      { pads: [0, 0, 1, 0, 0, 0, 0, 0], value: { float: 2 } },
      { outputs: 'y0' },
    );
    graph.output('y0', 'float16');
    const model = graph.toModel();
    const old: ModelProto = {
      ...model,
      graph: {
        ...model.graph,
        valueInfo: ['half', 'clipped'].map((name) => ({ name, type: { tensorType: { elemType: 10 } } })),
      },
    };
    expect(await answersOf(raiseOpset(old), x)).toEqual(await answersOf(old, x));
  });

  it('has constants that are no inputs any more, where they had to be', async () => {
    const old = modelOf(9, 'Mul', {}, (graph) => [
      'x',
      graph.initializer('two', new Tensor('float32', [1], new Float32Array([2]))),
    ]);
    const { graph } = old;
    const listed: ModelProto = {
      ...old,
      irVersion: 3,
      graph: { ...graph, input: [...graph.input, { name: 'two', type: graph.input[0]?.type ?? {} }] },
    };
    const raised = raiseOpset(listed);
    expect(raised.irVersion).toBe(4);
    expect(raised.graph.input.map(({ name }) => name)).toEqual(['x']);
    expect(await answersOf(raised, x)).toEqual(await answersOf(old, x));
  });
});

const faces = new URL('../../../shared/data/ultraface-rfb-320.onnx', import.meta.url);
if (!existsSync(faces)) console.warn('Skipped: the model of ../shared/data is not here.');

it.skipIf(!existsSync(faces))('a network for faces of operator set 9 finds the same', async () => {
  const old = parseModel(new Uint8Array(readFileSync(faces)));
  expect(opsetOf(old)).toBe(9);
  const image = new ort.Tensor(
    'float32',
    Float32Array.from({ length: 3 * 240 * 320 }, (_, i) => Math.sin(i)),
    [1, 3, 240, 320],
  );
  const answers = await Promise.all(
    [old, raiseOpset(old)].map(async (model) => {
      const session = await ort.InferenceSession.create(encodeModel(model), options);
      const { scores, boxes } = await session.run({ input: image });
      await session.release();
      return [scores?.data, boxes?.data];
    }),
  );
  expect(answers[1]).toEqual(answers[0]);
});
