/** What became of releases on a device: how they come, where they stay, and what is left when something is lost. */
import { describe, expect, it } from 'vitest';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { testPlatform } from '../platform.ts';
import {
  createWorld,
  day,
  embed,
  failing,
  filesIn,
  fakeFollower,
  hashOf,
  minute,
  startApp,
  until,
  version,
  withdraw,
  type World,
} from './updater-fixture.ts';

const one = version(1);
const two = version(2);
const three = version(3);
const failsWith = (code: string): unknown => expect.objectContaining({ code });
/** Files of models that were asked for since the last call. */
const downloads = ({ server }: World): string[] =>
  server.requests
    .splice(0)
    .flatMap(({ path }) => /^\/v1\/targets\/.*\/([0-9a-f]{64})\./.exec(path)?.[1] ?? []);

async function worldWith(...versions: Uint8Array<ArrayBuffer>[]): Promise<World> {
  const world = await createWorld();
  for (const [at, bytes] of versions.entries()) await world.ship(`1.${at}.0`, bytes);
  return world;
}

describe('a release', () => {
  it('comes into the store, answers on trial and is committed when it has proved itself', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    expect(model.answered).toEqual(['1.0.0']);
    expect(model.present()?.source.bytes).toEqual(one);
    expect(await filesIn(app.store)).toEqual([hashOf(one)]);
    expect(await app.state()).toMatchObject({ running: 'trial', trial: { phase: 'active', inferences: 0 } });
    await app.prove(model);
    expect(await app.state()).toMatchObject({
      running: 'committed',
      committed: { release: { version: '1.0.0' }, file: { sha256: hashOf(one), length: 300 } },
      lastError: undefined,
    });
    // What answers has not been opened again for it.
    expect([model.answered, model.openCount()]).toEqual([['1.0.0'], 1]);
    await app.client.close();
  });

  it('is downloaded once, however many handles ask for it', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const models = await Promise.all([app.follow(), app.follow(), app.follow()]);
    expect(models.map((model) => model.version())).toEqual(['1.0.0', '1.0.0', '1.0.0']);
    expect(downloads(world)).toEqual([hashOf(one)]);
    await app.client.close();
  });

  it('is not committed by time alone, nor by calls alone', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    await app.pass(day);
    expect((await app.state()).running).toBe('trial');
    await app.client.close();

    const busy = startApp(world);
    const called = await busy.follow();
    called.call(1000);
    await busy.pass(59_000);
    expect((await busy.state()).running).toBe('trial');
    await busy.pass(2000);
    expect((await busy.state()).running).toBe('committed');
    expect(model.answered).toEqual(['1.0.0']);
    await busy.client.close();
  });

  it('is what the plan says, not what is newest', async () => {
    const world = await worldWith(one, two);
    const [release] = world.repository.plans['stable'] ?? [];
    if (!release?.base) throw new Error('The plan has no base.');
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await world.repository.rollOut({ ...release.base, model: 'digits' }, 100);
    await app.update();
    expect(model.answered).toEqual(['1.1.0', '1.0.0']);
    await app.client.close();
  });

  it('is refused when it is too large for this device, without a byte of it', async () => {
    const world = await worldWith(one);
    const app = startApp(world, { maxModelBytes: 299 });
    await expect(app.follow()).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNAVAILABLE',
      cause: failsWith('ERR_INLAY_MODEL_UNSUPPORTED'),
    });
    expect(downloads(world)).toEqual([]);
    expect(await app.events()).toContain('rejected too-large');
    await app.client.close();
  });
});

describe('a plan', () => {
  it('splits a fleet by its share', async () => {
    const world = await worldWith(one);
    const release = await world.repository.release('digits', '1.1.0', two);
    await world.repository.rollOut(release, 30);
    let candidates = 0;
    for (let seed = 0; seed < 60; seed += 1) {
      const app = startApp(world, { platform: testPlatform({ seed, fetch: world.server.fetch }) });
      if ((await app.follow()).version() === '1.1.0') candidates += 1;
      await app.client.close();
    }
    // 60 draws of 30 % have a mean of 18 and a standard deviation of 3.5.
    expect(candidates).toBeGreaterThan(5);
    expect(candidates).toBeLessThan(32);
  });

  it('keeps a device where it is across restarts', async () => {
    const world = await worldWith(one);
    const release = await world.repository.release('digits', '1.1.0', two);
    await world.repository.rollOut(release, 50);
    const first = startApp(world);
    const expected = (await first.follow()).version();
    await first.client.close();
    for (let start = 0; start < 4; start += 1) {
      const app = startApp(world, { store: first.store });
      const model = await app.follow();
      await app.update();
      expect(model.answered).toEqual([expected]);
      await app.client.close();
    }
  });

  it('that offers this device nothing makes the first load fail, and says so', async () => {
    const app = startApp(await createWorld());
    await expect(app.follow()).rejects.toThrow(/no plan of this channel offers this device a version/);
    await app.client.close();
  });

  /** A device whose turn comes in ten minutes. */
  const startWaiting = async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    const release = await world.repository.release('digits', '1.1.0', two);
    await world.repository.rollOut(release, 100);
    const startAt = new Date(app.platform.now() + 10 * minute).toISOString().replace(/\.\d+Z/, 'Z');
    await world.change({ state: 'ramp', bp: 10_000, fromBp: 10_000, startAt, durationS: 0 });
    await app.update();
    return { world, app, model };
  };

  it('has a device in its bucket wait for its turn', async () => {
    const { world, app, model } = await startWaiting();
    expect((await app.state()).decision).toMatchObject({ kind: 'stay', reason: 'not-yet' });
    await app.pass(9 * minute);
    expect(model.answered).toEqual(['1.0.0']);
    // Nothing but the clock tells that it is time.
    world.server.intercept = (path) => {
      if (path.startsWith('/v1/tip')) throw new TypeError('fetch failed');
      return undefined;
    };
    await app.pass(2 * minute);
    // Whether that still holds is asked first, three times, in vain here.
    for (let wait = 0; wait < 2; wait += 1) await app.pass(minute / 6);
    expect(model.answered).toEqual(['1.0.0', '1.1.0']);
    await app.client.close();
  });

  it('that was halted while a device waited for its turn begins nowhere any more', async () => {
    const { world, app, model } = await startWaiting();
    await world.change({ state: 'halted' });
    await app.pass(9 * minute);
    expect((await app.state()).decision).toMatchObject({ reason: 'not-yet' });
    await app.pass(2 * minute);
    expect((await app.state()).decision).toMatchObject({ kind: 'stay', reason: 'halted' });
    expect(model.answered).toEqual(['1.0.0']);
    await app.client.close();
  });
});

describe('a start', () => {
  it('without network takes what is committed, and asks nobody before it', async () => {
    const world = await worldWith(one);
    const first = startApp(world);
    await first.prove(await first.follow());
    await first.client.close();
    const offline = startApp(world, { store: first.store, platform: testPlatform() });
    expect((await offline.follow()).answered).toEqual(['1.0.0']);
    await offline.client.close();
    const empty = startApp(world, { platform: testPlatform() });
    expect(await failing(empty, empty.follow())).toEqual(failsWith('ERR_INLAY_MODEL_UNAVAILABLE'));
  });

  it('goes on with a trial where it was', async () => {
    const world = await worldWith(one);
    const first = startApp(world);
    const model = await first.follow();
    model.call(15);
    await first.pass(50_000);
    await first.client.close();
    const second = startApp(world, { store: first.store, platform: first.platform });
    const again = await second.follow();
    expect(await second.state()).toMatchObject({ running: 'trial', trial: { inferences: 15 } });
    again.call(5);
    await second.pass(11_000);
    expect((await second.state()).running).toBe('committed');
    await second.client.close();
  });

  it.each([
    ['gone', async (store: Store) => store.deleteBlob(hashOf(one))],
    [
      'gone, and its record with it',
      async (store: Store) => {
        await store.deleteBlob(hashOf(one));
        for (const name of ['install', 'update-events'])
          await store.updateRecord(name, () => new Uint8Array());
      },
    ],
  ])('whose file is %s fetches it again', async (_, lose) => {
    const world = await worldWith(one);
    const first = startApp(world);
    await first.prove(await first.follow());
    await first.client.close();
    await lose(first.store);
    downloads(world);
    const second = startApp(world, { store: first.store });
    const model = await second.follow();
    expect(model.answered).toEqual(['1.0.0']);
    expect(downloads(world)).toEqual([hashOf(one)]);
    expect(await filesIn(first.store)).toEqual([hashOf(one)]);
    // It has proved itself already.
    expect((await second.state()).running).toBe('committed');
    expect(await second.events()).toContain('record-lost');
    await second.client.close();
  });

  it.each<[string, (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>]>([
    ['a bit flipped', (bytes) => bytes.fill((bytes[17] ?? 0) ^ 1, 17, 18)],
    ['its end lost', (bytes) => bytes.slice(0, -1)],
  ])('never runs a file of which the disk has %s, and fetches it again', async (_, damage) => {
    const world = await worldWith(one);
    const first = startApp(world);
    await first.prove(await first.follow());
    await first.client.close();
    const real = first.store;
    let isDamaged = true;
    const store: Store = {
      ...real,
      blob: async (sha256) => {
        const blob = await real.blob(sha256);
        if (!blob || !isDamaged) return blob;
        const bytes = damage(await blob.bytes());
        return {
          ...blob,
          sizeBytes: bytes.length,
          bytes: async () => bytes,
          read: async (offset, length) => bytes.slice(offset, offset + length),
        };
      },
      deleteBlob: async (sha256) => {
        isDamaged = false;
        await real.deleteBlob(sha256);
      },
    };
    downloads(world);
    const second = startApp(world, { store });
    const model = await second.follow();
    expect(model.present()?.source.bytes).toEqual(one);
    expect(downloads(world)).toEqual([hashOf(one)]);
    await second.client.close();
  });

  it('with damaged records of everything takes files that are there', async () => {
    const world = await worldWith(one);
    const names = new Set<string>();
    const real = createMemoryStore();
    const store: Store = {
      ...real,
      updateRecord: (name, update) => {
        names.add(name);
        return real.updateRecord(name, update);
      },
    };
    const first = startApp(world, { store });
    await first.prove(await first.follow());
    await first.client.close();
    expect(names.size).toBe(4);
    for (const name of names) await real.updateRecord(name, () => Uint8Array.of(0x7b, 0x22));
    downloads(world);
    const second = startApp(world, { store });
    expect((await second.follow()).answered).toEqual(['1.0.0']);
    expect(downloads(world)).toEqual([]);
    await second.client.close();
  });

  it('keeps what it has of two servers apart in one store', async () => {
    const world = await worldWith(one);
    const first = startApp(world);
    await first.prove(await first.follow());
    await first.client.close();
    const other = startApp(world, {
      store: first.store,
      url: 'https://other.test',
      platform: testPlatform(),
    });
    expect(await failing(other, other.follow())).toEqual(failsWith('ERR_INLAY_MODEL_UNAVAILABLE'));
    await other.client.close();
  });
});

describe('what is needed', () => {
  /** A store of which the test sees the pins. */
  const pinning = (): { readonly store: Store; readonly pinned: () => readonly string[] } => {
    const real = createMemoryStore();
    let last: readonly string[] = [];
    return {
      store: {
        ...real,
        pin: async (owner, sha256s) => {
          last = sha256s;
          await real.pin(owner, sha256s);
        },
      },
      pinned: () => last.filter((sha256) => [one, two, three].map(hashOf).includes(sha256)).sort(),
    };
  };

  it('is pinned: what runs, what can be gone back to, what comes', async () => {
    const world = await worldWith(one);
    const { store, pinned } = pinning();
    const app = startApp(world, { store });
    const model = await app.follow();
    expect(pinned()).toEqual([hashOf(one)]);
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.update();
    expect(pinned()).toEqual([hashOf(one), hashOf(two)].sort());
    await app.prove(model);
    expect(pinned()).toEqual([hashOf(one), hashOf(two)].sort());
    await world.ship('1.2.0', three);
    await app.update();
    await app.prove(model);
    expect(pinned()).toEqual([hashOf(two), hashOf(three)].sort());
    await app.client.close();
  });
});

describe('a release that is taken back', () => {
  it('leads to `previous` where that works, also without network', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.update();
    await app.prove(model);
    await world.change({ state: 'rolledback' });
    world.server.intercept = (path) =>
      path.startsWith('/v1/targets/') ? Promise.reject(new TypeError('fetch failed')) : undefined;
    await app.update();
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    expect(await app.state()).toMatchObject({
      running: 'committed',
      committed: { release: { version: '1.0.0' } },
    });
    await app.client.close();
    const offline = startApp(world, { store: app.store, platform: testPlatform() });
    expect((await offline.follow()).answered).toEqual(['1.0.0']);
    await offline.client.close();
  });

  it('stays where nothing else could run', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await world.change({ state: 'rolledback' });
    await app.update();
    expect(model.version()).toBe('1.0.0');
    expect((await app.state()).decision).toMatchObject({ kind: 'stay', reason: 'no-alternative' });
    await app.client.close();
  });
});

describe('a withdrawn release that is committed', () => {
  it.each([
    ['revoked', { revoked: [2] }],
    ['below the floor', { floorSeq: 3, revoked: [] }],
  ])('goes for the one that takes its place: %s', async (_, policy) => {
    const world = await worldWith(one, two);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    expect(model.version()).toBe('1.1.0');
    await withdraw(world, policy);
    await world.ship('1.2.0', three);
    await app.update();
    expect(model.answered).toEqual(['1.1.0', '1.2.0']);
    await app.prove(model);
    const { committed, previous, policy: remembered } = await app.state();
    expect([committed?.release.version, previous?.release.version]).toEqual(['1.2.0', undefined]);
    expect(remembered).toMatchObject(policy);
    await app.client.close();
  });

  it('goes at once where the one before it is still there', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.update();
    await app.prove(model);
    await withdraw(world, { revoked: [2] });
    await app.update();
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    expect((await app.state()).committed?.release.version).toBe('1.0.0');
    await app.client.close();
    const offline = startApp(world, { store: app.store, platform: testPlatform() });
    expect((await offline.follow()).answered).toEqual(['1.0.0']);
    await offline.client.close();
  });

  it('goes for what came with the app', async () => {
    const world = await worldWith(two);
    const app = startApp(world);
    const model = await app.follow({}, embed(one));
    await until(() => model.version() === '1.0.0');
    await app.prove(model);
    await withdraw(world, { revoked: [1] });
    await app.update();
    expect(model.answered).toEqual([undefined, '1.0.0', undefined]);
    expect((await app.state()).running).toBe('embedded');
    await app.client.close();
  });

  it('stays where nothing else could run, and says so', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await withdraw(world, { revoked: [1] });
    await app.update();
    expect(model.version()).toBe('1.0.0');
    expect((await app.state()).decision?.reason).toBe('withdrawn-no-alternative');
    await app.client.close();
    // A start without network has nothing better, either.
    const offline = startApp(world, { store: app.store, platform: testPlatform() });
    expect((await offline.follow()).answered).toEqual(['1.0.0']);
    await offline.client.close();
  });

  it('never comes back, also when an older policy is signed again', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const model = await app.follow({}, embed(three));
    await until(() => model.version() === '1.0.0');
    await withdraw(world, { revoked: [1] });
    await app.update();
    expect(model.version()).toBeUndefined();
    await withdraw(world, { revoked: [] });
    await app.update();
    expect(model.version()).toBeUndefined();
    await app.client.close();
  });
});

describe('a follower', () => {
  it('that joins while a release is tried waits for nothing, and moves with the others', async () => {
    const world = await worldWith(one);
    let hold: (() => void) | undefined;
    const onOpen = async (): Promise<void> => {
      if (hold === undefined) return;
      await new Promise<void>((resolve) => (hold = resolve));
    };
    const app = startApp(world);
    const first = await app.follow({ onOpen });
    await app.prove(first);
    hold = () => {};
    const idle = hold;
    await world.ship('1.1.0', two);
    await app.update();
    expect(hold).not.toBe(idle);
    const second = await app.follow();
    expect(second.version()).toBe('1.0.0');
    hold();
    await until(() => first.version() === '1.1.0' && second.version() === '1.1.0');
    expect(second.openCount()).toBe(1);
    await app.client.close();
  });

  it('that cannot take a release keeps all of them where they are', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const able = await app.follow();
    const unable = await app.follow({
      onOpen: (target) => {
        if (target.version === '1.1.0') throw new Error('It does not open.');
      },
    });
    await app.prove(able);
    await world.ship('1.1.0', two);
    await app.update();
    expect([able.version(), unable.version()]).toEqual(['1.0.0', '1.0.0']);
    expect([able.openCount(), unable.openCount()]).toEqual([1, 1]);
    expect((await app.state()).rejected).toMatchObject([{ version: '1.1.0', reason: 'open' }]);
    await app.client.close();
  });

  it('that is the last to leave ends everything, and the next one starts again', async () => {
    const world = await worldWith(one);
    const app = startApp(world);
    const updater = app.client.updater('digits');
    const follower = fakeFollower();
    await updater.join(follower, undefined, undefined);
    await app.prove(follower);
    updater.leave(follower);
    await world.ship('1.1.0', two);
    downloads(world);
    await app.update();
    expect(downloads(world)).toEqual([]);
    expect((await app.state()).markers).toEqual([]);
    const next = await app.follow();
    await until(() => next.version() === '1.1.0');
    await app.client.close();
  });
});
