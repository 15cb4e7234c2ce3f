import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEvents } from '../../src/update/events.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import type { StartOptions } from './heal-app.worker.ts';
import { createTinyBackend } from './heal-backend.ts';
import { commit, factorOf, startDevice, wrongBlobs, scratchFolder } from './heal-device.ts';
import { prepareApps, type App, type Apps } from './heal-process.ts';
import { startWorld, type World } from './heal-world.ts';

const ROUNDS = 10;

let world: World & { close(): Promise<void> };
let apps: Apps;
let base: string;
const tiny = createTinyBackend();
/** A process that is killed soon after it has begun with a release died of it, for all that can be told. */
const trial = { minInferences: 2, soakS: 0, graceS: 0, strikes: 3 };

beforeAll(async () => {
  [world, apps] = await Promise.all([startWorld(), prepareApps()]);
  base = await scratchFolder('heal-two');
  await world.ship(1, { trial });
}, 60_000);
afterAll(async () => {
  await apps.close();
  await world.close();
  await rm(base, { recursive: true, force: true });
});

const optionsOf = (directory: string): StartOptions => ({
  directory,
  url: world.url,
  root: world.root,
  backend: 'tiny',
  hurryMs: 60,
  pollMs: 100,
  callEveryMs: 5,
});

/** Has an app take a version, and end. */
async function follow(app: App, version: number): Promise<void> {
  // A poll that is under way may be of before; the next one comes soon.
  await app.tell('check').catch(() => {});
  await app.tell('prove', String(version));
}

const downloads = (version: number): number =>
  world.requests().filter((path) => path.includes(`/digits/${version}/`) && path.includes('.model.onnx'))
    .length;

describe.each([[2], [3]])('%i processes with one store', (count) => {
  it('update it together, with one download, and no call fails', async () => {
    const directory = join(base, `together-${count}`);
    const running = Array.from({ length: count }, () => apps.start());
    for (const app of running) expect(await app.tell('start', optionsOf(directory))).toBeLessThan(count);
    const version = count;
    await world.ship(version, { trial });
    world.requests();
    await Promise.all(running.map((app) => follow(app, version)));
    // Who comes second may have begun before the first was through.
    expect(downloads(version)).toBeLessThanOrEqual(count);
    for (const app of running) {
      const { factors, failed } = await app.tell('calls');
      expect(failed).toEqual([]);
      expect(factors.at(-1)).toBe(version);
      expect((await app.tell('slots'))?.rejected).toEqual([]);
    }
    await Promise.all(running.map((app) => app.tell('close')));
    await Promise.all(running.map((app) => app.end()));
    expect(await wrongBlobs(directory)).toEqual([]);
    const events = await eventsOf(directory);
    expect(events).not.toContain('strike');
    expect(events).not.toContain('rejected');
  }, 120_000);
});

async function eventsOf(directory: string): Promise<readonly string[]> {
  const store = openFsStore({ directory });
  const events = readEvents(await store.readRecord('update-events'));
  await store.close();
  return events.map(({ type }) => type);
}

it(`of two processes, one is killed at some moment of ${ROUNDS} updates, and both end on the new version`, async () => {
  let state = 20_251;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  const directory = join(base, 'killed');
  let survivor = apps.start();
  await survivor.tell('start', optionsOf(directory));
  for (let round = 0; round < ROUNDS; round += 1) {
    const version = 4 + round;
    const victim = apps.start();
    await victim.tell('start', optionsOf(directory));
    await world.ship(version, { trial });
    const dying = follow(victim, version).catch(() => {});
    const living = follow(survivor, version);
    await sleep(random() * 120);
    victim.child.kill('SIGKILL');
    await Promise.all([dying, living]);
    await victim.end();
    const { failed, factors } = await survivor.tell('calls');
    expect([round, failed, factors.at(-1)]).toEqual([round, [], version]);
    expect((await survivor.tell('slots'))?.rejected).toEqual([]);
    // They take turns at living on.
    if (round % 5 === 4) {
      const next = apps.start();
      await next.tell('start', optionsOf(directory));
      await survivor.tell('close');
      await survivor.end();
      survivor = next;
    }
  }
  await survivor.tell('close');
  await survivor.end();
  expect(await wrongBlobs(directory)).toEqual([]);
  const last = startDevice(world, { directory, backend: tiny, offline: true });
  const model = await last.load();
  expect(await factorOf(model)).toBe(4 + ROUNDS - 1);
  await commit(last, model, 4 + ROUNDS - 1);
  expect((await last.slots()).rejected).toEqual([]);
  await last.close();
}, 120_000);
