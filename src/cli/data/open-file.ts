import { open, type FileHandle } from 'node:fs/promises';
import { extname } from 'node:path';
import { InputError } from '../../core/errors.ts';
import { openNpyFile, openNpzFile } from './array-files.ts';
import { openCsvFile } from './csv.ts';
import { openJsonlFile } from './jsonl.ts';
import type { DataFile } from './rows.ts';

const openers: Readonly<Record<string, (file: FileHandle, path: string) => Promise<DataFile>>> = {
  '.npy': openNpyFile,
  '.npz': openNpzFile,
  '.jsonl': openJsonlFile,
  '.ndjson': openJsonlFile,
  '.csv': openCsvFile,
};

/** Whether a path names a data file by its extension. */
export function isDataPath(path: string): boolean {
  return extname(path).toLowerCase() in openers;
}

/**
 * Opens a data file by its extension.
 * @throws {@link InputError} `ERR_INLAY_FEED_MISSING` if it cannot be opened, and what its format throws.
 */
export async function openDataFile(path: string): Promise<DataFile> {
  const opener = openers[extname(path).toLowerCase()];
  if (opener === undefined) throw new RangeError(`${path} is no .npy, .npz, .jsonl or .csv file.`);
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      `The data file ${path} cannot be opened; check the path.`,
      { cause },
    );
  }
  try {
    if (!(await file.stat()).isFile()) throw new InputError('ERR_INLAY_FEED_MISSING', `${path} is no file.`);
    return await opener(file, path);
  } catch (error) {
    await file.close();
    throw error;
  }
}
