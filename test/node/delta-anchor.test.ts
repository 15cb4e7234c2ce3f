/** The file that rounded releases go by: kept as long as there is room, and the first to go. */
import { expect, it, onTestFinished } from 'vitest';
import type { Store } from '../../src/core/store.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { createAnchors } from '../../src/update/anchors.ts';
import { DEFAULT_TRIAL } from '../../src/update/plan.ts';
import { anchorsOf, type Slot, type Trial } from '../../src/update/slot.ts';
import {
  createWorld,
  hashOf,
  publish,
  startApp,
  version,
  type App,
  type AppOptions,
  type FakeFollower,
  type World,
} from '../core/update/updater-fixture.ts';

const length = 100_000;
const anchor = { sha256: hashOf(version(1, length)), length };

interface Device {
  readonly world: World;
  readonly app: App;
  readonly model: FakeFollower;
  /** Publishes the next release, and has the device take it. */
  next(): Promise<void>;
  /** Numbers of the releases whose files are there. */
  files(): Promise<number[]>;
  pins(): Promise<readonly string[] | undefined>;
}

/** A device on which the first release has proved itself; those after it are rounded around it. */
async function start(store: Store, options: AppOptions = {}): Promise<Device> {
  const world = await createWorld();
  let number = 0;
  const ship = async (): Promise<void> => {
    number += 1;
    const file = { variant: 'fp32', bytes: version(number, length), ...(number > 1 && { anchor }) };
    await world.repository.rollOut(await publish(world, `${number}.0.0`, { files: [file] }), 100);
  };
  await ship();
  const app = startApp(world, { store, ...options });
  onTestFinished(() => app.client.close());
  const model = await app.follow();
  await app.prove(model);
  return {
    world,
    app,
    model,
    next: async () => {
      await ship();
      await app.update();
      await app.prove(model);
      expect(model.version()).toBe(`${number}.0.0`);
    },
    files: async () => {
      const numbers: number[] = [];
      for (let i = 1; i <= number; i += 1)
        if ((await store.blob(hashOf(version(i, length)))) !== undefined) numbers.push(i);
      return numbers;
    },
    pins: async () => (await store.describeBlobs()).find(({ sha256 }) => sha256 === anchor.sha256)?.pins,
  };
}

it('is kept while a release that runs names it, and everything else that is not needed goes first', async () => {
  const { app, next, files, pins } = await start(createMemoryStore({ quotaBytes: 4.5 * length }));
  for (let i = 0; i < 4; i += 1) await next();
  // What runs, the one before it, and the anchor; one more had room until it was needed.
  expect(await files()).toEqual(expect.arrayContaining([1, 4, 5]));
  expect(await files()).not.toContain(2);
  expect(await pins()).toEqual([expect.stringMatching(/-digits\/anchor$/)]);
  expect((await app.state()).committed).toMatchObject({ anchor });
  expect(await app.events()).not.toContain('anchor-released no-room');
});

it('is kept however long nothing new comes, with what runs, and let go once the app wants none', async () => {
  let days = 0;
  const store = createMemoryStore({ now: () => (days + 1) * 86_400_000 });
  const { app, next, pins, world } = await start(store);
  for (let i = 0; i < 2; i += 1) await next();
  const file = (await app.state()).committed?.file.sha256;
  for (days of [60, 120]) await app.update();
  const owners = async () => (await store.describeBlobs()).find(({ sha256 }) => sha256 === file)?.pins.length;
  expect([(await pins())?.length, await owners()]).toEqual([1, 1]);
  await app.client.close();
  days = 180;
  const later = startApp(world, { store, policy: { keepAnchor: false } });
  onTestFinished(() => later.client.close());
  await later.follow();
  await later.update();
  days = 240;
  expect([(await pins())?.length, await owners()]).toEqual([0, 1]);
});

it('is one where two releases name it, for the log as well', async () => {
  const slot = (name: string): Slot => ({
    release: { ...anchor, path: `models/digits/${name}/m.onnx`, seq: 2, version: name },
    file: { sha256: name.repeat(64), length },
    anchor,
  });
  const trial: Trial = {
    ...slot('b'),
    plan: 'p',
    rules: DEFAULT_TRIAL,
    retryNonce: 0,
    phase: 'active',
    inferences: 0,
    errors: 0,
  };
  expect(anchorsOf({ committed: slot('a'), trial, rejected: [], markers: [], strikes: {} })).toEqual([
    anchor.sha256,
  ]);
});

it('goes when there is no room for a release otherwise, and the log says so', async () => {
  const { app, next, files } = await start(createMemoryStore({ quotaBytes: 3.5 * length }));
  for (let i = 0; i < 2; i += 1) await next();
  expect(await files()).toEqual([1, 2, 3]);
  await next();
  expect(await files()).toEqual([2, 3, 4]);
  expect((await app.client.history()).filter(({ type }) => type === 'anchor-released')).toMatchObject([
    { model: 'digits', sha256: anchor.sha256, reason: 'no-room' },
  ]);
});

it('is nobody’s where the app does not want it, and counts as any other file', async () => {
  const { app, next, pins } = await start(createMemoryStore({ quotaBytes: 3.5 * length }), {
    policy: { keepAnchor: false },
  });
  for (let i = 0; i < 2; i += 1) await next();
  expect(await pins()).toEqual([]);
  await next();
  expect(await pins()).toBeUndefined();
  expect(await app.events()).not.toContain('anchor-released no-room');
});

it('is not given up for a path that starts from it', async () => {
  const store = createMemoryStore();
  await store.putBlob(anchor.sha256, version(1, length));
  const told: unknown[] = [];
  const events = { add: (event: unknown) => void told.push(event) };
  const anchors = createAnchors({ store, owner: 'me', events, isKept: true });
  const committed = {
    release: { ...anchor, path: 'models/digits/2/m.onnx', seq: 2, version: '2' },
    file: { sha256: 'a'.repeat(64), length },
    anchor,
  };
  await anchors.hold('digits', { committed, rejected: [], markers: [], strikes: {} });
  const pins = async () => (await store.describeBlobs()).map((facts) => facts.pins);
  expect([await anchors.release(anchor.sha256), told.length, await pins()]).toEqual([
    false,
    0,
    [['me-digits/anchor']],
  ]);
  expect([await anchors.release(undefined), told.length, await pins()]).toEqual([true, 1, [[]]]);
  expect([await anchors.release(undefined), told.length]).toEqual([false, 1]);
});
