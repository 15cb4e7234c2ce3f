import { existsSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph, type GraphBuilder } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { compareOutputs } from '../../src/optimize/compare.ts';
import { toFloat16 } from '../../src/optimize/float16.ts';
import { inferTypes } from '../../src/optimize/types.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { constantsOf, evaluationInputs, goldenModel, hasGolden, runOnce, sqnrDb } from './optimize-golden.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

const halve = async (model: ModelProto): Promise<ModelProto> =>
  toFloat16(model, { kind: 'float16' }, await inferTypes(model, runtime)).model;

async function run(model: ModelProto, feeds: TensorMap): Promise<TensorMap> {
  const session = await runtime.open(encodeModel(model));
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** What float16 leaves of the answers, dB. */
async function ratio(model: ModelProto, feeds: TensorMap): Promise<number> {
  return compareOutputs([await run(model, feeds)], [await run(await halve(model), feeds)]).sqnrDb;
}

describe.skipIf(!hasGolden)('float16 of the models of the reference', () => {
  it.each(['mlp', 'cnn'] as const)('gives the words of the reference for %s', async (name) => {
    const half = await halve(goldenModel(name));
    expect(constantsOf(half)).toEqual(constantsOf(goldenModel(`${name}.float16`)));
  });

  it.each(['mlp', 'cnn'] as const)('answers as well as the reference for %s', async (name) => {
    const [model, feeds] = [goldenModel(name), evaluationInputs(name)];
    const expected = await runOnce(model, feeds);
    const own = sqnrDb(expected, await runOnce(await halve(model), feeds));
    const theirs = sqnrDb(expected, await runOnce(goldenModel(`${name}.float16`), feeds));
    expect(own).toBeGreaterThan(theirs - 0.2);
  });

  it.each(['mlp', 'cnn'] as const)('takes half of the bytes for %s', async (name) => {
    const model = goldenModel(name);
    expect(encodeModel(await halve(model)).length / encodeModel(model).length).toBeLessThan(0.53);
  });
});

const speech = ['silero-vad.onnx', 'silero-vad-16k.onnx'].map((file) => ({
  file,
  url: new URL(`../../../shared/data/${file}`, import.meta.url),
}));
const isThere = speech.every(({ url }) => existsSync(url));
if (!isThere) console.log('Skipped: the speech models of ../shared/data are not there.');

it.skipIf(!isThere).each(speech)('$file, with bodies within bodies, runs in float16', async ({ url }) => {
  const model = parseModel(new Uint8Array(readFileSync(url)));
  const wave = Float32Array.from({ length: 576 }, (_, i) => 0.3 * Math.sin(0.1 * i));
  const feeds = {
    input: new Tensor('float32', [1, 576], wave),
    state: new Tensor('float32', [2, 1, 128], new Float32Array(256)),
    sr: tensorFrom('int64', 16_000),
  };
  expect(await ratio(model, feeds)).toBeGreaterThan(30);
});

/** What bodies do with a value of the outside, blocked operators included. */
const weigh = (body: GraphBuilder, value: string): string =>
  body.node('Max', [body.node('Mul', [value, 'factor']), 'least']);

function looping(): ModelProto {
  const graph = createGraph({ name: 'loop', opset: 17 });
  graph.input('x', 'float32', [2]);
  graph.initializer('factor', tensorFrom('float32', 0.75));
  graph.initializer('least', tensorFrom('float32', -0.5));
  graph.initializer('count', tensorFrom('int64', 3));
  const body = graph.subgraph('body');
  body.input('i', 'int64', []);
  body.input('go', 'bool', []);
  body.input('sum', 'float32', [2]);
  body.node('Add', ['sum', weigh(body, 'x')], {}, { outputs: 'next' });
  body.node('Identity', ['go'], {}, { outputs: 'on' });
  body.node('Sqrt', [body.node('Abs', ['next'])], {}, { outputs: 'row' });
  body.output('on', 'bool', []);
  body.output('next', 'float32', [2]);
  body.output('row', 'float32', [2]);
  const [total = '', rows = ''] = graph.node('Loop', ['count', '', 'x'], { body }, { outputs: 2 });
  graph.output(graph.node('Identity', [total], {}, { outputs: 'y' }), 'float32', [2]);
  graph.output(graph.node('Identity', [rows], {}, { outputs: 'z' }), 'float32', ['n', 2]);
  return graph.toModel();
}

function scanning(): ModelProto {
  const graph = createGraph({ name: 'scan', opset: 17 });
  graph.input('x', 'float32', [3, 2]);
  graph.initializer('start', tensorFrom('float32', [0.1, 0.2]));
  graph.initializer('factor', tensorFrom('float32', 0.75));
  graph.initializer('least', tensorFrom('float32', -0.5));
  const body = graph.subgraph('body');
  body.input('state', 'float32', [2]);
  body.input('row', 'float32', [2]);
  body.node('Add', ['state', weigh(body, 'row')], {}, { outputs: 'next' });
  body.node('Neg', ['next'], {}, { outputs: 'out' });
  body.output('next', 'float32', [2]);
  body.output('out', 'float32', [2]);
  const [last = '', rows = ''] = graph.node(
    'Scan',
    ['start', 'x'],
    { body, num_scan_inputs: 1 },
    { outputs: 2 },
  );
  graph.output(graph.node('Identity', [last], {}, { outputs: 'y' }), 'float32', [2]);
  graph.output(graph.node('Identity', [rows], {}, { outputs: 'z' }), 'float32', [3, 2]);
  return graph.toModel();
}

/** Values that two graphs share, outputs that are read inside, constants that are outputs, operators that are blocked. */
function tangled(): ModelProto {
  const graph = createGraph({ name: 'tangled', opset: 17 });
  graph.input('x', 'float32', [1, 4]);
  graph.initializer('factor', tensorFrom('float32', 0.75));
  graph.initializer('k', tensorFrom('int64', [2]));
  graph.node('Mul', ['x', 'factor'], {}, { outputs: 'y' });
  const [top = '', places = ''] = graph.node('TopK', ['y', 'k'], {}, { outputs: 2 });
  const flag = graph.node('Less', [graph.node('ReduceSum', ['y'], { keepdims: 0 }), 'factor']);
  const branch = (name: string, op: string): GraphBuilder => {
    const body = graph.subgraph(name);
    body.node('Add', [body.node(op, ['y']), 'factor'], {}, { outputs: `${name}_out` });
    body.output(`${name}_out`, 'float32', [1, 4]);
    return body;
  };
  const either = graph.node('If', [flag], {
    then_branch: branch('a', 'Neg'),
    else_branch: branch('b', 'Relu'),
  });
  graph.node('Concat', [either, top, graph.node('Cast', [places], { to: 1 })], { axis: 1 }, { outputs: 'z' });
  graph.output('y', 'float32', [1, 4]);
  graph.output('z', 'float32', [1, 8]);
  graph.output('factor', 'float32', []);
  return graph.toModel();
}

it.each([
  ['a loop', looping(), tensorFrom('float32', [0.7, -1.2])],
  [
    'a scan',
    scanning(),
    tensorFrom('float32', [
      [0.7, -1.2],
      [2, 0.3],
      [-0.4, 1],
    ]),
  ],
  ['an If that reads outputs', tangled(), tensorFrom('float32', [[0.7, -1.2, 3, 0.25]])],
])('%s gives nearly the same in float16', async (_, model, x) => {
  expect(await ratio(model, { x })).toBeGreaterThan(55);
});

it('gives nearly the same where the model takes and gives float16', async () => {
  const model = looping();
  const half = toFloat16(model, { kind: 'float16', keepsIo: false }, await inferTypes(model, runtime)).model;
  const values = [0.75, -1.25];
  const expected = await run(model, { x: tensorFrom('float32', values) });
  const actual = await run(half, { x: tensorFrom('float16', values) });
  expect(Object.values(actual).map(({ dtype }) => dtype)).toEqual(['float16', 'float16']);
  expect(compareOutputs([expected], [actual]).sqnrDb).toBeGreaterThan(50);
});
