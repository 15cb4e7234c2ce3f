import { isInlayError, StoreError } from '../../core/errors.ts';

/** What databases call a full disk: SQLite, and PostgreSQL (SQLSTATE `disk_full`). */
const fullCodes: ReadonlySet<unknown> = new Set(['SQLITE_FULL', '53100']);

/**
 * Runs a query and gives its failure a code.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL` or `ERR_INLAY_STORE_IO`; errors with a code go through.
 */
export async function guarded<Result>(query: () => Promise<Result>): Promise<Result> {
  try {
    return await query();
  } catch (cause) {
    if (isInlayError(cause)) throw cause;
    throw fullCodes.has(codeOf(cause))
      ? new StoreError('ERR_INLAY_STORE_FULL', 'The database has no space left; free some and try again.', {
          cause,
        })
      : new StoreError(
          'ERR_INLAY_STORE_IO',
          'The database failed; see the cause, and check disk, connection and permissions.',
          { cause },
        );
  }
}

/** Code of a failure: SQLSTATE of PostgreSQL, a name of SQLite or of the system. */
export function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null | undefined)?.code;
}
