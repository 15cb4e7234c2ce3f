import type { Kysely } from 'kysely';
import { ServerError } from '../../core/errors.ts';
import { assertWhole } from './move.ts';
import type { Schema } from './schema.ts';
import { openSqlite } from './sqlite.ts';

/** A database with the present schema. */
export interface Database {
  readonly db: Kysely<Schema>;
  readonly dialect: 'sqlite' | 'postgres';
}

/** Tells whether a database is named by the URL of a PostgreSQL server rather than by a path. */
export function isPostgresUrl(target: string): boolean {
  return /^postgres(?:ql)?:\/\//.test(target);
}

/** Options of {@link openDatabase}. */
export interface OpenOptions {
  /** Opens a database also where a move into it was cut off, to go on with that. Default false. */
  readonly forMove?: boolean;
}

/**
 * Opens a database and brings it to the present schema. Close it with `db.destroy()`.
 * @param target path of a SQLite file, created if missing, or `postgres://…`.
 * @throws what the database throws, and {@link ServerError} `ERR_INLAY_REFUSED` or `ERR_INLAY_CONFLICT` where it cannot
 * be used.
 */
export async function openDatabase(target: string, { forMove = false }: OpenOptions = {}): Promise<Database> {
  const database = await open(target);
  if (forMove) return database;
  try {
    await assertWhole(database.db);
    return database;
  } catch (error) {
    await database.db.destroy();
    throw error;
  }
}

async function open(target: string): Promise<Database> {
  const scheme = /^([a-z][a-z0-9+.-]+):\/\//i.exec(target)?.[1];
  if (scheme !== undefined && !isPostgresUrl(target)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `A database is the path of a SQLite file or postgres://…, not ${scheme}://….`,
    );
  }
  if (!isPostgresUrl(target)) return { db: await openSqlite(target), dialect: 'sqlite' };
  // Most servers keep a file, and need no client of PostgreSQL in memory.
  const { openPostgres } = await import('./postgres.ts');
  return { db: await openPostgres(target), dialect: 'postgres' };
}
