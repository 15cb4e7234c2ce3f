/** Files that grow, and what goes wrong with them. */
import { open, type FileHandle } from 'node:fs/promises';
import { constants } from 'node:fs';
import { StoreError } from '../../core/errors.ts';

/** A file that is only ever appended to. */
export interface AppendFile {
  /** Bytes so far, those in memory included. */
  readonly sizeBytes: number;
  /** Adds bytes; they may stay in memory until {@link AppendFile.sync}. */
  append(bytes: Uint8Array): Promise<void>;
  /** Returns when all bytes are on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

const bufferBytes = 1 << 20;

/**
 * Opens a file to append to, and cuts off what goes beyond `sizeBytes`.
 * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH` if it is shorter than that; codes of {@link onDisk}, here and later.
 */
export async function openAppendFile(path: string, sizeBytes: number): Promise<AppendFile> {
  const file = await onDisk(path, () => open(path, constants.O_RDWR | constants.O_CREAT, 0o644));
  try {
    await onDisk(path, () => cutTo(file, path, sizeBytes));
  } catch (error) {
    await file.close();
    throw error;
  }
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  let end = sizeBytes;

  const flush = async (): Promise<void> => {
    const bytes = Buffer.concat(waiting, waitingBytes);
    waiting = [];
    waitingBytes = 0;
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await file.write(bytes, done, bytes.length - done, end);
      done += bytesWritten;
      end += bytesWritten;
    }
  };

  return {
    get sizeBytes() {
      return end + waitingBytes;
    },
    append: async (bytes) => {
      waiting.push(bytes);
      waitingBytes += bytes.length;
      if (waitingBytes >= bufferBytes) await onDisk(path, flush);
    },
    sync: () =>
      onDisk(path, async () => {
        await flush();
        await file.datasync();
      }),
    close: () => file.close(),
  };
}

async function cutTo(file: FileHandle, path: string, sizeBytes: number): Promise<void> {
  const { size } = await file.stat();
  if (size < sizeBytes) {
    throw new StoreError(
      'ERR_INLAY_STORE_MISMATCH',
      `${path} has ${size} bytes instead of ${sizeBytes}, so that the run cannot go on; begin anew with --restart.`,
    );
  }
  await file.truncate(sizeBytes);
}

/**
 * Does something with a file.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL`, `ERR_INLAY_STORE_READ_ONLY` or `ERR_INLAY_STORE_IO` in place of what
 * the system says.
 */
export async function onDisk<Value>(path: string, work: () => Promise<Value>): Promise<Value> {
  try {
    return await work();
  } catch (cause) {
    const code = cause instanceof Error ? (cause as NodeJS.ErrnoException).code : undefined;
    if (code === undefined || cause instanceof StoreError) throw cause;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      throw new StoreError(
        'ERR_INLAY_STORE_FULL',
        `There is no space left for ${path}; make room and repeat.`,
        {
          cause,
        },
      );
    }
    if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
      throw new StoreError(
        'ERR_INLAY_STORE_READ_ONLY',
        `${path} may not be written; choose another output.`,
        {
          cause,
        },
      );
    }
    throw new StoreError(
      'ERR_INLAY_STORE_IO',
      `${path} cannot be written (${code}); check the path and the disk.`,
      {
        cause,
      },
    );
  }
}
