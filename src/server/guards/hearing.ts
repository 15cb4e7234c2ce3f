/** Whether the server has been out of reach: what devices could not say then is not held against them. */

import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';

/** A fleet of which nobody is heard of for so long cannot reach the server, milliseconds. */
const OUTAGE_MS = 600_000;
/** Within this time after an outage devices try again: the longest pause of their senders. */
const RETURN_MS = 3_600_000;

interface Heard {
  /** When a device was heard of last, and when one was again after the latest outage. */
  readonly heardAt: number;
  readonly quietUntil: number;
}

const setting = 'guards.heard';

/**
 * Notes when devices were heard of.
 * @returns until when none could be heard of, milliseconds since 1970; 0 as far as is known always.
 */
export async function readQuiet(db: Kysely<Schema>, now: number): Promise<number> {
  const row = await db.selectFrom('setting').select('body').where('name', '=', setting).executeTakeFirst();
  const before = row && (JSON.parse(row.body) as Heard);
  const found = await db
    .selectFrom('device')
    .select((eb) => [eb.fn.min('last_at').as('first'), eb.fn.max('last_at').as('last')])
    .where('last_at', '>', before?.heardAt ?? 0)
    .executeTakeFirst();
  const [first, last] = [found?.first ?? now, found?.last ?? before?.heardAt];
  if (last === undefined) return 0;
  const isBack = before !== undefined && first - before.heardAt >= OUTAGE_MS;
  const quietUntil = isBack ? first : (before?.quietUntil ?? 0);
  const body = JSON.stringify({ heardAt: last, quietUntil });
  if (body !== row?.body) {
    await db
      .insertInto('setting')
      .values({ name: setting, body })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ body }))
      .execute();
  }
  return quietUntil;
}

/** From when on a device that began at a time is waited for. */
export function waitsFrom(beganAt: number, quietUntil: number): number {
  return beganAt < quietUntil ? quietUntil + RETURN_MS : beganAt;
}
