import type { Kysely } from 'kysely';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Schema } from '../db/schema.ts';
import type { Fence } from './job.ts';

/** The right of one replica to do something; it runs out unless it is renewed. */
export interface Lease extends Fence {
  /**
   * Takes the lease or renews it.
   * @param now wall clock, milliseconds since 1970.
   * @returns whether this replica has it.
   */
  take(now: number): Promise<boolean>;
  /** Gives it back, so that the next replica need not wait. */
  release(): Promise<void>;
}

/** Options of {@link createLease}. */
export interface LeaseOptions {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'monotonicMs'>;
  readonly name: string;
  /** Names this replica; no other has ever the same. */
  readonly holder: string;
  /** How long it holds without being renewed, milliseconds. */
  readonly leaseMs: number;
}

/**
 * Creates a lease in the database. A replica takes it over when its time has passed, or when nobody has renewed it for
 * that long as far as it has seen itself: the clock of a holder that died may have been ahead.
 */
export function createLease({ db, platform, name, holder, leaseMs }: LeaseOptions): Lease {
  /** What the row said when it last changed, and when that was seen. */
  let seen: { readonly holder: string; readonly untilAt: number; readonly sinceMs: number } | undefined;

  return {
    take: (now) =>
      inTransaction(db, async (tx) => {
        await tx
          .insertInto('lease')
          .values({ name, holder: '', until_at: 0 })
          .onConflict((conflict) => conflict.column('name').doNothing())
          .execute();
        const row = await tx
          .selectFrom('lease')
          .select(['holder', 'until_at'])
          .where('name', '=', name)
          .executeTakeFirstOrThrow();
        const nowMs = platform.monotonicMs();
        if (seen?.holder !== row.holder || seen.untilAt !== row.until_at) {
          seen = { holder: row.holder, untilAt: row.until_at, sinceMs: nowMs };
        }
        const isFree = row.until_at <= now || nowMs - seen.sinceMs >= leaseMs;
        if (row.holder !== holder && !isFree) return false;
        const { numUpdatedRows } = await tx
          .updateTable('lease')
          .set({ holder, until_at: now + leaseMs })
          .where('name', '=', name)
          .where('holder', '=', row.holder)
          .where('until_at', '=', row.until_at)
          .executeTakeFirst();
        return numUpdatedRows === 1n;
      }),

    release: async () => {
      await db
        .updateTable('lease')
        .set({ until_at: 0 })
        .where('name', '=', name)
        .where('holder', '=', holder)
        .execute();
    },

    assertHeld: async (tx) => {
      // Writing, although nothing changes, keeps the row from others until the transaction ends.
      const { numUpdatedRows } = await tx
        .updateTable('lease')
        .set({ holder })
        .where('name', '=', name)
        .where('holder', '=', holder)
        .executeTakeFirst();
      if (numUpdatedRows === 1n) return;
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        `Another replica has taken the lease "${name}" over; it goes on with the work.`,
        { details: { name } },
      );
    },
  };
}
