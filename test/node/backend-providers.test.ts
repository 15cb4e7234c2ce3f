import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  onnxruntimeNode,
  type MachineProbe,
  type OrtNodeModule,
} from '../../src/backends/onnxruntime-node.ts';
import { onnxruntimeWeb, type OrtWebModule } from '../../src/backends/onnxruntime-web.ts';
import type { OrtSession, OrtSessionOptions } from '../../src/backends/onnxruntime.ts';
import { BackendError, ModelError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { addModel, mlpModel } from '../conformance/backend-models.ts';
import { errorOf } from '../conformance/backend.ts';
import { temporaryFiles } from './backend-libraries.ts';

/** A Linux machine with these files, by directory. */
function machine(
  files: Readonly<Record<string, readonly string[]>>,
  env: MachineProbe['env'] = {},
  os = 'linux',
): MachineProbe {
  return { os, env, list: (directory) => files[directory] ?? [], binaryDirectory: '/lib/ort' };
}

/** What a library looks like that offers these providers and opens one session for any bytes. */
function fakeLibrary(session: Partial<OrtSession>, names: readonly string[] = ['cpu']) {
  const seen: OrtSessionOptions[] = [];
  const library: OrtNodeModule & OrtWebModule = {
    listSupportedBackends: () =>
      names.map((name) => ({ name, bundled: name !== 'cuda' && name !== 'tensorrt' })),
    env: { wasm: {} },
    InferenceSession: {
      create: async (_: unknown, options: OrtSessionOptions = { executionProviders: [] }) => {
        seen.push(options);
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

describe('the providers of onnxruntime-node', () => {
  const everything = ['cpu', 'webgpu', 'cuda', 'tensorrt', 'dml', 'coreml', 'frobnicator'];
  const refusals = async (probe: MachineProbe, allowSoftwareAdapter = false) => {
    const { library } = fakeLibrary({}, everything);
    const providers = await onnxruntimeNode({ ort: library, probe, allowSoftwareAdapter }).providers();
    return Object.fromEntries(providers.map(({ name, refusal }) => [name, refusal ?? 'ok']));
  };

  it('come best first, the CPU last, without those that Inlay does not know', async () => {
    const { library } = fakeLibrary({}, everything);
    const providers = await onnxruntimeNode({ ort: library }).providers();
    expect(providers.map(({ name, device }) => `${name}:${device}`)).toEqual([
      'tensorrt:gpu',
      'cuda:gpu',
      'dml:gpu',
      'coreml:npu',
      'webgpu:gpu',
      'cpu:cpu',
    ]);
  });

  it('are refused without a device', async () => {
    expect(await refusals(machine({ '/dev': ['null', 'tty'] }))).toMatchObject({
      webgpu: 'there is no GPU device in /dev',
      cuda: 'there is no NVIDIA device in /dev',
      tensorrt: 'there is no NVIDIA device in /dev',
      cpu: 'ok',
    });
  });

  it('are refused without their library', async () => {
    const files = { '/dev': ['nvidia0'], '/lib/ort': ['libonnxruntime_providers_cuda.so'] };
    expect(await refusals(machine(files))).toMatchObject({
      webgpu: 'ok',
      cuda: 'ok',
      tensorrt: expect.stringContaining('onnxruntime_providers_tensorrt is not installed'),
    });
    expect(
      await refusals(machine({ '/lib/ort': ['onnxruntime_providers_cuda.dll'] }, {}, 'win32')),
    ).toMatchObject({
      webgpu: 'ok',
      cuda: 'ok',
      tensorrt: expect.stringContaining('is not installed'),
    });
  });

  it('are tried where a device node is', async () => {
    expect(await refusals(machine({ '/dev/dri': ['card0', 'renderD128'] }))).toMatchObject({ webgpu: 'ok' });
    expect(await refusals(machine({ '/dev': ['dxg'] }))).toMatchObject({ webgpu: 'ok' });
    expect(await refusals(machine({ '/dev/dri': ['card0'] }))).not.toMatchObject({ webgpu: 'ok' });
  });

  it('do not count a software adapter unless they are allowed to', async () => {
    for (const name of ['VK_ICD_FILENAMES', 'VK_DRIVER_FILES']) {
      for (const driver of ['/opt/vk_swiftshader_icd.json', '/usr/share/vulkan/icd.d/lvp_icd.x86_64.json']) {
        const probe = machine({ '/dev/dri': ['renderD128'] }, { [name]: driver });
        expect((await refusals(probe)).webgpu).toContain(driver);
        expect((await refusals(probe, true)).webgpu).toBe('ok');
      }
    }
  });

  it('are not tried when they are refused', async () => {
    const { library, seen } = fakeLibrary({}, everything);
    const backend = onnxruntimeNode({ ort: library, probe: machine({}) });
    const error = await errorOf(backend.createSession({ bytes: addModel() }, { provider: 'cuda' }));
    expect(error).toMatchObject({ name: 'BackendError', code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
    expect(String(error)).toContain('there is no NVIDIA device');
    expect(seen).toHaveLength(0);
  });

  it('fail as a device, not as a model, when the library cannot start them', async () => {
    const probe = machine({ '/dev': ['nvidia0'], '/lib/ort': ['libonnxruntime_providers_cuda.so'] });
    const { library } = fakeLibrary({}, everything);
    const cause = new Error('OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library');
    library.InferenceSession.create = () => Promise.reject(cause);
    const backend = onnxruntimeNode({ ort: library, probe });
    const error = await errorOf(backend.createSession({ bytes: addModel() }, { provider: 'cuda' }));
    expect(error).toBeInstanceOf(BackendError);
    expect(error).toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
      details: { provider: 'cuda' },
      cause,
    });
  });
});

describe('session options', () => {
  it('name one provider and one thread that does not spin, in an object of their own each time', async () => {
    const { library, seen } = fakeLibrary({});
    const backend = onnxruntimeNode({ ort: library });
    await backend.createSession({ bytes: addModel() }, { provider: 'cpu' });
    await backend.createSession({ path: 'add.onnx' }, { provider: 'cpu', intraOpThreads: 4 });
    expect(seen.map(({ executionProviders }) => executionProviders)).toEqual([['cpu'], ['cpu']]);
    expect(seen.map(({ intraOpNumThreads }) => intraOpNumThreads)).toEqual([1, 4]);
    expect(seen[0]).toMatchObject({
      interOpNumThreads: 1,
      extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
    });
    expect(seen[0]).not.toBe(seen[1]);
  });

  it('make the WASM library single-threaded, without its own worker, before the first session', async () => {
    const { library } = fakeLibrary({});
    const wasmBinary = new Uint8Array(1);
    await onnxruntimeWeb({ ort: library, wasmBinary, wasmPaths: '/wasm/' }).providers();
    expect(library.env.wasm).toEqual({ numThreads: 1, proxy: false, wasmBinary, wasmPaths: '/wasm/' });
  });
});

describe('a library that does not load', () => {
  const missing = new Error("Cannot find package 'onnxruntime-node' imported from /app/node.js");
  const broken = Object.assign(
    new Error(
      "Cannot find module '../bin/napi-v6/darwin/x64/onnxruntime_binding.node'\nRequire stack:\n- /app/node_modules/onnxruntime-node/dist/binding.js",
    ),
    { code: 'MODULE_NOT_FOUND' },
  );
  const failing = (error: Error) => onnxruntimeNode({ ort: () => Promise.reject(error) });

  it('is missing: the error names the command that installs it', async () => {
    for (const call of [
      failing(missing).providers(),
      failing(missing).createSession({ bytes: addModel() }, { provider: 'cpu' }),
    ]) {
      const error = await errorOf(call);
      expect(error).toBeInstanceOf(BackendError);
      expect(error).toMatchObject({ code: 'ERR_INLAY_BACKEND_MISSING', cause: missing });
      expect(String(error)).toContain('npm install onnxruntime-node');
    }
  });

  it('is missing: so say the real loaders of Node, too', async () => {
    const require = createRequire(import.meta.url);
    const [name, script] = [
      'onnxruntime-node',
      'import("onnxruntime-node").catch(({ message }) => console.log(message))',
    ];
    const options = { cwd: '/' };
    const imported = await promisify(execFile)(
      process.execPath,
      ['--input-type=module', '-e', script],
      options,
    );
    const required = await errorOf(Promise.resolve().then(() => createRequire('/x.js').resolve(name)));
    expect(require.resolve(name)).toContain(name);
    for (const error of [new Error(imported.stdout.trim()), required as Error]) {
      expect(await errorOf(failing(error).providers())).toMatchObject({ code: 'ERR_INLAY_BACKEND_MISSING' });
    }
  });

  it('is unavailable when its native binary is', async () => {
    const error = await errorOf(failing(broken).providers());
    expect(error).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE', cause: broken });
  });

  it.each([
    ['rejects', () => Promise.reject(broken)],
    [
      'throws',
      () => {
        throw broken;
      },
    ],
  ])('is loaded again by the call after one that %s, and only once when it loads', async (_, fail) => {
    const { library } = fakeLibrary({});
    let loads = 0;
    const backend = onnxruntimeNode({
      ort: () => {
        loads += 1;
        return loads === 1 ? fail() : Promise.resolve(library);
      },
    });
    expect(await errorOf(backend.providers())).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
    await Promise.all([backend.providers(), backend.providers()]);
    expect(loads).toBe(2);
  });

  it('is unavailable when WebAssembly does not start', async () => {
    const message =
      'no available backend found. ERR: [wasm] RuntimeError: Aborted(both async and sync fetching failed)';
    const { library } = fakeLibrary({});
    library.InferenceSession.create = () => Promise.reject(new Error(message));
    const error = await errorOf(
      onnxruntimeWeb({ ort: library }).createSession({ bytes: addModel() }, { provider: 'wasm' }),
    );
    expect(error).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
  });
});

describe('what the library gives', () => {
  const open = (session: Partial<OrtSession>) =>
    onnxruntimeNode({ ort: fakeLibrary(session).library }).createSession(
      { bytes: addModel() },
      { provider: 'cpu' },
    );

  it('is held as bit patterns, also where float16 has an array type of its own', async () => {
    // Any view that is no Uint16Array stands for one.
    const data = new DataView(Uint16Array.of(0, 0x3c00, 0xc000).buffer, 2, 4);
    const session = await open({ run: async () => ({ y: { type: 'float16', dims: [2], data } }) });
    const { y } = await session.run({});
    expect(y?.data).toEqual(Uint16Array.of(0x3c00, 0xc000));
  });

  it('leaves out outputs that are no tensors, and does not compute them', async () => {
    const asked: unknown[] = [];
    const session = await open({
      outputMetadata: [
        { name: 'label', isTensor: true, type: 'int64', shape: ['n'] },
        { name: 'probabilities', isTensor: false },
      ],
      run: async (_feeds: unknown, fetches?: readonly string[]) => {
        asked.push(fetches);
        return {};
      },
    });
    expect(session.signature.outputs.map(({ name }) => name)).toEqual(['label']);
    await session.run({});
    expect(asked).toEqual([['label']]);
  });

  it('is refused if it takes something else than tensors, or gives no tensor', async () => {
    for (const part of [
      { inputMetadata: [{ name: 'x', isTensor: false }] },
      { outputMetadata: [{ name: 'y', isTensor: false }] },
    ]) {
      const error = await errorOf(open(part));
      expect(error).toBeInstanceOf(ModelError);
      expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
    }
  });

  it('is told apart: a lost device, a broken library and a failed run', async () => {
    const trap = Object.assign(new Error('memory access out of bounds'), { name: 'RuntimeError' });
    for (const [cause, code] of [
      [new Error('GPU device was lost: reset.'), 'ERR_INLAY_DEVICE_UNAVAILABLE'],
      [trap, 'ERR_INLAY_BACKEND_UNAVAILABLE'],
      [new Error('Non-zero status code returned while running Add node.'), 'ERR_INLAY_RUN_FAILED'],
    ] as const) {
      const session = await open({ run: () => Promise.reject(cause) });
      expect(await errorOf(session.run({}))).toMatchObject({ name: 'BackendError', code, cause });
    }
  });

  it('is a message that is cut, in no more time than its length asks for', async () => {
    const session = await open({ run: () => Promise.reject(new Error('/'.repeat(1_000_000))) });
    expect(String(await errorOf(session.run({}))).length).toBeLessThan(1000);
  });

  it('is released only when its runs are over, and once', async () => {
    let finish = (): void => {};
    let releases = 0;
    const session = await open({
      run: () =>
        new Promise((resolve) => {
          finish = () => resolve({});
        }),
      release: async () => {
        releases += 1;
      },
    });
    const run = session.run({ x: new Tensor('float32', [1], new Float32Array(1)) });
    const released = Promise.all([session.release(), session.release()]);
    await Promise.resolve();
    expect(releases).toBe(0);
    finish();
    await Promise.all([run, released]);
    expect(releases).toBe(1);
  });
});

const driver = '/usr/lib/chromium/vk_swiftshader_icd.json';
const hasDriver = existsSync(driver);
if (!hasDriver) console.log(`Tests of WebGPU on a software adapter are skipped: there is no ${driver}.`);

describe.skipIf(!hasDriver)('WebGPU on a software adapter', () => {
  const write = temporaryFiles();
  const script = fileURLToPath(new URL('./fixtures/software-gpu.mjs', import.meta.url));
  let path: string;
  beforeAll(async () => {
    path = await write('mlp.onnx', mlpModel());
  });
  const play = async (placement: string, allowed: string): Promise<Record<string, unknown>> => {
    const env = { ...process.env, VK_ICD_FILENAMES: driver, LD_LIBRARY_PATH: '/usr/lib/chromium' };
    const { stdout } = await promisify(execFile)(process.execPath, [script, path, placement, allowed], {
      env,
    });
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Record<string, unknown>;
  };

  for (const placement of ['inline', 'worker']) {
    it(`computes what the CPU computes, ${placement}, when it is allowed`, async () => {
      const { refusal, difference, error } = await play(placement, 'allowed');
      expect([refusal, error]).toEqual([undefined, undefined]);
      expect(difference).toBeLessThan(1e-5);
    });
  }

  it('is refused with its reason when it is not', async () => {
    const { refusal, error } = await play('worker', 'refused');
    expect(refusal).toContain('computes in software');
    expect(error).toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
      message: expect.stringContaining(driver),
    });
  });
});
