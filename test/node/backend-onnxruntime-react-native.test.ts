import * as ort from 'onnxruntime-node';
import { describe, expect, it, vi } from 'vitest';
import {
  onnxruntimeReactNative,
  toLibraryError,
  type OrtReactNativeModule,
} from '../../src/backends/onnxruntime-react-native.ts';
import type { Session } from '../../src/core/backend.ts';
import { BackendError, InlayError, ModelError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { errorOf, testBackend } from '../conformance/backend.ts';
import {
  addModel,
  floats,
  identityModel,
  onnxModels,
  runRawWith,
  slowModel,
} from '../conformance/backend-models.ts';
import { temporaryFiles } from './backend-libraries.ts';
import { fakeLibrary } from './react-native-library.ts';

const writeFile = temporaryFiles();

// Strings do not get through the native part at all: see below.
const { string: _, ...samples } = onnxModels.samples;

describe('with Float16Array', () => {
  vi.stubGlobal('Float16Array', Uint16Array);
  testBackend('onnxruntime-react-native', () => onnxruntimeReactNative({ ort: fakeLibrary().ort }), {
    provider: 'cpu',
    placement: 'worker',
    models: { ...onnxModels, samples },
    runRaw: runRawWith(ort, 'cpu'),
    packedIntegers: false,
    writeFile,
  });
});

describe('onnxruntime-react-native', () => {
  const feeds = (n = 1): { a: Tensor; b: Tensor } => ({
    a: new Tensor('float32', [n, 4], floats(n * 4, 1)),
    b: new Tensor('float32', [n, 4], floats(n * 4, 2)),
  });

  it('starts no more threads at once than it may, to load and to run', async () => {
    const { ort: library, seen } = fakeLibrary();
    const backend = onnxruntimeReactNative({ ort: library, threads: 3 });
    const path = await writeFile('slow.onnx', slowModel(64, 20));
    const opened = await Promise.all(
      Array.from({ length: 7 }, () => backend.createSession({ path }, { provider: 'cpu' })),
    );
    expect(seen.mostThreads).toBe(3);
    const x = new Tensor('float32', [64, 64], floats(4096));
    await Promise.all(opened.flatMap((session) => [session.run({ x }), session.run({ x })]));
    expect(seen.mostThreads).toBe(3);
    expect(seen.threads).toBe(0);
    await backend.close();
    expect(seen.sessions).toBe(0);
  });

  it('goes on after calls that fail', async () => {
    const { ort: library, seen } = fakeLibrary();
    const backend = onnxruntimeReactNative({ ort: library, threads: 1 });
    for (let i = 0; i < 3; i += 1) {
      const error = await errorOf(backend.createSession({ path: '/no/model.onnx' }, { provider: 'cpu' }));
      expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_NOT_FOUND' });
    }
    const session = await backend.createSession({ bytes: addModel() }, { provider: 'cpu' });
    expect((await session.run(feeds())).y?.shape).toEqual([1, 4]);
    expect(seen.mostThreads).toBe(1);
    await backend.close();
  });

  it('waits for runs before it frees a session', async () => {
    const { ort: library, seen } = fakeLibrary();
    const backend = onnxruntimeReactNative({ ort: library });
    const session = await backend.createSession({ bytes: slowModel(64, 50) }, { provider: 'cpu' });
    const x = new Tensor('float32', [64, 64], floats(4096));
    const runs = [session.run({ x }), session.run({ x }), session.run({ x })];
    await Promise.all([backend.close(), session.release()]);
    await Promise.all(runs);
    expect(seen).toMatchObject({ usedAfterFree: 0, sessions: 0 });
  });

  it('runs a session on further threads when there is more to do, and opens it once', async () => {
    const { ort: library, seen } = fakeLibrary();
    const backend = onnxruntimeReactNative({ ort: library, threads: 2 });
    const sessions = await Promise.all(
      [0, 1].map(() => backend.createSession({ bytes: addModel() }, { provider: 'cpu' })),
    );
    const [one, two] = sessions as [Session, Session];
    expect(one.slots?.map(({ name }) => name)).toEqual(['thread 1']);
    expect(one.slots?.[0]).toBe(two.slots?.[0]);
    await one.grow?.();
    expect(one.slots?.map(({ name }) => name)).toEqual(['thread 1', 'thread 2']);
    expect(one.grow?.()).toBeUndefined();
    expect(two.slots).toHaveLength(1);
    expect(seen.sessions).toBe(2);
    await backend.close();
  });

  it('offers what the app was built with, and XNNPACK only when it is asked for', async () => {
    const names = async (
      built: readonly string[],
      options: { readonly providers?: readonly string[] } = {},
    ): Promise<readonly string[]> =>
      (await onnxruntimeReactNative({ ort: fakeLibrary(built).ort, ...options }).providers()).map(
        ({ name, device }) => `${name} on ${device}`,
      );
    expect(await names(['cpu', 'xnnpack', 'coreml'])).toEqual(['coreml on npu', 'cpu on cpu']);
    expect(await names(['cpu', 'xnnpack', 'nnapi', 'qnn'])).toEqual([
      'qnn on npu',
      'nnapi on npu',
      'cpu on cpu',
    ]);
    expect(await names(['cpu', 'xnnpack'], { providers: ['xnnpack', 'cpu'] })).toEqual([
      'xnnpack on cpu',
      'cpu on cpu',
    ]);
  });

  it('passes the provider and the threads on for a model in a file', async () => {
    const { ort: library, seen } = fakeLibrary();
    const backend = onnxruntimeReactNative({ ort: library });
    const path = await writeFile('add.onnx', addModel());
    await backend.createSession({ path }, { provider: 'coreml', intraOpThreads: 2 });
    expect(seen.options).toMatchObject([{ executionProviders: ['coreml'], intraOpNumThreads: 2 }]);
    await backend.close();
  });

  it('refuses another device than the CPU for a model in memory, since the library would not use it', async () => {
    const backend = onnxruntimeReactNative({ ort: fakeLibrary().ort });
    const error = await errorOf(backend.createSession({ bytes: addModel() }, { provider: 'coreml' }));
    expect(error).toBeInstanceOf(BackendError);
    expect(error).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
    expect(String(error)).toMatch(/from a file/);
  });

  it('loads a model that lies in a larger buffer', async () => {
    const backend = onnxruntimeReactNative({ ort: fakeLibrary().ort });
    const model = addModel();
    const larger = new Uint8Array(model.length + 20).fill(0xff);
    larger.set(model, 10);
    const bytes = larger.subarray(10, 10 + model.length);
    const session = await backend.createSession({ bytes }, { provider: 'cpu' });
    expect(session.signature.outputs).toHaveLength(1);
    await backend.close();
  });

  it('refuses inputs and outputs of strings, and float16 outputs that the engine has no array for', async () => {
    const { ort: library, seen } = fakeLibrary();
    const backend = onnxruntimeReactNative({ ort: library });
    vi.stubGlobal('Float16Array', undefined);
    Reflect.deleteProperty(globalThis, 'Float16Array');
    for (const dtype of ['string', 'float16'] as const) {
      const error = await errorOf(
        backend.createSession({ bytes: identityModel(dtype) }, { provider: 'cpu' }),
      );
      expect(error).toBeInstanceOf(ModelError);
      expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
    }
    expect(seen.sessions).toBe(0);
    await backend.close();
  });

  it('is refused before it is used for something else than a number of threads', () => {
    for (const threads of [0, 1.5, Number.NaN]) {
      expect(() => onnxruntimeReactNative({ ort: fakeLibrary().ort, threads })).toThrow(RangeError);
    }
  });

  it.each([
    ["Cannot read property 'install' of null", 'ERR_INLAY_BACKEND_UNAVAILABLE', /expo prebuild/],
    [
      `Requiring module "node_modules/onnxruntime-react-native/dist/commonjs/index.js", which threw an exception: TypeError: Cannot read property 'install' of null`,
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      /expo prebuild/,
    ],
    ["null is not an object (evaluating 'Module.install')", 'ERR_INLAY_BACKEND_UNAVAILABLE', /Expo Go/],
    [
      'Requiring unknown module "undefined".',
      'ERR_INLAY_BACKEND_MISSING',
      /expo install onnxruntime-react-native/,
    ],
    [
      'dlopen failed: library "libonnxruntime.so" not found',
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      /see the cause/,
    ],
  ])('says what to do when its import fails with "%s"', async (message, code, advice) => {
    let imports = 0;
    const cause = new TypeError(message);
    const backend = onnxruntimeReactNative({
      ort: async (): Promise<OrtReactNativeModule> => {
        imports += 1;
        throw cause;
      },
    });
    for (const call of [
      () => backend.providers(),
      () => backend.createSession({ bytes: addModel() }, { provider: 'cpu' }),
    ]) {
      const error = (await errorOf(call())) as InlayError;
      expect(error).toBeInstanceOf(BackendError);
      expect(error).toMatchObject({ code, cause });
      expect(error.message).toMatch(advice);
    }
    expect(imports).toBe(2);
    expect(toLibraryError(toLibraryError(cause))).toMatchObject({ cause });
  });
});
