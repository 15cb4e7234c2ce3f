/** Everything that was counted since the first report, by model and version: it only grows, also across restarts. */

import type { Kysely } from 'kysely';
import { guarded } from '../db/failure.ts';
import type { Schema } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import { EVER } from '../ingest/fold.ts';
import { emptyAggregate, mergeAggregates } from '../ingest/merge.ts';

/** Counts of one version. */
export interface VersionTotals {
  readonly model: string;
  readonly version: string;
  /** Devices that reported within a day. */
  readonly devices: number;
  readonly counts: Aggregate;
}

/** What is exported. */
export interface Totals {
  readonly versions: readonly VersionTotals[];
  /** What happened to reports, by name of the table `health`. */
  readonly health: ReadonlyMap<string, number>;
  /** Rows that are not folded yet; their counts come with the next fold. */
  readonly unfolded: number;
}

const presentMs = 86_400_000;
/** Versions that are exported, those with most devices first. */
const mostVersions = 200;

/** Reads what is exported. Versions with fewer devices than `kAnonymity` are left out. */
export function readTotals(db: Kysely<Schema>, now: number, kAnonymity: number): Promise<Totals> {
  const task = async (tx: Kysely<Schema>): Promise<Totals> => {
    const present = await tx
      .selectFrom('device')
      .select((eb) => ['model', 'version', eb.fn.countAll<number>().as('devices')])
      .where('last_at', '>=', now - presentMs)
      .groupBy(['model', 'version'])
      .having((eb) => eb(eb.fn.countAll(), '>=', kAnonymity))
      .orderBy('devices', 'desc')
      .orderBy('model')
      .orderBy('version')
      .limit(mostVersions)
      .execute();
    const rows =
      present.length === 0
        ? []
        : await tx
            .selectFrom('roll')
            .innerJoin('series', 'series.id', 'roll.series')
            .select(['series.model', 'series.version', 'roll.body'])
            .where('roll.res', '=', EVER)
            .where('series.model', 'in', [...new Set(present.map(({ model }) => model))])
            .where('series.version', 'in', [...new Set(present.map(({ version }) => version))])
            .execute();
    const sums = new Map<string, Aggregate>();
    for (const { model, version, body } of rows) {
      const key = JSON.stringify([model, version]);
      sums.set(key, mergeAggregates(sums.get(key) ?? emptyAggregate, JSON.parse(body) as Aggregate));
    }
    const health = await tx.selectFrom('health').select(['name', 'n']).where('t_s', '=', 0).execute();
    const unfolded = await tx
      .selectFrom('delta')
      .select((eb) => eb.fn.countAll<number>().as('rows'))
      .executeTakeFirstOrThrow();
    return {
      versions: present.map(({ model, version, devices }) => ({
        model,
        version,
        devices,
        counts: sums.get(JSON.stringify([model, version])) ?? emptyAggregate,
      })),
      health: new Map(health.map(({ name, n }) => [name, n])),
      unfolded: unfolded.rows,
    };
  };
  return guarded(() => inTransaction(db, task, { snapshot: true }));
}
