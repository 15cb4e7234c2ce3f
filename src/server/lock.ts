import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import Database from 'libsql';
import { ServerError } from '../core/errors.ts';

/**
 * Claims a data directory for this process. The operating system ends the claim when the process dies, however it
 * does.
 * @param file what is claimed: the directory for a server, or for a signer.
 * @param waitMs how long to wait for a process that is about to end. Default 0.
 * @returns gives the claim up.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if another process has it.
 */
export async function lockDirectory(
  directory: string,
  file: 'server.lock' | 'signer.lock' = 'server.lock',
  waitMs = 0,
): Promise<() => void> {
  // An exclusive transaction on a file of its own is a lock that every platform of SQLite has.
  for (let waitedMs = 0; ; waitedMs += 50) {
    const database = new Database(join(directory, file));
    try {
      database.exec('BEGIN EXCLUSIVE');
      return () => {
        database.exec('ROLLBACK');
        database.close();
      };
    } catch (cause) {
      database.close();
      if ((cause as { code?: unknown }).code !== 'SQLITE_BUSY') throw cause;
      if (waitedMs >= waitMs) {
        throw new ServerError(
          'ERR_INLAY_CONFLICT',
          `Another server uses the data directory ${directory}; stop it, or choose another with --data.`,
          { cause },
        );
      }
      await setTimeout(50);
    }
  }
}
