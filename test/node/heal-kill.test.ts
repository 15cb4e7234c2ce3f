import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend } from '../../src/core/backend.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import type { StartOptions } from './heal-app.worker.ts';
import {
  commit,
  factorOf,
  listFiles,
  realBackend,
  startDevice,
  wrongBlobs,
  scratchFolder,
} from './heal-device.ts';
import { prepareApps, type App, type Apps } from './heal-process.ts';
import { startWorld, type Shipped, type World } from './heal-world.ts';
import { strideOf } from './thorough.ts';

/** Processes at a time. */
const LANES = 3;
/** So many updates that end before the step at which they were to be killed, and there is no such step. */
const SURVIVALS = 3;
/** Points at which a process with onnxruntime is killed. */
const REAL = 10;
const HOUR_MS = 3_600_000;

let world: World & { close(): Promise<void> };
let apps: Apps;
let base: string;
let template: string;
let backend: Backend;
let shipped: readonly Shipped[];

beforeAll(async () => {
  [world, apps] = await Promise.all([startWorld(), prepareApps()]);
  base = await scratchFolder('heal-kill');
  template = join(base, 'template');
  backend = realBackend();
  const first = await world.ship(1);
  const device = startDevice(world, { directory: template, backend });
  await commit(device, await device.load(), 1);
  await device.close();
  shipped = [first, await world.ship(2)];
}, 60_000);
afterAll(async () => {
  await apps.close();
  await world.close();
  await backend.close();
  await rm(base, { recursive: true, force: true });
});

const optionsOf = (directory: string, more: Partial<StartOptions> = {}) => ({
  directory,
  url: world.url,
  root: world.root,
  backend: 'tiny' as const,
  // Pieces are saved every two seconds.
  hurryMs: 300,
  version: '2',
  ...more,
});

/** Runs an update that is killed. @returns whether it was, or else the names of its steps. */
async function kill(app: App, options: ReturnType<typeof optionsOf>): Promise<'killed' | readonly string[]> {
  const outcome = app.tell('update', options).then(
    (steps) => steps,
    (error: unknown) => error,
  );
  const result = await outcome;
  if (!(result instanceof Error)) {
    await app.end();
    return result as readonly string[];
  }
  if ((await app.ended) !== 'SIGKILL') throw result;
  return 'killed';
}

/** Starts on what is left, first without network. */
async function recover(directory: string): Promise<void> {
  let proofs: readonly (string | undefined)[] = [];
  expect(await wrongBlobs(directory), 'damaged').toEqual([]);
  const offline = startDevice(world, { directory, backend, offline: true });
  try {
    const model = await offline.load();
    expect([1, 2]).toContain(await factorOf(model));
    expect(model.version).toBe(String(await factorOf(model)));
    // It learns of the network without being started again.
    offline.connect(true);
    await offline.inlay.checkForUpdates();
    await commit(offline, model, 2);
    expect(await factorOf(model)).toBe(2);
    const { committed, previous, trial, rejected } = await offline.slots();
    proofs = [committed?.proof, previous?.proof];
    expect([committed, previous, trial].map((slot) => slot?.release.version)).toEqual(['2', '1', undefined]);
    expect(rejected, 'rejected').toEqual([]);
  } finally {
    await offline.close();
  }
  expect(await wrongBlobs(directory), 'damaged').toEqual([]);
  await expectTidy(directory, proofs);
}

/** What was left lying is gone after the next write an hour later, at the latest. */
async function expectTidy(directory: string, proofs: readonly (string | undefined)[]): Promise<void> {
  const later = openFsStore({ directory, host: { now: () => Date.now() + 2 * HOUR_MS } });
  await later.updateRecord('touch', () => new Uint8Array(1));
  await later.close();
  const files = await listFiles(directory);
  const blobs = new Set([...shipped.flatMap((one) => one.files), ...proofs]);
  const strange = files.filter((file) => {
    const [folder, name = ''] = file.split('/');
    if (folder === 'blobs') return !blobs.has(name);
    return folder !== 'records' || !/\.[01]$/.test(name);
  });
  expect(strange.join(), 'left over').toBe('');
}

describe('a process that is killed at any step of an update', () => {
  let points: readonly string[];

  it('has hundreds of steps', async () => {
    const directory = join(base, 'count');
    await cp(template, directory, { recursive: true });
    const steps = await kill(apps.start(), optionsOf(directory));
    expect(steps).not.toBe('killed');
    points = steps as readonly string[];
    const counts = new Map<string, number>();
    for (const name of points) counts.set(name, (counts.get(name) ?? 0) + 1);
    const shown = [...counts].map(([name, count]) => `${count} ${name}`).join(', ');
    console.log(`${points.length} steps of an update: ${shown}.`);
    expect(points.length).toBeGreaterThan(100);
    await recover(directory);
  });

  /** Kills an update at each of these steps, as far as there are such, and starts on what is left. @returns how often. */
  const killAll = async (
    name: string,
    steps: Iterator<number>,
    how: 'before' | 'torn',
    more: Partial<StartOptions> = {},
  ): Promise<number> => {
    let killed = 0;
    let survived = 0;
    let longestMs = 0;
    const failures: string[] = [];
    const lane = async (): Promise<void> => {
      let spare = apps.start();
      for (let next = steps.next(); !next.done && survived < SURVIVALS; next = steps.next()) {
        const at = next.value;
        const app = spare;
        spare = apps.start();
        const directory = join(base, `${name}-${at}`);
        await cp(template, directory, { recursive: true });
        if ((await kill(app, optionsOf(directory, { ...more, kill: { at, how } }))) === 'killed') killed += 1;
        else survived += 1;
        const began = performance.now();
        await recover(directory).catch((error: unknown) => {
          failures.push(
            `step ${at}, ${points[at - 1]}: ${error instanceof Error ? error.message : String(error)}`,
          );
        });
        longestMs = Math.max(longestMs, performance.now() - began);
        await rm(directory, { recursive: true, force: true });
      }
      await spare.end();
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    console.log(`${killed} kills, ${name}; the longest way back took ${Math.round(longestMs)} ms.`);
    expect(failures).toEqual([]);
    return killed;
  };

  // What is left after one step is what is left before the next one, but for a write that was half done.
  it('starts with a verified model and completes the update: before any step', async () => {
    const stride = strideOf(2);
    const killed = await killAll('before', from(1, stride), 'before');
    // What goes on at once may take a few steps more or fewer.
    expect(killed).toBeGreaterThan((points.length / stride) * 0.9);
  }, 600_000);

  it('starts with a verified model and completes the update: in the middle of any write', async () => {
    const stride = strideOf(2);
    const writes = points
      .flatMap((name, index) => (name === 'write' ? [index + 1] : []))
      .filter((_, index) => index % stride === 0);
    const killed = await killAll('torn', writes.values(), 'torn');
    expect(killed).toBeGreaterThan(writes.length * 0.9);
  }, 600_000);

  it('does so with onnxruntime in the process that is killed', async () => {
    const steps = Array.from({ length: REAL }, (_, at) =>
      Math.floor(((at + 0.5) * points.length * 0.9) / REAL),
    );
    expect(await killAll('onnxruntime', steps.values(), 'before', { backend: 'real' })).toBe(REAL);
  }, 120_000);
});

function* from(first: number, stride: number): Generator<number, undefined> {
  for (let at = first; ; at += stride) yield at;
}
