/** Whose a part of a blob is, and the note about it: one entry of a database, for all stores of a browser. */

import { promisifyRequest } from 'idb-keyval';
import { placeOf, type Database } from './indexeddb-records.ts';
import { takenOver } from './parts.ts';
import { guard } from './web-storage.ts';

/** What is known of a part. */
export interface Claim {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Where its bytes are. */
  readonly data: string;
  /** Milliseconds since 1970. */
  readonly openedAt: number;
  /** Of its opener: the next one puts its own in place. */
  readonly token: string;
  readonly note: Uint8Array<ArrayBuffer> | undefined;
}

/** The claims of one kind of store. */
export interface Claims {
  read(sha256: string): Promise<Claim | undefined>;
  list(): Promise<readonly Claim[]>;
  /** Makes a claim out of the one before, in one step. @returns it. */
  take(sha256: string, make: (present: Claim | undefined, store: IDBObjectStore) => Claim): Promise<Claim>;
  /**
   * Takes a step as one transaction, in which the claim may be changed with {@link putClaim}.
   * @throws {@link StoreError} as `takenOver`, if the part is somebody else's by now.
   */
  change(claim: Claim, step: string, task?: (store: IDBObjectStore) => void): Promise<void>;
  /** Writes down a claim of a transaction. */
  put(store: IDBObjectStore, claim: Claim): void;
  delete(store: IDBObjectStore, sha256: string): void;
  /** Removes a claim, whosever it is. */
  remove(sha256: string, task?: (present: Claim, store: IDBObjectStore) => void): Promise<void>;
}

/** Opens the claims of a database. @param kind - keeps those of stores apart that share a database. */
export function createClaims(database: Database, kind: 'part' | 'file'): Claims {
  const place = placeOf(database.name);
  const keyOf = (sha256: string): IDBValidKey => [kind, sha256];

  const within = (
    sha256: string,
    step: string,
    task: (present: Claim | undefined, store: IDBObjectStore) => void,
  ): Promise<void> =>
    guard(place, step, () =>
      database.use('readwrite', async (store) => {
        const request = store.get(keyOf(sha256)) as IDBRequest<Claim | undefined>;
        request.onsuccess = () => task(request.result, store);
        await promisifyRequest(store.transaction);
      }),
    );
  const put: Claims['put'] = (store, claim) => void store.put(claim, keyOf(claim.sha256));

  return {
    put,
    delete: (store, sha256) => void store.delete(keyOf(sha256)),

    read: (sha256) =>
      guard(place, 'read', () =>
        database.use('readonly', (store) => promisifyRequest<Claim | undefined>(store.get(keyOf(sha256)))),
      ),

    list: () =>
      guard(place, 'list', () =>
        database.use('readonly', (store) => promisifyRequest(claimsIn(store, kind))),
      ),

    take: async (sha256, make) => {
      let own: Claim | undefined;
      await within(sha256, 'open', (present, store) => {
        own = make(present, store);
        put(store, own);
      });
      if (own === undefined) throw takenOver(sha256);
      return own;
    },

    change: async ({ sha256, token }, step, task) => {
      let isOwn = false;
      await within(sha256, step, (present, store) => {
        isOwn = present?.token === token;
        if (isOwn) task?.(store);
      });
      if (!isOwn) throw takenOver(sha256);
    },

    remove: (sha256, task) =>
      within(sha256, 'delete', (present, store) => {
        if (present === undefined) return;
        store.delete(keyOf(sha256));
        task?.(present, store);
      }),
  };
}

/** Asks for all claims of a kind. */
export function claimsIn(store: IDBObjectStore, kind: 'part' | 'file'): IDBRequest<Claim[]> {
  return store.getAll(IDBKeyRange.bound([kind], [kind, []]));
}
