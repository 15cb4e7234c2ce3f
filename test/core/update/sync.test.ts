import { beforeEach, describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import { createSync, type Sync, type SyncParts } from '../../../src/update/sync.ts';
import { testPlatform, testStart, until, type TestPlatform } from '../platform.ts';
import {
  createRepository,
  newSigner,
  serve,
  type FakeServer,
  type Repository,
} from '../publish/repository.ts';

const day = 86_400_000;
const url = 'https://sync.test';
const record = `sync-stable-${sha256Hex(testPlatform(), toUtf8(url)).slice(0, 16)}`;
const one = Uint8Array.from({ length: 300 }, (_, i) => i % 7);
const two = Uint8Array.from({ length: 400 }, (_, i) => i % 11);

let repository: Repository;
let server: FakeServer;
let platform: TestPlatform;
let store: Store;

beforeEach(async () => {
  repository = await createRepository(testPlatform());
  server = serve(() => repository);
  platform = testPlatform({ fetch: server.fetch });
  store = createMemoryStore();
});

const open = (parts: Partial<SyncParts> = {}): Sync =>
  createSync({ platform, store, url, root: repository.roots[0] ?? '', ...parts });
const failsWith = (code: string): unknown => expect.objectContaining({ code });
/** Requests since the last call. */
const requests = (): string[] => server.requests.splice(0).map(({ path, status }) => `${status} ${path}`);
/** Lets a failing request have all of its tries. */
async function failing(task: Promise<unknown>): Promise<unknown> {
  let outcome: { error: unknown } | undefined;
  task.then(
    () => (outcome = { error: undefined }),
    (error: unknown) => (outcome = { error }),
  );
  while (!outcome) {
    await until(() => outcome !== undefined || platform.timers().some((wait) => wait < 10_000));
    if (!outcome) platform.advance(10_000);
  }
  return outcome.error;
}
async function shipped(version: string, content: Uint8Array, percent = 100): Promise<void> {
  await repository.rollOut(await repository.release('digits', version, content), percent);
}
const candidateOf = async (sync: Sync, model = 'digits'): Promise<string | undefined> =>
  (await sync.plan(model))?.cand.version;

describe('a sync', () => {
  it('gives the plan of a model, and what is signed about its release', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    expect(requests()).toEqual(['200 /v1/tip?root=1', `200 /v1/metadata/2.targets.json`]);
    const plan = await sync.plan('digits');
    expect(plan).toMatchObject({
      state: 'complete',
      cand: { version: '1.0.0', seq: 1, length: 300 },
      base: null,
      isCurrent: true,
    });
    const path = plan?.cand.path ?? '';
    expect(await sync.target(path)).toMatchObject({ length: 300, custom: { model: 'digits', seq: 1 } });
    expect(await sync.policy('digits')).toEqual({ floorSeq: 0, revoked: [] });
    expect(sync.info().bytesDownloaded).toBeGreaterThan(300);
    expect(sync.info()).toMatchObject({
      lastCheckAt: testStart,
      lastError: undefined,
      isPaused: false,
      metadata: { targets: 2 },
    });
    expect(sync.confirmedAt()).toBe(testStart);
    expect(requests()).toEqual([]);
  });

  it('takes root as bytes, text or object', async () => {
    const text = fromUtf8(repository.roots[0] ?? new Uint8Array());
    for (const root of [text, JSON.parse(text) as object]) await open({ root }).check();
  });

  it('costs one 304 when nothing changed, also after a restart', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    requests();
    await sync.check();
    await open().check();
    expect(requests()).toEqual(['304 /v1/tip?root=1', '304 /v1/tip?root=1']);
  });

  it('fetches targets only when they changed', async () => {
    await shipped('1.0.0', one, 50);
    const sync = open();
    await sync.check();
    requests();
    const { targets } = repository.files;
    const release = Object.values(repository.plans)[0]?.[0]?.cand;
    if (!release) throw new Error('The plan is missing.');
    await repository.rollOut({ ...release, model: 'digits' }, 100);
    expect(repository.files.targets).toEqual(targets);
    await sync.check();
    expect(requests()).toEqual(['200 /v1/tip?root=1']);
    expect(await sync.plan('digits')).toMatchObject({ bp: 10_000 });
  });

  it('has no plan before there is metadata, or for a model or channel without one', async () => {
    const sync = open();
    expect(await sync.plan('digits')).toBeUndefined();
    expect(sync.confirmedAt()).toBe(0);
    await sync.check();
    expect(await sync.plan('digits')).toBeUndefined();
    await shipped('1.0.0', one);
    await sync.check();
    for (const name of ['faces', '__proto__', 'constructor']) {
      expect(await sync.plan(name)).toBeUndefined();
      expect(await sync.target(name)).toBeUndefined();
      expect(await sync.policy(name)).toEqual({ floorSeq: 0, revoked: [] });
    }
    const beta = open({ channel: 'beta' });
    await beta.check();
    expect(await beta.plan('digits')).toBeUndefined();
  });

  it('knows without any network what was verified before', async () => {
    await shipped('1.0.0', one);
    await open().check();
    const offline = open({ platform: testPlatform() });
    expect(await offline.plan('digits')).toMatchObject({ cand: { version: '1.0.0' }, isCurrent: true });
    expect(offline.info().metadata).toMatchObject({ targets: 2 });
    // When it was confirmed, a clock of another start cannot say.
    expect(offline.confirmedAt()).toBe(0);
  });

  it('says what is withdrawn also where no plan counts', async () => {
    await shipped('1.0.0', one);
    repository.targetsBody = {
      ...repository.targetsBody,
      version: repository.targetsBody.version + 1,
      custom: { models: { digits: { floorSeq: 1, revoked: [1] } } },
    };
    await repository.signAll();
    const sync = open();
    await sync.check();
    await expect(sync.plan('digits')).rejects.toThrow(failsWith('ERR_INLAY_WITHDRAWN'));
    expect(await sync.policy('digits')).toEqual({ floorSeq: 1, revoked: [1] });
  });

  it('keeps what it knows of two servers and of two channels apart in one store', async () => {
    await shipped('1.0.0', one);
    await open().check();
    const away = testPlatform();
    for (const other of [{ url: 'https://other.test' }, { channel: 'beta' }]) {
      const sync = open({ platform: away, ...other });
      expect(await sync.plan('digits')).toBeUndefined();
      expect(sync.owner).not.toBe(open().owner);
    }
    expect(await candidateOf(open({ platform: away, url: `${url}/` }))).toBe('1.0.0');
  });

  it('shares one poll among concurrent checks', async () => {
    const sync = open();
    await Promise.all([sync.check(), sync.check()]);
    expect(requests()).toEqual(['200 /v1/tip?root=1', '200 /v1/metadata/1.targets.json']);
  });

  it('survives a damaged record', async () => {
    await shipped('1.0.0', one);
    await open().check();
    await store.updateRecord(record, () => toUtf8('{"metadata":'));
    const sync = open();
    expect(await sync.plan('digits')).toBeUndefined();
    await sync.check();
    expect(await candidateOf(sync)).toBe('1.0.0');
  });

  it('does not let a slower process put older metadata over newer', async () => {
    await shipped('1.0.0', one);
    const slow = open();
    let release: (() => void) | undefined;
    server.intercept = (path) =>
      path.startsWith('/v1/metadata/')
        ? new Promise((resolve) => {
            release = () => {
              resolve(undefined);
            };
          })
        : undefined;
    const { files, targetsBody } = repository;
    const held = slow.check();
    await until(() => release !== undefined);
    server.intercept = () => undefined;
    await shipped('1.1.0', two);
    await open().check();
    const newer = fromUtf8((await store.readRecord(record)) ?? new Uint8Array());
    repository.files = files;
    repository.targetsBody = targetsBody;
    release?.();
    await held;
    expect(fromUtf8((await store.readRecord(record)) ?? new Uint8Array())).toBe(newer);
  });

  it.each([
    ['a URL without scheme', { url: 'sync.test' }, TypeError],
    ['a channel with a slash', { channel: 'a/b' }, TypeError],
    ['a period of 99 ms', { pollMs: 99 }, RangeError],
    ['a period that is no number', { pollMs: Number.NaN }, RangeError],
  ])('refuses %s', (_, parts, Class) => {
    expect(() => open(parts)).toThrow(Class);
  });
});

describe('a failing check', () => {
  it.each<[string, () => Response | Promise<Response>, string]>([
    ['an unreachable server', () => Promise.reject(new TypeError('fetch failed')), 'ERR_INLAY_NETWORK'],
    ['a server without metadata', () => Response.json({}, { status: 503 }), 'ERR_INLAY_HTTP_STATUS'],
    [
      'a web page',
      () => new Response('<html>', { headers: { 'content-type': 'text/html' } }),
      'ERR_INLAY_HTTP_CONTENT',
    ],
    ['JSON of another kind', () => Response.json({ hello: 1 }), 'ERR_INLAY_HTTP_CONTENT'],
    ['forged metadata', () => forgedTip(), 'ERR_INLAY_SIGNATURE'],
    ['metadata that is none', () => Response.json(tip('x', 'y')), 'ERR_INLAY_METADATA_INVALID'],
  ])('leaves everything in force: %s', async (_, answer, code) => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    const before = await store.readRecord(record);
    server.intercept = answer;
    expect(await failing(sync.check())).toEqual(failsWith(code));
    expect(sync.info().lastError).toEqual(failsWith(code));
    expect(await store.readRecord(record)).toEqual(before);
    expect(await candidateOf(sync)).toBe('1.0.0');
    expect(sync.confirmedAt()).toBe(testStart);
    server.intercept = () => undefined;
    requests();
    await sync.check();
    expect(requests()).toEqual(['304 /v1/tip?root=1']);
    expect(sync.info().lastError).toBeUndefined();
  });

  it('stores what was verified before the failure, so that it cannot be rolled back', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    const old = { ...repository.files };
    await shipped('1.1.0', two);
    const fresh = repository.files;
    repository.files = { ...fresh, snapshot: old.snapshot };
    expect(await failing(sync.check())).toEqual(failsWith('ERR_INLAY_LENGTH'));
    repository.files = old;
    expect(await failing(open().check())).toEqual(failsWith('ERR_INLAY_ROLLBACK'));
    repository.files = fresh;
    await sync.check();
    expect(await candidateOf(sync)).toBe('1.1.0');
  });

  it('is incomplete without the rollout that the snapshot lists', async () => {
    const { timestamp, snapshot } = repository.files;
    server.intercept = (path) =>
      path.startsWith('/v1/tip')
        ? Response.json({ roots: [], timestamp: fromUtf8(timestamp), snapshot: fromUtf8(snapshot) })
        : undefined;
    expect(await failing(open().check())).toEqual(failsWith('ERR_INLAY_METADATA_INVALID'));
  });

  it('indefinite freeze: a plan of expired metadata is not current', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    platform.setNow(testStart + 4 * day);
    expect(await sync.plan('digits')).toMatchObject({ isCurrent: false });
    expect(await failing(sync.check())).toEqual(failsWith('ERR_INLAY_EXPIRED'));
    expect(await sync.plan('digits')).toMatchObject({ cand: { version: '1.0.0' }, isCurrent: false });
    expect(sync.confirmedAt()).toBe(testStart);
  });

  it('indefinite freeze: a 304 confirms no expired metadata', async () => {
    const sync = open();
    await sync.check();
    platform.setNow(testStart + 4 * day);
    server.intercept = () => new Response(null, { status: 304 });
    expect(await failing(sync.check())).toEqual(failsWith('ERR_INLAY_HTTP_STATUS'));
  });

  it('arbitrary installation: a plan for an unsigned file does not count', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    const [plan] = repository.plans['stable'] ?? [];
    if (!plan) throw new Error('The plan is missing.');
    repository.plans = { stable: [{ ...plan, cand: { ...plan.cand, sha256: 'e'.repeat(64) } }] };
    await repository.signAll();
    await sync.check();
    await expect(sync.plan('digits')).rejects.toThrow(failsWith('ERR_INLAY_PLAN_INVALID'));
    expect(await sync.policy('digits')).toEqual({ floorSeq: 0, revoked: [] });
  });

  it('tries again when a request breaks', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    let tries = 0;
    server.intercept = () => {
      tries += 1;
      return tries < 3 ? Promise.reject(new TypeError('fetch failed')) : undefined;
    };
    expect(await failing(sync.check())).toBeUndefined();
    expect(await candidateOf(sync)).toBe('1.0.0');
  });
});

describe('keys', () => {
  it('follows a rotated root and goes on from there after a restart', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    const [a, b] = repository.root;
    const next = await newSigner(platform);
    if (!a || !b) throw new Error('Keys are missing.');
    await repository.rotateRoot({ root: [a, next] });
    await repository.rotateRoot({ root: [next], online: await newSigner(platform) });
    repository.versions = { timestamp: 1, snapshot: 1, rollout: 1 };
    await shipped('1.1.0', two);
    await sync.check();
    expect(sync.info().metadata).toMatchObject({ root: 3, timestamp: 2 });
    requests();
    const again = open();
    await again.check();
    expect(requests()).toEqual(['200 /v1/tip?root=3']);
    expect(await candidateOf(again)).toBe('1.1.0');
  });
});

describe('listeners', () => {
  it('hear of every check, also of one that fails and of one that brings nothing', async () => {
    const sync = open();
    let told = 0;
    const unsubscribe = sync.onChecked(() => (told += 1));
    await sync.check();
    await sync.check();
    expect(told).toBe(2);
    server.intercept = () => Response.json({}, { status: 500 });
    await failing(sync.check());
    expect(told).toBe(3);
    server.intercept = () => undefined;
    unsubscribe();
    await sync.check();
    expect(told).toBe(3);
  });

  it('find what the check has brought', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    const seen: Promise<string | undefined>[] = [];
    sync.onChecked(() => seen.push(candidateOf(sync)));
    await sync.check();
    expect(await Promise.all(seen)).toEqual(['1.0.0']);
  });
});

describe('the poll loop', () => {
  const pollMs = 3_600_000;

  it('begins after a random part of the period', async () => {
    const firsts = Array.from({ length: 200 }, (_, seed) => {
      const device = testPlatform({ seed, fetch: server.fetch });
      const sync = open({ platform: device, pollMs });
      sync.start();
      sync.start();
      expect(device.timers()).toHaveLength(1);
      expect(device.isKeptAlive()).toBe(false);
      return device.timers()[0] ?? -1;
    });
    expect(Math.min(...firsts)).toBeLessThan(pollMs * 0.05);
    expect(Math.max(...firsts)).toBeGreaterThan(pollMs * 0.95);
    expect(firsts.every((wait) => wait >= 0 && wait <= pollMs)).toBe(true);
  });

  it('polls once per period', async () => {
    const sync = open({ pollMs });
    sync.start();
    platform.advance(pollMs);
    await until(() => platform.timers().includes(pollMs));
    expect(requests()).toHaveLength(2);
    platform.advance(pollMs);
    await until(() => platform.timers().includes(pollMs));
    expect(requests()).toEqual(['304 /v1/tip?root=1']);
    await sync.stop();
    expect(platform.timers()).toEqual([]);
  });

  it('backs off while checks fail, tells the host, and recovers', async () => {
    const errors: unknown[] = [];
    server.intercept = () => Response.json({}, { status: 404 });
    const half = { ...platform, random: () => 0.5 };
    const sync = open({
      platform: half,
      pollMs,
      onError: (error) => {
        errors.push(error);
        throw new Error('The host fails too.');
      },
    });
    sync.start();
    platform.advance(pollMs / 2);
    const waits: number[] = [];
    for (let n = 1; n <= 9; n += 1) {
      await until(() => errors.length === n && platform.timers().length === 1);
      waits.push(platform.timers()[0] ?? -1);
      if (n < 9) platform.advance(waits.at(-1) ?? 0);
    }
    expect(waits.map((wait) => wait / 1000)).toEqual([15, 30, 60, 120, 240, 480, 960, 1800, 1800]);
    expect(errors[0]).toEqual(failsWith('ERR_INLAY_HTTP_STATUS'));
    server.intercept = () => undefined;
    platform.advance(platform.timers()[0] ?? 0);
    await until(() => platform.timers().includes(pollMs));
    expect(sync.info().lastError).toBeUndefined();

    server.intercept = () => Response.json({}, { status: 404 });
    platform.advance(pollMs);
    await until(() => errors.length === 10 && platform.timers().length === 1);
    expect(platform.timers()).toEqual([15_000]);
    await sync.stop();
  });

  it('leaves a server alone for as long as it asks', async () => {
    server.intercept = () => new Response(null, { status: 503, headers: { 'retry-after': '7200' } });
    const sync = open({ pollMs });
    sync.start();
    platform.advance(pollMs);
    await until(() => (platform.timers()[0] ?? 0) >= 7_200_000);
    expect(requests()).toHaveLength(1);
    await sync.stop();
  });

  it('stops at once and for good', async () => {
    server.intercept = () => new Promise(() => {});
    const sync = open({ pollMs });
    const errors: unknown[] = [];
    sync.start();
    const checking = sync.check().catch((error: unknown) => errors.push(error));
    await until(() => platform.timers().length > 1);
    await sync.stop();
    await sync.stop();
    await checking;
    expect(errors).toEqual([failsWith('ERR_INLAY_CLOSED')]);
    expect(platform.timers()).toEqual([]);
    await expect(sync.check()).rejects.toThrow(failsWith('ERR_INLAY_CLOSED'));
    await expect(sync.plan('digits')).rejects.toThrow(failsWith('ERR_INLAY_CLOSED'));
    sync.start();
    expect(platform.timers()).toEqual([]);
  });

  it('waits for what uses the store before it has stopped', async () => {
    const sync = open();
    let end = (): void => {};
    const running = sync.run(() => new Promise<void>((resolve) => (end = resolve)));
    let isStopped = false;
    const stopping = sync.stop().then(() => (isStopped = true));
    await until(() => sync.signal.aborted);
    await until(() => true);
    expect(isStopped).toBe(false);
    end();
    await Promise.all([running, stopping]);
    await expect(sync.run(async () => {})).rejects.toThrow(failsWith('ERR_INLAY_CLOSED'));
  });

  it('is held by a pause, and makes up for it when it goes on; a check works meanwhile', async () => {
    const sync = open({ pollMs });
    sync.start();
    sync.pause();
    expect(sync.info().isPaused).toBe(true);
    platform.advance(5 * pollMs);
    expect(requests()).toEqual([]);
    await sync.check();
    expect(requests()).toHaveLength(2);
    sync.resume();
    expect(sync.info().isPaused).toBe(false);
    await until(() => platform.timers().includes(pollMs));
    expect(requests()).toEqual(['304 /v1/tip?root=1']);
    sync.pause();
    sync.resume();
    expect(platform.timers()).toEqual([pollMs]);
    expect(requests()).toEqual([]);
    await sync.stop();
  });

  it('follows the shortest wish, down to 100 ms, and never polls more rarely than the app wants', async () => {
    const sync = open({ pollMs });
    const next = async (): Promise<number | undefined> => {
      const [wait = 0] = platform.timers();
      platform.advance(wait);
      await until(() => sync.info().lastCheckAt === platform.now() && platform.timers().length === 1);
      return platform.timers()[0];
    };
    sync.setPollWish('digits', 600_000);
    expect(platform.timers()).toEqual([]);
    sync.start();
    sync.setPollWish('faces', 900_000);
    expect(await next()).toBe(600_000);
    sync.setPollWish('digits', undefined);
    expect(await next()).toBe(900_000);
    sync.setPollWish('faces', 1);
    // It counts at once, but not for all devices in the same moment.
    expect(platform.timers()).toEqual([expect.toSatisfy((wait: number) => wait > 0 && wait < 100)]);
    const [wait] = platform.timers();
    sync.setPollWish('faces', 1);
    expect(platform.timers()).toEqual([wait]);
    expect(await next()).toBe(100);
    sync.setPollWish('faces', 10 * pollMs);
    expect(await next()).toBe(pollMs);
    await sync.stop();
  });

  it('does not begin after a stop', async () => {
    const sync = open({ pollMs });
    await sync.stop();
    sync.start();
    expect(platform.timers()).toEqual([]);
  });
});

function tip(timestamp: string, snapshot: string): object {
  return { roots: [], timestamp, snapshot, rollout: fromUtf8(repository.files.rollout) };
}

function forgedTip(): Response {
  const { files } = repository;
  const timestamp = fromUtf8(files.timestamp).replace(/"version":(\d+)\}\}$/, '"version":99}}');
  expect(timestamp).not.toBe(fromUtf8(files.timestamp));
  return Response.json(tip(timestamp, fromUtf8(files.snapshot)));
}
