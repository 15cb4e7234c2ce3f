import type { Kysely, Transaction } from 'kysely';
import { isInlayError, ServerError, StoreError } from '../../core/errors.ts';
import type { Schema } from './schema.ts';

/** Roles whose metadata the server keeps. */
export type Role = 'root' | 'targets' | 'rollout' | 'snapshot' | 'timestamp';

const roles: readonly Role[] = ['root', 'targets', 'rollout', 'snapshot', 'timestamp'];

/** A metadata file to be added. */
export interface NewMetadata {
  readonly role: Role;
  readonly version: number;
  readonly text: string;
}

/** What happened, for the audit log. */
export interface AuditEvent {
  /** First digits of the token's SHA-256, or `server`. */
  readonly actor: string;
  readonly action: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** An event as the audit log keeps it. */
export interface AuditRecord extends AuditEvent {
  readonly seq: number;
  /** ISO 8601, UTC. */
  readonly at: string;
}

/** The newest version of each role; absent before the first. */
export type Heads = Readonly<Partial<Record<Role, number>>>;

/** What the server remembers. Every method is one transaction. */
export interface Repository {
  /** Finds the newest version of each role. */
  heads(): Promise<Heads>;
  /** Reads the text of a metadata file. */
  text(role: Role, version: number): Promise<string | undefined>;
  /** Lists the texts of a role's versions above `version`, oldest first. */
  textsAfter(role: Role, version: number): Promise<readonly string[]>;
  /**
   * Adds metadata files and an audit record, all or nothing. Timestamps older than the new one are dropped.
   * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if one of the versions exists.
   */
  add(files: readonly NewMetadata[], event: AuditEvent): Promise<void>;
  /** Lists the SHA-256 of every valid token, hex. */
  tokenHashes(): Promise<readonly string[]>;
  /** Makes one token the only valid one. */
  replaceTokens(sha256: string): Promise<void>;
  /** Lists the latest audit records, newest first. */
  audit(limit: number): Promise<readonly AuditRecord[]>;
  /** Closes the database. */
  close(): Promise<void>;
}

/**
 * Creates the repository of a database. All queries of the server are here, in the SQL that SQLite and PostgreSQL
 * share.
 * @param now wall clock, milliseconds since 1970.
 * @throws {@link StoreError} `ERR_INLAY_STORE_FULL` or `ERR_INLAY_STORE_IO`, from every method.
 */
export function createRepository(db: Kysely<Schema>, now: () => number): Repository {
  const timestamp = (): string => new Date(now()).toISOString();

  const record = async (tx: Transaction<Schema>, { actor, action, details }: AuditEvent): Promise<void> => {
    const last = await tx
      .selectFrom('audit')
      .select((eb) => eb.fn.max('seq').as('seq'))
      .executeTakeFirst();
    const seq = Number(last?.seq ?? 0) + 1;
    const row = { seq, at: timestamp(), actor, action, details: JSON.stringify(details) };
    await tx.insertInto('audit').values(row).execute();
  };

  return {
    heads: () =>
      guarded(async () => {
        // One index seek per role, however many versions there are: every poll of a device asks this.
        const row = await db
          .selectNoFrom((eb) =>
            roles.map((role) =>
              eb
                .selectFrom('metadata')
                .select(({ fn }) => fn.max('version').as('version'))
                .where('role', '=', role)
                .as(role),
            ),
          )
          .executeTakeFirstOrThrow();
        return Object.fromEntries(
          roles.flatMap((role) => (row[role] === null ? [] : [[role, Number(row[role])]])),
        );
      }),

    text: (role, version) =>
      guarded(async () => {
        const row = await db
          .selectFrom('metadata')
          .select('text')
          .where('role', '=', role)
          .where('version', '=', version)
          .executeTakeFirst();
        return row?.text;
      }),

    textsAfter: (role, version) =>
      guarded(async () => {
        const rows = await db
          .selectFrom('metadata')
          .select('text')
          .where('role', '=', role)
          .where('version', '>', version)
          .orderBy('version')
          .execute();
        return rows.map(({ text }) => text);
      }),

    add: (files, event) =>
      guarded(() =>
        db.transaction().execute(async (tx) => {
          for (const { role, version, text } of files) {
            const { numInsertedOrUpdatedRows } = await tx
              .insertInto('metadata')
              .values({ role, version, text, created_at: timestamp() })
              .onConflict((conflict) => conflict.columns(['role', 'version']).doNothing())
              .executeTakeFirst();
            if (numInsertedOrUpdatedRows !== 1n) {
              throw new ServerError(
                'ERR_INLAY_CONFLICT',
                `Version ${version} of ${role} was installed meanwhile; read the present metadata and try again.`,
                { details: { role, version } },
              );
            }
            if (role === 'timestamp') {
              await tx
                .deleteFrom('metadata')
                .where('role', '=', role)
                .where('version', '<', version)
                .execute();
            }
          }
          await record(tx, event);
        }),
      ),

    tokenHashes: () =>
      guarded(async () => {
        const rows = await db.selectFrom('admin_token').select('sha256').execute();
        return rows.map(({ sha256 }) => sha256);
      }),

    replaceTokens: (sha256) =>
      guarded(() =>
        db.transaction().execute(async (tx) => {
          await tx.deleteFrom('admin_token').execute();
          await tx.insertInto('admin_token').values({ sha256, created_at: timestamp() }).execute();
          await record(tx, { actor: 'server', action: 'token', details: {} });
        }),
      ),

    audit: (limit) =>
      guarded(async () => {
        const rows = await db.selectFrom('audit').selectAll().orderBy('seq', 'desc').limit(limit).execute();
        return rows.map((row) => ({ ...row, details: JSON.parse(row.details) as AuditEvent['details'] }));
      }),

    close: () => guarded(() => db.destroy()),
  };
}

/** What databases call a full disk: SQLite, and PostgreSQL (SQLSTATE `disk_full`). */
const fullCodes: ReadonlySet<unknown> = new Set(['SQLITE_FULL', '53100']);

async function guarded<Result>(query: () => Promise<Result>): Promise<Result> {
  try {
    return await query();
  } catch (cause) {
    if (isInlayError(cause)) throw cause;
    throw fullCodes.has((cause as { code?: unknown } | null)?.code)
      ? new StoreError('ERR_INLAY_STORE_FULL', 'The database has no space left; free some and try again.', {
          cause,
        })
      : new StoreError(
          'ERR_INLAY_STORE_IO',
          'The database failed; see the cause, and check disk and permissions.',
          {
            cause,
          },
        );
  }
}
