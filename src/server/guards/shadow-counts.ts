import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import type { StageKey } from './stage-devices.ts';

const dayS = 86_400;

/** Adds up what devices counted of runs in the shadow in a stage. */
export async function readShadow(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
): Promise<readonly [n: number, alike: number, unlike: number, failed: number]> {
  const series = db
    .selectFrom('series')
    .select('id')
    .where('rollout', '=', rollout)
    .where('stage', '=', stage);
  // In one statement, so that nothing moves from one table to the other in between.
  const rows = await db
    .selectFrom('roll')
    .select('body')
    .where('res', '=', dayS)
    .where('series', 'in', series)
    .unionAll(db.selectFrom('delta').select('body').where('series', 'in', series))
    .execute();
  const total: [number, number, number, number] = [0, 0, 0, 0];
  for (const { body } of rows) {
    const { sh } = JSON.parse(body) as Aggregate;
    for (const [i, count] of (sh ?? []).entries()) total[i] = (total[i] ?? 0) + count;
  }
  return total;
}
