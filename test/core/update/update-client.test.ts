/** The updates of one app as a whole: what they say of themselves, pauses, activation, and apps that share a store. */
import { describe, expect, it } from 'vitest';
import type { UpdateEvent } from '../../../src/update/events.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { testPlatform, type TestPlatform } from '../platform.ts';
import {
  createWorld,
  gate,
  hashOf,
  hour,
  minute,
  settle,
  startApp,
  until,
  version,
  type World,
} from './updater-fixture.ts';

const [one, two, three] = [version(1), version(2), version(3)];
const files = ({ server }: World): number =>
  server.requests.splice(0).filter(({ path }) => path.startsWith('/v1/targets/')).length;

describe('options', () => {
  it.each([
    [
      'an activation that there is not',
      { policy: { activate: 'soon' as never } },
      /sync\.policy\.activate is one of/,
    ],
    ['a URL that is none', { url: 'ftp://sync.test' }, /no http or https URL/],
  ])('are refused: %s', async (_, options, message) => {
    const world = await createWorld();
    expect(() => startApp(world, options)).toThrow(message);
  });

  it('make nothing happen by themselves', async () => {
    const world = await createWorld();
    const app = startApp(world);
    await settle();
    expect(world.server.requests).toEqual([]);
    expect(app.platform.timers()).toEqual([]);
    await app.client.close();
  });
});

describe('the state', () => {
  it('names what runs and why, and the installation', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow();
    const { installId, sync, transfers, models } = await app.client.state();
    expect(installId).toMatch(/^[0-9a-f]{32}$/);
    expect(sync).toMatchObject({ channel: 'stable', metadata: { targets: 2 }, isPaused: false });
    expect(sync.bytesDownloaded).toBeGreaterThan(300);
    expect(transfers).toEqual([]);
    expect(models).toMatchObject({
      digits: {
        running: 'trial',
        decision: { kind: 'stay', arm: 'candidate' },
        trial: { release: { version: '1.0.0' } },
        lastError: undefined,
      },
    });
    await app.prove(model);
    const { running, trial } = (await app.client.state()).models['digits'] ?? {};
    expect([running, trial]).toEqual(['committed', undefined]);
    await app.client.close();
  });

  it('names the last failure until an update works', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    world.server.intercept = (path) =>
      path.startsWith('/v1/targets/') ? new Response(new Uint8Array(300)) : undefined;
    await world.ship('1.1.0', two);
    await app.update();
    expect((await app.state()).lastError).toMatchObject({ code: 'ERR_INLAY_HASH' });
    expect(model.errors).toMatchObject([{ code: 'ERR_INLAY_HASH' }]);
    world.server.intercept = () => undefined;
    await app.update();
    expect(model.version()).toBe('1.1.0');
    expect((await app.state()).lastError).toBeUndefined();
    await app.client.close();
  });
});

describe('the history', () => {
  it('tells the life of a release in order, over restarts', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await app.client.close();
    const next = startApp(world, { store: app.store, platform: app.platform });
    await next.follow();
    const told = (await next.client.history()).filter(({ version: name }) => name === '1.0.0');
    expect(told.map(({ type }) => type)).toEqual([
      'download-started',
      'verified',
      'staged',
      'load-started',
      'activated',
      'trial-passed',
      'load-started',
      'activated',
    ]);
    expect(told.every(({ sha256 }) => sha256 === hashOf(one))).toBe(true);
    expect(told.map(({ at }) => at)).toEqual(told.map(({ at }) => at).sort((a, b) => a - b));
    await next.client.close();
  });

  it('is told to listeners as it happens, and one that throws harms nobody', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const heard: UpdateEvent[] = [];
    app.client.onEvent(() => {
      throw new Error('The listener fails.');
    });
    const unsubscribe = app.client.onEvent((event) => heard.push(event));
    const model = await app.follow();
    expect(heard.map(({ type }) => type)).toContain('activated');
    expect(app.faults[0]).toEqual(new Error('The listener fails.'));
    unsubscribe();
    const before = heard.length;
    await app.prove(model);
    expect(heard).toHaveLength(before);
    expect(await app.events()).toContain('trial-passed');
    await app.client.close();
  });

  it('has failed checks, in one line however many', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    await app.follow();
    world.server.intercept = () => new Response('<html>', { headers: { 'content-type': 'text/html' } });
    for (let check = 0; check < 3; check += 1) await app.client.check().catch(() => {});
    await settle();
    expect((await app.events()).filter((type) => type.startsWith('checked'))).toHaveLength(1);
    await app.client.close();
  });
});

describe('a pause', () => {
  it('holds polls and downloads, not what runs, until it is over', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two);
    app.client.pause();
    expect(app.client.info().isPaused).toBe(true);
    world.server.requests.splice(0);
    await app.pass(3 * hour);
    expect(world.server.requests).toEqual([]);
    await app.update();
    expect(files(world)).toBe(0);
    expect((await app.client.state()).transfers).toMatchObject([{ phase: 'held', heldBy: 'paused' }]);
    expect(model.version()).toBe('1.0.0');
    app.client.resume();
    await until(() => model.version() === '1.1.0');
    await app.client.close();
  });

  it('in the middle of a download loses nothing that the next one needs', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    const held = gate();
    world.server.intercept = async (path) => {
      if (path.startsWith('/v1/targets/')) await held.wait();
      return undefined;
    };
    await world.ship('1.1.0', two);
    await app.client.check();
    await until(held.asked);
    app.client.pause();
    held.open();
    await settle();
    expect(model.version()).toBe('1.0.0');
    app.client.resume();
    await until(() => model.version() === '1.1.0');
    await app.client.close();
  });
});

describe('activation', () => {
  it.each(['now', 'idle', 'next-start', 'manual'] as const)(
    '`%s` is the same for all handles',
    async (activate) => {
      const world = await createWorld();
      await world.ship('1.0.0', one);
      const app = startApp(world, { policy: { activate } });
      const models = [await app.follow(), await app.follow(), await app.follow()];
      // The first release has nothing to wait for.
      expect(models.map((model) => model.version())).toEqual(['1.0.0', '1.0.0', '1.0.0']);
      for (const model of models) model.call(10);
      await app.pass(2 * minute);
      const [busy] = models;
      if (busy === undefined) throw new Error('There is no handle.');
      busy.isIdleFor = 0;
      await world.ship('1.1.0', two);
      await app.update();
      const versions = (): readonly (string | undefined)[] => [
        ...new Set(models.map((model) => model.version())),
      ];
      expect(versions()).toEqual([activate === 'now' ? '1.1.0' : '1.0.0']);
      await app.pass(minute / 2);
      busy.isIdleFor = Infinity;
      await app.pass(300);
      expect(versions()).toEqual([activate === 'now' || activate === 'idle' ? '1.1.0' : '1.0.0']);
      if (activate === 'manual') {
        expect(await app.client.updater('digits').activate()).toBe(true);
        expect(versions()).toEqual(['1.1.0']);
        expect(await app.client.updater('digits').activate()).toBe(false);
      }
      await app.client.close();
      if (activate !== 'next-start') return;
      const next = startApp(world, { store: app.store, policy: { activate } });
      const after = await next.follow();
      await until(() => after.version() === '1.1.0');
      expect(after.answered).toEqual(['1.0.0', '1.1.0']);
      await next.client.close();
    },
  );

  it('takes a release that has to be left away at once, whatever the policy', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world, { policy: { activate: 'manual' } });
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.update();
    await app.client.updater('digits').activate();
    await app.prove(model);
    await world.change({ state: 'rolledback' });
    await app.update();
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    await app.client.close();
  });

  it('begins with the newest of what came while it waited', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world, { policy: { activate: 'manual' } });
    const model = await app.follow();
    await app.prove(model);
    for (const [name, bytes] of [
      ['1.1.0', two],
      ['1.2.0', three],
    ] as const) {
      await world.ship(name, bytes);
      await app.update();
    }
    expect(await app.client.updater('digits').activate()).toBe(true);
    expect(model.answered).toEqual(['1.0.0', '1.2.0']);
    await app.client.close();
  });
});

describe('two apps with one store', () => {
  /** A process of its own on the clock of the test. */
  const processOf = (world: World, id: string, alive: ReadonlySet<string>): TestPlatform => ({
    ...testPlatform({ fetch: world.server.fetch, seed: id.charCodeAt(0) }),
    instance: { id, isAlive: async (other) => alive.has(other) },
  });

  it('update at once, and agree', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const store = createMemoryStore();
    const alive = new Set(['a', 'b']);
    const apps = ['a', 'b'].map((id) => startApp(world, { store, platform: processOf(world, id, alive) }));
    const models = await Promise.all(apps.map((app) => app.follow()));
    for (const [at, app] of apps.entries()) if (models[at]) await app.prove(models[at]);
    for (const [name, bytes] of [
      ['1.1.0', two],
      ['1.2.0', three],
    ] as const) {
      await world.ship(name, bytes);
      await Promise.all(apps.map((app) => app.update()));
      expect(models.map((model) => model.version())).toEqual([name, name]);
      for (const [at, app] of apps.entries()) if (models[at]) await app.prove(models[at]);
      for (const app of apps) {
        expect(await app.state()).toMatchObject({
          running: 'committed',
          committed: { release: { version: name } },
        });
      }
    }
    expect((await apps[0]?.state())?.previous?.release.version).toBe('1.1.0');
    for (const app of apps) await app.client.close();
    const alone = startApp(world, { store, platform: testPlatform() });
    expect((await alone.state()).markers).toEqual([]);
    await alone.client.close();
  });

  it('agree on what does not work: what one has rejected, the other does not try', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const store = createMemoryStore();
    const alive = new Set(['a', 'b']);
    const [a, b] = ['a', 'b'].map((id) => startApp(world, { store, platform: processOf(world, id, alive) }));
    if (!a || !b) throw new Error('There is no app.');
    let tries = 0;
    const onOpen = ({ version: name }: { readonly version: string | undefined }): void => {
      if (name !== '1.1.0') return;
      tries += 1;
      throw new Error('It does not open.');
    };
    const models = [await a.follow({ onOpen }), await b.follow({ onOpen })] as const;
    await a.prove(models[0]);
    await world.ship('1.1.0', two);
    await a.update();
    await b.update();
    expect([tries, ...models.map((model) => model.version())]).toEqual([1, '1.0.0', '1.0.0']);
    await a.client.close();
    await b.client.close();
  });

  it('that rejects on trial what the other runs on trial takes it from the other with its next check', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const store = createMemoryStore();
    const alive = new Set(['a', 'b']);
    const [a, b] = ['a', 'b'].map((id) => startApp(world, { store, platform: processOf(world, id, alive) }));
    if (!a || !b) throw new Error('There is no app.');
    const [first, second] = [await a.follow(), await b.follow()];
    await a.prove(first);
    await world.ship('1.1.0', two);
    await a.update();
    await b.update();
    expect([first.version(), second.version()]).toEqual(['1.1.0', '1.1.0']);
    for (let call = 0; call < 20; call += 1) first.call(1, {});
    await a.pass(minute);
    expect(first.version()).toBe('1.0.0');
    await b.update();
    expect(second.version()).toBe('1.0.0');
    await a.client.close();
    await b.client.close();
  });
});
