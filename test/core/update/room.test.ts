/** What updates do about room: they keep what is needed, and let the rest make way. */
import { beforeEach, describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { withMemoryFallback } from '../../../src/stores/fallback.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import { createSync, type Sync } from '../../../src/update/sync.ts';
import { blobsIn } from '../../conformance/store.ts';
import { testPlatform, type TestPlatform } from '../platform.ts';
import { createRepository, serve, type FakeServer, type Repository } from '../publish/repository.ts';

const url = 'https://sync.test';
const contents = [1, 2, 3, 4].map((seed) => Uint8Array.from({ length: 300 }, (_, i) => (i * seed) % 251));
const names = contents.map((content) => sha256Hex(testPlatform(), content));
const [one = '', two = '', three = '', four = ''] = names;

let repository: Repository;
let server: FakeServer;
let platform: TestPlatform;
beforeEach(async () => {
  repository = await createRepository(testPlatform());
  server = serve(() => repository);
  platform = testPlatform({ fetch: server.fetch });
});

const open = (store: Store): Sync => createSync({ platform, store, url, root: repository.roots[0] ?? '' });

/** Ships the release of this number, and takes it as far as told. */
async function update(sync: Sync, number: number, model = 'digits', commits = true): Promise<void> {
  const release = await repository.release(model, `${number}.0.0`, contents[number - 1] ?? new Uint8Array());
  await repository.rollOut(release, 100);
  await sync.check();
  const offered = await sync.resolve(model);
  if (!offered) throw new Error('Nothing is on offer.');
  if (commits) await sync.commit(model, offered);
}

async function pinned(store: Store): Promise<readonly string[]> {
  return (await store.describeBlobs()).filter(({ pins }) => pins.length > 0).map(({ sha256 }) => sha256);
}

describe('a sync', () => {
  it('pins what runs and what ran before it, of every model', async () => {
    const store = createMemoryStore();
    const sync = open(store);
    await update(sync, 1);
    await update(sync, 2);
    await update(sync, 3);
    await update(sync, 4, 'faces');
    await sync.stop();
    expect(await pinned(store)).toEqual([two, three, four].sort());
    expect(await blobsIn(store)).toEqual([...names].sort());
  });

  it('pins what is on its way before it is remembered', async () => {
    const store = createMemoryStore();
    const sync = open(store);
    await update(sync, 1);
    await update(sync, 2, 'digits', false);
    expect(await pinned(store)).toEqual([one, two].sort());
  });

  it('pins again what a restart finds', async () => {
    const store = createMemoryStore();
    const first = open(store);
    await update(first, 1);
    await first.stop();
    const [owner = ''] = (await store.describeBlobs())[0]?.pins ?? [];
    await store.pin(owner, []);
    const next = open(store);
    expect(await next.committed('digits')).toMatchObject({ sha256: one });
    await next.stop();
    expect(await pinned(store)).toEqual([one]);
  });

  it('evicts the versions before those when the store has a quota', async () => {
    const store = createMemoryStore({ quotaBytes: 900 });
    const sync = open(store);
    for (const number of [1, 2, 3, 4]) await update(sync, number);
    expect(await blobsIn(store)).toEqual([two, three, four].sort());
  });

  it('asks for no byte of a file that will not fit, and goes on with what it has', async () => {
    const store = createMemoryStore({ quotaBytes: 500 });
    const sync = open(store);
    await update(sync, 1);
    server.requests.splice(0);
    await expect(update(sync, 2)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    expect(server.requests.filter(({ path }) => path.startsWith('/v1/targets/'))).toEqual([]);
    expect(await blobsIn(store)).toEqual([one]);
    expect(await sync.committed('digits')).toMatchObject({ sha256: one });
  });

  it('runs although its pins cannot be written', async () => {
    const store: Store = {
      ...createMemoryStore(),
      pin: () => Promise.reject(new StoreError('ERR_INLAY_STORE_READ_ONLY', 'Read-only.')),
    };
    const sync = open(store);
    await update(sync, 1);
    expect(await sync.committed('digits')).toMatchObject({ sha256: one });
  });

  it('reads the state of a version that knew no previous release', async () => {
    const store = createMemoryStore();
    const sync = open(store);
    await update(sync, 1);
    await update(sync, 2);
    const record = `sync-stable-${sha256Hex(platform, toUtf8(url)).slice(0, 16)}`;
    await store.updateRecord(record, (present) => {
      const { previous, ...state } = JSON.parse(new TextDecoder().decode(present)) as Record<string, unknown>;
      expect(previous).toMatchObject({ digits: { sha256: one } });
      return toUtf8(JSON.stringify(state));
    });
    expect(await open(store).committed('digits')).toMatchObject({ sha256: two });
  });
});

describe('a download during which a disk breaks', () => {
  /** A store whose writes fail halfway, in a page that can go on in memory. */
  const brokenStore = (): Store => ({
    ...createMemoryStore(),
    info: () => ({ kind: 'disk' }),
    putBlob: async (_, content) => {
      await (content as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]().next();
      throw new StoreError('ERR_INLAY_STORE_IO', 'The disk is gone.');
    },
  });

  it('begins again where the store goes on in memory', async () => {
    const store = withMemoryFallback(brokenStore());
    await update(open(store), 1);
    expect(await blobsIn(store)).toEqual([one]);
    expect(store.info().degraded).toMatch(/^Models are kept in memory only.*disk is gone/);
  });

  it('fails where it does not', async () => {
    await expect(update(open(brokenStore()), 1)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    expect(server.requests.filter(({ path }) => path.startsWith('/v1/targets/'))).toHaveLength(1);
  });
});

describe('a download for which a store finds no room halfway', () => {
  /** A store that claims to have room, and fails the first `failures` writes halfway. */
  const shortStore = (failures: number): Store & { readonly asked: number[] } => {
    const store = createMemoryStore();
    const asked: number[] = [];
    let left = failures;
    return {
      ...store,
      asked,
      reserve: async (sizeBytes) => void asked.push(sizeBytes),
      putBlob: async (sha256, content) => {
        if (left <= 0) return store.putBlob(sha256, content);
        left -= 1;
        await (content as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]().next();
        throw new StoreError('ERR_INLAY_STORE_FULL', 'The disk is full.');
      },
    };
  };

  it('asks for room and begins again', async () => {
    const store = shortStore(2);
    await update(open(store), 1);
    expect(await blobsIn(store)).toEqual([one]);
    expect(store.asked).toEqual([300, 300, 300]);
  });

  it('fails when there is still none', async () => {
    const store = shortStore(3);
    await expect(update(open(store), 1)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    expect(await blobsIn(store)).toEqual([]);
  });
});
