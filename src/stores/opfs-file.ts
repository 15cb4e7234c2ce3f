/** One blob on its way into the origin private file system: written aside, hashed, then put in place in one step. */

import { sha256 as createSha256 } from '@noble/hashes/sha2.js';
import { toHex } from '../core/bytes.ts';
import { assertSameHash, isBlobName } from './rules.ts';
import { guard, holdLock, ifUnlocked, storageManager, storeError, webLocks } from './web-storage.ts';

/** A blob that is being written; nobody sees it before it is placed. */
export interface BlobWriter {
  /** Appends a piece, which the writer owns from then on. */
  write(piece: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Puts the blob in place if its content has the hash that it is named by.
   * @returns its size in bytes.
   * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH`, `ERR_INLAY_STORE_FULL` or `ERR_INLAY_STORE_IO`
   */
  place(): Promise<number>;
  /** Throws away what was written. Safe to call after anything. */
  abandon(): Promise<void>;
}

/** A way to put bytes in a file. */
interface Sink {
  write(piece: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Flushes and closes. @returns the SHA-256 in hex. */
  finish(): Promise<string>;
  close(): Promise<void>;
}

/** What TypeScript does not know of handles yet. */
export type MovableFile = FileSystemFileHandle & { move(name: string): Promise<void> };

/** A change of a name takes milliseconds. */
const patienceMs = 5_000;

/** Opens a folder of the origin private file system. */
export function openFolder(directory: string): Promise<FileSystemDirectoryHandle> {
  return guard(placeOf(directory), 'open', async () => {
    const canMove = typeof FileSystemFileHandle === 'function' && 'move' in FileSystemFileHandle.prototype;
    const root = canMove && webLocks() ? await storageManager().getDirectory?.() : undefined;
    if (root === undefined) throw storeError(placeOf(directory), 'open', 'not supported here');
    return root.getDirectoryHandle(directory, { create: true });
  });
}

/** Names a folder in messages. */
export function placeOf(directory: string): string {
  return `the origin private file system (${directory})`;
}

/**
 * Begins a blob. On a thread that has synchronous access, as dedicated workers have, bytes go straight to the file.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL` or `ERR_INLAY_STORE_IO`
 */
export async function beginBlob(directory: string, sha256: string): Promise<BlobWriter> {
  const place = placeOf(directory);
  const folder = await openFolder(directory);
  // Of its own, so that no tab waits for another one that may be asleep; the first to be done wins.
  const name = `${sha256}.${toHex(crypto.getRandomValues(new Uint8Array(8)))}.tmp`;
  const release = await holdLock(lockOf(directory, name));
  let sink: Sink | undefined;
  let sizeBytes = 0;

  const abandon = async (): Promise<void> => {
    await sink?.close().catch(ignore);
    await folder.removeEntry(name).catch(ignore);
    release();
  };
  const orAbandon = async <Result>(step: string, task: () => Promise<Result>): Promise<Result> => {
    try {
      return await guard(place, step, task);
    } catch (error) {
      await abandon();
      throw error;
    }
  };

  const { file, into } = await orAbandon('create', async () => {
    const handle = (await folder.getFileHandle(name, { create: true })) as MovableFile;
    return { file: handle, into: (sink = await openSink(handle, place)) };
  });
  return {
    write: (piece) =>
      orAbandon('write', async () => {
        await into.write(piece);
        sizeBytes += piece.length;
      }),
    place: () =>
      orAbandon('place', async () => {
        assertSameHash(sha256, await into.finish(), sizeBytes);
        await placeFile(directory, folder, file, sha256, sizeBytes);
        release();
        return sizeBytes;
      }),
    abandon,
  };
}

/** Gives a file that is closed the name of its blob; where there is one already, the file is removed. */
export function placeFile(
  directory: string,
  folder: FileSystemDirectoryHandle,
  file: MovableFile,
  sha256: string,
  sizeBytes: number,
): Promise<void> {
  return alone(directory, sha256, async () => {
    const present = await sizeOf(folder, sha256);
    // What is there is the same; replacing it would break whoever reads it.
    if (present === sizeBytes) await folder.removeEntry(file.name);
    else await file.move(sha256);
  });
}

/** Removes a blob; absent is fine. */
export async function removeBlob(directory: string, sha256: string): Promise<void> {
  const folder = await openFolder(directory);
  await guard(placeOf(directory), 'delete', () =>
    alone(directory, sha256, async () => {
      try {
        await folder.removeEntry(sha256);
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    }),
  );
}

/**
 * Removes what writers left behind that are gone. Those of other tabs hold the lock of their file.
 * @param partFiles - lists the files of parts that are waiting, which stay.
 */
export async function sweep(directory: string, partFiles: () => Promise<readonly string[]>): Promise<void> {
  const folder = await openFolder(directory);
  const found: (readonly [name: string, own: string])[] = [];
  for await (const name of folder.keys()) {
    // Chromium's `createWritable` writes to `<name>.crswap`.
    const [own] = /^[0-9a-f]{64}\.[0-9a-f]+\.(tmp|part)/.exec(name) ?? [];
    if (own !== undefined) found.push([name, own]);
  }
  // Afterwards, for a part's file is there only while somebody has it open or says that it is waiting.
  const waiting = found.length > 0 ? await partFiles() : [];
  for (const [name, own] of found) {
    if (waiting.includes(name)) continue;
    await ifUnlocked(lockOf(directory, own), () => folder.removeEntry(name).catch(ignore));
  }
}

/** Names of the blobs in a folder. */
export async function listFolder(folder: FileSystemDirectoryHandle): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const name of folder.keys()) if (isBlobName(name)) names.push(name);
  return names.sort();
}

/** Tells whether an error says that a file is not there. */
export function isMissing(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'NotFoundError';
}

/**
 * Changes what has the name of a blob, when nobody else does: browsers refuse two changes at once. A tab that is frozen
 * in the middle of a change is not waited for: if the browser then refuses this one, that is an error and no standstill.
 */
async function alone(directory: string, sha256: string, task: () => Promise<void>): Promise<void> {
  const release = await holdLock(lockOf(directory, sha256), patienceMs).catch((error: unknown) => {
    if (error instanceof DOMException && error.name === 'TimeoutError') return ignore;
    throw error;
  });
  try {
    await task();
  } finally {
    release();
  }
}

async function sizeOf(folder: FileSystemDirectoryHandle, name: string): Promise<number | undefined> {
  try {
    return (await (await folder.getFileHandle(name)).getFile()).size;
  } catch {
    return undefined;
  }
}

async function openSink(file: FileSystemFileHandle, place: string): Promise<Sink> {
  if (!('createSyncAccessHandle' in file)) return openStreamSink(file, place);
  const handle = await file.createSyncAccessHandle();
  const hash = createSha256.create();
  let at = 0;
  return {
    write: async (piece) => {
      const written = handle.write(piece, { at });
      // Chromium gives nonsense here when a private window is full.
      if (written !== piece.length) throw storeError(place, 'write', 'QuotaExceededError');
      hash.update(piece);
      at += written;
    },
    finish: async () => {
      handle.flush();
      handle.close();
      return toHex(hash.digest());
    },
    close: async () => handle.close(),
  };
}

/** Where there is no synchronous access: pages that cannot start workers, shared workers, service workers. */
async function openStreamSink(file: FileSystemFileHandle, place: string): Promise<Sink> {
  // Safari had no such thing before version 26.
  if (!('createWritable' in file)) throw storeError(place, 'create', 'not supported on this thread');
  const stream = await file.createWritable();
  return {
    write: (piece) => stream.write(piece),
    finish: async () => {
      await stream.close();
      // Natively, elsewhere: hashing as it is written would take this thread some 10 ms per megabyte.
      const content = await (await file.getFile()).arrayBuffer();
      return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', content)));
    },
    close: () => stream.abort(),
  };
}

function lockOf(directory: string, name: string): string {
  return `inlay:${directory}/${name}`;
}

function ignore(): void {}
