import { afterEach, describe, expect, it, vi } from 'vitest';
import { onnxruntimeWebEdge } from '../../src/backends/onnxruntime-web-edge.ts';
import type { OrtWebModule } from '../../src/backends/onnxruntime-web.ts';
import { edgePlatform } from '../../src/platform-edge.ts';

afterEach(() => {
  vi.unstubAllGlobals();
});

describe('the platform of edge runtimes', () => {
  it('defers by promise reactions alone, after those of calls that were made in one go', async () => {
    for (const name of ['setTimeout', 'setImmediate', 'MessageChannel', 'queueMicrotask']) {
      vi.stubGlobal(name, () => {
        throw new Error(`${name} belongs to a request.`);
      });
    }
    const { defer, setTimer } = edgePlatform();
    const order: string[] = [];
    const done = new Promise<void>((resolve) => {
      defer(() => order.push('deferred'));
      setTimer(() => order.push('next'), 1);
      setTimer(resolve, 0);
    });
    const call = async (name: string): Promise<void> => {
      await Promise.resolve();
      await Promise.resolve();
      order.push(name);
    };
    await Promise.all([call('one'), call('two'), done]);
    expect(order).toEqual(['one', 'two', 'deferred', 'next']);
  });

  it('cancels a wait that is over at once', async () => {
    const { defer, setTimer } = edgePlatform();
    let rang = false;
    setTimer(() => {
      rang = true;
    }, 1)();
    await new Promise<void>((resolve) => {
      defer(resolve);
    });
    expect(rang).toBe(false);
  });

  it('waits for real when the wait is longer than a step of the clock', () => {
    const delays: unknown[] = [];
    vi.stubGlobal('setTimeout', (_: () => void, delayMs: number) => delays.push(delayMs));
    edgePlatform().setTimer(() => {}, 2);
    expect(delays).toEqual([2]);
  });
});

describe('onnxruntimeWebEdge', () => {
  /** A module without content. */
  const empty = Uint8Array.of(0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00);
  const wasmModule = new WebAssembly.Module(empty);

  /** A library that starts as the real one does, and tells what it got. */
  function fakeLibrary(during: () => Promise<void> = async () => {}) {
    const started: WebAssembly.Module[] = [];
    const env: OrtWebModule['env'] = { wasm: {} };
    const create = async (): Promise<never> => {
      const binary = new Uint8Array(env.wasm.wasmBinary as ArrayBuffer);
      const { module } = await WebAssembly.instantiate(binary, {});
      started.push(module);
      await during();
      throw new Error('no available backend found.');
    };
    return { ort: { env, InferenceSession: { create } } satisfies OrtWebModule, started };
  }
  const open = async (ort: OrtWebModule): Promise<unknown> => {
    const backend = onnxruntimeWebEdge({ ort, wasmModule });
    return backend.createSession({ bytes: empty }, { provider: 'wasm' }).catch((error: unknown) => error);
  };

  it('starts the library with the compiled module, and leaves WebAssembly as it was', async () => {
    const { instantiate } = WebAssembly;
    const { ort, started } = fakeLibrary();
    expect(await open(ort)).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
    expect(started).toEqual([wasmModule]);
    expect(started[0]).toBe(wasmModule);
    expect(WebAssembly.instantiate).toBe(instantiate);
  });

  it('leaves what others instantiate meanwhile alone', async () => {
    const others: unknown[] = [];
    const { ort } = fakeLibrary(async () => {
      others.push((await WebAssembly.instantiate(empty.slice(), {})).module);
      others.push(await WebAssembly.instantiate(wasmModule, {}));
    });
    await open(ort);
    expect(others[0]).toBeInstanceOf(WebAssembly.Module);
    expect(others[0]).not.toBe(wasmModule);
    expect(others[1]).toBeInstanceOf(WebAssembly.Instance);
  });

  it('refuses what is no compiled module', () => {
    const { ort } = fakeLibrary();
    for (const wrong of [undefined, 'ort.wasm', empty]) {
      expect(() => onnxruntimeWebEdge({ ort, wasmModule: wrong as never })).toThrow(TypeError);
    }
  });
});
