/** Counts as they stand: what is folded, and what is not yet, read at one moment. */

import type { Kysely } from 'kysely';
import type { Platform } from '../../core/platform.ts';
import { guarded } from '../db/failure.ts';
import type { DeltaTable, Schema, SeriesTable } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import { beginOf } from '../ingest/fold.ts';

/** Which counts are read. */
export interface CountsQuery {
  readonly model: string;
  readonly version?: string | undefined;
  readonly rollout?: string | undefined;
  /** Seconds since 1970; `toS` is not included. */
  readonly fromS: number;
  readonly toS: number;
  /** 300, 3600 or 86400 seconds. */
  readonly res: number;
}

/** A series, as it was read. */
export interface CountedSeries extends Omit<SeriesTable, 'id'> {
  readonly id: number;
}

/** Counts of one series over one span; several may be of the same. */
export interface Counted {
  readonly series: CountedSeries;
  readonly t_s: number;
  readonly counts: Aggregate;
}

/** Rows that are parsed before others get their turn. */
const rowsAtOnce = 250;
/** Series of one statement. */
const mostSeries = 5_000;

/** Reads counts, and hands them on one by one, so that nobody waits long for a long range of time. */
export async function readCounts(
  db: Kysely<Schema>,
  platform: Pick<Platform, 'setTimer'>,
  query: CountsQuery,
  take: (counted: Counted) => void,
): Promise<void> {
  const { series, rows } = await guarded(() => readRows(db, query));
  for (const [i, { series: id, t_s, body }] of rows.entries()) {
    const from = series.get(id);
    if (from) take({ series: from, t_s: beginOf(t_s, query.res), counts: JSON.parse(body) as Aggregate });
    if (i % rowsAtOnce === rowsAtOnce - 1) {
      await new Promise<void>((done) => {
        platform.setTimer(done, 0, true);
      });
    }
  }
}

type Row = Pick<DeltaTable, 'series' | 't_s' | 'body'>;

function readRows(
  db: Kysely<Schema>,
  { model, version, rollout, fromS, toS, res }: CountsQuery,
): Promise<{ readonly series: ReadonlyMap<number, CountedSeries>; readonly rows: readonly Row[] }> {
  const task = async (tx: Kysely<Schema>): ReturnType<typeof readRows> => {
    let wanted = tx.selectFrom('series').selectAll().where('model', '=', model);
    if (version !== undefined) wanted = wanted.where('version', '=', version);
    if (rollout !== undefined) wanted = wanted.where('rollout', '=', rollout);
    const series = new Map((await wanted.execute()).map((row) => [row.id, row]));
    const ids = [...series.keys()];
    const rows: Row[] = [];
    for (let at = 0; at < ids.length; at += mostSeries) {
      const piece = ids.slice(at, at + mostSeries);
      const folded = await tx
        .selectFrom('roll')
        .select(['series', 't_s', 'body'])
        .where('res', '=', res)
        .where('series', 'in', piece)
        .where('t_s', '>=', beginOf(fromS, res))
        .where('t_s', '<', toS)
        .execute();
      const fresh = await tx
        .selectFrom('delta')
        .select(['series', 't_s', 'body'])
        .where('series', 'in', piece)
        .where('t_s', '>=', beginOf(fromS, res))
        .where('t_s', '<', toS)
        .execute();
      for (const row of [...folded, ...fresh]) rows.push(row);
    }
    return { series, rows };
  };
  return inTransaction(db, task, { snapshot: true });
}
