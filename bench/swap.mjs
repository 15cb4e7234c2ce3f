import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { createBackends, createInlay, Tensor } from 'inlay';
import { openFsStore } from 'inlay/stores/fs';
import { createMemoryStore } from 'inlay/stores/memory';
import { createModel } from '../build/engine/model.js';
import { createMachine } from '../build/engine/machine.js';
import { nodePlatform } from '../build/platform-node.js';
import { createServer } from '../examples/demo/server.mjs';
import { quantile } from './measure.mjs';
import { cnn, modelFolder } from './models.mjs';
import { figure } from './report.mjs';

const SWAPS = Number(process.env.BENCH_SWAPS ?? 1000);
const UPDATES = Number(process.env.BENCH_UPDATES ?? 60);
const CALLERS = Number(process.env.BENCH_CALLERS ?? 8);
/** Stretches with and without swaps take turns, so that both meet whatever else the machine does. */
const STRETCHES = 20;

/** Hot swaps under load, and whether any call fails or waits for one. */
export async function run() {
  const path = modelFolder()('cnn', cnn());
  return [...(await swapInEngine(path)), ...(await updateFromServer(path))];
}

/**
 * What an update does to callers, without what comes before it: the next release is opened beside the present one,
 * warmed up and compared, and takes over. A thousand whole updates would take minutes, most of them in the server.
 */
async function swapInEngine(path) {
  const backends = createBackends();
  const machine = createMachine({
    platform: nodePlatform(),
    store: createMemoryStore(),
    backends,
    device: 'cpu',
  });
  const parts = machine.partsOf('cnn', {});
  const managed = createModel(parts, await machine.open({ path }, parts, { version: '0' }));
  let version = 0;
  const swap = async () => {
    version += 1;
    const present = managed.current();
    managed.swap(await machine.open({ path }, parts, { version: String(version), present, mustRun: true }));
  };
  const figures = await measure(managed.model, swap, `${SWAPS} swaps`, SWAPS);
  await managed.model.close();
  await Promise.all(backends.map((backend) => backend.close()));
  return figures;
}

/**
 * Whole updates: a rollout is set on a real server in a process of its own, the device polls, verifies what is signed,
 * reads the other release from its store, and swaps.
 */
async function updateFromServer(path) {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-swap-'));
  const server = await createServer(folder);
  try {
    await server.cli('keys', 'init');
    for (const version of ['1', '2'])
      await server.cli('publish', path, '--name', 'cnn', '--version', version);
    await setRollout(server, '1');
    const inlay = createInlay({
      device: 'cpu',
      store: openFsStore({ directory: join(folder, 'device') }),
      sync: { url: server.url, root: await readFile(server.root, 'utf8') },
    });
    const model = await inlay.load({ name: 'cnn' });
    const figures = await measure(
      model,
      createUpdate(server, inlay, model),
      `${UPDATES} whole updates`,
      UPDATES,
    );
    await inlay.close();
    return figures;
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function measure(model, swap, label, swaps) {
  const load = startCallers(model);
  // Both releases have to have been opened once, and compilers and caches to be warm.
  for (let i = 0; i < 10; i += 1) await swap();
  const calm = [];
  const swapping = [];
  const cycles = [];
  const before = model.stats().computeMs;
  for (let stretch = 0; stretch < STRETCHES; stretch += 1) {
    load.take();
    const began = performance.now();
    for (let i = 0; i < swaps / STRETCHES; i += 1) cycles.push(await timed(swap));
    const tookMs = performance.now() - began;
    swapping.push(...load.take());
    await new Promise((resolve) => {
      setTimeout(resolve, tookMs);
    });
    calm.push(...load.take());
  }
  const failed = await load.stop();
  const after = model.stats().computeMs;
  const runMs = (after.mean * after.count - before.mean * before.count) / (after.count - before.count);

  const add = (metric, value, unit, rest = {}) =>
    figure({ bench: 'swap', case: `${label}, ${CALLERS} callers`, metric, value, unit, ...rest });
  const of = (metric, q) => add(metric, quantile(swapping, q), 'ms', { baseline: quantile(calm, q) });
  return [
    add('failed calls', failed, 'calls', { target: 0 }),
    of('time of a call, p50', 0.5),
    of('time of a call, p99', 0.99),
    of('time of a call, p99.9', 0.999),
    of('longest call', 1),
    add(
      'longest call, beyond the longest without swaps',
      Math.max(0, quantile(swapping, 1) - quantile(calm, 1)),
      'ms',
      {
        target: Number(runMs.toPrecision(3)),
      },
    ),
    add('calls', swapping.length, 'calls', { baseline: calm.length }),
    add('one run', runMs, 'ms'),
    add('one swap', quantile(cycles, 0.5), 'ms'),
  ];
}

/** Callers that call again as soon as they are answered. */
function startCallers(model) {
  const image = new Tensor('float32', [1, 1, 28, 28], new Float32Array(784).fill(0.5));
  let latencies = [];
  let failed = 0;
  let isOver = false;
  const caller = async () => {
    while (!isOver) {
      const asked = performance.now();
      try {
        await model.run({ image });
      } catch (error) {
        failed += 1;
        console.error(error);
      }
      latencies.push(performance.now() - asked);
    }
  };
  const callers = Array.from({ length: CALLERS }, caller);
  return {
    /** Latencies since the last time. */
    take: () => latencies.splice(0),
    async stop() {
      isOver = true;
      await Promise.all(callers);
      return failed;
    },
  };
}

/** @returns moves the device to the other release, and fulfils when calls have moved over. */
function createUpdate(server, inlay, model) {
  return async () => {
    await setRollout(server, model.version === '1' ? '2' : '1');
    const moved = new Promise((resolve, reject) => {
      const stops = [
        model.on('swapped', () => settle(resolve)),
        model.on('update-failed', ({ error }) => settle(() => reject(error))),
      ];
      const settle = (done) => {
        for (const stop of stops) stop();
        done();
      };
    });
    await inlay.checkForUpdates();
    await moved;
  };
}

async function setRollout(server, version) {
  const response = await fetch(`${server.url}/v1/admin/rollouts/stable/cnn`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${server.token}` },
    body: JSON.stringify({ version, percent: 100 }),
  });
  if (!response.ok) throw new Error(`The server answered ${response.status}: ${await response.text()}`);
}

async function timed(work) {
  const began = performance.now();
  await work();
  return performance.now() - began;
}
