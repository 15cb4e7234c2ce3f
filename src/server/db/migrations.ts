import { Migrator, PostgresAdapter, type Kysely, type Migration } from 'kysely';
import { auditHash, noAudit } from './audit.ts';
import { createTable, type TableShape } from './tables.ts';

/** Tables of the second step, as they were made then; later steps change them. */
const fleet: readonly TableShape[] = [
  {
    name: 'token',
    text: ['id', 'sha256', 'name', 'role', 'scope'],
    whole: ['created_at', 'expires_at', 'revoked_at', 'used_at'],
    key: ['id'],
    unique: ['sha256'],
  },
  {
    name: 'dedupe',
    text: ['dev', 'epoch', 'seen'],
    whole: ['hi', 'first_at', 'last_at', 'lost'],
    key: ['epoch', 'dev'],
    indexes: [['last_at'], ['dev']],
  },
  {
    name: 'series',
    text: ['app', 'model', 'version', 'rollout', 'arm'],
    whole: ['stage', 'cls'],
    key: 'id',
    unique: ['app', 'model', 'version', 'rollout', 'stage', 'arm', 'cls'],
  },
  { name: 'delta', text: ['body'], whole: ['series', 't_s'], key: 'id', indexes: [['series', 't_s']] },
  {
    name: 'roll',
    text: ['body'],
    whole: ['res', 'series', 't_s'],
    key: ['res', 'series', 't_s'],
    indexes: [['res', 't_s']],
  },
  {
    name: 'device',
    text: ['dev', 'model', 'version', 'rollout', 'arm', 'sdk', 'runtime', 'app', 'counted'],
    whole: ['stage', 'cls', 'first_at', 'last_at', 'last_t_s'],
    key: ['dev', 'model'],
    indexes: [['model', 'version'], ['last_at']],
  },
  {
    name: 'stage_device',
    text: ['rollout', 'dev', 'arm', 'hist', 'load', 'outputs', 'biz', 'verdicts'],
    whole: [
      ...[
        'stage',
        'cls',
        'consent',
        'n',
        'errors',
        'fatals',
        'rejections',
        'activations',
        'base_n',
        'base_errors',
      ],
      ...['first_at', 'activated_at', 'last_at', 'judged_at'],
    ],
    real: ['base_p95', 'base_load', 'base_mem', 'mem', 'gap'],
    key: ['rollout', 'stage', 'dev'],
    indexes: [
      ['rollout', 'stage', 'arm', 'consent'],
      ...['fatals', 'rejections'].map((last) => ['rollout', 'stage', last]),
      ['rollout', 'stage', 'judged_at', 'dev'],
      ['dev'],
    ],
  },
  { name: 'profile', text: ['model', 'version', 'hash', 'body'], key: ['model', 'version'] },
  {
    name: 'programme',
    text: ['rollout', 'channel', 'model', 'version', 'body', 'status', 'reason'],
    whole: ['stage', 'stage_at', 'updated_at'],
    key: ['rollout'],
  },
  {
    name: 'guard_state',
    text: ['rollout', 'guard', 'body'],
    whole: ['stage', 'updated_at'],
    key: ['rollout', 'stage', 'guard'],
  },
  {
    name: 'guard_look',
    text: ['rollout', 'decision', 'body'],
    whole: ['stage', 'look', 'at'],
    key: ['rollout', 'stage', 'look'],
  },
  { name: 'alert_rule', text: ['id', 'body'], whole: ['enabled', 'updated_at'], key: ['id'] },
  {
    name: 'alert',
    text: ['fingerprint', 'rule', 'labels', 'state', 'level', 'body'],
    whole: ['started_at', 'updated_at'],
    key: ['fingerprint'],
  },
  {
    name: 'alert_event',
    text: ['fingerprint', 'kind', 'level', 'body'],
    whole: ['at'],
    key: 'id',
    indexes: [['at'], ['fingerprint', 'at']],
  },
  {
    name: 'silence',
    text: ['id', 'matchers', 'actor', 'comment'],
    whole: ['from_at', 'until_at'],
    key: ['id'],
  },
  { name: 'contact', text: ['id', 'kind', 'body'], key: ['id'] },
  {
    name: 'outbox',
    text: ['contact', 'key', 'body', 'error'],
    whole: ['attempts', 'next_at', 'done_at'],
    key: 'id',
    unique: ['key'],
    indexes: [['done_at', 'next_at']],
  },
  { name: 'lease', text: ['name', 'holder'], whole: ['until_at'], key: ['name'] },
  { name: 'health', text: ['name'], whole: ['t_s', 'n'], key: ['t_s', 'name'] },
  { name: 'setting', text: ['name', 'body'], key: ['name'] },
];

/** What the second step finds, in the types of both databases. */
interface BeforeFleet {
  readonly admin_token: { readonly sha256: string; readonly created_at: string };
  readonly token: Readonly<Record<string, string | number>>;
  readonly audit: {
    readonly seq: number;
    readonly at: string;
    readonly actor: string;
    readonly action: string;
    readonly details: string;
    readonly prev: string;
    readonly hash: string;
  };
}

/** Steps from one schema to the next, by name; applied in order of name, each once. */
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
        .addColumn('actor', 'text', (column) => column.notNull())
        .addColumn('action', 'text', (column) => column.notNull())
        .addColumn('details', 'text', (column) => column.notNull())
        .execute();
    },
  },
  '0002-fleet': {
    up: async (db: Kysely<BeforeFleet>) => {
      const isPostgres = db.getExecutor().adapter instanceof PostgresAdapter;
      for (const shape of fleet) await createTable(db, shape, isPostgres);
      await keepTokens(db);
      await chainAudit(db);
    },
  },
};

/** Whoever had a key of the server goes on as its administrator. */
async function keepTokens(db: Kysely<BeforeFleet>): Promise<void> {
  for (const { sha256, created_at } of await db.selectFrom('admin_token').selectAll().execute()) {
    const row = { id: sha256.slice(0, 8), sha256, name: 'admin', role: 'admin', scope: '{}' };
    const times = { created_at: Date.parse(created_at), expires_at: 0, revoked_at: 0, used_at: 0 };
    await db
      .insertInto('token')
      .values({ ...row, ...times })
      .execute();
  }
  await db.schema.dropTable('admin_token').execute();
}

async function chainAudit(db: Kysely<BeforeFleet>): Promise<void> {
  for (const name of ['prev', 'hash']) {
    await db.schema
      .alterTable('audit')
      .addColumn(name, 'text', (column) => column.notNull().defaultTo(''))
      .execute();
  }
  await db.schema.createIndex('audit_at').on('audit').column('at').execute();
  let { hash: prev } = noAudit;
  for (const row of await db.selectFrom('audit').selectAll().orderBy('seq').execute()) {
    const hash = auditHash({ ...row, prev });
    await db.updateTable('audit').set({ prev, hash }).where('seq', '=', row.seq).execute();
    prev = hash;
  }
}

/**
 * Brings a database to the present schema, all of it or nothing. Does nothing where it is there already; another
 * process that does the same is waited for.
 */
export async function migrate<Tables>(db: Kysely<Tables>): Promise<void> {
  const migrator = new Migrator({
    db,
    provider: { getMigrations: () => Promise.resolve({ ...migrations }) },
  });
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
}
