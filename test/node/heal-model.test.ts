import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createTinyBackend, type Deed } from './heal-backend.ts';
import type { StartOptions } from './heal-app.worker.ts';
import { commit, factorOf, realBackend, startDevice, scratchFolder } from './heal-device.ts';
import { prepareApps, type App, type Apps } from './heal-process.ts';
import { modelOf, quickTrial, scale, startWorld, type World } from './heal-world.ts';

let apps: Apps;
let base: string;
let folders = 0;
const real = realBackend();
const tiny = createTinyBackend();

beforeAll(async () => {
  apps = await prepareApps();
  base = await scratchFolder('heal-model');
}, 60_000);
afterAll(async () => {
  await apps.close();
  await real.close();
  await rm(base, { recursive: true, force: true });
});

interface Rig {
  readonly world: World;
  readonly directory: string;
  readonly options: (more: Partial<StartOptions>) => StartOptions;
}

/** A device on which version 1 is committed. */
async function rig(): Promise<Rig> {
  const world = await startWorld();
  onTestFinished(() => world.close());
  await world.ship(1);
  folders += 1;
  const directory = join(base, String(folders));
  const device = startDevice(world, { directory, backend: tiny });
  await commit(device, await device.load(), 1);
  await device.close();
  return {
    world,
    directory,
    options: (more) => ({
      directory,
      url: world.url,
      root: world.root,
      backend: 'tiny',
      callEveryMs: 5,
      hurryMs: 20,
      ...more,
    }),
  };
}

/** Publishes a bad version 2. */
const shipBad = (world: World, deed: Deed, trial: Parameters<World['ship']>[1] = {}) =>
  world.ship(2, { bytes: scale(2, deed), golden: false, ...trial });

/** Waits for an event of the log. */
async function until(app: App, type: string, reason?: string): Promise<void> {
  await expect
    .poll(
      async () =>
        (await app.tell('history')).some(
          (event) => event.type === type && (!reason || event.reason === reason),
        ),
      { timeout: 30_000, interval: 50 },
    )
    .toBe(true);
}

/** The app goes on with version 1, has said why, and no call has failed. */
async function expectGood(app: App, reason: string): Promise<void> {
  // The log says it first; then calls go elsewhere.
  await expect.poll(() => app.tell('call'), { timeout: 10_000 }).toBe(1);
  const { committed, trial, rejected } = (await app.tell('slots')) ?? { rejected: [] };
  expect(rejected).toMatchObject([{ version: '2', reason }]);
  expect([committed?.release.version, trial]).toEqual(['1', undefined]);
  const { factors, failed } = await app.tell('calls');
  expect(failed).toEqual([]);
  expect(factors.at(-1)).toBe(1);
}

describe('a model that crashes its process when it is opened', () => {
  it('takes the app along twice, and never again', async () => {
    const { world, options } = await rig();
    await shipBad(world, 'aborts');
    for (let start = 0; start < 2; start += 1) {
      const app = apps.start();
      expect(await app.tell('start', options({}))).toBe(1);
      await app.tell('check').catch(() => {});
      expect(await app.ended).toBe('SIGABRT');
      await app.end();
    }
    const app = apps.start();
    expect(await app.tell('start', options({}))).toBe(1);
    await app.tell('check');
    await expectGood(app, 'crash');
    const strikes = (await app.tell('history')).filter(({ type }) => type === 'strike');
    expect(strikes).toMatchObject([{ reason: 'crash' }, { reason: 'crash' }]);
    await app.tell('close');
    await app.end();
  }, 60_000);

  it('takes only the place along where it is tried, and the app never dies', async () => {
    const { world, options } = await rig();
    await shipBad(world, 'aborts');
    const app = apps.start();
    await app.tell('start', options({ backend: 'tiny, isolated' }));
    await app.tell('check');
    await until(app, 'rejected', 'crash');
    await expectGood(app, 'crash');
    await app.tell('close');
    await app.end();
  }, 60_000);
});

describe('a model that hangs when it is opened', () => {
  it('in an endless loop is ended where it is tried, and the app goes on', async () => {
    const { world, options } = await rig();
    await shipBad(world, 'loops');
    const app = apps.start();
    await app.tell('start', options({ backend: 'tiny, isolated', trialMs: 1000 }));
    await app.tell('check');
    await until(app, 'rejected', 'hang');
    await expectGood(app, 'hang');
    await app.tell('close');
    await app.end();
  }, 60_000);

  it('without blocking is given up by the watchdog', async () => {
    const { world, options } = await rig();
    await shipBad(world, 'waits', { trial: { ...quickTrial, loadTimeoutS: 1 } });
    const app = apps.start();
    await app.tell('start', options({}));
    await app.tell('check');
    await until(app, 'rejected', 'hang');
    await expectGood(app, 'hang');
    await app.tell('close');
    await app.end();
  }, 60_000);
});

it('a model that takes more and more memory is left', async () => {
  const { world, options } = await rig();
  await shipBad(world, 'leaks', { trial: { minInferences: 100_000, soakS: 0, maxMemoryMiB: 200 } });
  const app = apps.start();
  await app.tell('start', options({ callEveryMs: 20 }));
  await app.tell('check');
  await until(app, 'rejected', 'memory');
  await expectGood(app, 'memory');
  await app.tell('close');
  await app.end();
}, 60_000);

describe('a model of onnxruntime', () => {
  /** Logarithms of what is below 0. */
  const givesNaN = modelOf('nan', (graph) => {
    graph.node('Neg', ['x'], {}, { outputs: ['negative'] });
    graph.node('Abs', ['x'], {}, { outputs: ['size'] });
    graph.node('Sub', ['negative', 'size'], {}, { outputs: ['below'] });
    graph.node('Log', ['below'], {}, { outputs: ['y'] });
  });
  const failsAtRun = modelOf('fails', (graph) => {
    graph.initializer('seven', tensorFrom('int64', [7, 2]));
    graph.node('Reshape', ['x', 'seven'], {}, { outputs: ['z'] });
    graph.initializer('first', tensorFrom('int64', [0]));
    graph.node('Gather', ['z', 'first'], { axis: 0 }, { outputs: ['y'] });
  });
  it.each([
    ['that gives no numbers', givesNaN, 'invalid-outputs'],
    ['of which no run works', failsAtRun, 'open'],
    ['of which the golden answer is another', scale(7), 'golden'],
    ['with another signature', 'signature', 'signature'],
    ['that is none', new Uint8Array(5000).fill(3), 'open'],
  ] as const)(
    '%s ends on the last good version',
    async (_, bytes, reason) => {
      const { world, directory } = await rig();
      const device = startDevice(world, { directory, backend: real });
      onTestFinished(() => device.close());
      const model = await device.load();
      await world.ship(2, {
        bytes: bytes === 'signature' ? otherSignature() : bytes,
        golden: reason === 'golden',
        trial: { minInferences: 20, soakS: 0, maxErrorBp: 100 },
      });
      await device.inlay.checkForUpdates();
      await expect
        .poll(
          async () => {
            await model.run({ x: [1, -2] }).catch(() => {});
            return (await device.slots()).rejected;
          },
          { timeout: 20_000, interval: 10 },
        )
        .toMatchObject([{ version: '2', reason }]);
      expect(await device.events()).toContain(`rejected ${reason}`);
      await expect.poll(() => model.version).toBe('1');
      for (let call = 0; call < 20; call += 1) expect(await factorOf(model)).toBe(1);
    },
    60_000,
  );

  it('that is slow ends on the last good version', async () => {
    const { world, directory } = await rig();
    let ahead = 0;
    const device = startDevice(world, {
      directory,
      backend: real,
      platform: { monotonicMs: () => performance.now() + ahead, now: () => Date.now() + ahead },
    });
    onTestFinished(() => device.close());
    const model = await device.load();
    for (let call = 0; call < 150; call += 1) await model.run({ x: [1, -2] });
    await world.ship(2, { bytes: slowModel(), golden: false, trial: { minInferences: 10_000, soakS: 0 } });
    await device.inlay.checkForUpdates();
    await expect.poll(() => model.version, { timeout: 20_000 }).toBe('2');
    for (let call = 0; call < 130; call += 1) await model.run({ x: [1, -2] });
    // A machine may be busy for a while; a slow model is slow for longer.
    ahead += 20_000;
    await expect
      .poll(
        async () => {
          await model.run({ x: [1, -2] });
          return (await device.slots()).rejected;
        },
        { timeout: 20_000, interval: 10 },
      )
      .toMatchObject([{ version: '2', reason: 'latency' }]);
    await expect.poll(() => model.version).toBe('1');
    expect(await factorOf(model)).toBe(1);
  }, 60_000);
});

function otherSignature(): Uint8Array<ArrayBuffer> {
  return modelOf('other', (graph) => {
    graph.input('z', 'float32', ['batch', 2]);
    graph.node('Add', ['x', 'z'], {}, { outputs: ['y'] });
  });
}

/** Many products of matrices for one. */
function slowModel(): Uint8Array<ArrayBuffer> {
  const size = 256;
  return modelOf('slow', (graph) => {
    graph.initializer('wide', new Tensor('float32', [2, size], new Float32Array(2 * size).fill(1e-3)));
    graph.initializer(
      'square',
      new Tensor('float32', [size, size], new Float32Array(size * size).fill(1e-3)),
    );
    graph.initializer('narrow', new Tensor('float32', [size, 2], new Float32Array(2 * size).fill(1e-3)));
    graph.initializer('many', tensorFrom('int64', [256, 1]));
    let last = graph.node('Tile', [graph.node('MatMul', ['x', 'wide'], {}), 'many'], {});
    for (let i = 0; i < 8; i += 1) last = graph.node('MatMul', [last, 'square'], {});
    graph.initializer('axis', tensorFrom('int64', [0]));
    const mean = graph.node('ReduceMean', [graph.node('MatMul', [last, 'narrow'], {})], {
      axes: [0],
      keepdims: 1,
    });
    graph.node('Add', ['x', mean], {}, { outputs: ['y'] });
  });
}
