import * as node from 'onnxruntime-web';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  onnxruntimeWebGpu,
  type Gpu,
  type GpuAdapter,
  type GpuDevice,
  type OnnxruntimeWebGpuOptions,
  type OrtWebModule,
} from '../../src/backends/onnxruntime-web-gpu.ts';
import { onnxruntimeWeb } from '../../src/backends/onnxruntime-web.ts';
import type { OrtSession, OrtSessionOptions } from '../../src/backends/onnxruntime.ts';
import { addModel } from '../conformance/backend-models.ts';
import { errorOf } from '../conformance/backend.ts';

afterEach(() => {
  vi.unstubAllGlobals();
});

const bytes = addModel();
const wasm = { provider: 'wasm' };
const webgpu = { provider: 'webgpu' };

/** The library, whose sessions do as they are told. */
function fakeLibrary(session: Partial<OrtSession> = {}, create?: () => Promise<never>) {
  const seen: OrtSessionOptions[] = [];
  const library: OrtWebModule = {
    env: { wasm: {} },
    InferenceSession: {
      create: async (_: unknown, options: OrtSessionOptions = { executionProviders: [] }) => {
        seen.push(options);
        await create?.();
        return {
          inputMetadata: [],
          outputMetadata: [{ name: 'y', isTensor: true, type: 'float32', shape: ['n'] }],
          run: async () => ({}),
          release: async () => {},
          ...session,
        };
      },
    },
  };
  return { library, seen };
}

/** A GPU that can be lost. */
function fakeGpu(adapter: Partial<GpuAdapter> = {}) {
  const asked: object[] = [];
  let lose: (info: { reason: string; message: string }) => void = () => {};
  const device: GpuDevice = {
    lost: new Promise((resolve) => {
      lose = resolve;
    }),
    addEventListener: () => {},
    destroy: () => lose({ reason: 'destroyed', message: '' }),
  };
  const gpu: Gpu = {
    requestAdapter: async () => ({
      features: new Set(['shader-f16', 'timestamp-query']),
      limits: { maxBufferSize: 4096, maxTextureDimension2D: 16 },
      info: { vendor: 'nvidia', architecture: 'hopper', device: '', description: '' },
      requestDevice: async (descriptor = {}) => {
        asked.push(descriptor);
        return device;
      },
      ...adapter,
    }),
  };
  return { gpu, device, asked, lose: () => lose({ reason: 'unknown', message: 'The driver was reset.' }) };
}

const hang = (): Promise<never> => new Promise(() => {});

describe('threads of WebAssembly', () => {
  it('are one outside pages, with the reason', async () => {
    const backend = onnxruntimeWeb({ ort: node, threads: 2 });
    const session = await backend.createSession({ bytes }, wasm);
    expect(session.intraOpThreads).toBe(1);
    expect(session.threadsReason).toMatch(/cross-origin isolated pages only/);
    await backend.close();
  });

  it('are what the first session asks for, and stay so for the realm', async () => {
    vi.stubGlobal('crossOriginIsolated', true);
    const { library } = fakeLibrary();
    const backend = onnxruntimeWeb({ ort: library });
    const first = await backend.createSession({ bytes }, { ...wasm, intraOpThreads: 2 });
    const second = await backend.createSession({ bytes }, { ...wasm, intraOpThreads: 4 });
    const third = await backend.createSession({ bytes }, wasm);
    expect(library.env.wasm.numThreads).toBe(2);
    expect([first, second, third].map(({ intraOpThreads }) => intraOpThreads)).toEqual([2, 2, 2]);
    expect(first.threadsReason).toBeUndefined();
    expect(second.threadsReason).toMatch(/first session of this realm started WebAssembly with 2/);
    expect(third.threadsReason).toBeUndefined();
  });

  it('are what the backend was told, whatever sessions ask for', async () => {
    vi.stubGlobal('crossOriginIsolated', true);
    const { library } = fakeLibrary();
    const backend = onnxruntimeWeb({ ort: library, threads: 3 });
    const session = await backend.createSession({ bytes }, { ...wasm, intraOpThreads: 1 });
    expect(session.intraOpThreads).toBe(3);
  });

  it('are as many as the library says in the end', async () => {
    vi.stubGlobal('crossOriginIsolated', true);
    const { library } = fakeLibrary({}, async () => {
      library.env.wasm.numThreads = 1;
      return undefined as never;
    });
    const session = await onnxruntimeWeb({ ort: library, threads: 2 }).createSession({ bytes }, wasm);
    expect(session.intraOpThreads).toBe(1);
  });
});

describe('a failure to start', () => {
  const failing = (reason: string) =>
    fakeLibrary({}, () => Promise.reject(new Error(`no available backend found. ERR: [wasm] ${reason}`)));

  it('never tells what the query of an address carries', async () => {
    vi.stubGlobal('fetch', async () => new Response('<html>'));
    const { library } = failing('RuntimeError: Aborted(CompileError: expected magic word)');
    const backend = onnxruntimeWeb({
      ort: library,
      wasmPaths: { wasm: 'https://app.test/ort.wasm?token=secret' },
    });
    const error = await errorOf(backend.createSession({ bytes }, wasm));
    expect(error).toMatchObject({
      code: 'ERR_INLAY_BACKEND_UNAVAILABLE',
      details: { url: 'https://app.test/ort.wasm', status: 200, sizeBytes: 6 },
    });
    expect(JSON.stringify(error) + String(error)).not.toContain('secret');
    expect(String(error)).toContain('3c 68 74 6d 6c 3e "<html>"');
  });

  it('is told of an address that does not answer, without waiting for good', async () => {
    vi.stubGlobal('fetch', async (_: unknown, { signal }: RequestInit) => {
      expect(signal).toBeInstanceOf(AbortSignal);
      throw new TypeError('Failed to fetch');
    });
    const { library } = failing('TypeError: Failed to fetch https://cdn.test/a.wasm.');
    const error = await errorOf(onnxruntimeWeb({ ort: library }).createSession({ bytes }, wasm));
    expect(String(error)).toContain('https://cdn.test/a.wasm cannot be fetched');
  });

  it('is told of a binary of another version', async () => {
    vi.stubGlobal('fetch', async () => new Response(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0)));
    const { library } = failing('LinkError: import object field "a" is not a Function');
    const backend = onnxruntimeWeb({ ort: library, wasmPaths: { wasm: 'https://app.test/ort.wasm' } });
    const error = await errorOf(backend.createSession({ bytes }, wasm));
    expect(String(error)).toContain('https://app.test/ort.wasm is of another version than the library');
  });

  it('keeps the words of the library where no file is to blame, and puts fetch back', async () => {
    const { fetch } = globalThis;
    const { library } = failing('Error: WebAssembly SIMD is not supported in the current environment.');
    const error = await errorOf(onnxruntimeWeb({ ort: library }).createSession({ bytes }, wasm));
    expect(error).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
    expect(String(error)).toContain('SIMD is not supported');
    expect(globalThis.fetch).toBe(fetch);
  });
});

describe('a trap of WebAssembly', () => {
  const trap = (): Promise<never> =>
    Promise.reject(new WebAssembly.RuntimeError('memory access out of bounds'));
  const broken = { name: 'BackendError', code: 'ERR_INLAY_BACKEND_UNAVAILABLE' };

  it('is no fault of the model or the run: the realm is of no use any more', async () => {
    const loading = onnxruntimeWeb({ ort: fakeLibrary({}, trap).library });
    expect(await errorOf(loading.createSession({ bytes }, wasm))).toMatchObject(broken);
    const running = onnxruntimeWeb({ ort: fakeLibrary({ run: trap }).library });
    const session = await running.createSession({ bytes }, wasm);
    expect(await errorOf(session.run({}))).toMatchObject(broken);
  });
});

describe('WebGPU', () => {
  const open = (options: Partial<OnnxruntimeWebGpuOptions>) =>
    onnxruntimeWebGpu({ ort: fakeLibrary().library, ...options });

  it('is refused where there is none, and nothing is imported', async () => {
    const ort = vi.fn(hang);
    const [listed] = await open({ ort }).providers();
    expect(listed).toEqual({ name: 'webgpu', device: 'gpu', refusal: 'there is no WebGPU' });
    expect(ort).not.toHaveBeenCalled();
  });

  it('is refused on adapters that compute in software, unless they are allowed', async () => {
    const info = { vendor: '', architecture: '', device: '', description: '' };
    const software: Partial<GpuAdapter>[] = [
      { info: { ...info, vendor: 'google', architecture: 'swiftshader' } },
      { info: { ...info, description: 'llvmpipe (LLVM 15.0.6, 256 bits)' } },
      { info: { ...info, vendor: 'microsoft', description: 'Microsoft Basic Render Driver' } },
      { info: { ...info, isFallbackAdapter: true } },
      { isFallbackAdapter: true },
    ];
    for (const adapter of software) {
      const { gpu } = fakeGpu(adapter);
      expect((await open({ gpu }).providers())[0]?.refusal).toMatch(/computes in software/);
      expect((await open({ gpu, allowSoftwareAdapter: true }).providers())[0]?.refusal).toBeUndefined();
    }
    expect(await open({ gpu: fakeGpu().gpu }).providers()).toEqual([
      { name: 'webgpu', device: 'gpu', features: ['shader-f16'] },
    ]);
  });

  it('says why the browser gives no adapter', async () => {
    const gpu: Gpu = { requestAdapter: () => Promise.reject(new TypeError('Blocked by policy')) };
    expect((await open({ gpu }).providers())[0]?.refusal).toMatch(/Blocked by policy/);
  });

  it('hands its own device over, with the features that kernels use and the limits of the adapter', async () => {
    const { gpu, device, asked } = fakeGpu();
    const { library, seen } = fakeLibrary();
    const backend = open({ gpu, ort: library });
    await Promise.all([backend.createSession({ bytes }, webgpu), backend.createSession({ bytes }, webgpu)]);
    expect(asked).toEqual([{ requiredFeatures: ['shader-f16'], requiredLimits: { maxBufferSize: 4096 } }]);
    expect(seen.map(({ executionProviders }) => executionProviders)).toEqual([
      [{ name: 'webgpu', device }],
      [{ name: 'webgpu', device }],
    ]);
    expect(seen[0]).not.toBe(seen[1]);
  });

  it('asks for an adapter again when one gave no device', async () => {
    const { gpu } = fakeGpu();
    let failures = 1;
    const moody: Gpu = {
      requestAdapter: async () => {
        const adapter = await gpu.requestAdapter();
        if (adapter === null || failures === 0) return adapter;
        failures -= 1;
        return { ...adapter, requestDevice: () => Promise.reject(new Error('The adapter is stale.')) };
      },
    };
    const backend = open({ gpu: moody });
    const error = await errorOf(backend.createSession({ bytes }, webgpu));
    expect(error).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
    expect(String(error)).toContain('The adapter is stale');
    expect((await backend.createSession({ bytes }, webgpu)).provider).toBe('webgpu');
  });

  it('gives its device back when it is closed, and not before', async () => {
    const { gpu, device } = fakeGpu();
    const backend = open({ gpu });
    const destroy = vi.spyOn(device, 'destroy');
    const session = await backend.createSession({ bytes }, webgpu);
    await session.release();
    expect(destroy).not.toHaveBeenCalled();
    await backend.close();
    expect(await device.lost).toMatchObject({ reason: 'destroyed' });
  });

  it('takes the smaller build where WebAssembly can wait for promises', async () => {
    const load = async (): Promise<string> => {
      const loaded: string[] = [];
      const build = (name: string) => async () => {
        loaded.push(name);
        return fakeLibrary().library;
      };
      await open({ gpu: fakeGpu().gpu, ort: build('asyncify'), jspi: build('jspi') }).providers();
      return loaded.join();
    };
    vi.stubGlobal('WebAssembly', {});
    expect(await load()).toBe('asyncify');
    vi.stubGlobal('WebAssembly', { Suspending: Object });
    expect(await load()).toBe('jspi');
  });

  it('fails what hangs when the device is lost, and lets nothing more into the library', async () => {
    const { gpu, lose } = fakeGpu();
    const run = vi.fn(hang);
    const backend = open({ gpu, ort: fakeLibrary({ run }).library });
    const session = await backend.createSession({ bytes }, webgpu);
    const calls = [session.run({}), session.run({}), backend.createSession({ bytes }, webgpu)];
    lose();
    for (const call of [...calls, session.run({})]) {
      const error = await errorOf(call);
      expect(error).toMatchObject({
        code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
        details: { provider: 'webgpu', reason: 'unknown' },
      });
      expect(String(error)).toContain('The driver was reset');
    }
    await session.release();
    await backend.close();
    expect(run).toHaveBeenCalledTimes(1);
  });

  it('fails a session whose creation hangs when the device is lost', async () => {
    const { gpu, lose } = fakeGpu();
    const backend = open({ gpu, ort: fakeLibrary({}, hang).library });
    const creating = errorOf(backend.createSession({ bytes }, webgpu));
    // By then the device is open, and the library has been called.
    await new Promise(setImmediate);
    lose();
    expect(await creating).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
    await backend.close();
  });

  it('refuses another provider', async () => {
    const error = await errorOf(open({ gpu: fakeGpu().gpu }).createSession({ bytes }, wasm));
    expect(error).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE', details: { provider: 'wasm' } });
  });
});
