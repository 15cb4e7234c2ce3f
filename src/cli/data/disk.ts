/** Files that grow, and what goes wrong with them. */
import { open, type FileHandle } from 'node:fs/promises';
import { constants } from 'node:fs';
import { StoreError } from '../../core/errors.ts';
import { onDisk } from '../../optimize-node/on-disk.ts';

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
