/** Models as users have them: layers models, control flow, and the way through the scheduler. */
import { dirname } from 'node:path';
import { createRequire } from 'node:module';
import * as tf from '@tensorflow/tfjs';
import * as wasm from '@tensorflow/tfjs-backend-wasm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tfjs } from '../../src/backends/tfjs-node.ts';
import type { Backend } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createInlay } from '../../src/node.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { errorOf } from '../conformance/backend.ts';
import { floats } from '../conformance/backend-models.ts';
import { createTfGraph, tfBranching, tfPerceptron, toZip } from '../conformance/backend-models-tfjs.ts';

const wasmPaths = `${dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm'))}/`;

let backend: Backend;
beforeAll(() => {
  backend = tfjs({ tf, wasm, wasmPaths });
});
afterAll(() => backend.close());

/** Saves a model as `model.save` does, and packs it. */
async function pack(
  model: tf.LayersModel,
  edit: (json: Record<string, unknown>) => Record<string, unknown> = (json) => json,
): Promise<Uint8Array> {
  let saved: tf.io.ModelArtifacts | undefined;
  const handler = tf.io.withSaveHandler((artifacts) => {
    saved = artifacts;
    return Promise.resolve({ modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: 'JSON' } });
  });
  await model.save(handler);
  const { weightData, weightSpecs, ...json } = saved as tf.io.ModelArtifacts;
  const weightsManifest = [{ paths: ['weights.bin'], weights: weightSpecs }];
  return toZip(edit({ ...json, weightsManifest }), {
    'weights.bin': new Uint8Array(weightData as ArrayBuffer),
  });
}

const dense = (units: number, inputShape?: number[]): tf.layers.Layer =>
  tf.layers.dense({ units, activation: 'tanh', ...(inputShape && { inputShape }) });

describe.each(['cpu', 'wasm'])('a layers model on %s', (provider) => {
  it('gives the bits of the library itself, and is one batch whatever its size', async () => {
    await tf.setBackend(provider);
    const model = tf.sequential({ layers: [dense(8, [6]), tf.layers.dropout({ rate: 0.5 }), dense(3)] });
    const session = await backend.createSession({ bytes: await pack(model) }, { provider });
    const [input] = session.signature.inputs;
    const [output] = session.signature.outputs;
    expect([input?.dtype, input?.shape, output?.dtype, output?.shape]).toEqual([
      'float32',
      [null, 6],
      'float32',
      [null, 3],
    ]);
    for (const rows of [1, 5, 70]) {
      const data = floats(rows * 6);
      const raw = model.predictOnBatch(tf.tensor(data, [rows, 6])) as tf.Tensor;
      const result = await session.run({ [input?.name ?? '']: new Tensor('float32', [rows, 6], data) });
      expect(result[output?.name ?? '']?.data).toEqual(raw.dataSync());
    }
    await session.release();
    model.dispose();
  });

  it('has its inputs and outputs by name, and computes those that are asked for', async () => {
    await tf.setBackend(provider);
    const left = tf.input({ shape: [4], name: 'left' });
    const right = tf.input({ shape: [4], name: 'right', dtype: 'int32' });
    const sum = tf.layers.add({ name: 'sum' }).apply([left, right]) as tf.SymbolicTensor;
    const scaled = tf.layers.dense({ units: 2, name: 'scaled' }).apply(sum) as tf.SymbolicTensor;
    const model = tf.model({ inputs: [left, right], outputs: [scaled, sum] });
    const session = await backend.createSession({ bytes: await pack(model) }, { provider });
    expect(session.signature.inputs.map(({ name, dtype }) => [name, dtype])).toEqual([
      ['left', 'float32'],
      ['right', 'int32'],
    ]);
    const outputs = session.signature.outputs.map(({ name }) => name);
    expect(outputs).toEqual(['scaled', 'sum']);
    const { sum: only, ...others } = await session.run(
      {
        right: new Tensor('int32', [1, 4], new Int32Array([1, 2, 3, 4])),
        left: new Tensor('float32', [1, 4], new Float32Array(4).fill(0.5)),
      },
      { outputs: ['sum'] },
    );
    expect(only?.data).toEqual(new Float32Array([1.5, 2.5, 3.5, 4.5]));
    expect(others).toEqual({});
    await session.release();
    model.dispose();
  });

  it('leaves no tensors and variables behind, whether it opens or not', async () => {
    await tf.setBackend('cpu');
    const model = tf.sequential({ layers: [dense(8, [6]), dense(3)] });
    const bytes = await pack(model);
    const otherWeights = await pack(model, (json) => ({
      ...json,
      weightsManifest: [
        { paths: ['weights.bin'], weights: [{ name: 'other', shape: [83], dtype: 'float32' }] },
      ],
    }));
    const otherLayer = await pack(model, (json) =>
      JSON.parse(JSON.stringify(json).replaceAll('"Dense"', '"Frobnicate"')),
    );
    const before = [tf.memory().numTensors, Object.keys(tf.engine().state.registeredVariables).length];
    await (await backend.createSession({ bytes }, { provider })).release();
    expect(await errorOf(backend.createSession({ bytes: otherWeights }, { provider }))).toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
    });
    expect(await errorOf(backend.createSession({ bytes: otherLayer }, { provider }))).toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
    });
    expect([tf.memory().numTensors, Object.keys(tf.engine().state.registeredVariables).length]).toEqual(
      before,
    );
    model.dispose();
  });
});

describe('a graph model', () => {
  it('takes the way that its values lead it', async () => {
    for (const provider of ['cpu', 'wasm']) {
      const session = await backend.createSession({ bytes: tfBranching() }, { provider });
      const x = (...values: number[]): Tensor => new Tensor('float32', [1, 3], Float32Array.from(values));
      expect((await session.run({ x: x(1, 2, 3) })).y?.data).toEqual(new Float32Array([2, 3, 4]));
      expect((await session.run({ x: x(-1, -2, -3) })).y?.data).toEqual(new Float32Array([-2, -3, -4]));
    }
  });

  it('without a signature has the names of its nodes, and the dtypes of what they give', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', ['n', 3]);
    graph.weight('zero', new Tensor('float32', [], new Float32Array([0])));
    graph.node('Greater', 'isPositive', ['x', 'zero']);
    graph.node('Relu', 'positive', ['x']);
    const session = await backend.createSession({ bytes: graph.zip() }, { provider: 'cpu' });
    expect(session.signature).toEqual({
      inputs: [{ name: 'x', dtype: 'float32', shape: [null, 3] }],
      outputs: [
        { name: 'isPositive', dtype: 'bool', shape: [null, null] },
        { name: 'positive', dtype: 'float32', shape: [null, null] },
      ],
    });
  });

  it('has the names that its author gave its outputs', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', ['n']);
    graph.node('Relu', 'a', ['x']);
    graph.node('Neg', 'b', ['x']);
    graph.output('Identity:0', 'a:0', 'float32', ['n']);
    graph.output('Identity_1:0', 'b:0', 'float32', ['n']);
    const { json } = graph.files();
    const bytes = toZip({ ...json, userDefinedMetadata: { structuredOutputKeys: ['scores', 'boxes'] } }, {});
    const session = await backend.createSession({ bytes }, { provider: 'cpu' });
    const { boxes, ...others } = await session.run(
      { x: new Tensor('float32', [2], new Float32Array([1, 2])) },
      { outputs: ['boxes'] },
    );
    expect(boxes?.data).toEqual(new Float32Array([-1, -2]));
    expect(others).toEqual({});
  });

  it('with inputs that go round in a circle is refused when it is run', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', ['n']);
    graph.node('AddV2', 'a', ['x', 'b']);
    graph.node('AddV2', 'b', ['x', 'a']);
    graph.output('y', 'a:0', 'float32', ['n']);
    const session = await backend.createSession({ bytes: graph.zip() }, { provider: 'cpu' });
    const x = new Tensor('float32', [1], new Float32Array(1));
    expect(await errorOf(session.run({ x }))).toMatchObject({ code: 'ERR_INLAY_RUN_FAILED' });
  });
});

describe('through createInlay', () => {
  it.each(['cpu', 'wasm'])(
    'concurrent calls on %s may share batches, and get the answers of lone ones in their shapes',
    async (provider) => {
      const inlay = createInlay({ backends: [backend], store: createMemoryStore(), device: [provider] });
      const model = await inlay.load(tfPerceptron(256));
      const images = Array.from({ length: 16 }, (_, i) => floats(64 * ((i % 3) + 1), i + 1));
      const feeds = images.map((data) => ({ image: new Tensor('float32', [data.length / 64, 64], data) }));
      const alone = [];
      for (const feed of feeds) alone.push((await model.run(feed))['logits']);
      const together = await Promise.all(feeds.map((feed) => model.run(feed)));
      for (const [index, { logits }] of together.entries()) {
        const expected = alone[index] as Tensor;
        expect(logits?.shape).toEqual([(index % 3) + 1, 10]);
        expect(logits?.shape).toEqual(expected.shape);
        for (const [at, value] of (logits?.data as Float32Array).entries()) {
          expect(value).toBeCloseTo(expected.data[at] as number, 4);
        }
      }
      const [info] = inlay.info().models;
      expect([info?.backend, info?.provider, info?.queue.unbatchable]).toEqual([
        '@tensorflow/tfjs',
        provider,
        undefined,
      ]);
      await inlay.close();
    },
  );

  it('takes the provider that is fastest, and says what became of the other', async () => {
    const inlay = createInlay({ backends: [backend], store: createMemoryStore() });
    const model = await inlay.load(tfPerceptron());
    expect((await model.run({ image: floats(64) }))['logits']?.shape).toEqual([1, 10]);
    const attempts = inlay.info().models[0]?.attempts ?? [];
    expect(new Set(attempts.map(({ provider }) => provider))).toEqual(new Set(['cpu', 'wasm']));
    await inlay.close();
  });
});
