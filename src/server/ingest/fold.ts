/** Folds what batches have added into sums by 5 minutes, hour, day, and since ever. */

import type { Kysely, Transaction } from 'kysely';
import type { Platform } from '../../core/platform.ts';
import type { DeltaTable, RollTable, Schema } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Job } from '../jobs/job.ts';
import type { Aggregate } from './aggregate.ts';
import { mergeAggregates } from './merge.ts';
import { inPieces } from './rows.ts';

/** Resolution of the sum of everything. */
export const EVER = 0;
/** Resolutions of the table `roll`, seconds. */
const RESOLUTIONS: readonly number[] = [300, 3600, 86_400, EVER];

/** What {@link createFoldJob} needs. */
export interface FoldParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'monotonicMs'>;
  /** Default 10 s. */
  readonly everyMs?: number;
}

/** A transaction that folds takes about so long, milliseconds: reports wait for it in SQLite. */
const aimMs = 100;
const [fewestRows, mostRows] = [50, 2_000];

/** Creates the job. Sums and the deletion of what went into them are one transaction, so it may be cut off anywhere. */
export function createFoldJob({ db, platform, everyMs = 10_000 }: FoldParts): Job {
  let rows = 200;
  return {
    name: 'fold',
    everyMs,
    run: async (_now, signal) => {
      const last = await db
        .selectFrom('delta')
        .select((eb) => eb.fn.max('id').as('id'))
        .executeTakeFirst();
      const until = Number(last?.id ?? 0);
      for (let folded = -1; folded !== 0 && !signal.aborted;) {
        const beganMs = platform.monotonicMs();
        folded = await inTransaction(db, (tx) => fold(tx, until, rows), { snapshot: true });
        const tookMs = Math.max(platform.monotonicMs() - beganMs, 1);
        rows = Math.round(Math.min(Math.max(rows * Math.min(aimMs / tookMs, 2), fewestRows), mostRows));
      }
    },
  };
}

/** Folds at most `most` rows. @returns how many there were. */
async function fold(tx: Transaction<Schema>, until: number, most: number): Promise<number> {
  const deltas = await tx
    .selectFrom('delta')
    .selectAll()
    .where('id', '<=', until)
    .orderBy('id')
    .limit(most)
    .execute();
  if (deltas.length === 0) return 0;
  const sums = sumsOf(deltas);
  for (const res of RESOLUTIONS) {
    const ofRes = [...sums.values()].filter((sum) => sum.res === res);
    const present = await tx
      .selectFrom('roll')
      .selectAll()
      .where('res', '=', res)
      .where('series', 'in', [...new Set(ofRes.map(({ series }) => series))])
      .where('t_s', 'in', [...new Set(ofRes.map(({ t_s }) => t_s))])
      .execute();
    const bodies = new Map(present.map((row) => [keyOf(row), row.body]));
    const rows = ofRes.map(({ sum, ...place }): RollTable => {
      const before = bodies.get(keyOf(place));
      const whole = before === undefined ? sum : mergeAggregates(JSON.parse(before) as Aggregate, sum);
      return { ...place, body: JSON.stringify(whole) };
    });
    for (const piece of inPieces(rows)) {
      await tx
        .insertInto('roll')
        .values(piece)
        .onConflict((conflict) =>
          conflict.columns(['res', 'series', 't_s']).doUpdateSet((eb) => ({ body: eb.ref('excluded.body') })),
        )
        .execute();
    }
  }
  await tx
    .deleteFrom('delta')
    .where(
      'id',
      'in',
      deltas.map(({ id }) => id),
    )
    .execute();
  return deltas.length;
}

interface Sum extends Pick<RollTable, 'res' | 'series' | 't_s'> {
  readonly sum: Aggregate;
}

/** Sums of rows at every resolution; each is added up from the one below. */
function sumsOf(deltas: readonly Pick<DeltaTable, 'series' | 't_s' | 'body'>[]): ReadonlyMap<string, Sum> {
  const sums = new Map<string, Sum>();
  const add = (to: Sum): void => {
    const key = keyOf(to);
    const before = sums.get(key);
    sums.set(key, before ? { ...to, sum: mergeAggregates(before.sum, to.sum) } : to);
  };
  for (const { series, t_s, body } of deltas)
    add({ res: 300, series, t_s, sum: JSON.parse(body) as Aggregate });
  for (const [i, res] of RESOLUTIONS.entries()) {
    const coarser = RESOLUTIONS[i + 1];
    if (coarser === undefined) break;
    for (const one of [...sums.values()].filter((sum) => sum.res === res))
      add({ ...one, res: coarser, t_s: beginOf(one.t_s, coarser) });
  }
  return sums;
}

/** Begin of the span of a resolution that a time lies in. */
export function beginOf(timeS: number, res: number): number {
  return res === EVER ? 0 : Math.floor(timeS / res) * res;
}

function keyOf({ res, series, t_s }: Pick<RollTable, 'res' | 'series' | 't_s'>): string {
  return `${res} ${series} ${t_s}`;
}
