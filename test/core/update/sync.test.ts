import { beforeEach, describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import { createSync, type Release, type Sync, type SyncParts } from '../../../src/update/sync.ts';
import { blobsIn } from '../../conformance/store.ts';
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
async function committed(sync: Sync): Promise<Release> {
  await sync.check();
  const release = await sync.resolve('digits');
  if (!release) throw new Error('Nothing is on offer.');
  await sync.commit('digits', release);
  return release;
}

describe('a sync', () => {
  it('brings the release of a plan into the store', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    expect(requests()).toEqual(['200 /v1/tip?root=1', `200 /v1/metadata/2.targets.json`]);
    const release = await sync.resolve('digits');
    expect(release).toMatchObject({ version: '1.0.0', seq: 1, length: 300 });
    expect(await release?.blob.bytes()).toEqual(one);
    expect(requests()).toEqual([`200 /v1/targets/models/digits/1/${release?.sha256}.model.onnx`]);
    expect(sync.info().bytesDownloaded).toBeGreaterThan(300);
    expect(sync.info()).toMatchObject({
      lastCheckAt: testStart,
      lastError: undefined,
      metadata: { targets: 2 },
    });
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
    expect(await sync.resolve('digits')).toBeDefined();
  });

  it('offers nothing before there is metadata, a plan, or a share for this device', async () => {
    const sync = open();
    expect(await sync.resolve('digits')).toBeUndefined();
    await sync.check();
    expect(await sync.resolve('digits')).toBeUndefined();
    await shipped('1.0.0', one, 0.01);
    await sync.check();
    expect(await sync.resolve('digits')).toBeUndefined();
  });

  it('keeps a device in its bucket across restarts', async () => {
    await shipped('1.0.0', one);
    await shipped('1.1.0', two, 50);
    const versions = new Set<string | undefined>();
    for (let start = 0; start < 5; start += 1) {
      const sync = open();
      await sync.check();
      versions.add((await sync.resolve('digits'))?.version);
    }
    expect(versions.size).toBe(1);
  });

  it('splits a fleet by the share', async () => {
    await shipped('1.0.0', one);
    await shipped('1.1.0', two, 30);
    let candidates = 0;
    for (let seed = 0; seed < 100; seed += 1) {
      const device = testPlatform({ seed, fetch: server.fetch });
      const sync = open({ platform: device, store: createMemoryStore() });
      await sync.check();
      if ((await sync.resolve('digits'))?.version === '1.1.0') candidates += 1;
    }
    // 100 draws of 30 % have a standard deviation of 4.6.
    expect(candidates).toBeGreaterThan(15);
    expect(candidates).toBeLessThan(45);
  });

  it('starts from the committed release without any network', async () => {
    await shipped('1.0.0', one);
    await committed(open());
    const offline = open({ platform: testPlatform() });
    const release = await offline.committed('digits');
    expect(release).toMatchObject({ version: '1.0.0' });
    expect(await release?.blob.bytes()).toEqual(one);
    expect(await offline.committed('faces')).toBeUndefined();
    expect(await offline.committed('__proto__')).toBeUndefined();
  });

  it('takes a committed release whose file is gone for none', async () => {
    await shipped('1.0.0', one);
    const release = await committed(open());
    await store.deleteBlob(release.sha256);
    expect(await open().committed('digits')).toBeUndefined();
  });

  it.each<[string, (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>]>([
    ['a bit flipped', (bytes) => bytes.fill((bytes[17] ?? 0) ^ 1, 17, 18)],
    ['its end lost', (bytes) => bytes.slice(0, -1)],
  ])('drops a file of which the disk has %s, and fetches it again', async (_, damage) => {
    await shipped('1.0.0', one);
    const release = await committed(open());
    const real = store;
    let damaged = true;
    store = {
      ...real,
      blob: async (sha256) => {
        const blob = await real.blob(sha256);
        if (!blob || !damaged) return blob;
        const bytes = damage(await blob.bytes());
        return { ...blob, sizeBytes: bytes.length, bytes: async () => bytes };
      },
      deleteBlob: async (sha256) => {
        damaged = false;
        await real.deleteBlob(sha256);
      },
    };
    const sync = open();
    expect(await sync.committed('digits')).toBeUndefined();
    damaged = true;
    await real.putBlob(release.sha256, one);
    requests();
    expect(await (await sync.resolve('digits'))?.blob.bytes()).toEqual(one);
    expect(requests()).toEqual([`200 /v1/targets/models/digits/1/${release.sha256}.model.onnx`]);
    expect(await sync.committed('digits')).toMatchObject({ version: '1.0.0' });
  });

  it('keeps what it knows of two servers apart in one store', async () => {
    await shipped('1.0.0', one);
    await committed(open());
    expect(await open({ url: 'https://other.test' }).committed('digits')).toBeUndefined();
    expect(await open().committed('digits')).toMatchObject({ version: '1.0.0' });
  });

  it('downloads a release once, however many ask for it', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    requests();
    await Promise.all([sync.resolve('digits'), sync.resolve('digits'), sync.resolve('digits')]);
    expect(requests()).toHaveLength(1);
  });

  it('shares one poll among concurrent checks', async () => {
    const sync = open();
    await Promise.all([sync.check(), sync.check()]);
    expect(requests()).toEqual(['200 /v1/tip?root=1', '200 /v1/metadata/1.targets.json']);
  });

  it('survives a damaged record', async () => {
    await shipped('1.0.0', one);
    await committed(open());
    await store.updateRecord(record, () => toUtf8('{"metadata":'));
    const sync = open();
    expect(await sync.committed('digits')).toBeUndefined();
    expect((await committed(sync)).version).toBe('1.0.0');
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
    await committed(sync);
    const before = await store.readRecord(record);
    server.intercept = answer;
    expect(await failing(sync.check())).toEqual(failsWith(code));
    expect(sync.info().lastError).toEqual(failsWith(code));
    expect(await store.readRecord(record)).toEqual(before);
    expect(await sync.committed('digits')).toMatchObject({ version: '1.0.0' });
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.0.0' });
    server.intercept = () => undefined;
    requests();
    await sync.check();
    expect(requests()).toEqual(['304 /v1/tip?root=1']);
    expect(sync.info().lastError).toBeUndefined();
  });

  it('stores what was verified before the failure, so that it cannot be rolled back', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await committed(sync);
    const old = { ...repository.files };
    await shipped('1.1.0', two);
    const fresh = repository.files;
    repository.files = { ...fresh, snapshot: old.snapshot };
    expect(await failing(sync.check())).toEqual(failsWith('ERR_INLAY_LENGTH'));
    repository.files = old;
    expect(await failing(open().check())).toEqual(failsWith('ERR_INLAY_ROLLBACK'));
    repository.files = fresh;
    await sync.check();
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.1.0' });
  });

  it('is incomplete without the rollout that the snapshot lists', async () => {
    const { timestamp, snapshot } = repository.files;
    server.intercept = (path) =>
      path.startsWith('/v1/tip')
        ? Response.json({ roots: [], timestamp: fromUtf8(timestamp), snapshot: fromUtf8(snapshot) })
        : undefined;
    expect(await failing(open().check())).toEqual(failsWith('ERR_INLAY_METADATA_INVALID'));
  });

  it('indefinite freeze: expired metadata stops activations and not what is committed', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await committed(sync);
    platform.setNow(testStart + 4 * day);
    expect(await failing(sync.check())).toEqual(failsWith('ERR_INLAY_EXPIRED'));
    await expect(sync.resolve('digits')).rejects.toThrow(failsWith('ERR_INLAY_EXPIRED'));
    expect(await sync.committed('digits')).toMatchObject({ version: '1.0.0' });
  });

  it('indefinite freeze: a 304 confirms no expired metadata', async () => {
    const sync = open();
    await sync.check();
    platform.setNow(testStart + 4 * day);
    server.intercept = () => new Response(null, { status: 304 });
    expect(await failing(sync.check())).toEqual(failsWith('ERR_INLAY_HTTP_STATUS'));
  });

  it('arbitrary installation: a plan for an unsigned file offers nothing', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await committed(sync);
    const [plan] = repository.plans['stable'] ?? [];
    if (!plan) throw new Error('The plan is missing.');
    repository.plans = { stable: [{ ...plan, cand: { ...plan.cand, sha256: 'e'.repeat(64) } }] };
    await repository.signAll();
    let told = 0;
    sync.subscribe(
      'digits',
      () => undefined,
      () => (told += 1),
    );
    await sync.check();
    expect(told).toBe(1);
    await expect(sync.resolve('digits')).rejects.toThrow(failsWith('ERR_INLAY_PLAN_INVALID'));
    expect(await sync.committed('digits')).toMatchObject({ version: '1.0.0' });
  });

  it.each<[string, Uint8Array, string]>([
    ['other content', Uint8Array.from({ length: 400 }), 'ERR_INLAY_HASH'],
    ['longer content', new Uint8Array(401), 'ERR_INLAY_LENGTH'],
    ['shorter content', new Uint8Array(399), 'ERR_INLAY_LENGTH'],
  ])('arbitrary installation: refuses a download with %s and tries it once', async (_, content, code) => {
    await shipped('1.0.0', one);
    const sync = open();
    await committed(sync);
    await shipped('1.1.0', two);
    await sync.check();
    requests();
    server.intercept = () => new Response(content.slice());
    expect(await failing(sync.resolve('digits'))).toEqual(failsWith(code));
    expect(requests()).toHaveLength(1);
    expect(await blobsIn(store)).toHaveLength(1);
    server.intercept = () => undefined;
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.1.0' });
  });

  it('tries again when a download breaks', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    let tries = 0;
    server.intercept = () => {
      tries += 1;
      return tries < 3 ? Promise.reject(new TypeError('fetch failed')) : undefined;
    };
    expect(await failing(sync.resolve('digits'))).toBeUndefined();
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.0.0' });
  });
});

describe('keys', () => {
  it('follows a rotated root and goes on from there after a restart', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await committed(sync);
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
    expect(await again.resolve('digits')).toMatchObject({ version: '1.1.0' });
  });
});

describe('offers', () => {
  it('tell the listener until it runs the release, whatever other processes committed', async () => {
    const sync = open();
    let told = 0;
    let running: string | undefined;
    const unsubscribe = sync.subscribe(
      'digits',
      () => running,
      () => (told += 1),
    );
    await sync.check();
    expect(told).toBe(0);
    await shipped('1.0.0', one);
    await sync.check();
    await sync.check();
    expect(told).toBe(2);
    const { path } = await committed(open());
    await sync.check();
    expect(told).toBe(3);
    running = path;
    await sync.check();
    expect(told).toBe(3);
    told = 0;
    await shipped('1.1.0', two);
    unsubscribe();
    await sync.check();
    expect(told).toBe(0);
  });

  it('fall back to the base when the candidate is rejected, until there is another rollout', async () => {
    await shipped('1.0.0', one);
    await shipped('1.1.0', two, 99.99);
    const sync = open();
    await sync.check();
    const candidate = await sync.resolve('digits');
    if (candidate?.version !== '1.1.0') throw new Error('The device is not in the share.');
    sync.reject('digits', candidate, new Error('does not open'));
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.0.0' });
    expect(sync.info().rejected).toEqual([
      { model: 'digits', version: '1.1.0', reason: new Error('does not open') },
    ]);
    await repository.rollOut({ ...candidate, model: 'digits' }, 100);
    await sync.check();
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.0.0' });
    await shipped('1.0.0', one);
    await repository.rollOut({ ...candidate, model: 'digits' }, 100);
    await sync.check();
    expect(await sync.resolve('digits')).toMatchObject({ version: '1.1.0' });
  });

  it('end with a rejected release that has no base', async () => {
    await shipped('1.0.0', one);
    const sync = open();
    await sync.check();
    const release = await sync.resolve('digits');
    if (!release) throw new Error('Nothing is on offer.');
    sync.reject('digits', release, new Error('does not open'));
    expect(await sync.resolve('digits')).toBeUndefined();
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
    await expect(sync.resolve('digits')).rejects.toThrow(failsWith('ERR_INLAY_CLOSED'));
    sync.start();
    expect(platform.timers()).toEqual([]);
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
