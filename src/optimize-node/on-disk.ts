/** What goes wrong with files that are written. */
import { StoreError } from '../core/errors.ts';

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
