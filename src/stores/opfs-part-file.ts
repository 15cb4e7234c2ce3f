/** The bytes of a partial blob in the origin private file system, on the thread that writes. */

import { openAccess, type FileAccess } from './opfs-access.ts';
import { openFolder, placeFile, placeOf, type MovableFile } from './opfs-file.ts';
import { guard, holdLock, ifUnlocked } from './web-storage.ts';

/** What to open. */
export interface PartRequest {
  readonly directory: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** File to go on with, if there is one. */
  readonly present: string | undefined;
  /** File for the bytes where there is none, or where somebody else has it open. */
  readonly fresh: string;
}

/** Which file it became, and whether it has the bytes of the present one. */
export interface PartPlace {
  readonly file: string;
  readonly isKept: boolean;
}

/** A part's file, which nobody else opens before it is closed. */
export interface PartFileWriter {
  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  flush(): Promise<void>;
  hash(): Promise<string>;
  /** Makes it the blob, and ends. A failure leaves it as it was. */
  place(): Promise<void>;
  close(): Promise<void>;
}

/** Copied at a time. */
const pieceBytes = 1 << 22;

/** Names the lock that is held while a file of a folder is open. */
export function partLockOf(directory: string, file: string): string {
  return `inlay:${directory}/${file}`;
}

/**
 * Opens the file of a part. One that another tab has open, which may be frozen, is left to it: its bytes are copied.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL` or `ERR_INLAY_STORE_IO`
 */
export async function openPartFile(
  request: PartRequest,
): Promise<PartPlace & { readonly writer: PartFileWriter }> {
  const { directory, present, fresh } = request;
  const folder = await openFolder(directory);
  if (present !== undefined) {
    const handle = (await folder.getFileHandle(present).catch(() => undefined)) as MovableFile | undefined;
    const writer = handle && (await tryOpen(request, folder, handle));
    if (writer) return { file: present, isKept: true, writer };
  }
  const release = await holdLock(partLockOf(directory, fresh));
  try {
    return await guard(placeOf(directory), 'create', async () => {
      const handle = (await folder.getFileHandle(fresh, { create: true })) as MovableFile;
      const access = await openAccess(handle, placeOf(directory));
      const isKept = present !== undefined && (await copy(folder, present, access));
      if (!isKept) await access.truncate(0);
      return { file: fresh, isKept, writer: toWriter(request, folder, handle, access, release) };
    });
  } catch (error) {
    await folder.removeEntry(fresh).catch(ignore);
    release();
    throw error;
  }
}

/** Opens a file if nobody has it open. */
async function tryOpen(
  request: PartRequest,
  folder: FileSystemDirectoryHandle,
  handle: MovableFile,
): Promise<PartFileWriter | undefined> {
  const { directory } = request;
  let writer: PartFileWriter | undefined;
  let release = ignore;
  const isOver = new Promise<void>((resolve) => {
    release = resolve;
  });
  await new Promise<void>((resolve) => {
    const held = ifUnlocked(partLockOf(directory, handle.name), async () => {
      try {
        const access = await openAccess(handle, placeOf(directory));
        writer = toWriter(request, folder, handle, access, release);
      } catch {
        return;
      }
      resolve();
      await isOver;
    });
    void held.then(resolve, resolve);
  });
  return writer;
}

/** Copies what another tab has. @returns whether all of it could be read. */
async function copy(folder: FileSystemDirectoryHandle, from: string, to: FileAccess): Promise<boolean> {
  let file: File;
  try {
    file = await (await folder.getFileHandle(from)).getFile();
  } catch {
    return false;
  }
  for (let at = 0; at < file.size; at += pieceBytes) {
    const piece = await file
      .slice(at, at + pieceBytes)
      .arrayBuffer()
      // It was written to meanwhile.
      .catch(() => undefined);
    if (piece === undefined) return false;
    await to.write(at, new Uint8Array(piece));
  }
  await to.flush();
  return true;
}

function toWriter(
  { directory, sha256, sizeBytes }: PartRequest,
  folder: FileSystemDirectoryHandle,
  file: MovableFile,
  opened: FileAccess,
  release: () => void,
): PartFileWriter {
  const place = placeOf(directory);
  let access: FileAccess | undefined = opened;
  const open = async (): Promise<FileAccess> => (access ??= await openAccess(file, place));
  const close = async (): Promise<void> => {
    const present = access;
    access = undefined;
    await present?.close();
  };
  return {
    write: (offset, bytes) => guard(place, 'write', async () => (await open()).write(offset, bytes)),
    read: (offset, length) => guard(place, 'read', async () => (await open()).read(offset, length)),
    flush: () => guard(place, 'flush', async () => (await open()).flush()),
    hash: () =>
      guard(place, 'read', async () => {
        const whole = await open();
        await whole.truncate(sizeBytes);
        return whole.hash();
      }),
    place: () =>
      guard(place, 'place', async () => {
        await (await open()).truncate(sizeBytes);
        await close();
        await placeFile(directory, folder, file, sha256, sizeBytes);
        release();
      }),
    close: async () => {
      try {
        await guard(place, 'close', close);
      } finally {
        release();
      }
    },
  };
}

function ignore(): void {}
