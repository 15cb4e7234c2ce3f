import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { StoreError } from '../../src/core/errors.ts';
import type { Store } from '../../src/core/store.ts';
import { withMemoryFallback } from '../../src/stores/fallback.ts';
import { openIndexedDbStore } from '../../src/stores/indexeddb.ts';
import { openLazily } from '../../src/stores/lazy.ts';
import { openOpfsStore } from '../../src/stores/opfs.ts';
import { isIterable } from '../../src/stores/rules.ts';
import { openWebStore, type WebStoreOptions } from '../../src/stores/web.ts';
import { blobsIn, codeOf, inPieces, nameOf, testStore } from '../conformance/store.ts';
import { freshName, removeAll } from './store-fixture.ts';

const worker = () =>
  new Worker(new URL('../../src/stores/opfs-writer.ts', import.meta.url), { type: 'module' });
const abc = toUtf8('abc');

async function open(options: WebStoreOptions = {}): Promise<Store & { readonly name: string }> {
  const { name = freshName() } = options;
  const store = await openWebStore({ worker, name, ...options });
  onTestFinished(async () => {
    await store.close();
    await removeAll(name);
  });
  return { ...store, name };
}

testStore('the store of a page', async () => {
  const name = freshName();
  const store = openLazily('web', () => openWebStore({ name, worker }));
  return {
    store,
    cleanup: async () => {
      await store.close();
      await removeAll(name);
    },
  };
});

describe('the store of a page', () => {
  afterEach(() => vi.restoreAllMocks());

  it('is OPFS where there is one', async () => {
    expect((await open()).info()).toMatchObject({ kind: 'opfs' });
  });

  it.each<[string, () => void]>([
    ['no folder', () => vi.spyOn(navigator.storage, 'getDirectory').mockRejectedValue(refusal())],
    ['no locks', () => vi.spyOn(navigator, 'locks', 'get').mockReturnValue(undefined as never)],
    ['no storage manager', () => vi.spyOn(navigator, 'storage', 'get').mockReturnValue(undefined as never)],
  ])('is IndexedDB where there is %s', async (_, spoil) => {
    spoil();
    const store = await open();
    expect(store.info()).toEqual({ kind: 'indexeddb', location: store.name });
    await store.putBlob(nameOf(abc), abc);
    await store.reserve(1);
    await store.persist();
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
  });

  it.each<[string, () => void]>([
    [
      'is refused',
      () =>
        vi.spyOn(IDBFactory.prototype, 'open').mockImplementation(() => {
          throw refusal();
        }),
    ],
    ['is missing', () => vi.stubGlobal('indexedDB', undefined)],
  ])('is memory where IndexedDB %s, and says why', async (_, spoil) => {
    spoil();
    const warnings: string[] = [];
    const store = await openWebStore({
      worker,
      logger: { warn: (__, message) => void warnings.push(message) },
    });
    vi.unstubAllGlobals();
    expect(store.info()).toMatchObject({
      kind: 'memory',
      degraded: expect.stringMatching(/only.*IndexedDB/) as string,
    });
    expect(warnings).toEqual(['Models and state are kept in memory only.']);
    await store.updateRecord('a', () => abc);
    expect(await store.readRecord('a')).toEqual(abc);
  });

  it('is memory where the database never opens', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    vi.spyOn(IDBFactory.prototype, 'open').mockReturnValue({} as IDBOpenDBRequest);
    const opening = openWebStore({ worker });
    for (let i = 0; i < 20; i += 1) {
      await vi.advanceTimersByTimeAsync(1_000);
      await new Promise((resolve) => {
        requestAnimationFrame(resolve);
      });
    }
    expect((await opening).info()).toMatchObject({ kind: 'memory' });
  });

  it('leaves a database of that name alone which something else has made', async () => {
    const name = freshName();
    const openForeign = (): Promise<IDBDatabase> =>
      new Promise((resolve, reject) => {
        const request = indexedDB.open(name, 5);
        request.onupgradeneeded = () => request.result.createObjectStore('other');
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    (await openForeign()).close();
    const store = await open({ name });
    onTestFinished(() => removeAll(`${name}-store`));
    expect(store.info()).toEqual({ kind: 'opfs', location: name });
    await store.updateRecord('a', () => abc);
    expect(await store.readRecord('a')).toEqual(abc);
    const foreign = await openForeign();
    expect([...foreign.objectStoreNames]).toEqual(['other']);
    foreign.close();
  });

  it('goes on in memory when a write is refused, with one warning', async () => {
    const warnings: object[] = [];
    const store = await open({ logger: { warn: (facts) => void warnings.push(facts) } });
    await store.updateRecord('count', () => toUtf8('1'));
    vi.spyOn(IDBObjectStore.prototype, 'put').mockImplementation(() => {
      throw refusal();
    });
    await store.updateRecord('count', (present) => (present ? toUtf8('2') : undefined));
    await store.updateRecord('other', () => abc);
    expect(await store.readRecord('count')).toEqual(toUtf8('2'));
    expect(store.info()).toMatchObject({
      kind: 'memory',
      degraded: expect.stringMatching(/only.*InvalidStateError/) as string,
    });
    expect(warnings).toHaveLength(1);
  });
});

describe('a store opened lazily', () => {
  it('opens nothing before it is used, and once', async () => {
    let opened = 0;
    const name = freshName();
    const store = openLazily('web', async () => {
      opened += 1;
      return openIndexedDbStore({ database: name });
    });
    onTestFinished(async () => {
      await store.close();
      await removeAll(name);
    });
    expect(store.info()).toEqual({ kind: 'web' });
    expect(opened).toBe(0);
    await Promise.all([blobsIn(store), store.readRecord('a')]);
    expect(opened).toBe(1);
    expect(store.info()).toEqual({ kind: 'indexeddb', location: name });
  });

  it('is tried again when it did not open', async () => {
    let tries = 0;
    const store = openLazily('web', async () => {
      tries += 1;
      if (tries === 1) throw new TypeError('Failed to fetch dynamically imported module.');
      return openIndexedDbStore({ database: freshName() });
    });
    await expect(blobsIn(store)).rejects.toThrow('dynamically imported');
    expect(await blobsIn(store)).toEqual([]);
    await store.close();
  });

  it('opens nothing when it is closed unused', async () => {
    const store = openLazily('web', () => Promise.reject(new Error('was opened')));
    await store.close();
    expect(await codeOf(blobsIn(store))).toBe('ERR_INLAY_CLOSED');
  });
});

describe('a store that is full', () => {
  it('is given up only after it has evicted what it may', async () => {
    const name = freshName();
    const files = openOpfsStore({ directory: name, worker: false });
    onTestFinished(() => removeAll(name));
    await files.putBlob(nameOf(abc), abc);
    const full = (): never => {
      throw new StoreError('ERR_INLAY_STORE_FULL', 'Full.');
    };
    const store = withMemoryFallback(
      {
        ...files,
        putBlob: async (_, content) => {
          if (isIterable(content)) await content[Symbol.asyncIterator]().next();
          return full();
        },
        reserve: async () => {
          if ((await blobsIn(files)).length === 0) full();
          await files.deleteBlob(nameOf(abc));
        },
      },
      undefined,
      { whenFull: true },
    );
    const other = toUtf8('other');
    const put = () => codeOf(store.putBlob(nameOf(other), inPieces(other, 1)));
    // What was read of a stream is gone. Whoever has it asks for room, and gives it again.
    expect(await put()).toBe('ERR_INLAY_STORE_FULL');
    await store.reserve(1);
    expect(await blobsIn(files)).toEqual([]);
    expect(await put()).toBe('ERR_INLAY_STORE_FULL');
    expect(store.info().kind).toBe('opfs');
    await store.reserve(1);
    expect(store.info()).toMatchObject({ kind: 'memory', degraded: expect.stringMatching(/Full/) as string });
    expect(await put()).toBe('fulfilled');
    expect(await blobsIn(store)).toEqual([nameOf(other)]);
    await store.close();
  });
});

function refusal(): DOMException {
  return new DOMException('Refused.', 'InvalidStateError');
}
