import { describe, expect, it, onTestFinished } from 'vitest';
import { equalBytes, fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import { openIndexedDbStore, type IndexedDbStoreOptions } from '../../src/stores/indexeddb.ts';
import { openOpfsStore } from '../../src/stores/opfs.ts';
import { testParts } from '../conformance/store-parts.ts';
import { testRoom } from '../conformance/store-room.ts';
import { codeOf, inPieces, nameOf, testStore, type OpenedStore } from '../conformance/store.ts';
import { freshName, keysIn, removeAll } from './store-fixture.ts';
import { openInWorker } from './store-remote.ts';

const chunksIn = async (database: string): Promise<readonly string[]> =>
  (await keysIn(database)).filter((key) => key.startsWith('["chunk"'));

async function open(options: IndexedDbStoreOptions, former?: OpenedStore): Promise<OpenedStore> {
  const database = former?.store.info().location ?? freshName();
  const store = openIndexedDbStore({ database, ...options });
  return {
    store,
    cleanup: async () => {
      await store.close();
      await removeAll(database);
    },
  };
}

testStore('IndexedDB', () => open({}));
testStore('IndexedDB, used in a worker', async () => {
  const name = freshName();
  const store = await openInWorker({ kind: 'indexeddb', name });
  return {
    store,
    cleanup: async () => {
      await store.close();
      await removeAll(name);
    },
  };
});
testRoom('IndexedDB', open);
testParts('IndexedDB', open, 1 << 22);

const abc = toUtf8('abc');

describe('IndexedDB', () => {
  const fresh = (options: IndexedDbStoreOptions = {}) => {
    const database = options.database ?? freshName();
    const store = openIndexedDbStore({ database, ...options });
    onTestFinished(async () => {
      await store.close();
      await removeAll(database);
    });
    return { store, database };
  };

  it('is read by whoever opens it next', async () => {
    const { store, database } = fresh();
    await store.putBlob(nameOf(abc), abc);
    await store.updateRecord('slots', () => abc);
    await store.close();
    const { store: next } = fresh({ database });
    expect(await (await next.blob(nameOf(abc)))?.bytes()).toEqual(abc);
    expect(await next.readRecord('slots')).toEqual(abc);
    expect(next.info()).toEqual({ kind: 'indexeddb', location: database });
  });

  it('keeps large content equal, in chunks of 4 MB, whatever pieces it comes in', async () => {
    const content = Uint8Array.from({ length: 9_000_001 }, (_, i) => i % 251);
    const { store, database } = fresh();
    for (const given of [content, inPieces(content, 700_001)]) {
      const blob = await store.putBlob(nameOf(content), given);
      expect(await chunksIn(database)).toHaveLength(3);
      expect(equalBytes(await blob.bytes(), content)).toBe(true);
      await store.deleteBlob(blob.sha256);
      expect(await chunksIn(database)).toEqual([]);
    }
  });

  it('keeps the chunks of one writer when several write the same', async () => {
    const { store, database } = fresh();
    const others = [fresh({ database }).store, fresh({ database }).store];
    await Promise.all([store, ...others].map((each) => each.putBlob(nameOf(abc), inPieces(abc, 1))));
    expect(await chunksIn(database)).toHaveLength(1);
    expect(await (await others[0]!.blob(nameOf(abc)))?.bytes()).toEqual(abc);
  });

  it('leaves nothing of content that is wrong or breaks off', async () => {
    const { store, database } = fresh();
    expect(await codeOf(store.putBlob(nameOf(abc), toUtf8('abd')))).toBe('ERR_INLAY_STORE_MISMATCH');
    const broken = async function* (): AsyncGenerator<Uint8Array, void> {
      yield new Uint8Array(5_000_000);
      throw new Error('connection lost');
    };
    await expect(store.putBlob(nameOf(abc), broken())).rejects.toThrow('connection lost');
    expect(await chunksIn(database)).toEqual([]);
  });

  it('says so when a blob is gone by the time it is read', async () => {
    const { store } = fresh();
    const blob = await store.putBlob(nameOf(abc), abc);
    await store.deleteBlob(blob.sha256);
    expect(await codeOf(blob.bytes())).toBe('ERR_INLAY_STORE_MISSING');
  });

  it('removes what a dead writer left, and nothing that a living one is writing', async () => {
    const { store, database } = fresh();
    await store.updateRecord('slots', () => abc);
    const db = await new Promise<IDBDatabase>((resolve) => {
      const request = indexedDB.open(database);
      request.onsuccess = () => resolve(request.result);
    });
    const transaction = db.transaction('inlay', 'readwrite');
    transaction.objectStore('inlay').put(new Uint8Array(9), ['chunk', 'dead-0', 0]);
    transaction.objectStore('inlay').put(new Uint8Array(9), ['chunk', 'dead-0', 1]);
    await new Promise((resolve) => {
      transaction.oncomplete = resolve;
    });
    db.close();

    let written = (): void => {};
    const isWritten = new Promise<void>((resolve) => {
      written = resolve;
    });
    let goOn = (): void => {};
    const mayGoOn = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const content = new Uint8Array(5_000_000).fill(1);
    const slow = async function* (): AsyncGenerator<Uint8Array, void> {
      yield content;
      written();
      await mayGoOn;
    };
    const writing = store.putBlob(nameOf(content), slow());
    await isWritten;
    const { store: other } = fresh({ database });
    await other.putBlob(nameOf(abc), abc);
    expect((await chunksIn(database)).filter((key) => key.includes('dead-0'))).toEqual([]);
    expect(await chunksIn(database)).toHaveLength(2);
    goOn();
    expect(equalBytes(await (await writing).bytes(), content)).toBe(true);
  });

  it('keeps the chunks of a part for its next opener, and no others', async () => {
    const { store, database } = fresh();
    const content = Uint8Array.from({ length: 9_000_001 }, (_, i) => i % 251);
    const part = await store.openPartial(nameOf(content), content.length);
    for (let at = 0; at < 6_000_000; at += 1_000_000)
      await part.write(at, content.subarray(at, at + 1_000_000));
    await part.save(toUtf8('6000000'));
    await store.close();
    const { store: next } = fresh({ database });
    await next.putBlob(nameOf(abc), abc);
    expect(await chunksIn(database)).toHaveLength(3);
    const rest = await next.openPartial(nameOf(content), content.length);
    expect(fromUtf8(rest.note!)).toBe('6000000');
    await rest.write(6_000_000, content.subarray(6_000_000));
    expect(equalBytes(await (await rest.finish()).bytes(), content)).toBe(true);
    expect(await chunksIn(database)).toHaveLength(4);
    await next.deleteBlob(nameOf(content));
    await (await next.openPartial(nameOf(content), content.length)).discard();
    expect(await chunksIn(database)).toHaveLength(1);
    expect((await keysIn(database)).filter((key) => key.startsWith('["part"'))).toEqual([]);
  });

  it('takes no part of the store of files for its own, which may share its database', async () => {
    const { store, database } = fresh();
    const files = openOpfsStore({ directory: database, worker: false });
    const theirs = await files.openPartial(nameOf(abc), 3);
    await theirs.save(abc);
    const own = await store.openPartial(nameOf(abc), 3);
    expect(own.note).toBeUndefined();
    await own.discard();
    await theirs.write(0, abc);
    expect(await (await theirs.finish()).bytes()).toEqual(abc);
    await files.close();
  });

  it('shares its records with the store of files, so that a change of store forgets nothing', async () => {
    const { store, database } = fresh();
    await store.updateRecord('install', () => toUtf8('me'));
    const files = openOpfsStore({ directory: database, worker: false });
    expect(fromUtf8((await files.readRecord('install'))!)).toBe('me');
    await files.close();
  });

  it('goes on when the browser has closed its connection', async () => {
    const { store, database } = fresh();
    await store.updateRecord('slots', () => abc);
    await removeAll(database);
    expect(await store.readRecord('slots')).toBeUndefined();
    await store.updateRecord('slots', () => abc);
    expect(await store.readRecord('slots')).toEqual(abc);
  });
});
