import { setImmediate } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Backend, Session } from '../../src/core/backend.ts';
import { BackendError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { hostBackend, NO_GUARD } from '../../src/workers/host.ts';
import type { Endpoint } from '../../src/workers/link.ts';
import { createWorkerBackend, type WorkerBackendOptions, type WorkerEnd } from '../../src/workers/realm.ts';
import { errorOf } from '../conformance/backend.ts';
import { fakeBackend } from '../core/engine/fakes.ts';

const provider = 'cpu';
const small = { bytes: new Uint8Array(3) };
const feeds = { x: new Tensor('float32', [1], new Float32Array(1)) };
const broken = (): BackendError => new BackendError('ERR_INLAY_BACKEND_UNAVAILABLE', 'It is spoiled.');
const lost = { code: 'ERR_INLAY_WORKER_LOST' };

let backend: Backend;
afterEach(async () => {
  vi.useRealTimers();
  await backend.close();
});

/** A worker of a page, played on this thread. */
interface Played {
  isAlive: boolean;
  readonly crash: () => void;
  /** Fulfilled when it is ended. */
  readonly ended: Promise<WorkerEnd>;
}

/** A backend in workers that end with their last model; `make` makes what the n-th of them hosts. */
function start(make: (n: number) => Backend, options: Partial<WorkerBackendOptions> = {}): Played[] {
  const workers: Played[] = [];
  const spawn = () => {
    const { port1, port2 } = new MessageChannel();
    let settle: (end: WorkerEnd) => void;
    const ended = new Promise<WorkerEnd>((resolve) => {
      settle = resolve;
    });
    const finish = (reason: WorkerEnd['reason']): void => {
      played.isAlive = false;
      port1.close();
      settle({ reason, cause: undefined });
    };
    const played: Played = { isAlive: true, crash: () => finish('exit'), ended };
    workers.push(played);
    hostBackend(make(workers.length), port2 as unknown as Endpoint, NO_GUARD);
    return {
      endpoint: port1 as unknown as Endpoint,
      ended,
      setBusy: () => {},
      kill: () => finish('killed'),
      end: async () => finish('killed'),
    };
  };
  backend = createWorkerBackend({
    name: 'played',
    endWhenEmpty: true,
    runTimeoutMs: 60_000,
    spawn,
    ...options,
  });
  return workers;
}

const alive = (workers: readonly Played[]): number => workers.filter(({ isAlive }) => isAlive).length;

/** A call that hangs, and what tells that it has begun. */
function hanging(): { readonly begun: Promise<void>; readonly hang: () => Promise<never> } {
  let begin: () => void;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const hang = (): Promise<never> => {
    begin();
    return new Promise(() => {});
  };
  return { begun, hang };
}

describe('a worker that ends with its last model', () => {
  it('ends when none opens in it', async () => {
    const refuse = (): void => {
      throw new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'There is no kernel.');
    };
    const workers = start(() => fakeBackend({ onCreate: refuse }));
    expect(await errorOf(backend.createSession(small, { provider }))).toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
    });
    await workers[0]?.ended;
    expect(workers).toHaveLength(1);
  });

  it('ends when nobody opens a model after asking for providers', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const workers = start(() => fakeBackend());
    await backend.providers();
    await vi.advanceTimersByTimeAsync(9_000);
    expect(alive(workers)).toBe(1);
    await vi.advanceTimersByTimeAsync(1_000);
    await workers[0]?.ended;
  });

  it('stays for the model that opens after asking for providers', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const workers = start(() => fakeBackend());
    await backend.providers();
    const session = await backend.createSession(small, { provider });
    await vi.advanceTimersByTimeAsync(60_000);
    await session.run(feeds);
    expect([workers.length, alive(workers)]).toEqual([1, 1]);
  });

  it('waits for the next model for as long as it may linger', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const workers = start(() => fakeBackend(), { lingerMs: 5000 });
    for (let times = 0; times < 2; times += 1) {
      const session = await backend.createSession(small, { provider });
      await session.run(feeds);
      await session.release();
      await vi.advanceTimersByTimeAsync(4000);
    }
    expect([workers.length, alive(workers)]).toEqual([1, 1]);
    await vi.advanceTimersByTimeAsync(1000);
    await workers[0]?.ended;
    await backend.createSession(small, { provider });
    expect([workers.length, alive(workers)]).toEqual([2, 1]);
  });

  it('ends when a session is released that was being opened again', async () => {
    const workers = start(() => fakeBackend());
    const session = await backend.createSession(small, { provider });
    workers[0]?.crash();
    await workers[0]?.ended;
    const run = session.run(feeds);
    await session.release();
    await run;
    await workers[1]?.ended;
    expect([workers.length, alive(workers)]).toEqual([2, 0]);
  });
});

describe('a model that is being opened when its worker goes', () => {
  /** Opens one model in a worker, and says how its first run ends. */
  const withRun = async (
    onRun: () => Promise<never>,
  ): Promise<{ workers: Played[]; session: Session; run: Promise<unknown> }> => {
    const workers = start((n) => fakeBackend(n === 1 ? { onRun } : {}));
    const session = await backend.createSession(small, { provider });
    return { workers, session, run: errorOf(session.run(feeds)) };
  };

  it('opens in the next worker when another model broke the library while it was copied', async () => {
    let isBroken = true;
    const fail = (): void => {
      if (isBroken) {
        isBroken = false;
        throw broken();
      }
    };
    const workers = start((n) => fakeBackend(n === 1 ? { onCreate: fail } : {}));
    const [failed, opened] = await Promise.allSettled([
      backend.createSession(small, { provider }),
      backend.createSession({ bytes: new Uint8Array(2 ** 26) }, { provider }),
    ]);
    expect(failed).toMatchObject({ reason: { code: 'ERR_INLAY_BACKEND_UNAVAILABLE' } });
    expect(opened.status).toBe('fulfilled');
    expect(workers).toHaveLength(2);
  });

  it('opens in the next worker when another model broke the library before it', async () => {
    const workers = start((n) =>
      fakeBackend({
        onCreate: () => {
          if (n === 1) throw broken();
        },
      }),
    );
    const [failed, opened] = await Promise.allSettled([
      backend.createSession(small, { provider }),
      backend.createSession(small, { provider }),
    ]);
    expect(failed.status).toBe('rejected');
    expect(opened.status).toBe('fulfilled');
    expect(workers).toHaveLength(2);
  });

  it('opens in the next worker when this one ended in the run of another', async () => {
    const { begun, hang } = hanging();
    const { workers, run } = await withRun(hang);
    await begun;
    const opening = backend.createSession(small, { provider });
    await setImmediate();
    workers[0]?.crash();
    expect(await run).toMatchObject(lost);
    await opening;
    expect(workers).toHaveLength(2);
  });

  it('fails, and is not tried again, when the worker was at it', async () => {
    const { begun, hang } = hanging();
    const workers = start(() => ({ ...fakeBackend(), createSession: hang }));
    const opening = errorOf(backend.createSession(small, { provider }));
    await begun;
    workers[0]?.crash();
    expect(await opening).toMatchObject(lost);
    expect(workers).toHaveLength(1);
  });

  it('fails when the next worker breaks down as well', async () => {
    const workers = start(() =>
      fakeBackend({
        onCreate: () => {
          throw broken();
        },
      }),
    );
    const outcomes = await Promise.allSettled(
      [1, 2, 3].map(() => backend.createSession(small, { provider })),
    );
    for (const outcome of outcomes) expect(outcome).toMatchObject({ reason: { message: 'It is spoiled.' } });
    await Promise.all(workers.map(({ ended }) => ended));
    expect(workers).toHaveLength(2);
  });
});
