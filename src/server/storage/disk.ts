import { createReadStream } from 'node:fs';
import * as nodeFiles from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { toHex } from '../../core/bytes.ts';
import { isInlayError, StoreError, TrustError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type { BlobStorage } from './blobs.ts';

/** The file system calls that keep a blob; a test makes them fail. */
export type DiskFiles = Pick<typeof nodeFiles, 'mkdir' | 'open' | 'readdir' | 'rename' | 'rm' | 'stat'>;

/** Options of {@link openDiskStorage}. */
export interface DiskStorageOptions {
  /** Folder for the blobs; created if missing. One process at a time may use it. */
  readonly directory: string;
  readonly platform: Pick<Platform, 'createSha256' | 'randomBytes'>;
  /** Default: the file system. */
  readonly files?: DiskFiles;
}

/**
 * Opens a folder of blobs: `ab/abcdef…`. A blob appears under its name only when all of it is on disk; what a crash
 * left half-written is removed here.
 */
export async function openDiskStorage(options: DiskStorageOptions): Promise<BlobStorage> {
  const { directory, platform, files = nodeFiles } = options;
  const unfinished = join(directory, 'tmp');
  const pathOf = (sha256: string): string => {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new RangeError('A blob is named by 64 lower-case hex digits.');
    return join(directory, sha256.slice(0, 2), sha256);
  };

  await files.rm(unfinished, { recursive: true, force: true });
  await files.mkdir(unfinished, { recursive: true });

  const fill = async (
    path: string,
    sha256: string,
    content: AsyncIterable<Uint8Array>,
    maxBytes: number,
  ): Promise<number> => {
    const hash = platform.createSha256();
    let sizeBytes = 0;
    const file = await files.open(path, 'wx', 0o644);
    try {
      for await (const chunk of content) {
        sizeBytes += chunk.length;
        if (sizeBytes > maxBytes) {
          throw new TrustError('ERR_INLAY_LENGTH', `The blob has more than the ${maxBytes} bytes allowed.`, {
            details: { sha256, maxBytes },
          });
        }
        hash.update(chunk);
        await file.writeFile(chunk);
      }
      const actual = toHex(hash.digest());
      if (actual !== sha256) {
        throw new StoreError(
          'ERR_INLAY_STORE_MISMATCH',
          `The ${sizeBytes} bytes sent hash to ${actual}, not to ${sha256}; send the file again.`,
          { details: { sha256, actual, sizeBytes } },
        );
      }
      await file.sync();
    } finally {
      await file.close();
    }
    return sizeBytes;
  };

  return {
    size: async (sha256) => {
      try {
        return (await files.stat(pathOf(sha256))).size;
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return undefined;
        throw ioError(error);
      }
    },

    write: async (sha256, content, maxBytes) => {
      const path = pathOf(sha256);
      const part = join(unfinished, `${sha256}.${toHex(platform.randomBytes(8))}`);
      try {
        const sizeBytes = await fill(part, sha256, content, maxBytes);
        await files.mkdir(dirname(path), { recursive: true });
        await files.rename(part, path);
        await syncDirectory(files, dirname(path));
        await syncDirectory(files, directory);
        return sizeBytes;
      } catch (error) {
        await files.rm(part, { force: true }).catch(() => undefined);
        throw ioError(error);
      }
    },

    read: (sha256, start, end) => {
      const stream = createReadStream(pathOf(sha256), { start, end });
      return Readable.toWeb(stream) as ReadableStream<Uint8Array<ArrayBuffer>>;
    },

    usage: async () => {
      let count = 0;
      let sizeBytes = 0;
      for (const folder of await files.readdir(directory)) {
        if (folder.length !== 2) continue;
        for (const name of await files.readdir(join(directory, folder))) {
          count += 1;
          sizeBytes += (await files.stat(join(directory, folder, name))).size;
        }
      }
      return { count, sizeBytes };
    },
  };
}

/** Makes a rename outlive a power cut. Windows has no such call, and needs none. */
async function syncDirectory(files: DiskFiles, path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await files.open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code;
}

function ioError(cause: unknown): Error {
  if (isInlayError(cause) || cause instanceof RangeError) return cause;
  const code = codeOf(cause);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new StoreError('ERR_INLAY_STORE_FULL', 'The disk is full; free some space and try again.', {
      cause,
    });
  }
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
    return new StoreError(
      'ERR_INLAY_STORE_READ_ONLY',
      'The data directory cannot be written; check its permissions.',
      { cause },
    );
  }
  return new StoreError('ERR_INLAY_STORE_IO', 'A blob could not be read or written; check the disk.', {
    cause,
  });
}
