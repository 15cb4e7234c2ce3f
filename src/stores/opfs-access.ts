/** Ways to the bytes of a file of the origin private file system: the fast one of dedicated workers, and the other one. */

import { sha256 as createSha256 } from '@noble/hashes/sha2.js';
import { toHex } from '../core/bytes.ts';
import { hashInTurns } from './parts.ts';
import { nextTurn, storeError } from './web-storage.ts';

/** A file that is open for reading and writing anywhere. */
export interface FileAccess {
  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** What is beyond its end reads as zeros. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  truncate(sizeBytes: number): Promise<void>;
  flush(): Promise<void>;
  /** SHA-256 of all of it in lower-case hex. */
  hash(): Promise<string>;
  /** Frees the file, with what was written. */
  close(): Promise<void>;
}

/** Opens a file. `place` names its store in messages. */
export function openAccess(file: FileSystemFileHandle, place: string): Promise<FileAccess> {
  return 'createSyncAccessHandle' in file ? openSyncAccess(file, place) : openStreamAccess(file, place);
}

async function openSyncAccess(file: FileSystemFileHandle, place: string): Promise<FileAccess> {
  const handle = await file.createSyncAccessHandle();
  const read = async (offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> => {
    const bytes = new Uint8Array(length);
    handle.read(bytes, { at: offset });
    return bytes;
  };
  return {
    read,
    write: async (offset, bytes) => {
      // Chromium gives nonsense here when a private window is full.
      if (handle.write(bytes, { at: offset }) !== bytes.length) {
        throw storeError(place, 'write', 'QuotaExceededError');
      }
    },
    truncate: async (sizeBytes) => handle.truncate(sizeBytes),
    flush: async () => handle.flush(),
    hash: () => hashInTurns(createSha256.create(), handle.getSize(), read, nextTurn),
    close: async () => {
      handle.flush();
      handle.close();
    },
  };
}

/** Where there is no synchronous access, what is written goes to a copy, which takes the file's place at each flush. */
async function openStreamAccess(file: FileSystemFileHandle, place: string): Promise<FileAccess> {
  // Safari had no such thing before version 26.
  if (!('createWritable' in file)) throw storeError(place, 'create', 'not supported on this thread');
  let stream: FileSystemWritableFileStream | undefined;
  /** After a failure, all that was written since the last flush is gone. */
  let failure: { readonly error: unknown } | undefined;

  const change = async (task: (stream: FileSystemWritableFileStream) => Promise<void>): Promise<void> => {
    if (failure) throw failure.error;
    try {
      stream ??= await file.createWritable({ keepExistingData: true });
      await task(stream);
    } catch (error) {
      failure = { error };
      await stream?.abort().catch(() => {});
      throw error;
    }
  };
  const flush = async (): Promise<void> => {
    if (failure) throw failure.error;
    if (stream === undefined) return;
    await change((open) => open.close());
    stream = undefined;
  };
  return {
    write: (position, data) => change((open) => open.write({ type: 'write', position, data })),
    read: async (offset, length) => {
      await flush();
      const found = await (await file.getFile()).slice(offset, offset + length).arrayBuffer();
      const bytes = new Uint8Array(length);
      bytes.set(new Uint8Array(found));
      return bytes;
    },
    truncate: (sizeBytes) => change((open) => open.truncate(sizeBytes)),
    flush,
    hash: async () => {
      await flush();
      // Natively, elsewhere: hashing would take this thread some 10 ms per megabyte.
      const content = await (await file.getFile()).arrayBuffer();
      return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', content)));
    },
    close: flush,
  };
}
