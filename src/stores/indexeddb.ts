/**
 * A store in IndexedDB, shared by all tabs and workers of an origin: where a browser has no file system of its own.
 * @module inlay/stores/indexeddb
 */
import { sha256 as createSha256 } from '@noble/hashes/sha2.js';
import { promisifyRequest } from 'idb-keyval';
import { toHex } from '../core/bytes.ts';
import type { Blob, Store } from '../core/store.ts';
import { assembleStore } from './assemble.ts';
import { all, chunkBytes, placeBlob, type Manifest } from './indexeddb-blobs.ts';
import { createDatabaseParts, uploadsOfParts } from './indexeddb-part.ts';
import { createRecords, openDatabase, placeOf } from './indexeddb-records.ts';
import { assertRange, assertSameHash, forEachPiece, missing } from './rules.ts';
import { freeBytes, guard, holdLock, ifUnlocked, nextTurn, persist, webLocks } from './web-storage.ts';

/** Options of {@link openIndexedDbStore}. */
export interface IndexedDbStoreOptions {
  /** Name of the database. Default `inlay`. */
  readonly database?: string;
  /** Most bytes of blobs to hold, see {@link Store.reserve}. Default: as many as the browser gives. */
  readonly quotaBytes?: number;
  /** Wall clock, milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
}

// Hashed at a stretch: some 2 ms, so that a page stays smooth.
const sliceBytes = 1 << 18;
/** Without locks, an upload that began longer ago than this has no writer any more. */
const leftoverAgeMs = 24 * 3_600_000;

/**
 * Opens a store in a database; nothing is touched before its first use. Blobs are chunks of 4 MB and a manifest that is
 * written last; records change in transactions. What a tab left behind that was closed or crashed while it wrote is
 * removed by the next one that opens the store.
 */
export function openIndexedDbStore(options: IndexedDbStoreOptions = {}): Store {
  const { database: name = 'inlay', now = () => Date.now() } = options;
  const place = placeOf(name);
  const database = openDatabase(name);
  const { use } = database;
  const { readRecord, updateRecord } = createRecords(database);
  let sweeping: Promise<void> | undefined;

  const manifests = (): Promise<readonly Manifest[]> =>
    guard(place, 'list', () =>
      use('readonly', (store) => promisifyRequest<Manifest[]>(store.getAll(all('blob')))),
    );

  const find = async (sha256: string): Promise<Manifest | undefined> => {
    sweeping ??= sweep().catch(() => {});
    return guard(place, 'read', () =>
      use('readonly', (store) => promisifyRequest<Manifest | undefined>(store.get(['blob', sha256]))),
    );
  };

  const newUpload = (): string => `${now().toString(36)}-${toHex(crypto.getRandomValues(new Uint8Array(8)))}`;

  const dropUpload = (upload: string): Promise<unknown> =>
    use('readwrite', (store) => {
      store.delete(all('chunk', upload));
      return promisifyRequest(store.transaction);
    });

  /** Uploads that somebody needs. A part becomes a blob in one step, so that one of the two looks sees it. */
  const kept = async (): Promise<readonly string[]> => [
    ...(await use('readonly', uploadsOfParts)),
    ...(await manifests()).map(({ upload }) => upload),
  ];

  const sweep = async (): Promise<void> => {
    const keys = await use('readonly', (store) => promisifyRequest(store.getAllKeys(all('chunk'))));
    const uploads = new Set(keys.map((key) => (key as IDBValidKey[])[1] as string));
    for (const upload of await kept()) uploads.delete(upload);
    for (const upload of uploads) {
      const dropIfLeft = async (): Promise<void> => {
        // Its writer may have ended well since the keys were read.
        if (!(await kept()).includes(upload)) await dropUpload(upload);
      };
      const beganAt = Number.parseInt(upload, 36);
      if (webLocks()) await ifUnlocked(lockOf(name, upload), dropIfLeft);
      else if (now() - beganAt > leftoverAgeMs) await dropIfLeft();
    }
  };

  const remove = (sha256: string): Promise<unknown> =>
    guard(place, 'delete', () =>
      use('readwrite', (store) => {
        const request = store.get(['blob', sha256]) as IDBRequest<Manifest | undefined>;
        request.onsuccess = () => {
          if (request.result === undefined) return;
          store.delete(['blob', sha256]);
          store.delete(all('chunk', request.result.upload));
        };
        return promisifyRequest(store.transaction);
      }),
    );

  const blobOf = ({ sha256, sizeBytes }: Manifest): Blob => ({
    sha256,
    sizeBytes,
    bytes: () => read(sha256, 0, sizeBytes),
    read: async (offset, length) => {
      assertRange(offset, length, sizeBytes);
      return read(sha256, offset, length);
    },
  });

  const read = async (sha256: string, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> => {
    const out = new Uint8Array(length);
    // Looked up again: the blob may have been deleted and written anew.
    const manifest = await find(sha256);
    let filled = 0;
    for (let i = Math.floor(offset / chunkBytes); manifest && filled < length; i += 1) {
      const chunk = await guard(place, 'read', () =>
        use('readonly', (store) =>
          promisifyRequest<Uint8Array | undefined>(store.get(['chunk', manifest.upload, i])),
        ),
      );
      const from = offset + filled - i * chunkBytes;
      const bytes = chunk?.subarray(from, from + length - filled) ?? new Uint8Array();
      if (bytes.length === 0) break;
      out.set(bytes, filled);
      filled += bytes.length;
    }
    if (manifest === undefined || filled < length) throw missing(sha256, place);
    return out;
  };

  const commit = (manifest: Manifest): Promise<unknown> =>
    guard(place, 'place', () =>
      use('readwrite', (store) => {
        placeBlob(store, manifest);
        return promisifyRequest(store.transaction);
      }),
    );

  const write = async (
    sha256: string,
    content: Uint8Array | AsyncIterable<Uint8Array>,
    onWritten: (sizeBytes: number) => void,
  ): Promise<Blob> => {
    await sweeping;
    const upload = newUpload();
    const release = await holdLock(lockOf(name, upload));
    const hash = createSha256.create();
    const chunk = new Uint8Array(chunkBytes);
    let chunks = 0;
    let filled = 0;
    let sizeBytes = 0;
    const flush = async (): Promise<void> => {
      await guard(place, 'write', () =>
        use('readwrite', (store) => {
          store.put(chunk.slice(0, filled), ['chunk', upload, chunks]);
          return promisifyRequest(store.transaction);
        }),
      );
      onWritten(filled);
      chunks += 1;
      filled = 0;
    };
    const append = async (piece: Uint8Array): Promise<void> => {
      for (let at = 0; at < piece.length;) {
        const part = piece.subarray(at, at + Math.min(sliceBytes, chunkBytes - filled));
        hash.update(part);
        chunk.set(part, filled);
        filled += part.length;
        sizeBytes += part.length;
        at += part.length;
        if (filled === chunkBytes) await flush();
        else if (part.length === sliceBytes) await nextTurn();
      }
    };
    try {
      await forEachPiece(content, sliceBytes, append);
      assertSameHash(sha256, toHex(hash.digest()), sizeBytes);
      if (filled > 0) await flush();
      const manifest = { sha256, sizeBytes, chunks, upload, writtenAt: now() };
      await commit(manifest);
      return blobOf(manifest);
    } catch (error) {
      await dropUpload(upload).catch(() => {});
      throw error;
    } finally {
      release();
    }
  };

  return assembleStore<Manifest>({
    what: `The store in ${place}`,
    info: () => ({ kind: 'indexeddb', location: name }),
    list: manifests,
    find,
    blobOf,
    write,
    remove: async (sha256) => void (await remove(sha256)),
    ...createDatabaseParts({ database, now, newUpload, blobOf }),
    persist,
    readRecord,
    updateRecord,
    freeBytes,
    untilFree: () => pause(LAG_MS),
    quotaBytes: options.quotaBytes,
    now,
    close: async () => {
      await sweeping;
      database.close();
    },
  });
}

function lockOf(database: string, upload: string): string {
  return `inlay:${database}/${upload}`;
}

/** Chromium gives the room of what was deleted back a little later, in milliseconds. */
const LAG_MS = 1000;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
