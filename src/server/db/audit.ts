/** The audit log: rows that are only ever added, each with the hash of the one before. */

import { createHash } from 'node:crypto';
import type { Kysely, Transaction } from 'kysely';
import { StoreError } from '../../core/errors.ts';
import { canonicalJson } from '../../trust/canonical-json.ts';
import type { AuditTable, Schema } from './schema.ts';

/** What happened, for the audit log. */
export interface AuditEvent {
  /** Identifier of a token, subject of a bearer token, `server` or `guard`. */
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

/** The newest row of the log. Kept elsewhere, it shows whether rows were cut off later. */
export interface AuditHead {
  /** 0 for an empty log. */
  readonly seq: number;
  readonly hash: string;
}

/** What came out of a check of the whole log. */
export interface AuditVerdict {
  /** The newest row whose chain holds. */
  readonly head: AuditHead;
  /** The first row that is missing or not as it was written; absent if all is well. */
  readonly brokenSeq?: number;
}

/** Where the chain begins. */
export const noAudit: AuditHead = { seq: 0, hash: '0'.repeat(64) };

/** Computes the hash of a row: SHA-256 over the canonical JSON of all else that is in it, hex. */
export function auditHash({ seq, at, actor, action, details, prev }: Omit<AuditTable, 'hash'>): string {
  return createHash('sha256').update(canonicalJson({ seq, at, actor, action, details, prev })).digest('hex');
}

/** Other writers come in between at most this often before a writer gives up. */
const maxAttempts = 100;

/**
 * Adds an event to the log. Do it last in a transaction: until its end, all who add wait for it.
 * @param now wall clock, milliseconds since 1970.
 */
export async function appendAudit(tx: Transaction<Schema>, event: AuditEvent, now: number): Promise<void> {
  const at = new Date(now).toISOString();
  const { actor, action } = event;
  const details = JSON.stringify(event.details);
  for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
    const last = await tx
      .selectFrom('audit')
      .select(['seq', 'hash'])
      .orderBy('seq', 'desc')
      .limit(1)
      .executeTakeFirst();
    const { seq, hash: prev } = last ?? noAudit;
    const row = { seq: seq + 1, at, actor, action, details, prev };
    // The key lets one of many writers have a number; the others wait for its end here, and see its row then.
    const { numInsertedOrUpdatedRows } = await tx
      .insertInto('audit')
      .values({ ...row, hash: auditHash(row) })
      .onConflict((conflict) => conflict.column('seq').doNothing())
      .executeTakeFirst();
    if (numInsertedOrUpdatedRows === 1n) return;
  }
  throw new StoreError(
    'ERR_INLAY_STORE_IO',
    `Others wrote to the audit log ${maxAttempts} times in a row; try again.`,
  );
}

/** Lists records, newest first. @param before only those with a lower `seq`. */
export async function readAudit(
  db: Kysely<Schema>,
  limit: number,
  before?: number,
): Promise<readonly AuditRecord[]> {
  let query = db.selectFrom('audit').select(['seq', 'at', 'actor', 'action', 'details']);
  if (before !== undefined) query = query.where('seq', '<', before);
  const rows = await query.orderBy('seq', 'desc').limit(limit).execute();
  return rows.map((row) => ({ ...row, details: JSON.parse(row.details) as AuditEvent['details'] }));
}

/** Checks the whole log from its first row, a page at a time. */
export async function verifyAudit(db: Kysely<Schema>, pageRows = 1000): Promise<AuditVerdict> {
  let head = noAudit;
  for (;;) {
    const rows = await db
      .selectFrom('audit')
      .selectAll()
      .where('seq', '>', head.seq)
      .orderBy('seq')
      .limit(pageRows)
      .execute();
    for (const row of rows) {
      const isNext = row.seq === head.seq + 1 && row.prev === head.hash && row.hash === auditHash(row);
      if (!isNext) return { head, brokenSeq: head.seq + 1 };
      head = { seq: row.seq, hash: row.hash };
    }
    if (rows.length < pageRows) return { head };
  }
}
