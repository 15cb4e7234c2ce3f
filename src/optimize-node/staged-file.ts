/** Files that are written aside and then put in their place in one step. */
import { createHash, randomUUID } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { onDisk } from './on-disk.ts';

/** The part of `node:fs/promises` that writes files. */
export interface WritableFileSystem {
  open(path: string, flags: 'r' | 'wx'): Promise<WritableFile>;
  rename(from: string, to: string): Promise<void>;
  rm(path: string, options: { readonly force: true }): Promise<void>;
}

/** A file that is open for writing. */
export interface WritableFile {
  writev(buffers: readonly Uint8Array[], position: number): Promise<{ readonly bytesWritten: number }>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** A file on the disk that nobody knows yet. */
export interface StagedFile {
  readonly sizeBytes: number;
  /** SHA-256 in lower-case hex. */
  readonly sha256: string;
  readonly isPlaced: boolean;
  /** Puts it in place, where it survives a power cut. It is there also if what fails is the way to the disk. */
  place(path: string): Promise<void>;
  /** Removes it, unless it is in place. */
  discard(): Promise<void>;
}

/** Most buffers of one write (`IOV_MAX` of Linux and macOS). */
const MOST_BUFFERS = 1024;
/** Systems write less than 2 GiB at once. */
const LONGEST_WRITE_BYTES = 1 << 30;

/**
 * Writes pieces to a file beside `path` and flushes it. Leaves nothing behind if that fails.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL`, `_READ_ONLY` or `_IO`, here and from `place`.
 */
export async function stageFile(
  fs: WritableFileSystem,
  path: string,
  pieces: readonly Uint8Array[],
): Promise<StagedFile> {
  const aside = join(dirname(path), `.${basename(path)}.${randomUUID()}.part`);
  const discard = (): Promise<void> => fs.rm(aside, { force: true }).catch(() => {});
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    await onDisk(path, async () => {
      const file = await fs.open(aside, 'wx');
      try {
        for (const batch of batchesOf(pieces)) {
          for (const bytes of batch) hash.update(bytes);
          await writeAll(file, batch, sizeBytes);
          sizeBytes += lengthOf(batch);
        }
        await file.sync();
      } finally {
        await file.close();
      }
    });
  } catch (error) {
    await discard();
    throw error;
  }
  let isPlaced = false;
  return {
    sizeBytes,
    sha256: hash.digest('hex'),
    get isPlaced() {
      return isPlaced;
    },
    place: (to) =>
      onDisk(to, async () => {
        await fs.rename(aside, to);
        isPlaced = true;
        await syncFolder(fs, dirname(to));
      }),
    discard: async () => {
      if (!isPlaced) await discard();
    },
  };
}

/**
 * Writes a file and puts it in the place of what was there in one step. If that fails, what was there stays, and nothing
 * else does.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL`, `_READ_ONLY` or `_IO`
 */
export async function replaceFile(
  fs: WritableFileSystem,
  path: string,
  pieces: readonly Uint8Array[],
): Promise<StagedFile> {
  const file = await stageFile(fs, path, pieces);
  try {
    await file.place(path);
  } finally {
    await file.discard();
  }
  return file;
}

/** Pieces in groups that one write takes. */
function batchesOf(pieces: readonly Uint8Array[]): readonly (readonly Uint8Array[])[] {
  const batches: Uint8Array[][] = [];
  let room = 0;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; at += LONGEST_WRITE_BYTES) {
      const bytes = piece.subarray(at, at + LONGEST_WRITE_BYTES);
      if (batches.length === 0 || bytes.length > room || batches.at(-1)?.length === MOST_BUFFERS) {
        batches.push([]);
        room = LONGEST_WRITE_BYTES;
      }
      batches.at(-1)?.push(bytes);
      room -= bytes.length;
    }
  }
  return batches;
}

async function writeAll(file: WritableFile, batch: readonly Uint8Array[], position: number): Promise<void> {
  let rest = batch;
  let at = position;
  while (rest.length > 0) {
    const { bytesWritten } = await file.writev(rest, at);
    at += bytesWritten;
    rest = after(rest, bytesWritten);
  }
}

/** What is left of some buffers when so many bytes of them are dealt with. */
function after(buffers: readonly Uint8Array[], doneBytes: number): readonly Uint8Array[] {
  let first = 0;
  let done = doneBytes;
  for (; first < buffers.length; first += 1) {
    const { length } = buffers[first] as Uint8Array;
    if (done < length) break;
    done -= length;
  }
  return buffers.slice(first).map((bytes, i) => (i === 0 ? bytes.subarray(done) : bytes));
}

function lengthOf(batch: readonly Uint8Array[]): number {
  return batch.reduce((sum, { length }) => sum + length, 0);
}

async function syncFolder(fs: WritableFileSystem, folder: string): Promise<void> {
  // Windows has no such call: its file systems log renames themselves.
  if (process.platform === 'win32') return;
  const handle = await fs.open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
