import type { Kysely, Transaction } from 'kysely';
import { ServerError } from '../../core/errors.ts';
import {
  appendAudit,
  readAudit,
  verifyAudit,
  type AuditEvent,
  type AuditRecord,
  type AuditVerdict,
} from './audit.ts';
import { guarded } from './failure.ts';
import type { Schema } from './schema.ts';
import { inTransaction } from './transaction.ts';

export type { AuditEvent, AuditHead, AuditRecord, AuditVerdict } from './audit.ts';

/** Roles whose metadata the server keeps. */
export type Role = 'root' | 'targets' | 'rollout' | 'snapshot' | 'timestamp';

const roles: readonly Role[] = ['root', 'targets', 'rollout', 'snapshot', 'timestamp'];

/** A metadata file to be added. */
export interface NewMetadata {
  readonly role: Role;
  readonly version: number;
  readonly text: string;
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
  /** Lists the latest audit records, newest first. @param before only those with a lower `seq`. */
  audit(limit: number, before?: number): Promise<readonly AuditRecord[]>;
  /**
   * Makes a change with its audit record, all or nothing.
   * @param change as in `inTransaction`: it may run again, and does nothing twice.
   */
  record(event: AuditEvent, change?: (tx: Transaction<Schema>) => Promise<void>): Promise<void>;
  /** Checks that the audit log is as it was written. */
  verifyAudit(): Promise<AuditVerdict>;
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

  /** Adds one file. @returns whether its version was free. */
  const insert = async (tx: Transaction<Schema>, { role, version, text }: NewMetadata): Promise<boolean> => {
    const { numInsertedOrUpdatedRows } = await tx
      .insertInto('metadata')
      .values({ role, version, text, created_at: timestamp() })
      .onConflict((conflict) => conflict.columns(['role', 'version']).doNothing())
      .executeTakeFirst();
    return numInsertedOrUpdatedRows === 1n;
  };

  /** Whether an earlier try got through although its answer did not. */
  const isThere = async (tx: Transaction<Schema>, files: readonly NewMetadata[]): Promise<boolean> => {
    for (const { role, version, text } of files) {
      if ((await textOf(tx, role, version)) !== text) return false;
    }
    return true;
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

    text: (role, version) => guarded(() => textOf(db, role, version)),

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
        inTransaction(db, async (tx, attempt) => {
          if (attempt > 1 && (await isThere(tx, files))) return;
          for (const file of files) {
            const { role, version } = file;
            if (!(await insert(tx, file))) {
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
          await appendAudit(tx, event, now());
        }),
      ),

    audit: (limit, before) => guarded(() => readAudit(db, limit, before)),

    record: (event, change) =>
      guarded(() =>
        inTransaction(db, async (tx) => {
          await change?.(tx);
          await appendAudit(tx, event, now());
        }),
      ),

    verifyAudit: () => guarded(() => verifyAudit(db)),

    close: () => guarded(() => db.destroy()),
  };
}

async function textOf(db: Kysely<Schema>, role: Role, version: number): Promise<string | undefined> {
  const row = await db
    .selectFrom('metadata')
    .select('text')
    .where('role', '=', role)
    .where('version', '=', version)
    .executeTakeFirst();
  return row?.text;
}
