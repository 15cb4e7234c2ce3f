import { Kysely, PostgresDialect, sql } from 'kysely';
import { Pool, types, type PoolConfig } from 'pg';
import { ServerError } from '../../core/errors.ts';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';

/** Options of {@link openPostgres}. */
export interface PostgresOptions {
  /** Connections that are open at most. Default 10. */
  readonly connections?: number;
  /** Longest time of one statement, milliseconds. Default 30 s. */
  readonly statementMs?: number;
}

/** Types whose values `pg` gives as text, although all here are whole numbers below 2^53. */
const wholeTypes: ReadonlySet<number> = new Set([types.builtins.INT8, types.builtins.NUMERIC]);

/** The oldest version that is tested. */
const oldestVersion = 15;

/**
 * Opens a PostgreSQL database and brings it to the present schema. Connections that are lost are opened again by whoever
 * needs one next; see `inTransaction` for what was under way on them.
 * @param url `postgres://user:password@host:5432/database`, with the options of `pg`, such as `?sslmode=verify-full`.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if the server is older than 15, or the database is not in UTF-8.
 */
export async function openPostgres(url: string, options: PostgresOptions = {}): Promise<Kysely<Schema>> {
  const { connections = 10, statementMs = 30_000 } = options;
  const shared: PoolConfig = {
    connectionString: url,
    application_name: 'inlay',
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    types: {
      getTypeParser: (oid: Parameters<typeof types.getTypeParser>[0], format?: 'text' | 'binary') =>
        wholeTypes.has(oid) ? Number : types.getTypeParser(oid, format),
    },
  };
  const db = connect({
    ...shared,
    max: connections,
    statement_timeout: statementMs,
    lock_timeout: statementMs,
    // What a process left open that hangs must not stop the others for ever.
    idle_in_transaction_session_timeout: 2 * statementMs,
  });
  // A migration may take longer than any query.
  const patient = connect({ ...shared, max: 1 });
  try {
    await assertUsable(db);
    await migrate(patient);
    return db;
  } catch (error) {
    await db.destroy();
    throw error;
  } finally {
    await patient.destroy();
  }
}

function connect(config: PoolConfig): Kysely<Schema> {
  const pool = new Pool(config);
  // A connection that breaks while nobody uses it tells so here; whoever uses a broken one gets an error there.
  pool.on('error', () => undefined);
  pool.on('connect', (client) => client.on('error', () => undefined));
  return new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });
}

async function assertUsable(db: Kysely<Schema>): Promise<void> {
  const { rows } = await sql<{ version: string; encoding: string }>`
    select current_setting('server_version_num') as version, current_setting('server_encoding') as encoding
  `.execute(db);
  const { version = '0', encoding = '' } = rows[0] ?? {};
  const major = Math.floor(Number(version) / 10_000);
  if (major < oldestVersion) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `PostgreSQL ${major} is too old; use ${oldestVersion} or newer.`,
      { details: { version } },
    );
  }
  if (encoding !== 'UTF8') {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The database is in ${encoding}; create one with \`ENCODING 'UTF8'\`.`,
      { details: { encoding } },
    );
  }
}
