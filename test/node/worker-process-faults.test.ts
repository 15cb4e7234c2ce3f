import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Session } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createPool } from '../../src/workers/pool.ts';
import { spawnNodeProcess, type NodeProcessHandle } from '../../src/workers/node-process.ts';
import { spawnNodeWorker } from '../../src/workers/node.ts';
import {
  createWorkerBackend,
  type WorkerBackendOptions,
  type WorkerHandle,
} from '../../src/workers/realm.ts';
import { addModel } from '../conformance/backend-models.ts';
import { errorOf } from '../conformance/backend.ts';
import { temporaryFiles, workerScript } from './backend-libraries.ts';
import { fillModel, loopFeeds, loopModel } from './worker-fixture.ts';

const faulty = new URL('./fixtures/faulty-worker.mjs', import.meta.url);
const FOREVER = 2n ** 60n;

const lostTo = (reason: string) => ({
  name: 'BackendError',
  code: 'ERR_INLAY_WORKER_LOST',
  details: { reason },
});

/** Tells whether a process runs; one that has ended and waits for its parent to notice counts as running. */
function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Fulfilled when there is no such process any more. */
async function gone(pid: number): Promise<void> {
  while (exists(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** The same for a process whose parent has ended: whether somebody notices then is up to the system. */
async function orphanGone(pid: number): Promise<void> {
  const isZombie = (): boolean => {
    const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : '';
    return /\) [ZX] /.test(stat);
  };
  while (exists(pid) && !isZombie()) await new Promise((resolve) => setTimeout(resolve, 10));
}

const OPEN_FILES = '/proc/self/fd';

describe('a session in a child process', () => {
  let backend: Backend;
  let children: NodeProcessHandle[];
  const start = (
    script: URL = workerScript,
    options: Partial<WorkerBackendOptions> = {},
    maxBytes = Number.MAX_SAFE_INTEGER,
  ): Backend => {
    backend = createWorkerBackend({
      name: 'onnxruntime-node',
      placement: 'process',
      spawn: () => {
        const child = spawnNodeProcess(script, { library: 'onnxruntime-node' }, { maxBytes });
        children.push(child);
        return child;
      },
      ...options,
    });
    return backend;
  };
  const open = (of: Backend, bytes: Uint8Array): Promise<Session> =>
    of.createSession({ bytes }, { provider: 'cpu' });
  const pidOf = (index: number): number => (children[index] as NodeProcessHandle).pid;
  const act = async (session: Session, word: string): Promise<number> => {
    const { place } = await session.run({ act: new Tensor('string', [], [word]) });
    return place?.data[0] as number;
  };
  beforeAll(() => {
    children = [];
  });
  afterEach(async () => {
    await backend.close();
    await Promise.all(children.splice(0).map((child) => child.end()));
  });

  it('fails its run when the process is killed, and opens again in another one', async () => {
    const session = await open(start(), loopModel());
    const runs = [session.run(loopFeeds(FOREVER)), session.run(loopFeeds(1n))];
    process.kill(pidOf(0), 'SIGKILL');
    for (const error of await Promise.all(runs.map(errorOf))) {
      expect(error).toMatchObject(lostTo('killed'));
      expect(String((error as Error).cause)).toContain('SIGKILL');
    }
    const { y } = await session.run(loopFeeds(5n));
    expect(y?.toArray()).toEqual([5]);
    expect(children).toHaveLength(2);
    await gone(pidOf(0));
  });

  it('fails its run when that takes too long, and opens again in another one', async () => {
    const session = await open(start(workerScript, { runTimeoutMs: 500 }), loopModel());
    const error = await errorOf(session.run(loopFeeds(FOREVER)));
    expect(error).toMatchObject(lostTo('hung'));
    expect(String((error as Error).cause)).toContain('500 ms');
    expect((await session.run(loopFeeds(5n))).y?.toArray()).toEqual([5]);
    await gone(pidOf(0));
  });

  it('does not take runs that wait for each other for one that takes too long', async () => {
    const session = await open(start(workerScript, { runTimeoutMs: 1000 }), loopModel());
    const timeOf = async (count: number, times: number): Promise<number> => {
      const began = performance.now();
      await Promise.all(Array.from({ length: count }, () => session.run(loopFeeds(BigInt(times)))));
      return performance.now() - began;
    };
    const times = Math.ceil((100 / (await timeOf(1, 20_000))) * 20_000);
    let tookMs = 0;
    for (let count = 12; tookMs < 1000; count *= 2) tookMs = await timeOf(count, times);
    expect(children).toHaveLength(1);
  });

  it('does not take its own long task for a run that takes too long', async () => {
    const session = await open(start(workerScript, { runTimeoutMs: 300 }), loopModel());
    const run = session.run(loopFeeds(1n));
    const untilMs = performance.now() + 1500;
    while (performance.now() < untilMs);
    expect((await run).y?.toArray()).toEqual([1]);
  });

  it('fails its creation when that takes too long', async () => {
    const options = { runTimeoutMs: 100, createTimeoutMs: 500 };
    const error = await errorOf(open(start(faulty, options), new TextEncoder().encode('spin')));
    expect(error).toMatchObject(lostTo('hung'));
    expect(String((error as Error).cause)).toContain('500 ms');
    await gone(pidOf(0));
  });

  it('fails its run when the process takes too much memory', async () => {
    const session = await open(start(workerScript, {}, 400 * 2 ** 20), fillModel());
    const run = (size: bigint) => session.run({ size: new Tensor('int64', [1], new BigInt64Array([size])) });
    expect((await run(10n)).y?.data[0]).toBeCloseTo(Math.E);
    expect(await errorOf(run(2n ** 29n))).toMatchObject(lostTo('memory'));
    expect((await run(10n)).y?.data[0]).toBeCloseTo(Math.E);
  });

  it('gives up when that goes on, with the last reason', async () => {
    const session = await open(start(workerScript, { runTimeoutMs: 100 }), loopModel());
    for (let i = 0; i < 3; i += 1) {
      expect(await errorOf(session.run(loopFeeds(FOREVER)))).toMatchObject(lostTo('hung'));
    }
    expect(await errorOf(session.run(loopFeeds(1n)))).toMatchObject({
      ...lostTo('hung'),
      details: { losses: 3, reason: 'hung' },
    });
    expect(children).toHaveLength(3);
  });

  it('says with which code the process ended, and what it wrote last', async () => {
    const session = await open(start(faulty), new Uint8Array());
    const exit = await errorOf(act(session, 'exit'));
    expect(exit).toMatchObject(lostTo('exit'));
    expect(String((exit as Error).cause)).toContain('code 3');
    const bug = await errorOf(act(session, 'bug'));
    expect(bug).toMatchObject(lostTo('exit'));
    expect(String((bug as Error).cause)).toContain('A bug in the worker.');
    expect(await act(session, '')).toBe(pidOf(2));
  });

  it('says that the script does not start', async () => {
    const error = await errorOf(open(start(new URL('./nowhere.mjs', import.meta.url)), addModel()));
    expect(error).toMatchObject(lostTo('exit'));
    expect(String((error as Error).cause)).toContain('nowhere.mjs');
  });

  it('says that no process can be started, and starts one when it can', async () => {
    const { execPath } = process;
    process.execPath = '/nowhere/node';
    try {
      expect(await errorOf(open(start(), addModel()))).toMatchObject({
        code: 'ERR_INLAY_BACKEND_UNAVAILABLE',
        cause: expect.any(Error),
      });
    } finally {
      process.execPath = execPath;
    }
    expect((await open(backend, addModel())).placement).toBe('process');
  });

  it('lives on when the library writes a lot', async () => {
    const session = await open(start(faulty), new Uint8Array());
    expect(await act(session, 'noise')).toBe(pidOf(0));
    expect(await act(session, '')).toBe(pidOf(0));
  });

  it('is left alone by signals that ask for an end', async () => {
    const session = await open(start(faulty), new Uint8Array());
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pidOf(0), signal);
    expect(await act(session, '')).toBe(pidOf(0));
  });

  const testTraces = (): void => {
    it('leaves neither processes nor pipes behind when it is closed', async () => {
      const before = readdirSync(OPEN_FILES).length;
      for (let i = 0; i < 5; i += 1) {
        await open(start(), addModel());
        await backend.close();
      }
      await Promise.all(children.map(({ pid }) => gone(pid)));
      expect(readdirSync(OPEN_FILES).length).toBeLessThanOrEqual(before + 2);
    });
  };
  if (existsSync(OPEN_FILES)) testTraces();
  else console.log('Open pipes are not counted: this system does not list them.');
});

describe('sessions in a pool of processes', () => {
  it('run on in the others when one is killed', async () => {
    const children: NodeProcessHandle[] = [];
    const pool = createPool(
      [1, 2].map(() =>
        createWorkerBackend({
          name: 'onnxruntime-node',
          placement: 'process',
          spawn: () => {
            children.push(spawnNodeProcess(workerScript, { library: 'onnxruntime-node' }));
            return children.at(-1) as NodeProcessHandle;
          },
        }),
      ),
    );
    const session = await pool.createSession({ bytes: loopModel() }, { provider: 'cpu' });
    await session.grow?.();
    const [first, second] = session.slots as [{ name: string }, { name: string }];
    const doomed = session.run(loopFeeds(FOREVER), { slot: first });
    const others = Array.from({ length: 5 }, () => session.run(loopFeeds(10_000n), { slot: second }));
    process.kill((children[0] as NodeProcessHandle).pid, 'SIGKILL');
    expect(await errorOf(doomed)).toMatchObject(lostTo('killed'));
    for (const { y } of await Promise.all(others)) expect(y?.toArray()).toEqual([10_000]);
    expect((await session.run(loopFeeds(2n), { slot: first })).y?.toArray()).toEqual([2]);
    expect(children).toHaveLength(3);
    await pool.close();
  });
});

describe('a worker thread', () => {
  const start = (
    library: 'onnxruntime-node' | 'onnxruntime-web',
    options: Partial<WorkerBackendOptions>,
    maxHeapBytes = 64 * 2 ** 20,
  ): { backend: Backend; handles: WorkerHandle[] } => {
    const handles: WorkerHandle[] = [];
    const backend = createWorkerBackend({
      name: library,
      spawn: () => {
        handles.push(
          spawnNodeWorker(options.name === 'faulty' ? faulty : workerScript, { library }, { maxHeapBytes }),
        );
        return handles.at(-1) as WorkerHandle;
      },
      ...options,
    });
    return { backend, handles };
  };
  const act = (session: Session, word: string): Promise<unknown> =>
    session.run({ act: new Tensor('string', [], [word]) });

  it('with WebAssembly is ended when a run takes too long', async () => {
    const { backend, handles } = start('onnxruntime-web', { runTimeoutMs: 500 });
    const session = await backend.createSession({ bytes: loopModel() }, { provider: 'wasm' });
    expect(await errorOf(session.run(loopFeeds(FOREVER)))).toMatchObject(lostTo('hung'));
    expect((await session.run(loopFeeds(3n))).y?.toArray()).toEqual([3]);
    expect(handles).toHaveLength(2);
    await backend.close();
  });

  it('with native code is never ended in the middle of a run', async () => {
    const { backend, handles } = start('onnxruntime-node', { runTimeoutMs: 1 });
    const session = await backend.createSession({ bytes: loopModel() }, { provider: 'cpu' });
    expect((await session.run(loopFeeds(300_000n))).y?.toArray()).toEqual([300_000]);
    expect(handles).toHaveLength(1);
    expect(handles[0]?.kill).toBeUndefined();
    await backend.close();
  });

  it('takes nothing along when its heap is full', async () => {
    const { backend } = start('onnxruntime-node', { name: 'faulty' });
    const session = await backend.createSession({ bytes: new Uint8Array() }, { provider: 'cpu' });
    expect(await errorOf(act(session, 'heap'))).toMatchObject(lostTo('memory'));
    expect(await act(session, '')).toHaveProperty('place');
    await backend.close();
  });

  it('can be closed while it ends by itself in the middle of a run', async () => {
    const { backend } = start('onnxruntime-node', { name: 'faulty' });
    const session = await backend.createSession({ bytes: new Uint8Array() }, { provider: 'cpu' });
    const run = act(session, 'exit');
    await backend.close();
    expect(await errorOf(run)).toMatchObject(lostTo('exit'));
  });
});

describe('a process with child processes', () => {
  const script = fileURLToPath(new URL('./fixtures/process-scenarios.mjs', import.meta.url));
  const write = temporaryFiles();
  let path: string;
  beforeAll(async () => {
    path = await write('loop.onnx', loopModel());
  });

  interface Played {
    readonly parent: ChildProcessByStdio<null, Readable, Readable>;
    /** Lines that it has written, the first of them awaited. */
    readonly pids: Promise<readonly number[]>;
    readonly ending: Promise<{
      readonly code: number | null;
      readonly stdout: string;
      readonly stderr: string;
    }>;
  }
  const play = (scenario: string): Played => {
    const parent = spawn(process.execPath, [script, scenario, path], { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    parent.stderr.on('data', (text) => (stderr += text));
    const pids = new Promise<readonly number[]>((resolve) => {
      parent.stdout.on('data', (text) => {
        stdout += text;
        const [line, ...rest] = stdout.split('\n');
        if (rest.length > 0) resolve((line as string).split(' ').map(Number));
      });
    });
    const ending = once(parent, 'close').then(([code]) => ({ code: code as number | null, stdout, stderr }));
    return { parent, pids, ending };
  };

  it('ends by itself when nothing runs, and they with it', async () => {
    const { pids, ending } = play('leave-idle');
    expect(await ending).toMatchObject({ code: 0, stderr: '' });
    await Promise.all((await pids).map(orphanGone));
  });

  it('stays alive for a run in flight', async () => {
    const { pids, ending } = play('leave-running');
    const { code, stdout, stderr } = await ending;
    expect([code, stdout.split('\n')[1], stderr]).toEqual([0, '300000', '']);
    await Promise.all((await pids).map(orphanGone));
  });

  for (const scenario of ['stay-idle', 'stay-busy']) {
    it(`takes them along when it is killed: ${scenario}`, async () => {
      const { parent, pids, ending } = play(scenario);
      const children = await pids;
      expect(children.every((pid) => exists(pid))).toBe(true);
      parent.kill('SIGKILL');
      await ending;
      await Promise.all(children.map(orphanGone));
    });
  }

  it('takes them along when it exits in the middle of a run', async () => {
    const { pids, ending } = play('exit-during-run');
    expect(await ending).toMatchObject({ code: 7, stderr: '' });
    await Promise.all((await pids).map(orphanGone));
  });

  it('starts and closes many in a row without a warning', async () => {
    const { pids, ending } = play('many-cycles');
    expect(await ending).toMatchObject({ code: 0, stderr: '' });
    expect(await pids).toHaveLength(21);
    await Promise.all((await pids).map(orphanGone));
  });
});
