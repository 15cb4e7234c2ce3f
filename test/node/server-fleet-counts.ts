/** A database with counts that tests make up. */

import type { Kysely } from 'kysely';
import { openDatabase } from '../../src/server/db/open.ts';
import type { Schema } from '../../src/server/db/schema.ts';
import type { Aggregate } from '../../src/server/ingest/aggregate.ts';
import { mergeAggregates } from '../../src/server/ingest/merge.ts';
import { createHistogram } from '../../src/telemetry/histogram.ts';

/** Times of calls, all the same. */
export function timesOf(seconds: number, n: number): NonNullable<Aggregate['h']> {
  const histogram = createHistogram();
  for (let i = 0; i < n; i += 1) histogram.record(seconds);
  return { lat: histogram.snapshot() };
}

/** Opens an empty database, in memory unless it is said where. */
export async function openCounts(target = ':memory:') {
  const { db } = await openDatabase(target);
  return { db, ...writersOf(db) };
}

function writersOf(db: Kysely<Schema>) {
  const ids = new Map<string, number>();
  const seriesOf = async (model: string, version: string): Promise<number> => {
    const key = `${model} ${version}`;
    const known = ids.get(key);
    if (known !== undefined) return known;
    const row = { app: 'stable', model, version, rollout: '', stage: 0, arm: '', cls: 1 };
    const { id } = await db.insertInto('series').values(row).returning('id').executeTakeFirstOrThrow();
    ids.set(key, id);
    return id;
  };
  return {
    /** Adds counts that are folded, in every resolution. @param at - milliseconds since 1970. */
    fold: async (at: number, model: string, version: string, counts: Partial<Aggregate>) => {
      const series = await seriesOf(model, version);
      for (const res of [300, 3600, 86_400]) {
        const t_s = Math.floor(at / 1000 / res) * res;
        const key = { res, series, t_s };
        const found = await db
          .selectFrom('roll')
          .select('body')
          .where('res', '=', res)
          .where('series', '=', series)
          .where('t_s', '=', t_s)
          .executeTakeFirst();
        const added: Aggregate = { n: 0, ok: 0, dev: [0, 0, 0], ...counts };
        const body = JSON.stringify(
          found ? mergeAggregates(JSON.parse(found.body) as Aggregate, added) : added,
        );
        await db
          .insertInto('roll')
          .values({ ...key, body })
          .onConflict((conflict) => conflict.columns(['res', 'series', 't_s']).doUpdateSet({ body }))
          .execute();
      }
    },
    /** Adds counts that are not folded yet. */
    delta: async (at: number, model: string, version: string, counts: Partial<Aggregate>) => {
      const series = await seriesOf(model, version);
      const body = JSON.stringify({ n: 0, ok: 0, dev: [0, 0, 0], ...counts });
      await db
        .insertInto('delta')
        .values({ series, t_s: Math.floor(at / 300_000) * 300, body })
        .execute();
    },
  };
}
