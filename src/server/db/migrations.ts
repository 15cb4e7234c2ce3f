import { Migrator, type Kysely, type Migration } from 'kysely';

/**
 * Steps from one schema to the next, by name; applied in order of name, each once. They may run again after a crash
 * half-way through, since SQLite commits each statement on its own.
 */
const migrations: Readonly<Record<string, Migration>> = {
  '0001-metadata': {
    up: async (db) => {
      await db.schema
        .createTable('metadata')
        .ifNotExists()
        .addColumn('role', 'varchar(64)', (column) => column.notNull())
        .addColumn('version', 'integer', (column) => column.notNull())
        .addColumn('text', 'text', (column) => column.notNull())
        .addColumn('created_at', 'varchar(32)', (column) => column.notNull())
        .addPrimaryKeyConstraint('metadata_key', ['role', 'version'])
        .execute();
      await db.schema
        .createTable('admin_token')
        .ifNotExists()
        .addColumn('sha256', 'varchar(64)', (column) => column.primaryKey())
        .addColumn('created_at', 'varchar(32)', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('audit')
        .ifNotExists()
        .addColumn('seq', 'integer', (column) => column.primaryKey())
        .addColumn('at', 'varchar(32)', (column) => column.notNull())
        .addColumn('actor', 'varchar(64)', (column) => column.notNull())
        .addColumn('action', 'varchar(64)', (column) => column.notNull())
        .addColumn('details', 'text', (column) => column.notNull())
        .execute();
    },
  },
};

/** Brings a database to the present schema. Does nothing where it is there already. */
export async function migrate<Tables>(db: Kysely<Tables>): Promise<void> {
  const migrator = new Migrator({
    db,
    provider: { getMigrations: () => Promise.resolve({ ...migrations }) },
  });
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
}
