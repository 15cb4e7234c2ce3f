/**
 * A store in a folder of the file system, shared by any number of processes.
 * @module inlay/stores/fs
 */
import { createHash } from 'node:crypto';
import * as nodeFs from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Blob, Store } from '../core/store.ts';
import { assembleStore } from './assemble.ts';
import { openDisk, type FileSystem } from './fs-disk.ts';
import { cacheDirectory, nodeHost, type FsHost } from './fs-host.ts';
import { acquireLock } from './fs-lock.ts';
import { createFsParts } from './fs-part.ts';
import { fromRecordFile, toRecordFile, type Generation } from './fs-record.ts';
import type { BlobFile } from './ledger.ts';
import { assertRange, assertSameHash, forEachPiece, isBlobName, isIterable, missing } from './rules.ts';

export type { FileHandle, FileStats, FileSystem } from './fs-disk.ts';
export { cacheDirectory, type FsHost } from './fs-host.ts';

/** Options of {@link openFsStore}. */
export interface FsStoreOptions {
  /** Where to keep things. Default: {@link cacheDirectory}. */
  readonly directory?: string;
  /** Default: `node:fs/promises`. */
  readonly fs?: FileSystem;
  /** Replaces parts of what the store takes from the process: clocks, environment, pid. */
  readonly host?: Partial<FsHost>;
  /** Most bytes of blobs to hold, see {@link Store.reserve}. Default: as many as the disk takes. */
  readonly quotaBytes?: number;
}

// Hashing this much takes a millisecond or two, so a large array does not hold up the event loop.
const pieceBytes = 1 << 20;

/**
 * Opens a store of files; nothing is touched before its first use. Blobs are whole files that appear by rename after
 * a flush; partial blobs go with whoever has opened them last. Records keep two generations, of which the newest intact one counts, and change under a lock file.
 * Several processes may share the directory, also over a network. `change` of `updateRecord` runs again if another
 * process broke the lock in the meantime, which it does 10 seconds after the last sign of life.
 */
export function openFsStore(options: FsStoreOptions = {}): Store {
  const host: FsHost = { ...nodeHost(), ...options.host };
  const directory = resolve(options.directory ?? cacheDirectory(host));
  const blobs = join(directory, 'blobs');
  const records = join(directory, 'records');
  const disk = openDisk(options.fs ?? nodeFs, directory, host, [blobs, records]);
  const parts = join(directory, 'parts');
  const queues = new Map<string, Promise<unknown>>();

  const blobOf = ({ sha256, sizeBytes }: Pick<BlobFile, 'sha256' | 'sizeBytes'>): Blob => {
    const path = join(blobs, sha256);
    return {
      sha256,
      sizeBytes,
      path,
      bytes: async () => {
        const bytes = await disk.read(path);
        if (bytes) return bytes;
        throw missing(sha256, blobs);
      },
      read: async (offset, length) => {
        assertRange(offset, length, sizeBytes);
        const file = await disk.open(path, 'r');
        try {
          const bytes = await file?.read(offset, length);
          if (bytes?.length === length) return bytes;
          throw missing(sha256, blobs);
        } finally {
          await file?.close();
        }
      },
    };
  };

  const readNewest = async (name: string): Promise<Generation | undefined> => {
    let newest: Generation | undefined;
    for (const half of [0, 1]) {
      const file = await disk.read(join(records, `${name}.${half}`));
      const generation = file && fromRecordFile(file);
      if (generation && generation.number > (newest?.number ?? 0)) newest = generation;
    }
    return newest;
  };

  const replaceRecord = async (
    name: string,
    change: Parameters<Store['updateRecord']>[1],
  ): Promise<Uint8Array<ArrayBuffer> | undefined> => {
    await disk.prepare();
    for (;;) {
      const lock = await acquireLock(disk, host, join(records, `${name}.lock`));
      try {
        const present = await readNewest(name);
        const changed = change(present && new Uint8Array(present.content));
        if (changed === undefined) return present?.content;
        const next: Generation = { number: (present?.number ?? 0) + 1, content: new Uint8Array(changed) };
        const path = join(records, `${name}.${next.number % 2}`);
        const file = toRecordFile(next);
        if (await disk.replace(path, (handle) => handle.writeFile(file), lock.isHeld)) return next.content;
      } finally {
        await lock.release();
      }
    }
  };

  const update: Store['updateRecord'] = (name, change) => {
    const turn = (queues.get(name) ?? Promise.resolve()).then(() => replaceRecord(name, change));
    const settled = turn.then(ignore, ignore);
    queues.set(name, settled);
    void settled.then(() => queues.get(name) === settled && queues.delete(name));
    return turn;
  };

  const find = async (sha256: string): Promise<BlobFile | undefined> => {
    const stats = await disk.stat(join(blobs, sha256));
    return stats && { sha256, sizeBytes: stats.size, writtenAt: stats.mtimeMs };
  };

  return assembleStore<BlobFile>({
    what: `The store in ${directory}`,
    info: () => ({ kind: 'fs', location: directory }),
    list: async () => {
      const names = (await disk.list(blobs)).filter(isBlobName);
      return (await Promise.all(names.map(find))).filter((file) => file !== undefined);
    },
    find,
    blobOf,
    write: async (sha256, content, onWritten) => {
      await disk.prepare();
      const path = join(blobs, sha256);
      const hash = createHash('sha256');
      let sizeBytes = 0;
      await disk.replace(
        path,
        async (file) => {
          const append = async (piece: Uint8Array): Promise<void> => {
            hash.update(piece);
            sizeBytes += piece.length;
            await file.writeFile(piece);
            onWritten(piece.length);
          };
          if (isIterable(content)) for await (const piece of content) await append(piece);
          else await forEachPiece(content, pieceBytes, append);
          assertSameHash(sha256, hash.digest('hex'), sizeBytes);
        },
        async () => (await disk.stat(path))?.size !== sizeBytes,
      );
      return blobOf({ sha256, sizeBytes });
    },
    // Another process may have put it in place a moment ago and not have flushed the folder yet.
    keep: () => disk.syncFolder(blobs),
    remove: (sha256) => disk.remove(join(blobs, sha256)),
    ...createFsParts({ disk, host, directory, parts, blobs, blobOf }),
    persist: async () => true,
    readRecord: async (name) => (await readNewest(name))?.content,
    updateRecord: update,
    freeBytes: disk.freeBytes,
    quotaBytes: options.quotaBytes,
    now: host.now,
    close: () => {},
  });
}

function ignore(): void {}
