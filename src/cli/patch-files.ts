/** Files that patches are made of and from. */

import { open, readFile, rename, rm } from 'node:fs/promises';
import { InputError } from '../core/errors.ts';
import type { Blob } from '../core/store.ts';
import { stageFile, type StagedFile, type WritableFileSystem } from '../optimize-node/staged-file.ts';
import { sha256Hex } from '../trust/keys.ts';
import { nodePlatform } from '../platform-node.ts';

/** Disk that files are written to; tests pass one that fails. */
const nodeFiles: WritableFileSystem = { open, rename, rm };

/**
 * Reads a file.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if it cannot be read.
 */
export async function readWhole(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    throw new InputError('ERR_INLAY_FEED_VALUE', `The file ${path} cannot be read; check the path.`, {
      cause,
    });
  }
}

/**
 * Writes a file in one step: what was there stays until the new one is complete, and also if `isRight` says no.
 * @throws {@link StoreError} as `stageFile` does.
 */
export async function replaceWhole(
  path: string,
  pieces: readonly Uint8Array[],
  isRight: (staged: StagedFile) => boolean = () => true,
  fs: WritableFileSystem = nodeFiles,
): Promise<boolean> {
  const staged = await stageFile(fs, path, pieces);
  try {
    if (!isRight(staged)) return false;
    await staged.place(path);
    return true;
  } finally {
    await staged.discard();
  }
}

/** Bytes that are all there, as what patches are applied to. */
export function toBlob(bytes: Uint8Array<ArrayBuffer>): Blob {
  return {
    sha256: sha256Hex(nodePlatform(), bytes),
    sizeBytes: bytes.length,
    bytes: () => Promise.resolve(bytes.slice()),
    read: (offset, length) => {
      if (offset < 0 || length < 0 || offset + length > bytes.length)
        return Promise.reject(
          new RangeError(`There are no ${length} bytes at ${offset} of ${bytes.length}.`),
        );
      return Promise.resolve(bytes.slice(offset, offset + length));
    },
  };
}
