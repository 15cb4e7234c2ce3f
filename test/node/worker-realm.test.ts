import { afterEach, describe, expect, it } from 'vitest';
import type { Backend, Session } from '../../src/core/backend.ts';
import { BackendError, ModelError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { spawnNodeWorker } from '../../src/workers/node.ts';
import {
  createWorkerBackend,
  type WorkerBackendOptions,
  type WorkerHandle,
} from '../../src/workers/realm.ts';
import { addModel } from '../conformance/backend-models.ts';
import { errorOf } from '../conformance/backend.ts';
import { workerScript } from './backend-libraries.ts';

const crashingScript = new URL('./fixtures/crashing-worker.mjs', import.meta.url);
/** First bytes of models, and first elements of feeds, that the crashing worker knows. */
const [PLAIN, SPOILED, DYING] = [0, 1, 2];
const [EXIT, BUG, DEVICE_LOST] = [-1, -2, -3];

const lost = { name: 'BackendError', code: 'ERR_INLAY_WORKER_LOST' };

describe('a backend in a worker that dies', () => {
  let backend: Backend;
  let handles: WorkerHandle[];
  const start = (options: Partial<WorkerBackendOptions> = {}): void => {
    handles = [];
    const spawn = (): WorkerHandle => {
      const handle = spawnNodeWorker(crashingScript, { library: 'onnxruntime-node' });
      handles.push(handle);
      return handle;
    };
    backend = createWorkerBackend({ name: 'crashing', spawn, ...options });
  };
  afterEach(() => backend.close());

  const open = (kind = PLAIN): Promise<Session> =>
    backend.createSession({ bytes: Uint8Array.of(kind) }, { provider: 'cpu' });
  const run = async (session: Session, first: number): Promise<number> => {
    const { thread } = await session.run({ x: new Tensor('float32', [1], new Float32Array([first])) });
    return thread?.data[0] as number;
  };

  it('starts no worker before it is used', async () => {
    start();
    expect(handles).toHaveLength(0);
    await backend.providers();
    expect(handles).toHaveLength(1);
  });

  it('rejects every call in flight, those of other sessions included', async () => {
    start();
    const [one, two] = await Promise.all([open(), open()]);
    const errors = await Promise.all(
      [run(one, EXIT), run(one, 1), run(two, 1), backend.providers()].map(errorOf),
    );
    for (const error of errors) {
      expect(error).toBeInstanceOf(BackendError);
      expect(error).toMatchObject(lost);
    }
    expect(String((errors[0] as Error).cause)).toContain('code 3');
  });

  it('opens its sessions again in another worker', async () => {
    start();
    const [one, two] = await Promise.all([open(), open()]);
    const before = await run(one, 1);
    expect(await run(two, 1)).toBe(before);
    await errorOf(run(one, EXIT));
    const after = await Promise.all([run(one, 1), run(two, 1), run(one, 2)]);
    expect(new Set(after).size).toBe(1);
    expect(after[0]).not.toBe(before);
    expect(handles).toHaveLength(2);
  });

  it('tells what the worker died of', async () => {
    start();
    const error = await errorOf(run(await open(), BUG));
    expect(error).toMatchObject({ ...lost, cause: { name: 'TypeError', message: 'A bug in the worker.' } });
  });

  it('does not replay what was lost', async () => {
    start();
    const session = await open();
    await errorOf(run(session, EXIT));
    expect(handles).toHaveLength(1);
  });

  it('gives up after three losses in a row, and only for the model that caused them', async () => {
    start();
    const [bad, good] = await Promise.all([open(), open()]);
    for (let i = 0; i < 3; i += 1) {
      expect(await errorOf(run(bad, EXIT))).toMatchObject(lost);
      await run(good, 1);
    }
    const workers = handles.length;
    const error = await errorOf(run(bad, 1));
    expect(error).toMatchObject({ ...lost, details: { losses: 3 } });
    expect(handles).toHaveLength(workers);
    await run(good, 1);
    await run(await open(), 1);
  });

  it('forgets losses after a run that succeeds', async () => {
    start({ maxLosses: 2 });
    const session = await open();
    for (let i = 0; i < 4; i += 1) {
      await errorOf(run(session, EXIT));
      await run(session, 1);
    }
    expect(handles).toHaveLength(5);
  });

  it('rejects the session whose creation killed the worker, and opens the next one', async () => {
    start();
    expect(await errorOf(open(DYING))).toMatchObject(lost);
    expect(await run(await open(), 1)).toBeGreaterThan(0);
  });

  it('throws a worker away whose library cannot start', async () => {
    start();
    expect(await errorOf(open(SPOILED))).toMatchObject({ code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
    await handles[0]?.ended;
    await open();
    expect(handles).toHaveLength(2);
  });

  it('throws a worker away whose device was lost, and gives up when that goes on', async () => {
    start();
    const session = await open();
    for (let i = 0; i < 3; i += 1) {
      expect(await errorOf(run(session, DEVICE_LOST))).toMatchObject({
        code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
      });
      await handles[i]?.ended;
    }
    expect(await errorOf(run(session, 1))).toMatchObject({ ...lost, details: { losses: 3 } });
    expect(handles).toHaveLength(3);
  });

  it('ends an empty worker if it is asked to, and starts another one', async () => {
    start({ endWhenEmpty: true });
    const [one, two] = await Promise.all([open(), open()]);
    await one.release();
    await run(two, 1);
    expect(handles).toHaveLength(1);
    await two.release();
    await handles[0]?.ended;
    await run(await open(), 1);
    expect(handles).toHaveLength(2);
  });

  it('releases and closes after the worker has died', async () => {
    start();
    const session = await open();
    await errorOf(run(session, EXIT));
    await session.release();
    await backend.close();
    expect(await errorOf(run(session, 1))).toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    expect(handles).toHaveLength(1);
  });

  it('rejects calls when the script does not start', async () => {
    backend = createWorkerBackend({
      name: 'nowhere',
      spawn: () =>
        spawnNodeWorker(new URL('./nowhere.mjs', import.meta.url), { library: 'onnxruntime-node' }),
    });
    const error = await errorOf(backend.providers());
    expect(error).toMatchObject(lost);
    expect(String((error as Error).cause)).toContain('nowhere.mjs');
  });
});

describe('a backend in a worker', () => {
  const open = async (use: (backend: Backend, session: Session) => Promise<void>): Promise<void> => {
    const backend = createWorkerBackend({
      name: 'onnxruntime-node',
      spawn: () => spawnNodeWorker(workerScript, { library: 'onnxruntime-node' }),
    });
    await use(backend, await backend.createSession({ bytes: addModel() }, { provider: 'cpu' }));
    await backend.close();
  };
  const n = 50_000;
  const tensor = (): Tensor => new Tensor('float32', [n, 4], new Float32Array(4 * n).fill(1));

  it('takes the buffers that it may take, and returns buffers of the caller’s own', () =>
    open(async (_, session) => {
      const [a, b] = [tensor(), tensor()];
      const { y } = await session.run({ a, b }, { transfer: true });
      expect([a.data.length, b.data.length]).toEqual([0, 0]);
      expect(y?.data[4 * n - 1]).toBe(2);
      expect((await session.run({ a: y as Tensor, b: tensor() }, { transfer: true })).y?.data[0]).toBe(3);
    }));

  it('refuses a buffer that an earlier call took', () =>
    open(async (_, session) => {
      const a = tensor();
      await session.run({ a, b: tensor() }, { transfer: true });
      expect(await errorOf(session.run({ a, b: tensor() }))).toMatchObject({
        name: 'InputError',
        code: 'ERR_INLAY_FEED_DETACHED',
      });
      await session.run({ a: tensor(), b: tensor() });
    }));

  it('keeps the bytes of a model that is a view, and its neighbours', () =>
    open(async (backend) => {
      const model = addModel();
      const file = Buffer.alloc(model.length + 200, 0x55);
      file.set(model, 100);
      const bytes = file.subarray(100, 100 + model.length);
      const session = await backend.createSession({ bytes }, { provider: 'cpu' });
      expect(session.signature.inputs).toHaveLength(2);
      expect(file.subarray(0, 100).every((byte) => byte === 0x55)).toBe(true);
      expect(bytes).toHaveLength(model.length);
    }));

  it('carries class, code, details, cause and stack of an error', () =>
    open(async (backend) => {
      const path = '/nowhere/digits.onnx';
      const error = (await errorOf(backend.createSession({ path }, { provider: 'cpu' }))) as ModelError;
      expect(error).toBeInstanceOf(ModelError);
      expect(error.code).toBe('ERR_INLAY_MODEL_NOT_FOUND');
      expect(error.details).toEqual({ provider: 'cpu' });
      expect((error.cause as Error).message).toContain("File doesn't exist");
      expect(error.stack).toContain('onnxruntime');
    }));
});
