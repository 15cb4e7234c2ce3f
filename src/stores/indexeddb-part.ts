/** Blobs that come together piece by piece, in chunks of a database. */

import { sha256 as createSha256 } from '@noble/hashes/sha2.js';
import { promisifyRequest } from 'idb-keyval';
import type { Blob } from '../core/store.ts';
import { all, chunkBytes, placeBlob, type Manifest } from './indexeddb-blobs.ts';
import { claimsIn, createClaims, type Claim } from './indexeddb-claims.ts';
import { placeOf, type Database } from './indexeddb-records.ts';
import { hashInTurns, type OpenPart, type PartsHost } from './parts.ts';
import { guard, nextTurn } from './web-storage.ts';

/** Where parts are kept, and where they go. */
export interface DatabasePartsOptions {
  readonly database: Database;
  now(): number;
  /** Names chunks that nobody else writes, and openers. */
  newUpload(): string;
  blobOf(manifest: Manifest): Blob;
}

/**
 * Keeps parts as chunks. Every change is a transaction that looks first whose the part is. The chunk that is being
 * written stays in memory until the next one is, or until it is saved.
 */
export function createDatabaseParts({ database, now, newUpload, blobOf }: DatabasePartsOptions): PartsHost {
  const place = placeOf(database.name);

  const claims = createClaims(database, 'part');

  const openPart = async (sha256: string, sizeBytes: number): Promise<OpenPart> => {
    const token = newUpload();
    let own = await claims.take(sha256, (present, store) => {
      const fresh = { sha256, sizeBytes, data: token, openedAt: now(), token, note: undefined };
      if (present?.sizeBytes === sizeBytes && present.note)
        return { ...fresh, data: present.data, note: present.note };
      if (present) store.delete(all('chunk', present.data));
      return fresh;
    });
    const count = Math.ceil(sizeBytes / chunkBytes);
    const sizeOf = (index: number): number => Math.min(chunkBytes, sizeBytes - index * chunkBytes);
    /** The chunk that was used last, and whether it has what the database has not. */
    let cached:
      | { readonly index: number; readonly bytes: Uint8Array<ArrayBuffer>; isChanged: boolean }
      | undefined;

    const assertOwn = (): Promise<void> => claims.change(own, 'look');
    const put = (store: IDBObjectStore): void => {
      if (cached?.isChanged) store.put(cached.bytes, ['chunk', own.data, cached.index]);
    };
    const flush = async (): Promise<void> => {
      if (!cached?.isChanged) return;
      await claims.change(own, 'write', put);
      cached.isChanged = false;
    };
    const chunk = async (index: number): Promise<NonNullable<typeof cached>> => {
      if (cached?.index === index) return cached;
      await flush();
      const found = await guard(place, 'read', () =>
        database.use('readonly', (store) =>
          promisifyRequest<Uint8Array | undefined>(store.get(['chunk', own.data, index])),
        ),
      );
      const bytes = new Uint8Array(sizeOf(index));
      if (found) bytes.set(found.subarray(0, bytes.length));
      return (cached = { index, bytes, isChanged: false });
    };
    /** Goes through chunks with the part of each that is within a range. */
    const forEach = async (
      offset: number,
      length: number,
      task: (chunk: NonNullable<typeof cached>, from: number, to: number, done: number) => void,
    ): Promise<void> => {
      for (let done = 0; done < length;) {
        const index = Math.floor((offset + done) / chunkBytes);
        const from = offset + done - index * chunkBytes;
        const to = Math.min(sizeOf(index), from + length - done);
        task(await chunk(index), from, to, done);
        done += to - from;
      }
    };
    const read = async (offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> => {
      const out = new Uint8Array(length);
      await forEach(offset, length, ({ bytes }, from, to, done) => out.set(bytes.subarray(from, to), done));
      return out;
    };

    return {
      note: own.note && new Uint8Array(own.note),

      write: async (offset, bytes) => {
        await assertOwn();
        await forEach(offset, bytes.length, (into, from, to, done) => {
          into.bytes.set(bytes.subarray(done, done + to - from), from);
          into.isChanged = true;
        });
      },

      read: async (offset, length) => {
        await assertOwn();
        return read(offset, length);
      },

      save: async (note) => {
        const next: Claim = { ...own, note };
        await claims.change(own, 'save', (store) => {
          put(store);
          claims.put(store, next);
        });
        if (cached) cached.isChanged = false;
        own = next;
      },

      hash: async () => {
        await assertOwn();
        return hashInTurns(createSha256.create(), sizeBytes, read, nextTurn);
      },

      place: async () => {
        await flush();
        const manifest: Manifest = { sha256, sizeBytes, chunks: count, upload: own.data, writtenAt: now() };
        const there = await guard(place, 'read', () =>
          database.use('readonly', (store) => promisifyRequest(store.getAllKeys(all('chunk', own.data)))),
        );
        const present = new Set(there.map((key) => (key as IDBValidKey[])[2]));
        for (let index = 0; index < count; index += 1) {
          if (present.has(index)) continue;
          // Zeros that nobody wrote.
          await claims.change(own, 'write', (store) => {
            store.put(new Uint8Array(sizeOf(index)), ['chunk', own.data, index]);
          });
        }
        await claims.change(own, 'place', (store) => {
          placeBlob(store, manifest);
          claims.delete(store, sha256);
        });
        cached = undefined;
        return blobOf(manifest);
      },

      drop: async () => {
        await claims.change(own, 'delete', (store) => {
          claims.delete(store, sha256);
          store.delete(all('chunk', own.data));
        });
      },

      close: async () => {
        // What was not saved may be lost, and is when the part is somebody else's.
        await flush().catch(() => {});
        cached = undefined;
      },
    };
  };

  return {
    openPart,
    listParts: async () =>
      (await claims.list()).map(({ sha256, sizeBytes, openedAt }) => ({
        sha256,
        sizeBytes,
        storedBytes: sizeBytes,
        openedAt,
        isOpen: false,
      })),
    removePart: (sha256) => claims.remove(sha256, ({ data }, store) => void store.delete(all('chunk', data))),
  };
}

/** Names of the chunks that belong to parts. */
export async function uploadsOfParts(store: IDBObjectStore): Promise<readonly string[]> {
  return (await promisifyRequest(claimsIn(store, 'part'))).map(({ data }) => data);
}
