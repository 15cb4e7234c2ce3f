import { beforeEach, expect, it } from 'vitest';
import type { Platform } from '../../../src/core/platform.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { createSync, type Sync } from '../../../src/update/sync.ts';
import { testPlatform, until, type TestPlatform } from '../platform.ts';
import { createRepository, serve, type FakeServer, type Repository } from '../publish/repository.ts';

const hour = 3_600_000;
let repository: Repository;
let server: FakeServer;
let platform: TestPlatform;
let listeners: Set<() => void>;
let isActive = true;

beforeEach(async () => {
  repository = await createRepository(testPlatform());
  server = serve(() => repository);
  platform = testPlatform({ fetch: server.fetch });
  listeners = new Set();
  isActive = true;
});

/** A sync of an app that can go to the background. */
const start = (): Sync => {
  const app: Platform = {
    ...platform,
    isActive: () => isActive,
    onActive: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const [root = ''] = repository.roots;
  const sync = createSync({ platform: app, store: createMemoryStore(), url: 'https://sync.test', root });
  sync.start();
  return sync;
};
const become = (active: boolean): void => {
  isActive = active;
  if (active) for (const listener of [...listeners]) listener();
};
const polls = (): number => server.requests.filter(({ path }) => path.startsWith('/v1/tip')).length;
/** Waits until nothing but the next poll is due. */
const settled = (): Promise<void> => until(() => platform.timers().at(-1) === hour);

it('does not poll for an app that is in the background, and polls once when it comes back', async () => {
  const sync = start();
  become(false);
  platform.advance(5 * hour);
  expect(polls()).toBe(0);
  become(true);
  await until(() => polls() === 1);
  await settled();
  platform.advance(hour);
  await until(() => polls() === 2);
  await sync.stop();
});

it('leaves an app alone that comes back before the next poll is due', async () => {
  const sync = start();
  platform.advance(hour);
  await until(() => polls() === 1);
  await settled();
  const waits = platform.timers();
  become(false);
  platform.advance(hour / 2);
  become(true);
  become(true);
  expect(platform.timers()).toEqual(waits.map((wait) => wait - hour / 2));
  platform.advance(hour / 2);
  await until(() => polls() === 2);
  await sync.stop();
});

it('polls when it is due though the timers of the app were frozen meanwhile', async () => {
  const sync = start();
  platform.setNow(platform.now() + 2 * hour);
  become(true);
  await until(() => polls() === 1);
  await settled();
  expect(platform.timers()).toHaveLength(1);
  await sync.stop();
});

it('forgets the app when it stops', async () => {
  const sync = start();
  await sync.stop();
  expect(listeners.size).toBe(0);
  become(true);
  platform.advance(5 * hour);
  expect(polls()).toBe(0);
});
