import type { CreateTableBuilder, Kysely } from 'kysely';

/** A table in the few types that all databases share. Every column is there in every row. */
export interface TableShape {
  readonly name: string;
  readonly text?: readonly string[];
  /** Whole numbers below 2^53. */
  readonly whole?: readonly string[];
  /** Double precision. */
  readonly real?: readonly string[];
  /** Columns of the primary key, or `id` for one that the database counts up by itself and never uses twice. */
  readonly key: readonly string[] | 'id';
  readonly unique?: readonly string[];
  readonly indexes?: readonly (readonly string[])[];
}

/** Creates a table with its indexes. */
export async function createTable<Tables>(
  db: Kysely<Tables>,
  { name, text = [], whole = [], real = [], key, unique, indexes = [] }: TableShape,
  isPostgres: boolean,
): Promise<void> {
  let table: CreateTableBuilder<string, string> = db.schema.createTable(name);
  if (key === 'id') {
    // SQLite counts by itself in a column of exactly this type only.
    table = isPostgres
      ? table.addColumn('id', 'bigint', (column) => column.generatedByDefaultAsIdentity().primaryKey())
      : table.addColumn('id', 'integer', (column) => column.primaryKey().autoIncrement());
  }
  for (const column of text) table = table.addColumn(column, 'text', (type) => type.notNull());
  for (const column of whole) table = table.addColumn(column, 'bigint', (type) => type.notNull());
  for (const column of real) table = table.addColumn(column, 'double precision', (type) => type.notNull());
  if (key !== 'id') table = table.addPrimaryKeyConstraint(`${name}_key`, [...key]);
  if (unique) table = table.addUniqueConstraint(`${name}_unique`, [...unique]);
  await table.execute();
  for (const columns of indexes) {
    await db.schema
      .createIndex([name, ...columns].join('_'))
      .on(name)
      .columns([...columns])
      .execute();
  }
}
