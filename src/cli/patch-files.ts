/** Files that patches are made of and from. */

import { open, readFile, rename, rm } from 'node:fs/promises';
import { equalBytes } from '../core/bytes.ts';
import { isInlayError, ModelError, StoreError, UpdateError } from '../core/errors.ts';
import type { Blob } from '../core/store.ts';
import { stageFile, type StagedFile, type WritableFileSystem } from '../optimize-node/staged-file.ts';
import { sha256Hex } from '../trust/keys.ts';
import { nodePlatform } from '../platform-node.ts';
import { MAGIC } from '../update/delta/bounds.ts';
import type { PatchHead } from '../update/delta/head.ts';
import { parsePatch } from '../update/delta/read-head.ts';

/** Disk that files are written to; tests pass one that fails. */
const nodeFiles: WritableFileSystem = { open, rename, rm };

/**
 * Reads a file.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND` if there is none, {@link StoreError} `ERR_INLAY_STORE_IO` for a
 * folder and for what cannot be read.
 */
export async function readWhole(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `There is no file ${path}; check the path.`, {
        cause,
      });
    const problem =
      code === 'EISDIR'
        ? 'is a folder; name a file in it'
        : `cannot be read (${code}); check its permissions`;
    throw new StoreError('ERR_INLAY_STORE_IO', `${path} ${problem}.`, { cause });
  }
}

/** A patch that is all there. */
export interface PatchFile {
  readonly path: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly head: PatchHead;
}

/**
 * Reads a patch; its blocks are not looked at.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH` for what is none; as {@link readWhole} does.
 */
export async function readPatch(path: string): Promise<PatchFile> {
  const bytes = await readWhole(path);
  if (!equalBytes(bytes.subarray(0, MAGIC.length), MAGIC)) {
    throw new UpdateError(
      'ERR_INLAY_PATCH',
      `The file ${path} is no patch of version 1; name one that \`inlay patch create\` has written.`,
    );
  }
  try {
    return { path, bytes, head: parsePatch(bytes).head };
  } catch (cause) {
    throw namePatch(path, cause);
  }
}

/** Says which patch it is that cannot be used, and what to do here: devices take the whole file. */
export function namePatch(path: string, cause: unknown): unknown {
  if (!isInlayError(cause) || cause.code !== 'ERR_INLAY_PATCH') return cause;
  return new UpdateError(
    'ERR_INLAY_PATCH',
    `The patch ${path} is cut short or damaged; copy it again, or make it anew with \`inlay patch create\`.`,
    { cause },
  );
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
