import * as jspi from 'onnxruntime-web/jspi';
import * as asyncify from 'onnxruntime-web/webgpu';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { onnxruntimeWebGpu, type OrtWebModule } from '../../src/backends/onnxruntime-web-gpu.ts';
import type { Backend, Session } from '../../src/core/backend.ts';
import { isInlayError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { createWorkerBackend } from '../../src/workers/realm.ts';
import { spawnWebWorker } from '../../src/workers/web.ts';
import { errorOf } from '../conformance/backend.ts';
import { addModel, floats, identityModel, slowModel } from '../conformance/backend-models.ts';
import { watchedGpu, type WatchedGpu } from './watched-gpu.ts';

// A processor that plays the GPU compiles each shader for seconds.
vi.setConfig({ testTimeout: 120_000 });

const provider = 'webgpu';
const never = (): Promise<OrtWebModule> => Promise.reject(new Error('It must not be loaded.'));
const feeds = { a: new Tensor('float32', [1, 4], floats(4)), b: new Tensor('float32', [1, 4], floats(4, 2)) };

/** A backend on a device of its own. */
function openBackend(ort: OrtWebModule = asyncify): { backend: Backend; watched: WatchedGpu } {
  const watched = watchedGpu();
  const backend = onnxruntimeWebGpu({ ort, gpu: watched.gpu, allowSoftwareAdapter: true });
  onTestFinished(() => backend.close());
  return { backend, watched };
}

const open = (backend: Backend, bytes = addModel()): Promise<Session> =>
  backend.createSession({ bytes }, { provider });

describe('WebGPU is looked at before anything is imported', () => {
  it('refuses an adapter that computes in software, with its name', async () => {
    const backend = onnxruntimeWebGpu({ ort: never });
    const [listed] = await backend.providers();
    expect(listed).toMatchObject({ name: 'webgpu', device: 'gpu' });
    expect(listed?.refusal).toMatch(/^the adapter ".*swiftshader.*" computes in software/);
    const error = await errorOf(open(backend));
    expect(error).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
    expect(String(error)).toContain('allowSoftwareAdapter');
    await backend.close();
  });

  it('says that there is no adapter', async () => {
    const backend = onnxruntimeWebGpu({ ort: never, gpu: { requestAdapter: async () => null } });
    expect((await backend.providers())[0]?.refusal).toMatch(/no adapter/);
    expect(await errorOf(open(backend))).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
  });

  it('lists the features of the adapter that kernels use, and opens its device with them', async () => {
    const { backend, watched } = openBackend();
    const adapter = await navigator.gpu.requestAdapter();
    const expected = ['shader-f16', 'subgroups'].filter((name) => adapter?.features.has(name));
    expect((await backend.providers())[0]?.features).toEqual(expected);
    await open(backend);
    const [device] = watched.devices;
    expect(expected.every((name) => device?.features.has(name))).toBe(true);
    expect(device?.limits.maxBufferSize).toBe(adapter?.limits.maxBufferSize);
  });
});

for (const [build, ort] of [
  ['asyncify', asyncify],
  ['JSPI', jspi],
] as const) {
  describe(`calls on one device take turns (${build})`, () => {
    it('keeps concurrent creates, runs, failures and releases from hanging or spoiling each other', async () => {
      const { backend, watched } = openBackend(ort);
      const [add, same, broken] = await Promise.allSettled([
        open(backend),
        open(backend, identityModel('float32')),
        open(backend, new Uint8Array(100).fill(7)),
      ]);
      expect(broken).toMatchObject({ status: 'rejected', reason: { code: 'ERR_INLAY_MODEL_INVALID' } });
      if (add?.status !== 'fulfilled' || same?.status !== 'fulfilled')
        throw new Error('A model did not open.');
      const x = new Tensor('float32', [3], floats(3));
      const runs = [
        add.value.run(feeds),
        add.value.run(feeds),
        same.value.run({ x }),
        add.value.run({ a: feeds.a }),
        add.value.run(feeds),
      ];
      const released = add.value.release();
      const late = open(backend);
      const outcomes = await Promise.allSettled(runs);
      expect(outcomes.map(({ status }) => status)).toEqual([
        'fulfilled',
        'fulfilled',
        'fulfilled',
        'rejected',
        'fulfilled',
      ]);
      expect(outcomes[3]).toMatchObject({ reason: { code: 'ERR_INLAY_FEED_MISSING' } });
      await released;
      expect((await (await late).run(feeds)).y?.shape).toEqual([1, 4]);
      expect(watched.devices).toHaveLength(1);
    });
  });
}

describe('a lost device', () => {
  const slow = slowModel(64, 3);
  const x = new Tensor('float32', [64, 64], floats(64 * 64));
  const unavailable = { status: 'rejected', reason: { code: 'ERR_INLAY_DEVICE_UNAVAILABLE' } };

  /** A backend in a realm of its own, and the workers that it had. */
  const openRealms = (): { backend: Backend; workers: Worker[] } => {
    const workers: Worker[] = [];
    const worker = (): Worker => {
      const started = new Worker(new URL('./onnxruntime-gpu-worker.ts', import.meta.url), { type: 'module' });
      workers.push(started);
      return started;
    };
    const backend = createWorkerBackend({
      name: 'onnxruntime-web',
      runTimeoutMs: 20_000,
      spawn: () => spawnWebWorker({ worker }),
    });
    onTestFinished(() => backend.close());
    return { backend, workers };
  };

  it('fails calls that come after it; release and close still end', async () => {
    const { backend, watched } = openBackend();
    const session = await open(backend);
    await session.run(feeds);
    watched.devices[0]?.destroy();
    await watched.devices[0]?.lost;
    for (const call of [session.run(feeds), open(backend), session.run(feeds)]) {
      expect(await errorOf(call)).toMatchObject({
        code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
        details: { provider: 'webgpu', reason: 'destroyed' },
      });
    }
    await session.release();
    await backend.close();
  });

  it('does not let calls that wait into the library, which would never come back', async () => {
    const { backend, watched } = openBackend();
    const session = await open(backend, slow);
    await session.run({ x });
    watched.onSubmit((device) => device.destroy());
    const calls = await Promise.allSettled([session.run({ x }), session.run({ x }), open(backend)]);
    expect(calls).toMatchObject([unavailable, unavailable, unavailable]);
    await session.release();
    await backend.close();
  });

  it('fails runs in flight at once, and a new realm runs the same session and opens what waited', async () => {
    const { backend, workers } = openRealms();
    const session = await open(backend, slow);
    const { y } = await session.run({ x });
    workers[0]?.postMessage('destroy in work');
    const runs = [errorOf(session.run({ x })), errorOf(session.run({ x }))];
    const opening = open(backend);
    const errors = await Promise.all(runs);
    for (const error of errors) {
      expect(isInlayError(error) && error.code).toBe('ERR_INLAY_DEVICE_UNAVAILABLE');
      expect(error).toMatchObject({ details: { provider: 'webgpu', reason: 'destroyed' } });
    }
    expect((await session.run({ x })).y?.data).toEqual(y?.data);
    // A model that was being opened is no part of it.
    expect((await (await opening).run(feeds)).y?.shape).toEqual([1, 4]);
    expect(workers).toHaveLength(2);
  });
});

describe('what the GPU cannot do', () => {
  it('fails the run in which the device reports a fault, and goes on', async () => {
    const { backend, watched } = openBackend();
    const session = await open(backend);
    watched.onSubmit((device) => {
      const error = new GPUOutOfMemoryError('No memory is left.');
      device.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error, cancelable: true }));
    });
    const error = await errorOf(session.run(feeds));
    expect(error).toMatchObject({ code: 'ERR_INLAY_RUN_FAILED' });
    expect(String(error)).toContain('No memory is left');
    expect((await session.run(feeds)).y?.shape).toEqual([1, 4]);
  });

  it('refuses a model with operators of ai.onnx.ml or kernels of float64, in clear words', async () => {
    const { backend } = openBackend();
    for (const [bytes, reason] of [
      [treeModel(), /No Op registered for Scaler/],
      [doubleModel(), /no provider has a kernel for the MatMul node "MatMul_0"/],
    ] as const) {
      const error = await errorOf(open(backend, bytes));
      expect(error).toMatchObject({ name: 'ModelError', code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
      expect(String(error)).toMatch(reason);
    }
  });

  it('refuses float16 kernels on a device without shader-f16, at create or at the first run', async () => {
    const adapter = await navigator.gpu.requestAdapter();
    if (adapter?.features.has('shader-f16')) {
      console.log('This adapter has shader-f16: its absence is not tested.');
      return;
    }
    const { backend } = openBackend();
    const half = new Tensor('float16', [2, 2], new Uint16Array(4).fill(0x3c00));
    const error = await errorOf(open(backend, halfModel()).then((session) => session.run({ x: half })));
    expect(String(error)).toMatch(/f16/);
    expect(isInlayError(error) && error.code).toMatch(/^ERR_INLAY_(MODEL_UNSUPPORTED|RUN_FAILED)$/);
  });
});

function treeModel(): Uint8Array {
  const graph = createGraph({ name: 'scaler', opset: { '': 17, 'ai.onnx.ml': 3 } });
  graph.input('x', 'float32', ['n', 2]);
  graph.node('Scaler', ['x'], { offset: [0, 0], scale: [1, 1] }, { outputs: 'y', domain: 'ai.onnx.ml' });
  graph.output('y', 'float32', ['n', 2]);
  return encodeModel(graph.toModel());
}

function doubleModel(): Uint8Array {
  const graph = createGraph({ name: 'double', opset: 17 });
  graph.input('x', 'float64', [2, 2]);
  graph.node('MatMul', ['x', 'x'], {}, { outputs: 'y' });
  graph.output('y', 'float64', [2, 2]);
  return encodeModel(graph.toModel());
}

function halfModel(): Uint8Array {
  const graph = createGraph({ name: 'half', opset: 17 });
  graph.input('x', 'float16', [2, 2]);
  graph.node('MatMul', ['x', 'x'], {}, { outputs: 'y' });
  graph.output('y', 'float16', [2, 2]);
  return encodeModel(graph.toModel());
}
