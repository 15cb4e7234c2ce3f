/** TensorFlow.js has one engine per thread: what the adapter and its host do to each other there. */
import { dirname } from 'node:path';
import { createRequire } from 'node:module';
import * as tf from '@tensorflow/tfjs';
import * as wasm from '@tensorflow/tfjs-backend-wasm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tfjs } from '../../src/backends/tfjs-node.ts';
import type { Backend, Session } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { errorOf } from '../conformance/backend.ts';
import { floats } from '../conformance/backend-models.ts';
import { createTfGraph, tfBranching, tfjsModels, tfPerceptron } from '../conformance/backend-models-tfjs.ts';

const wasmPaths = `${dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm'))}/`;

let backend: Backend;
beforeEach(() => {
  backend = tfjs({ tf, wasm, wasmPaths });
});
afterEach(() => backend.close());

const open = (bytes: Uint8Array, provider = 'wasm'): Promise<Session> =>
  backend.createSession({ bytes }, { provider });
const image = (): Tensor => new Tensor('float32', [1, 64], floats(64));
const row = (...values: number[]): Tensor => new Tensor('float32', [1, 3], Float32Array.from(values));
const vector = (length: number): Tensor => new Tensor('float32', [length], floats(length));
const count = (): number => tf.memory().numTensors;

describe('the choice of a backend', () => {
  it('is not made for a host that has made none', async () => {
    expect(tf.getBackend()).toBeUndefined();
    const session = await open(tfPerceptron());
    await session.run({ image: image() });
    await session.release();
    expect(tf.getBackend()).toBeUndefined();
  });

  it('stays the host’s at every moment, and its tensors where they are', async () => {
    await tf.setBackend('cpu');
    const own = tf.tensor([1, 2, 3]);
    const session = await open(tfPerceptron());
    const runs = Array.from({ length: 4 }, () => session.run({ image: image() }));
    const seen = new Set<string>();
    let isOver = false;
    const done = Promise.all(runs).then(() => (isOver = true));
    while (!isOver) {
      seen.add(tf.getBackend());
      expect(tf.tidy(() => own.add(1).dataSync())).toEqual(new Float32Array([2, 3, 4]));
      await Promise.resolve();
    }
    await done;
    expect([...seen]).toEqual(['cpu']);
    own.dispose();
  });

  it('may be made by the host while a model waits for its own values', async () => {
    await tf.setBackend('cpu');
    const session = await open(tfBranching());
    const run = session.run({ x: row(1, 2, 3) });
    await Promise.resolve();
    await Promise.resolve();
    await tf.setBackend('wasm');
    expect((await run).y?.data).toEqual(new Float32Array([2, 3, 4]));
    expect(tf.getBackend()).toBe('wasm');
    await tf.setBackend('cpu');
  });

  it('holds while several backends take turns', async () => {
    await tf.setBackend('cpu');
    const other = tfjs({ tf });
    const sessions = await Promise.all([
      open(tfBranching()),
      open(tfPerceptron()),
      other.createSession({ bytes: tfBranching() }, { provider: 'cpu' }),
    ]);
    const [first, second, third] = sessions;
    const results = await Promise.all(
      Array.from({ length: 5 }, async (_, i) => [
        await first.run({ x: row(i + 1, 0, 0) }),
        await second.run({ image: image() }),
        await third.run({ x: row(-i - 1, -1, -1) }),
      ]),
    );
    expect(results.map(([a]) => a?.['y']?.data[0])).toEqual([2, 3, 4, 5, 6]);
    expect(results.map(([, , c]) => c?.['y']?.data[0])).toEqual([-2, -3, -4, -5, -6]);
    expect(tf.getBackend()).toBe('cpu');
    await other.close();
  });
});

describe('tensors', () => {
  it.each([
    ['cpu', tfPerceptron(), { image: image() }],
    ['wasm', tfPerceptron(), { image: image() }],
    ['wasm', tfBranching(), { x: row(1, 2, 3) }],
    ['cpu', tfBranching(), { x: row(-1, -2, -3) }],
  ])(
    'are as many as before after each run and after the end of a session: %s',
    async (provider, model, feeds) => {
      const before = count();
      const session = await open(model, provider);
      const loaded = count();
      for (let i = 0; i < 3; i += 1) {
        await session.run(feeds);
        expect(count()).toBe(loaded);
      }
      await session.release();
      expect(count()).toBe(before);
    },
  );

  it('are as many as before after a run that fails', async () => {
    for (const provider of ['cpu', 'wasm']) {
      const session = await open(tfjsModels.failing(), provider);
      const before = count();
      expect(await errorOf(session.run({ a: vector(3), b: vector(4) }))).toMatchObject({
        code: 'ERR_INLAY_RUN_FAILED',
      });
      expect(count()).toBe(before);
    }
  });

  it('are as many as before after a run with control flow that fails', async () => {
    // Zeros, on which it is tried first, take the other way.
    const session = await open(tfBranching('Frobnicate'));
    const before = count();
    const error = await errorOf(session.run({ x: row(1, 2, 3) }));
    expect(error).toMatchObject({ code: 'ERR_INLAY_RUN_FAILED' });
    expect(String(error)).toContain('Frobnicate');
    expect(count()).toBe(before);
    expect((await session.run({ x: row(-1, -1, -1) })).y?.data).toEqual(new Float32Array([-2, -2, -2]));
    expect(count()).toBe(before);
  });

  it('are as many as before after models that do not open', async () => {
    const before = count();
    for (const model of [...tfjsModels.unsupported.map((make) => make()), complexOutput()]) {
      for (const provider of ['cpu', 'wasm']) await errorOf(open(model, provider));
    }
    expect(count()).toBe(before);
  });

  it('of the host survive scopes that it opens around a model', async () => {
    tf.engine().startScope('host');
    const session = await open(tfPerceptron());
    const expected = await session.run({ image: image() });
    tf.engine().endScope();
    expect(await session.run({ image: image() })).toEqual(expected);
  });

  it('that the host makes while a model waits for its own values stay', async () => {
    const session = await open(tfBranching());
    const run = session.run({ x: row(1, 2, 3) });
    const made: tf.Tensor[] = [];
    let isOver = false;
    const done = run.then(() => (isOver = true));
    while (!isOver) {
      made.push(tf.scalar(made.length));
      await Promise.resolve();
    }
    await done;
    expect(made.length).toBeGreaterThan(5);
    expect(made.every((tensor, index) => tensor.dataSync()[0] === index)).toBe(true);
    tf.dispose(made);
  });

  it('that are weights of a model are not handed out', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', [1]);
    graph.weight('w', new Tensor('float32', [2], new Float32Array([1, 2])));
    graph.node('Identity', 'same', ['w']);
    graph.node('Relu', 'y', ['x']);
    graph.output('same', 'same:0', 'float32', [2]);
    graph.output('w', 'w:0', 'float32', [2]);
    graph.output('x', 'x:0', 'float32', [1]);
    graph.output('y', 'y:0', 'float32', [1]);
    for (const provider of ['cpu', 'wasm']) {
      const session = await open(graph.zip(), provider);
      for (let i = 0; i < 2; i += 1) {
        const { same, w } = await session.run({ x: vector(1) });
        expect([...(same?.data ?? [])]).toEqual([1, 2]);
        expect([...(w?.data ?? [])]).toEqual([1, 2]);
        (same?.data as Float32Array).fill(7);
        (w?.data as Float32Array).fill(7);
      }
    }
  });
});

/** An output that the signature calls complex. */
function complexOutput(): Uint8Array {
  const graph = createTfGraph();
  graph.input('x', 'float32', [1]);
  graph.weight('w', new Tensor('float32', [1], new Float32Array(1)));
  graph.node('AddV2', 'y', ['x', 'w']);
  graph.output('y', 'y:0', 'complex64', [1]);
  return graph.zip();
}

describe('a library that does not start', () => {
  it('is told apart from one that is not installed', async () => {
    const name: string = '@tensorflow/tfjs-node-that-nobody-installs';
    const missing = tfjs({ tf: () => import(name) as Promise<typeof tf> });
    expect(await errorOf(missing.providers())).toMatchObject({
      code: 'ERR_INLAY_BACKEND_MISSING',
      message: `${name} is not installed; run "npm install ${name}".`,
    });
    const broken = tfjs({ tf: () => Promise.reject(new Error('no binary for this platform')) });
    expect(await errorOf(broken.providers())).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
  });

  it('is tried again by the next call', async () => {
    let tries = 0;
    const late = tfjs({
      tf: async () => {
        tries += 1;
        if (tries === 1) throw new Error('offline');
        return tf;
      },
    });
    await errorOf(late.providers());
    expect(await late.providers()).not.toHaveLength(0);
  });

  it('names the providers that are there', async () => {
    expect(await backend.providers()).toEqual([
      { name: 'wasm', device: 'cpu' },
      { name: 'cpu', device: 'cpu' },
    ]);
    const only = tfjs({ tf, wasm, providers: ['cpu'] });
    expect(await only.providers()).toEqual([{ name: 'cpu', device: 'cpu' }]);
    expect(await errorOf(only.createSession({ bytes: tfPerceptron() }, { provider: 'wasm' }))).toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
    });
  });

  it('takes no providers that it does not know', () => {
    expect(() => tfjs({ tf, providers: ['gpu'] })).toThrow(RangeError);
  });

  it('says why a GPU is not usable', async () => {
    const gpu = tfjs({ tf, webgpu: {} });
    expect(await gpu.providers()).toContainEqual({
      name: 'webgpu',
      device: 'gpu',
      refusal: 'there is no WebGPU here',
    });
  });
});
