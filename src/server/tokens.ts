/** API keys: made, listed, rotated and revoked. A key itself is shown once and never stored. */

import { createHash, timingSafeEqual } from 'node:crypto';
import type { Kysely, Selectable, Transaction } from 'kysely';
import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { accessRoles, type AccessRole, type AccessScope } from './access.ts';
import { appendAudit } from './db/audit.ts';
import { guarded } from './db/failure.ts';
import type { Schema, TokenTable } from './db/schema.ts';
import { inTransaction } from './db/transaction.ts';

/** What is known of a key. Times are milliseconds since 1970; `null` for never. */
export interface TokenRecord {
  /** First 8 hex digits of its SHA-256: what the audit log says. */
  readonly id: string;
  readonly name: string;
  readonly role: AccessRole;
  readonly scope: AccessScope;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  readonly revokedAt: number | null;
  /** Give or take an hour. */
  readonly usedAt: number | null;
  readonly state: 'valid' | 'expired' | 'revoked';
}

/** A key to be made. */
export interface TokenRequest {
  readonly name: string;
  readonly role: AccessRole;
  readonly scope?: AccessScope;
  /** Seconds from now; absent for never. */
  readonly expiresInS?: number;
}

/** A new key, with what is known of it. It is not stored: show it now. */
export interface NewToken {
  readonly token: string;
  readonly record: TokenRecord;
}

/** The keys of a server. */
export interface Tokens {
  /** Makes a key. @param actor who does it, for the audit log; here and below. */
  create(request: TokenRequest, actor: string): Promise<NewToken>;
  /** Lists all keys, oldest first, those that no longer hold included. */
  list(): Promise<readonly TokenRecord[]>;
  /**
   * Ends a key at once. Ending it again changes nothing.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND`, `ERR_INLAY_CONFLICT` for the last key of an administrator.
   */
  revoke(id: string, actor: string): Promise<TokenRecord>;
  /**
   * Makes a key like another, which ends after a while.
   * @param graceS seconds for which the old one still holds.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND`, `ERR_INLAY_CONFLICT` if it does not hold any more.
   */
  rotate(id: string, graceS: number, actor: string): Promise<NewToken>;
  /** Makes a key of an administrator and ends all others of that role, for when they were lost. */
  reset(): Promise<NewToken>;
  /** Finds what is known of a key that somebody presents, and notes that it was used. */
  find(token: string): Promise<TokenRecord | undefined>;
}

/** What {@link createTokens} needs. */
export interface TokensParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now' | 'randomBytes'>;
}

/** Uses are noted at most this often. */
const touchMs = 3_600_000;

/** Creates a key with 256 random bits. */
function createToken(platform: Pick<Platform, 'randomBytes'>): string {
  return `inlay_${Buffer.from(platform.randomBytes(32)).toString('base64url')}`;
}

/** Computes the only form in which the server remembers a key. */
function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Opens the keys of a database. */
export function createTokens({ db, platform }: TokensParts): Tokens {
  const find = (id: string): Promise<Selectable<TokenTable> | undefined> =>
    guarded(() => db.selectFrom('token').selectAll().where('id', '=', id).executeTakeFirst());

  const existing = async (id: string): Promise<Selectable<TokenTable>> => {
    const row = await find(id);
    if (row) return row;
    throw new ServerError('ERR_INLAY_NOT_FOUND', `There is no key ${id}; see \`inlay tokens list\`.`);
  };

  const newRow = ({ name, role, scope = {}, expiresInS }: TokenRequest): [string, Selectable<TokenTable>] => {
    const token = createToken(platform);
    const sha256 = hashToken(token);
    const now = platform.now();
    const row = {
      id: sha256.slice(0, 8),
      sha256,
      name,
      role,
      scope: JSON.stringify(scope),
      created_at: now,
      expires_at: expiresInS === undefined ? 0 : now + expiresInS * 1000,
      revoked_at: 0,
      used_at: 0,
    };
    return [token, row];
  };

  const toRecord = (row: Selectable<TokenTable>): TokenRecord => {
    const { id, name, role, scope, created_at, expires_at, revoked_at, used_at } = row;
    const now = platform.now();
    return {
      id,
      name,
      role: accessRoles.find((known) => known === role) ?? 'device',
      scope: JSON.parse(scope) as AccessScope,
      createdAt: created_at,
      expiresAt: expires_at || null,
      revokedAt: revoked_at || null,
      usedAt: used_at || null,
      state: revoked_at > 0 ? 'revoked' : expires_at > 0 && expires_at <= now ? 'expired' : 'valid',
    };
  };

  /** Does it and writes it down, once: `isDone` tells whether an earlier try got through after all. */
  const change = (
    actor: string,
    action: string,
    details: Readonly<Record<string, unknown>>,
    work: (tx: Transaction<Schema>) => Promise<void>,
    isDone: (tx: Transaction<Schema>) => Promise<boolean>,
  ): Promise<void> =>
    guarded(() =>
      inTransaction(db, async (tx, attempt) => {
        if (attempt > 1 && (await isDone(tx))) return;
        await work(tx);
        await appendAudit(tx, { actor, action, details }, platform.now());
      }),
    );

  const isThere =
    (id: string) =>
    async (tx: Transaction<Schema>): Promise<boolean> =>
      (await tx.selectFrom('token').select('id').where('id', '=', id).executeTakeFirst()) !== undefined;

  return {
    create: async (request, actor) => {
      const [token, row] = newRow(request);
      const { id, name, role } = row;
      const details = { id, name, role, scope: request.scope ?? {} };
      const insert = async (tx: Transaction<Schema>): Promise<void> => {
        await tx.insertInto('token').values(row).execute();
      };
      await change(actor, 'token', details, insert, isThere(id));
      return { token, record: toRecord(row) };
    },

    list: async () => {
      const rows = await guarded(() =>
        db.selectFrom('token').selectAll().orderBy('created_at').orderBy('id').execute(),
      );
      return rows.map(toRecord);
    },

    revoke: async (id, actor) => {
      const row = await existing(id);
      if (row.revoked_at > 0) return toRecord(row);
      const revoked_at = platform.now();
      const { name, role } = row;
      const work = async (tx: Transaction<Schema>): Promise<void> => {
        await tx.updateTable('token').set({ revoked_at }).where('id', '=', id).execute();
        const holding = await tx
          .selectFrom('token')
          .select((eb) => eb.fn.countAll().as('n'))
          .where('role', '=', 'admin')
          .where('revoked_at', '=', 0)
          .where((eb) => eb.or([eb('expires_at', '=', 0), eb('expires_at', '>', revoked_at)]))
          .executeTakeFirstOrThrow();
        if (role === 'admin' && Number(holding.n) === 0) throw lastAdmin(id);
      };
      const isDone = async (tx: Transaction<Schema>): Promise<boolean> => {
        const now = await tx.selectFrom('token').select('revoked_at').where('id', '=', id).executeTakeFirst();
        return (now?.revoked_at ?? 0) > 0;
      };
      await change(actor, 'token-revoke', { id, name, role }, work, isDone);
      return toRecord({ ...row, revoked_at });
    },

    rotate: async (id, graceS, actor) => {
      const old = await existing(id);
      const { name, role, scope, state, expiresAt, createdAt } = toRecord(old);
      if (state !== 'valid') {
        throw new ServerError('ERR_INLAY_CONFLICT', `The key ${id} is ${state}; create another instead.`);
      }
      const now = platform.now();
      const [token, row] = newRow({
        name,
        role,
        scope,
        // As long as the old one held from its beginning.
        ...(expiresAt !== null && { expiresInS: Math.ceil((expiresAt - createdAt) / 1000) }),
      });
      const expires_at = Math.min(expiresAt ?? Number.MAX_SAFE_INTEGER, now + Math.max(graceS, 0) * 1000);
      const details = { id: row.id, name, role, before: id, graceS };
      const work = async (tx: Transaction<Schema>): Promise<void> => {
        await tx.insertInto('token').values(row).execute();
        await tx.updateTable('token').set({ expires_at }).where('id', '=', id).execute();
      };
      await change(actor, 'token-rotate', details, work, isThere(row.id));
      return { token, record: toRecord(row) };
    },

    reset: async () => {
      const [token, row] = newRow({ name: 'admin', role: 'admin' });
      const { id, name, role } = row;
      const work = async (tx: Transaction<Schema>): Promise<void> => {
        await tx
          .updateTable('token')
          .set({ revoked_at: platform.now() })
          .where('role', '=', 'admin')
          .where('revoked_at', '=', 0)
          .execute();
        await tx.insertInto('token').values(row).execute();
      };
      await change('server', 'token', { id, name, role }, work, isThere(id));
      return { token, record: toRecord(row) };
    },

    find: async (token) => {
      const presented = hashToken(token);
      // The identifier is no secret, so that an index may look it up; the rest is compared in constant time.
      const row = await find(presented.slice(0, 8));
      if (!row || !timingSafeEqual(Buffer.from(row.sha256, 'hex'), Buffer.from(presented, 'hex'))) {
        return undefined;
      }
      const record = toRecord(row);
      const now = platform.now();
      if (record.state === 'valid' && Math.abs(now - row.used_at) >= touchMs) {
        await guarded(() => db.updateTable('token').set({ used_at: now }).where('id', '=', row.id).execute());
      }
      return record;
    },
  };
}

function lastAdmin(id: string): ServerError {
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `The key ${id} is the last one of an administrator; create another before it is revoked.`,
  );
}
