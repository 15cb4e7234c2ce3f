import { createInlay, Tensor, type Inlay, type Model, type TensorMap } from 'inlay';
import { createGraph, encodeModel, type ModelBuilder } from 'inlay/onnx';
import * as ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { difference } from '../../src/core/compare.ts';
import { joinFeeds, splitOutputs } from '../../src/schedule/batch.ts';
import {
  createPadding,
  createProvenPadding,
  provePadding,
  type PaddingOptions,
} from '../../src/schedule/padding.ts';

const VOCABULARY = 50;
const WIDTH = 8;
const OPTIONS: PaddingOptions = { dimension: 'sequence', values: { ids: 0, mask: 0 }, mask: 'mask' };
const MASKED = -1e9;

const ints = (...values: number[]): Tensor =>
  new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt));

/** Token embeddings, float32 [batch, sequence, 8], of `ids` and `mask`, int64 [batch, sequence]. */
function embed(name: string): ModelBuilder {
  const graph = createGraph({ name, opset: 17 });
  graph.input('ids', 'int64', ['batch', 'sequence']);
  graph.input('mask', 'int64', ['batch', 'sequence']);
  const table = Float32Array.from({ length: VOCABULARY * WIDTH }, (_, at) => Math.sin(at * 12.9898));
  graph.initializer('table', new Tensor('float32', [VOCABULARY, WIDTH], table));
  graph.initializer('one', ints(1));
  graph.node('Gather', ['table', 'ids'], {}, { outputs: 'embedded' });
  return graph;
}

/** Mean of the embeddings, with or without a look at the mask. */
function meanPooling(heedsMask: boolean): Uint8Array<ArrayBuffer> {
  const graph = embed('mean-pooling');
  if (heedsMask) {
    const mask = graph.node('Unsqueeze', [
      graph.node('Cast', ['mask'], { to: 1 }),
      graph.initializer('two', ints(2)),
    ]);
    const sum = graph.node('ReduceSum', [graph.node('Mul', ['embedded', mask]), 'one'], { keepdims: 0 });
    graph.node(
      'Div',
      [sum, graph.node('ReduceSum', [mask, 'one'], { keepdims: 0 })],
      {},
      { outputs: 'embedding' },
    );
  } else graph.node('ReduceMean', ['embedded'], { axes: [1], keepdims: 0 }, { outputs: 'embedding' });
  graph.output('embedding', 'float32', ['batch', WIDTH]);
  return encodeModel(graph.toModel());
}

/** One layer of self-attention: states per token and the attention weights. */
function attention(): Uint8Array<ArrayBuffer> {
  const graph = embed('attention');
  const constant = (name: string, value: number): string =>
    graph.initializer(name, new Tensor('float32', [], new Float32Array([value])));
  const mask = graph.node('Unsqueeze', [graph.node('Cast', ['mask'], { to: 1 }), 'one']);
  const bias = graph.node('Mul', [
    graph.node('Sub', [constant('present', 1), mask]),
    constant('masked', MASKED),
  ]);
  const keys = graph.node('Transpose', ['embedded'], { perm: [0, 2, 1] });
  const scores = graph.node('Add', [graph.node('MatMul', ['embedded', keys]), bias]);
  graph.node('Softmax', [scores], { axis: -1 }, { outputs: 'weights' });
  graph.node('MatMul', ['weights', 'embedded'], {}, { outputs: 'states' });
  graph.output('states', 'float32', ['batch', 'sequence', WIDTH]);
  graph.output('weights', 'float32', ['batch', 'sequence', 'sequence']);
  return encodeModel(graph.toModel());
}

/** Mean pooling that knows positions up to 12 only. */
function shortPooling(): Uint8Array<ArrayBuffer> {
  const graph = embed('short-pooling');
  const positions = Float32Array.from({ length: 12 * WIDTH }, (_, at) => Math.cos(at));
  graph.initializer('positions', new Tensor('float32', [12, WIDTH], positions));
  const length = graph.node('Gather', [
    graph.node('Shape', ['ids']),
    graph.initializer('axis', new Tensor('int64', [], new BigInt64Array([1n]))),
  ]);
  const zero = graph.initializer('zero', new Tensor('int64', [], new BigInt64Array([0n])));
  const step = graph.initializer('step', new Tensor('int64', [], new BigInt64Array([1n])));
  const placed = graph.node('Add', [
    'embedded',
    graph.node('Gather', ['positions', graph.node('Range', [zero, length, step])]),
  ]);
  const mask = graph.node('Unsqueeze', [
    graph.node('Cast', ['mask'], { to: 1 }),
    graph.initializer('two', ints(2)),
  ]);
  graph.node('ReduceSum', [graph.node('Mul', [placed, mask]), 'one'], { keepdims: 0 }, { outputs: 'sum' });
  graph.output('sum', 'float32', ['batch', WIDTH]);
  return encodeModel(graph.toModel());
}

/** Tokens of one text: `length` ids that depend on `seed`, none of them masked. */
function tokens(length: number, seed: number): TensorMap {
  const ids = BigInt64Array.from({ length }, (_, at) => BigInt((seed * 31 + at * 17) % VOCABULARY));
  return {
    ids: new Tensor('int64', [1, length], ids),
    mask: new Tensor('int64', [1, length], new BigInt64Array(length).fill(1n)),
  };
}

/** What onnxruntime says by itself. */
async function raw(session: ort.InferenceSession, feeds: TensorMap): Promise<TensorMap> {
  const given = Object.entries(feeds).map(([name, { data, shape }]) => [
    name,
    new ort.Tensor('int64', data as BigInt64Array, [...shape]),
  ]);
  const found = await session.run(Object.fromEntries(given) as Record<string, ort.Tensor>);
  return Object.fromEntries(
    Object.entries(found).map(([name, { data, dims }]) => [
      name,
      new Tensor('float32', dims, data as Float32Array),
    ]),
  );
}

describe('padding real models', () => {
  let inlay: Inlay;
  beforeAll(() => {
    inlay = createInlay({ device: 'cpu' });
  });
  afterAll(() => inlay.close());

  const runOf =
    (model: Model) =>
    (feeds: TensorMap): Promise<TensorMap> =>
      model.run(feeds);

  it.each([
    ['an embedding', meanPooling(true)],
    ['states and weights per token', attention()],
  ])('gives batched callers of mixed lengths what each gets alone: %s', async (_case, bytes) => {
    const model = await inlay.load(bytes);
    const session = await ort.InferenceSession.create(bytes);
    const proven = createProvenPadding(createPadding(model.signature, OPTIONS), runOf(model));
    for (const length of [5, 13, 20, 30]) proven.pad(tokens(length, 1));
    await proven.settled();
    expect(proven.info()).toEqual({ sizes: [8, 16, 24, 32] });

    const texts = Array.from({ length: 64 }, (_, at) => tokens(1 + ((at * 7) % 32), at));
    const padded = texts.map((feeds) => proven.pad(feeds));
    const answers = new Map<unknown, TensorMap>();
    for (const size of [8, 16, 24, 32]) {
      const group = padded.filter(({ feeds }) => feeds['ids']?.shape[1] === size);
      const parts = group.map(({ feeds }) => ({ feeds, samples: 1, outputs: undefined }));
      const rows = splitOutputs(await model.run(joinFeeds(parts)), parts);
      group.forEach((one, at) => answers.set(one, one.strip(rows[at] as TensorMap)));
    }
    for (const [at, feeds] of texts.entries()) {
      expect(difference(await raw(session, feeds), answers.get(padded[at]) as TensorMap)).toBeUndefined();
    }

    const together = await Promise.all(padded.map(async (one) => one.strip(await model.run(one.feeds))));
    for (const [at, one] of padded.entries()) {
      expect(difference(answers.get(one) as TensorMap, together[at] as TensorMap)).toBeUndefined();
    }
    await session.release();
    await model.close();
  });

  it('finds out that a model does not heed its mask', async () => {
    const model = await inlay.load(meanPooling(false));
    const padding = createPadding(model.signature, OPTIONS);
    expect(await provePadding({ run: runOf(model) }, padding, tokens(5, 3))).toEqual({
      reason: expect.stringMatching(/^padded and unpadded results differ: output "embedding" differs/),
      isOfSize: false,
    });
    await model.close();
  });

  it('pads only to sizes that the model takes', async () => {
    const model = await inlay.load(shortPooling());
    const proven = createProvenPadding(createPadding(model.signature, OPTIONS), runOf(model));
    for (const length of [6, 10]) proven.pad(tokens(length, length));
    await proven.settled();
    expect(proven.info()).toEqual({
      sizes: [8],
      refusal: expect.stringMatching(/^it fails when padded to 16: /),
    });
    const feeds = tokens(10, 4);
    expect(proven.pad(feeds).feeds).toBe(feeds);
    await model.close();
  });
});
