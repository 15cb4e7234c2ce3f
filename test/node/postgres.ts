import { execFile } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { openDatabase } from '../../src/server/db/open.ts';
import { findProgram, keep, otherUser } from './kept.ts';

/** A PostgreSQL server of this test file. */
export interface Postgres {
  /** Creates an empty database, or one that has the present schema already. @returns its URL. */
  create(kind?: 'empty' | 'migrated'): Promise<string>;
  /** Ends it as `kill -9` would, or in an orderly way that waits for nobody. */
  stop(how: 'crash' | 'fast'): Promise<void>;
  /** Starts it again. */
  start(): Promise<void>;
  close(): void;
}

const initdb = findProgram('initdb');
const server = findProgram('postgres');

/** Whether there is no PostgreSQL to test with; the reason is printed then. */
export const lacksPostgres: boolean = !initdb || !server;
if (lacksPostgres) console.log('Skipped: there is no PostgreSQL here (no `initdb` or `postgres` in PATH).');

/** Starts a server in a folder of its own, which listens on a socket there. */
export async function startPostgres(): Promise<Postgres> {
  if (!initdb || !server) throw new Error('There is no PostgreSQL here.');
  const user = otherUser();
  const kept = await keep('inlay-pg-', user);
  const { directory } = kept;
  const data = `${directory}/data`;
  const trust = ['-A', 'trust', '-U', 'inlay', '-E', 'UTF8', '--locale=C', '--no-sync', '--no-instructions'];
  await promisify(execFile)(initdb, ['-D', data, ...trust], { ...user, cwd: directory });
  const urlOf = (name: string): string => `postgres://inlay@localhost/${name}?host=${directory}`;

  const start = async (): Promise<void> => {
    const settings = [
      ...['fsync=off', 'listen_addresses=', 'shared_buffers=16MB', 'max_connections=100'],
      // The default of 1 s is for servers that have better to do than to look for deadlocks.
      'deadlock_timeout=50ms',
    ];
    const args = ['-D', data, '-k', directory, ...settings.flatMap((setting) => ['-c', setting])];
    await kept.start('postgres', server, args, { cwd: directory }, 'SIGQUIT');
    for (let tries = 0; !(await answers(urlOf('postgres'))); tries += 1) {
      if (tries === 500) throw new Error(`PostgreSQL in ${directory} does not start.`);
      await setTimeout(20);
    }
  };
  await start();

  let count = 0;
  const copy = async (template: string): Promise<string> => {
    count += 1;
    const name = `test_${count}`;
    await query(urlOf('postgres'), `create database ${name} template ${template} strategy file_copy`);
    return urlOf(name);
  };
  const migrated = once(async () => {
    await query(urlOf('postgres'), 'create database migrated');
    const { db } = await openDatabase(urlOf('migrated'));
    await db.destroy();
  });

  return {
    create: async (kind = 'migrated') => {
      if (kind === 'empty') return copy('template0');
      await migrated();
      return copy('migrated');
    },
    stop: async (how) => {
      // As after a crash: nobody is told, and the next start has to recover.
      await kept.stop('postgres', how === 'crash' ? 'SIGQUIT' : 'SIGINT');
    },
    start,
    close: () => kept.close(),
  };
}

const shared = once(startPostgres);

/**
 * Creates a database on the server that the tests of this file share; it ends with them.
 * @param kind Default `migrated`: it has the present schema, and no rows.
 * @returns its URL.
 */
export async function createPostgres(kind?: 'empty' | 'migrated'): Promise<string> {
  return (await shared()).create(kind);
}

/** Does something at the first call only. */
function once<Result>(task: () => Promise<Result>): () => Promise<Result> {
  let result: Promise<Result> | undefined;
  return () => (result ??= task());
}

/** Runs one statement. */
export async function query(url: string, text: string): Promise<readonly Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    await query(url, 'select 1');
    return true;
  } catch {
    return false;
  }
}
