import { join } from 'node:path';
import Database from 'libsql';
import { ServerError } from '../core/errors.ts';

/**
 * Claims a data directory for this process. The operating system ends the claim when the process dies, however it
 * does.
 * @returns gives the claim up.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if another server has it.
 */
export function lockDirectory(directory: string): () => void {
  // An exclusive transaction on a file of its own is a lock that every platform of SQLite has.
  const database = new Database(join(directory, 'server.lock'));
  try {
    database.exec('BEGIN EXCLUSIVE');
  } catch (cause) {
    database.close();
    if ((cause as { code?: unknown }).code !== 'SQLITE_BUSY') throw cause;
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      `Another server uses the data directory ${directory}; stop it, or choose another with --data.`,
      { cause },
    );
  }
  return () => {
    database.exec('ROLLBACK');
    database.close();
  };
}
