import { setTimeout } from 'node:timers/promises';
import type { Kysely, Transaction } from 'kysely';
import { isInlayError } from '../../core/errors.ts';
import { codeOf } from './failure.ts';

/** How often and how fast {@link inTransaction} tries. */
export interface TransactionOptions {
  /** Tries in all. Default 8: about 6 s, which a database takes to start again. */
  readonly attempts?: number;
  /**
   * Reads all see one moment, and the task runs again if others have changed since then what it changes, so that it may
   * write what it computed from what it read. SQLite does no less in any case. Default false.
   */
  readonly snapshot?: boolean;
  /** Waits before the next try. Default: a timer of the process. */
  readonly pause?: (ms: number) => Promise<unknown>;
}

/**
 * Runs a task in a transaction, again where others were in its way (deadlock, serialisation) or the database went away
 * and comes back. Other failures are final at once.
 *
 * The answer to a commit may get lost on its way: the task then runs again although all it did is there. So it begins
 * with a look at what is there, and does nothing twice; `attempt`, from 1, tells it that it might.
 */
export async function inTransaction<Tables, Result>(
  db: Kysely<Tables>,
  task: (tx: Transaction<Tables>, attempt: number) => Promise<Result>,
  { attempts = 8, snapshot = false, pause = setTimeout }: TransactionOptions = {},
): Promise<Result> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const transaction = db.transaction();
      return await (snapshot ? transaction.setIsolationLevel('repeatable read') : transaction).execute((tx) =>
        task(tx, attempt),
      );
    } catch (error) {
      if (attempt >= attempts || !mayPass(error)) throw error;
      // Two that were in each other's way must not meet again.
      await pause((0.5 + Math.random() / 2) * Math.min(50 * 2 ** (attempt - 1), 3200));
    }
  }
}

/** Failures that pass: by SQLSTATE (PostgreSQL 15, appendix A), by SQLite, by the system. */
const passing: ReadonlySet<unknown> = new Set([
  // In each other's way.
  ...['40001', '40P01', 'SQLITE_BUSY', 'SQLITE_BUSY_SNAPSHOT'],
  // Shutting down, crashed, starting, ended by an administrator; no connection left.
  ...['57P01', '57P02', '57P03', '25P03', '53300'],
  ...['08000', '08001', '08003', '08006'],
  ...['ECONNRESET', 'ECONNREFUSED', 'EPIPE', 'ENOENT'],
]);

/** `pg` gives these no code. */
const lostConnection = /^Connection terminated|not queryable$/;

/** Tells whether a failure of the database is one that another try may not meet. */
function mayPass(error: unknown): boolean {
  if (isInlayError(error)) return error.cause !== undefined && mayPass(error.cause);
  return passing.has(codeOf(error)) || (error instanceof Error && lostConnection.test(error.message));
}
