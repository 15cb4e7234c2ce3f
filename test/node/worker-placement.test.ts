import { existsSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import type { Backend, Session } from '../../src/core/backend.ts';
import type * as NodeBackends from '../../src/node-backends.ts';
import { countCores } from '../../src/workers/node-cores.ts';
import { addModel, floats } from '../conformance/backend-models.ts';
import { errorOf } from '../conformance/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { externalModel, loopFeeds, loopModel, temporaryFiles } from './worker-fixture.ts';

// As built: the worker's script lies beside it.
const { createBackends } = (await import(
  new URL('../../build/node-backends.js', import.meta.url).href
)) as typeof NodeBackends;

describe('createBackends', () => {
  const write = temporaryFiles();
  let backends: readonly Backend[] = [];
  const create = (options: NodeBackends.NodeBackendOptions): Backend => {
    backends = createBackends(options);
    return backends[0] as Backend;
  };
  afterEach(async () => {
    await Promise.all(backends.map((backend) => backend.close()));
  });
  const open = (backend: Backend, bytes = addModel(), provider = 'cpu'): Promise<Session> =>
    backend.createSession({ bytes }, { provider });
  const grown = async (session: Session): Promise<readonly string[]> => {
    for (let growth = session.grow?.(); growth !== undefined; growth = session.grow?.()) await growth;
    return (session.slots ?? []).map(({ name }) => name);
  };
  const add = async (session: Session, slot?: { readonly name: string }): Promise<unknown> => {
    const [a, b] = [4, 4].map((n, seed) => new Tensor('float32', [1, n], floats(n, seed)));
    const { y } = await session.run({ a: a as Tensor, b: b as Tensor }, slot === undefined ? {} : { slot });
    return y?.toArray();
  };

  it('offers native code first, WebAssembly next', () => {
    create({});
    expect(backends.map(({ name }) => name)).toEqual(['onnxruntime-node', 'onnxruntime-web']);
  });

  it('runs in as many threads as it is told to, with the same answer in each', async () => {
    const session = await open(create({ placement: 'worker', workers: 3 }));
    expect([session.placement, session.intraOpThreads]).toEqual(['worker', 1]);
    expect(await grown(session)).toEqual(['worker 1', 'worker 2', 'worker 3']);
    const expected = await add(session);
    for (const slot of session.slots ?? []) expect(await add(session, slot)).toEqual(expected);
  });

  it('runs in as many threads as there are usable cores', async () => {
    const session = await open(create({ placement: 'worker' }));
    expect(await grown(session)).toHaveLength(countCores().usable);
  });

  it('opens each session where the fewest are, in slots that they share', async () => {
    const backend = create({ placement: 'worker', workers: 2 });
    const [one, two, three] = [await open(backend), await open(backend), await open(backend)];
    expect([one, two, three].map(({ slots }) => slots?.[0]?.name)).toEqual([
      'worker 1',
      'worker 2',
      'worker 1',
    ]);
    expect(three.slots?.[0]).toBe(one.slots?.[0]);
  });

  it('runs in one process, in more when it is told to', async () => {
    const session = await open(create({ placement: 'process' }));
    expect(session.placement).toBe('process');
    expect(await grown(session)).toEqual(['process 1']);
    await Promise.all(backends.map((backend) => backend.close()));
    expect(await grown(await open(create({ placement: 'process', workers: 2 })))).toEqual([
      'process 1',
      'process 2',
    ]);
  });

  it('runs on the calling thread, in one slot for all sessions of a library', async () => {
    const native = create({ placement: 'inline' });
    const [one, two] = [await open(native), await open(native)];
    expect(one).toMatchObject({
      placement: 'inline',
      intraOpThreads: 1,
      slots: [{ name: 'calling thread' }],
    });
    expect(one.slots?.[0]).toBe(two.slots?.[0]);
    const wasm = await open(backends[1] as Backend, addModel(), 'wasm');
    expect(wasm).toMatchObject({ intraOpThreads: 1, slots: [{ name: 'calling thread' }] });
    expect(wasm.grow).toBeUndefined();
  });

  it('offers all places by default, threads first, and closes all', async () => {
    const backend = create({ workers: 2 });
    expect((await open(backend)).placement).toBe('worker');
    const { elsewhere } = backend;
    for (const placement of ['inline', 'worker', 'process'] as const) {
      const placed = elsewhere?.[placement] as Backend;
      expect((await open(placed)).placement).toBe(placement);
    }
    await backend.close();
    for (const placed of [backend, ...Object.values(elsewhere ?? {})]) {
      expect(await errorOf(open(placed))).toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    }
  });

  it('ends a run in a process that takes too long', async () => {
    const session = await open(create({ placement: 'process', runTimeoutMs: 300 }), loopModel());
    expect(await errorOf(session.run(loopFeeds(2n ** 60n)))).toMatchObject({
      code: 'ERR_INLAY_WORKER_LOST',
      details: { reason: 'hung' },
    });
  });

  it('ends a process that takes too much memory', async () => {
    // No process is as small as that.
    const session = open(create({ placement: 'process', maxWorkerBytes: 2 ** 20 }), loopModel());
    const run = session.then((opened) => opened.run(loopFeeds(2n ** 60n)));
    expect(await errorOf(run)).toMatchObject({
      code: 'ERR_INLAY_WORKER_LOST',
      details: { reason: 'memory' },
    });
  });

  const mapped = (file: string): boolean => readFileSync('/proc/self/maps', 'utf8').includes(file);
  const testMaps = (): void => {
    for (const sharedWeights of [false, true]) {
      it(`${sharedWeights ? 'maps' : 'copies'} weights with sharedWeights ${sharedWeights}`, async () => {
        const size = 512;
        const file = `shared-${sharedWeights}.bin`;
        const [model, weights] = externalModel(size, file);
        await write(file, weights);
        const path = await write(`shared-${sharedWeights}.onnx`, model);
        const backend = create({ placement: 'worker', workers: 2, sharedWeights });
        const session = await backend.createSession({ path }, { provider: 'cpu' });
        await session.grow?.();
        const x = new Tensor('float32', [1, size], new Float32Array(size).fill(1));
        for (const slot of session.slots ?? []) {
          const { y } = await session.run({ x }, { slot });
          expect(y?.data).toEqual(new Float32Array(size).fill(size / 4));
        }
        expect(mapped(file)).toBe(sharedWeights);
      });
    }
  };
  if (existsSync('/proc/self/maps')) testMaps();
  else console.log('Shared weights are not looked for: this system does not list mapped files.');

  const refused: readonly [NodeBackends.NodeBackendOptions, new () => Error][] = [
    [{ placement: 'moon' as 'auto' }, TypeError],
    [{ workers: 0 }, RangeError],
    [{ workers: 1.5 }, RangeError],
    [{ workers: Number.NaN }, RangeError],
    [{ runTimeoutMs: 0 }, RangeError],
    [{ runTimeoutMs: Number.NaN }, RangeError],
    [{ maxWorkerBytes: -1 }, RangeError],
  ];
  for (const [options, Class] of refused) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      expect(() => createBackends(options)).toThrow(Class);
    });
  }
});
