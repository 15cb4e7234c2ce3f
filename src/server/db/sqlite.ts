import { Kysely, SqliteDialect } from 'kysely';
import Database from 'libsql';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';

/**
 * Opens a SQLite file and brings it to the present schema. Every commit is on disk before it is acknowledged. One
 * connection: transactions wait for each other, and each query holds the event loop while it runs.
 */
export async function openSqlite(path: string): Promise<Kysely<Schema>> {
  const database = new Database(path);
  // Somebody may look into the file with another program; waiting for it holds the event loop.
  database.pragma('busy_timeout = 1000');
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.pragma('foreign_keys = ON');
  const db = new Kysely<Schema>({ dialect: new SqliteDialect({ database }) });
  try {
    await migrate(db);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return db;
}
