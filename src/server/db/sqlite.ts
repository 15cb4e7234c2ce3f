import {
  CompiledQuery,
  Kysely,
  SqliteAdapter,
  SqliteDriver,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type DatabaseConnection,
  type Dialect,
} from 'kysely';
import Database from 'libsql';
import { codeOf } from './failure.ts';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';

/** SQLite takes changes of the schema back with the transaction they are in. */
class TransactionalAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

class ImmediateDriver extends SqliteDriver {
  /** Waits for other writers before it reads: what was read could not be relied on for writing otherwise. */
  override async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('begin immediate'));
  }
}

function createDialect(database: Database.Database): Dialect {
  return {
    createAdapter: () => new TransactionalAdapter(),
    createDriver: () => new ImmediateDriver({ database }),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

/** Another process that migrates the same file is done after one of these tries. */
const attempts = 5;

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
  const db = new Kysely<Schema>({ dialect: createDialect(database) });
  for (let attempt = 1; ; attempt += 1) {
    try {
      await migrate(db);
      return db;
    } catch (error) {
      if (attempt < attempts && String(codeOf(error)).startsWith('SQLITE_BUSY')) continue;
      await db.destroy();
      throw error;
    }
  }
}
