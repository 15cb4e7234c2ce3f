/** An app in a process of its own that does what it is told over its channel; `heal-process.ts` starts it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { createBackends, createInlay, type Inlay, type Model } from '../../src/node.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { spawnNodeProcess } from '../../src/workers/node-process.ts';
import { createWorkerBackend } from '../../src/workers/realm.ts';
import { createTinyBackend } from './heal-backend.ts';
import { steppedFs, type Fate, type StepFs } from './heal-fs.ts';

/** How an app starts. */
export interface StartOptions {
  readonly directory: string;
  readonly url: string;
  readonly root: string;
  /** `tiny`: no library; `tiny, isolated`: releases are tried in another process; `real`: onnxruntime-node. */
  readonly backend: 'tiny' | 'tiny, isolated' | 'real';
  /** Where the process kills itself. */
  readonly kill?: { readonly at: number; readonly how: Exclude<Fate, undefined> };
  readonly pollMs?: number;
  /** Milliseconds between two calls that go on all the time. Default: no such calls. */
  readonly callEveryMs?: number;
  /** Milliseconds that each look at the monotonic clock takes: what counts in seconds happens soon. Default 0. */
  readonly hurryMs?: number;
  /** Longest time that a release may take where it is tried, milliseconds. */
  readonly trialMs?: number;
}

/** What an app has seen of its calls. */
export interface Calls {
  readonly answered: number;
  /** Factors of the answers, each time that another one came. */
  readonly factors: readonly number[];
  /** Codes of the calls that failed. */
  readonly failed: readonly string[];
}

let inlay: Inlay;
let model: Model;
let fs: StepFs;
let isOver = false;
let answered = 0;
const factors: number[] = [];
const failed: string[] = [];
const passed = new Set<string>();

const call = async (): Promise<number> => {
  const { y } = await model.run({ x: [1, -2] });
  const factor = Number(y?.data[0]);
  answered += 1;
  if (!Object.is(factor, factors.at(-1))) factors.push(factor);
  return factor;
};

const callOn = async (everyMs: number): Promise<void> => {
  while (!isOver) {
    await call().catch((error: unknown) => {
      failed.push(String((error as { code?: unknown }).code ?? error));
    });
    await sleep(everyMs);
  }
};

const start = async (options: StartOptions): Promise<number> => {
  const { directory, url, root, kill, hurryMs = 0 } = options;
  fs = steppedFs(
    (step) => (step === kill?.at ? kill.how : undefined),
    () => {
      process.kill(process.pid, 'SIGKILL');
    },
  );
  const platform = nodePlatform();
  let hurried = 0;
  const isolated = createWorkerBackend({
    name: 'tiny',
    placement: 'process',
    endWhenEmpty: true,
    createTimeoutMs: options.trialMs ?? 20_000,
    runTimeoutMs: options.trialMs ?? 20_000,
    spawn: () => spawnNodeProcess(new URL('./isolated.js', import.meta.url), { library: 'onnxruntime-node' }),
  });
  const backends = {
    tiny: () => [createTinyBackend()],
    'tiny, isolated': () => [createTinyBackend(isolated)],
    real: () => createBackends({ placement: 'inline' }).slice(0, 1),
  }[options.backend]();
  inlay = createInlay({
    backends,
    device: 'cpu',
    tracing: false,
    store: openFsStore({ directory, fs }),
    platform: {
      ...platform,
      random: () => 0.5,
      monotonicMs: () => {
        hurried += hurryMs;
        return platform.monotonicMs() + hurried;
      },
    },
    sync: { url, root, ...(options.pollMs !== undefined && { pollMs: options.pollMs }) },
  });
  await inlay.updates.onEvent(({ type, version }) => {
    if (type === 'trial-passed') passed.add(version ?? '');
  });
  model = await inlay.load({ name: 'digits' });
  const factor = await call();
  if (options.callEveryMs !== undefined) void callOn(options.callEveryMs);
  return factor;
};

/** Calls until a version answers here, and has passed its trial, here or in another process. */
const prove = async (version: string): Promise<void> => {
  const isCommitted = async (): Promise<boolean> =>
    (await inlay.updates.state())?.models['digits']?.committed?.release.version === version;
  while (model.version !== version || !(passed.has(version) || (await isCommitted()))) {
    await call().catch(() => {});
    await call().catch(() => {});
    await sleep(10);
  }
};

const close = async (): Promise<number> => {
  isOver = true;
  await inlay.close();
  return fs.steps.length;
};

const tasks = {
  start,
  prove,
  close,
  check: () => inlay.checkForUpdates(),
  call,
  calls: async (): Promise<Calls> => ({ answered, factors, failed }),
  history: () => inlay.updates.history(),
  slots: async () => (await inlay.updates.state())?.models['digits'],
  steps: async () => fs.steps,
  /** All of an update. @returns the names of its steps. */
  update: async (options: StartOptions & { readonly version: string }): Promise<readonly string[]> => {
    await start(options);
    await inlay.checkForUpdates();
    await prove(options.version);
    await close();
    return fs.steps;
  },
};

/** What an app can be told to do. */
export type Tasks = typeof tasks;

process.on('message', ({ task, argument }: { task: keyof Tasks; argument: never }) => {
  tasks[task](argument).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: error instanceof Error ? error.stack : String(error) }),
  );
});
process.on('disconnect', () => process.exit());
