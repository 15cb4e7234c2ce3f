import * as ort from 'onnxruntime-web/wasm';
import { afterEach, describe, expect, it } from 'vitest';
import type { Backend } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createBackends, inWorker, type WebBackendOptions } from '../../src/web-backends.ts';
import { spawnWebWorker } from '../../src/workers/web.ts';
import { addModel, runRawWith } from '../conformance/backend-models.ts';
import { errorOf, testBackend } from '../conformance/backend.ts';

ort.env.wasm.numThreads = 1;

const worker = (): Worker =>
  new Worker(new URL('../../src/worker-web.ts', import.meta.url), { type: 'module' });
const options = { library: 'wasm' };
const createOne = (): Backend => inWorker({ name: 'onnxruntime-web', worker, options });

testBackend('onnxruntime-web in a worker', createOne, {
  provider: 'wasm',
  placement: 'worker',
  runRaw: runRawWith(ort, 'wasm'),
  packedIntegers: true,
});

describe('createBackends in a page', () => {
  it('makes one backend that starts nothing before it is used', async () => {
    let started = 0;
    const counted = (): Worker => {
      started += 1;
      return worker();
    };
    const [backend, ...others] = createBackends({ worker: counted });
    expect([backend?.name, others.length, started]).toEqual(['onnxruntime-web', 0, 0]);
    const providers = await backend?.providers();
    expect(providers?.map(({ name }) => name)).toEqual(['webgpu', 'wasm']);
    await backend?.close();
    // Nor to say what there is: the page looks for an adapter itself.
    expect(started).toBe(0);
  });

  it('refuses to be used after it was closed', async () => {
    const [backend] = createBackends({ worker });
    await backend?.close();
    await backend?.close();
    expect(await errorOf(backend?.providers() ?? Promise.resolve())).toMatchObject({
      code: 'ERR_INLAY_CLOSED',
    });
  });

  it('refuses options that are none', () => {
    const wrong: readonly (readonly [unknown, typeof TypeError | typeof RangeError])[] = [
      [{ placement: 'process' }, TypeError],
      [{ workers: 0 }, RangeError],
      [{ workers: 1.5 }, RangeError],
      [{ runTimeoutMs: 0 }, RangeError],
      [{ runTimeoutMs: Number.NaN }, RangeError],
    ];
    for (const [each, type] of wrong) {
      expect(() => createBackends(each as WebBackendOptions), JSON.stringify(each)).toThrow(type);
    }
  });
});

describe('a worker of a page', () => {
  let backend: Backend | undefined;
  afterEach(() => backend?.close());

  it('takes the buffers that it may take, and returns buffers of the caller’s own', async () => {
    backend = createOne();
    const session = await backend.createSession({ bytes: addModel() }, { provider: 'wasm' });
    const n = 500_000;
    const tensor = (): Tensor => new Tensor('float32', [n, 4], new Float32Array(4 * n).fill(1));
    const [a, b] = [tensor(), tensor()];
    const { y } = await session.run({ a, b }, { transfer: true });
    expect([a.data.length, b.data.length, y?.data.length, y?.data[4 * n - 1]]).toEqual([0, 0, 4 * n, 2]);
  });

  it('is noticed when the app ends it', async () => {
    const started: Worker[] = [];
    const handle = spawnWebWorker({
      worker: () => {
        const made = worker();
        started.push(made);
        return made;
      },
      options,
    });
    started[0]?.terminate();
    expect(await handle.ended).toMatchObject({ reason: 'killed' });
  });

  it('fails at once with options that cannot be sent', async () => {
    backend = inWorker({ name: 'own', worker, options: { library: () => {} } });
    expect(await errorOf(backend.providers())).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
  });

  it('says why it does not start when its script fails', async () => {
    const script = URL.createObjectURL(new Blob(["throw new Error('Boom.')"], { type: 'text/javascript' }));
    backend = inWorker({ name: 'own', worker: () => new Worker(script) });
    const error = await errorOf(backend.providers());
    expect(error).toMatchObject({
      code: 'ERR_INLAY_BACKEND_UNAVAILABLE',
      message: expect.stringMatching(/did not start: .*Boom\..*blob:/),
    });
    URL.revokeObjectURL(script);
  });
});
