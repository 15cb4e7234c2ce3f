import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { StoreError } from '../core/errors.ts';

/**
 * Makes a private folder (mode 700), and those above it that are missing. A folder that exists is left as it is.
 * @throws {@link StoreError} `ERR_INLAY_STORE_IO` if that cannot be.
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    // Not the recursive call of Node, which never returns for a path under /proc.
    await mkdir(path, { mode: 0o700 });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'EEXIST') {
      if ((await stat(path)).isDirectory()) return;
      throw cannotMake(path, 'there is a file of that name', cause);
    }
    const parent = dirname(path);
    if (code === 'ENOENT' && parent !== path) {
      await makeFolder(parent);
      await mkdir(path, { mode: 0o700 }).catch((again: NodeJS.ErrnoException) => {
        if (again.code !== 'EEXIST') throw cannotMake(path, again.message, again);
      });
      return;
    }
    throw cannotMake(path, message, cause);
  }
}

function cannotMake(path: string, why: string, cause: unknown): StoreError {
  return new StoreError(
    'ERR_INLAY_STORE_IO',
    `The folder ${path} cannot be made (${why}); name another one.`,
    { cause, details: { path } },
  );
}
