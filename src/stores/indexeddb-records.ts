/** Small atomic records in IndexedDB, for all stores of a browser. */

import { promisifyRequest, type UseStore } from 'idb-keyval';
import type { Store } from '../core/store.ts';
import { guard, storeError } from './web-storage.ts';

/** A database of keys and values. */
export interface Database {
  readonly name: string;
  /** For the functions of idb-keyval. What a transaction wrote survives a crash of the browser. */
  readonly use: UseStore;
  close(): void;
}

const objectStore = 'inlay';

/**
 * Opens a database when it is first used, and again when the browser has closed it. Where something else has made one of
 * that name, the database is called `<name>-store`.
 */
export function openDatabase(name: string): Database {
  let opening: Promise<IDBDatabase> | undefined;

  const open = async (): Promise<IDBDatabase> => {
    if (typeof indexedDB === 'undefined') throw storeError(placeOf(name), 'open', 'not supported here');
    // All libraries of an origin share these names; what another one has made is left as it is.
    const database = (await openOwn(name)) ?? (await openOwn(`${name}-store`));
    if (database === undefined) throw storeError(placeOf(name), 'open', 'the name is taken');
    const forget = (): void => {
      opening = undefined;
    };
    // Safari closes connections of pages that it has put to sleep.
    database.onclose = forget;
    // Another tab removes the database, and waits until nobody has it open.
    database.onversionchange = () => {
      forget();
      database.close();
    };
    return database;
  };

  const begin = async (mode: IDBTransactionMode): Promise<IDBObjectStore> => {
    opening ??= open().catch((error: unknown) => {
      opening = undefined;
      throw error;
    });
    // Chromium's default does not flush, so that a crash of the system would lose what was reported as kept.
    return (await opening).transaction(objectStore, mode, { durability: 'strict' }).objectStore(objectStore);
  };

  return {
    name,
    use: async (mode, callback) => {
      const store = await begin(mode).catch((error: unknown) => {
        if (!(error instanceof DOMException && error.name === 'InvalidStateError')) throw error;
        // The connection was closed a moment ago, and the event that says so is still on its way.
        opening = undefined;
        return begin(mode);
      });
      return callback(store);
    },
    close: () => {
      void opening?.then((database) => database.close()).catch(() => {});
      opening = undefined;
    },
  };
}

/** Opens a database of whatever version, or makes it; `undefined` where it belongs to something else. */
async function openOwn(name: string): Promise<IDBDatabase | undefined> {
  const request = indexedDB.open(name);
  request.onupgradeneeded = () => {
    request.result.createObjectStore(objectStore);
  };
  const database = await promisifyRequest(request);
  if (database.objectStoreNames.contains(objectStore)) return database;
  database.close();
  return undefined;
}

/** Records of a database. Names are not checked. */
export type Records = Pick<Store, 'readRecord' | 'updateRecord'>;

/**
 * Keeps records in a database. There is one generation of each: a transaction is whole or did not happen, also in a
 * crash, and the database has checksums of its own.
 */
export function createRecords({ name: database, use }: Database): Records {
  const keyOf = (name: string): IDBValidKey => ['record', name];
  const where = placeOf(database);
  return {
    readRecord: (name) =>
      guard(where, 'read a record', async () =>
        toBytes(await use('readonly', (store) => promisifyRequest<unknown>(store.get(keyOf(name))))),
      ),

    updateRecord: async (name, change) => {
      let failure: { readonly error: unknown } | undefined;
      let isChanging = false;
      let kept: Uint8Array<ArrayBuffer> | undefined;
      const update = async (store: IDBObjectStore): Promise<void> => {
        const { transaction } = store;
        const request = store.get(keyOf(name));
        request.onsuccess = () => {
          try {
            kept = toBytes(request.result);
            isChanging = true;
            const changed = change(kept && new Uint8Array(kept));
            isChanging = false;
            if (changed === undefined) return;
            kept = new Uint8Array(changed);
            store.put(kept, keyOf(name));
          } catch (error) {
            failure = { error };
            transaction.abort();
          }
        };
        await promisifyRequest(transaction).catch((error: unknown) => {
          throw failure ? failure.error : error;
        });
      };
      try {
        await guard(where, 'update a record', () => use('readwrite', update));
      } catch (error) {
        // What the change throws is not the database's.
        throw isChanging && failure ? failure.error : error;
      }
      return kept;
    },
  };
}

/** Names a database in messages. */
export function placeOf(name: string): string {
  return `the IndexedDB database ${name}`;
}

function toBytes(value: unknown): Uint8Array<ArrayBuffer> | undefined {
  return value instanceof Uint8Array ? new Uint8Array(value) : undefined;
}
