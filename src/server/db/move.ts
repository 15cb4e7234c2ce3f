/** Moves everything from one database to another, such as from a file to PostgreSQL. */

import { sql, type Kysely, type Transaction } from 'kysely';
import { ServerError, StoreError } from '../../core/errors.ts';
import { noAudit } from './audit.ts';
import type { Database } from './open.ts';
import type { Schema } from './schema.ts';
import { inTransaction } from './transaction.ts';

/** Tables that are moved; leases are of those who run now. */
type Table = Exclude<keyof Schema, 'lease'>;

/** Primary keys: the order in which rows are copied. */
const keys: { readonly [Name in Table]: readonly (string & keyof Schema[Name])[] } = {
  metadata: ['role', 'version'],
  token: ['id'],
  audit: ['seq'],
  dedupe: ['dev', 'epoch'],
  series: ['id'],
  delta: ['id'],
  roll: ['res', 'series', 't_s'],
  device: ['dev', 'model'],
  stage_device: ['rollout', 'stage', 'dev'],
  profile: ['model', 'version'],
  programme: ['rollout'],
  guard_state: ['rollout', 'stage', 'guard'],
  guard_look: ['rollout', 'stage', 'look'],
  alert_rule: ['id'],
  alert: ['fingerprint'],
  alert_event: ['id'],
  silence: ['id'],
  contact: ['id'],
  outbox: ['id'],
  health: ['t_s', 'name'],
  setting: ['name'],
};
const tables = Object.keys(keys) as Table[];

/** Tables whose `id` the database counts up. */
const counted: readonly Table[] = ['series', 'delta', 'alert_event', 'outbox'];

/** Rows of a page: what a statement takes in parameters, and what fits into memory where rows are megabytes. */
const pageRows = (table: Table): number => (table === 'metadata' ? 16 : 500);

type Value = string | number;
type Row = Readonly<Record<string, Value>>;
type Counts = Readonly<Record<Table, number>>;

/** How far a move has come; kept in the target until it is done. */
interface Progress {
  /** What the source was at the beginning. */
  readonly source: string;
  readonly table: Table;
  /** Key of the last row that was copied; empty for none. */
  readonly after: readonly Value[];
}

/** Options of {@link moveDatabase}. */
export interface MoveOptions {
  /** Gets what was copied after each page. */
  readonly onProgress?: (table: string, rows: number, of: number) => void;
  /** Wall clock, milliseconds since 1970: tells whether a server uses the source. */
  readonly now: () => number;
}

/** Name of the setting that marks a target as unfinished. */
const mark = 'move';

/**
 * Copies all rows into an empty database, a page in each transaction, and compares their numbers at the end. A move that
 * was cut off goes on where it was when it is started again. Nobody can write to the source meanwhile.
 * @returns rows by table.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if a server uses the source, the target is not empty, or the source is
 * not what it was when the move began; {@link StoreError} `ERR_INLAY_STORE_MISMATCH` if rows are missing afterwards.
 */
export function moveDatabase(from: Database, to: Database, options: MoveOptions): Promise<Counts> {
  return from.db.transaction().execute(async (source) => {
    await claim(source, from.dialect, options.now());
    const counts = await countRows(source);
    const fingerprint = JSON.stringify([counts, await newestAudit(source)]);
    const { table: first, after: begin } = await begun(to.db, fingerprint);

    for (const table of tables.slice(tables.indexOf(first))) {
      let after = table === first ? begin : [];
      let rows = after.length === 0 ? 0 : (await countRows(to.db))[table];
      for (;;) {
        const page = await readPage(source, table, after);
        const last = page.at(-1);
        if (!last) break;
        after = keys[table].map((column) => last[column] ?? '');
        await writePage(to.db, page, { source: fingerprint, table, after });
        rows += page.length;
        options.onProgress?.(table, rows, counts[table]);
      }
    }
    await finish(to, counts);
    return counts;
  });
}

/**
 * Makes sure that a database is whole.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if a move into it was cut off.
 */
export async function assertWhole(db: Kysely<Schema>): Promise<void> {
  const progress = await db.selectFrom('setting').select('name').where('name', '=', mark).executeTakeFirst();
  if (progress) {
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      'The move into this database was cut off; run it again, or empty the database.',
    );
  }
}

/** Keeps all others from writing until the transaction ends, as every transaction of SQLite does. */
async function claim(source: Transaction<Schema>, dialect: Database['dialect'], now: number): Promise<void> {
  if (dialect === 'postgres') {
    await sql`lock table ${sql.join([...tables, 'lease'].map((name) => sql.table(name)))} in exclusive mode`.execute(
      source,
    );
  }
  const held = await source.selectFrom('lease').select('name').where('until_at', '>', now).executeTakeFirst();
  if (held) {
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      'A server uses the database that is to be moved; stop it, and try again after a minute.',
    );
  }
  await assertWhole(source);
}

async function newestAudit(db: Kysely<Schema>): Promise<string> {
  const row = await db.selectFrom('audit').select('hash').orderBy('seq', 'desc').limit(1).executeTakeFirst();
  return row?.hash ?? noAudit.hash;
}

async function countRows(db: Kysely<Schema>): Promise<Counts> {
  const counts: Partial<Record<Table, number>> = {};
  for (const table of tables) {
    const { n } = await db
      .selectFrom(table)
      .select(({ fn }) => fn.countAll<number>().as('n'))
      .executeTakeFirstOrThrow();
    counts[table] = Number(n);
  }
  return counts as Counts;
}

/** Finds where to go on, or notes that the move begins. */
function begun(target: Kysely<Schema>, source: string): Promise<Progress> {
  return inTransaction(target, async (tx) => {
    const row = await tx.selectFrom('setting').select('body').where('name', '=', mark).executeTakeFirst();
    if (row) {
      const progress = JSON.parse(row.body) as Progress;
      if (progress.source === source) return progress;
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        'The source has changed since this move began; begin again with an empty target.',
      );
    }
    const counts = await countRows(tx);
    const full = tables.find((table) => counts[table] > 0);
    if (full) {
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        `The target is not empty: it has ${counts[full]} rows in "${full}"; choose an empty database.`,
        { details: { table: full, rows: counts[full] } },
      );
    }
    const progress: Progress = { source, table: 'metadata', after: [] };
    await tx
      .insertInto('setting')
      .values({ name: mark, body: JSON.stringify(progress) })
      .execute();
    return progress;
  });
}

async function readPage(db: Kysely<Schema>, table: Table, after: readonly Value[]): Promise<readonly Row[]> {
  const columns = sql.join(keys[table].map((column) => sql.ref(column)));
  const later = after.length === 0 ? sql`` : sql`where (${columns}) > (${sql.join(after)})`;
  const page = sql<Row>`select * from ${sql.table(table)} ${later} order by ${columns} limit ${pageRows(table)}`;
  return (await page.execute(db)).rows;
}

/** Adds a page and notes it, both or neither. A page whose commit was not answered is not added twice. */
async function writePage(target: Kysely<Schema>, page: readonly Row[], progress: Progress): Promise<void> {
  const body = JSON.stringify(progress);
  await inTransaction(target, async (tx) => {
    const { body: before } = await tx
      .selectFrom('setting')
      .select('body')
      .where('name', '=', mark)
      .executeTakeFirstOrThrow();
    if (before === body) return;
    const names = Object.keys(page[0] ?? {});
    const rows = page.map((row) => sql`(${sql.join(names.map((name) => row[name]))})`);
    const into = sql`${sql.table(progress.table)} (${sql.join(names.map((name) => sql.ref(name)))})`;
    await sql`insert into ${into} values ${sql.join(rows)}`.execute(tx);
    await tx.updateTable('setting').set({ body }).where('name', '=', mark).execute();
  });
}

/** Compares the numbers of rows and makes the target ready for use. */
function finish({ db, dialect }: Database, counts: Counts): Promise<void> {
  return inTransaction(db, async (tx, attempt) => {
    const { numDeletedRows } = await tx.deleteFrom('setting').where('name', '=', mark).executeTakeFirst();
    if (numDeletedRows === 0n && attempt > 1) return;
    const copied = await countRows(tx);
    const wrong = tables.find((table) => copied[table] !== counts[table]);
    if (wrong) {
      throw new StoreError(
        'ERR_INLAY_STORE_MISMATCH',
        `The target has ${copied[wrong]} rows in "${wrong}" where the source has ${counts[wrong]}; begin again with an empty target.`,
        { details: { table: wrong, copied: copied[wrong], rows: counts[wrong] } },
      );
    }
    if (dialect !== 'postgres') return;
    // Rows that came with their numbers do not move the counter on.
    for (const table of counted) {
      const newest = sql`(select coalesce(max(id), 0) from ${sql.table(table)})`;
      await sql`select setval(pg_get_serial_sequence(${table}, 'id'), ${newest} + 1, false)`.execute(tx);
    }
  });
}
