/** Reads counts of any span of time from as few rows as there can be: days, hours, and 5 minutes at the ends. */

import { setImmediate } from 'node:timers/promises';
import type { Kysely } from 'kysely';
import type { Schema, SeriesTable } from './db/schema.ts';
import type { Aggregate } from './ingest/aggregate.ts';
import { beginOf } from './ingest/fold.ts';

/** What counts are asked for; what is absent is not looked at. */
export interface CountFilter {
  /** Channel. */
  readonly app?: string | undefined;
  readonly model?: string | undefined;
  readonly version?: string | undefined;
  readonly rollout?: string | undefined;
  readonly cls?: number | undefined;
}

/** Counts of one series over one span; several may be of the same. */
export interface CountRow extends Omit<SeriesTable, 'id'> {
  /** Begin, and length, seconds. */
  readonly t: number;
  readonly res: number;
  readonly counts: Aggregate;
}

/** A part of a span that is read in one resolution, seconds. */
export interface Part {
  readonly res: 300 | 3600 | 86_400;
  readonly from: number;
  readonly to: number;
}

/**
 * Splits a span into parts, each in the coarsest resolution that fits.
 * @param fromS - begin, seconds since 1970; it and the end are taken down to multiples of 300.
 */
export function partsOf(fromS: number, toS: number): readonly Part[] {
  const from = beginOf(fromS, 300);
  const to = beginOf(toS, 300);
  const ends = ([3600, 86_400] as const).map((res) => ({ res, from: up(from, res), to: beginOf(to, res) }));
  const [hours, days] = ends.map((end) => (end.from < end.to ? end : undefined));
  if (!hours) return from < to ? [{ res: 300, from, to }] : [];
  const around = (
    outer: { from: number; to: number },
    inner: Part | undefined,
    res: Part['res'],
  ): readonly Part[] =>
    inner
      ? [
          { res, from: outer.from, to: inner.from },
          { res, from: inner.to, to: outer.to },
        ]
      : [{ res, from: outer.from, to: outer.to }];
  return [...around({ from, to }, hours, 300), ...around(hours, days, 3600), ...(days ? [days] : [])].filter(
    (part) => part.from < part.to,
  );
}

function up(t: number, res: number): number {
  return Math.ceil(t / res) * res;
}

/** Reads counts between two times, seconds since 1970, those included that are not folded yet. */
export async function readCounts(
  db: Kysely<Schema>,
  filter: CountFilter,
  fromS: number,
  toS: number,
): Promise<readonly CountRow[]> {
  const parts = await Promise.all(partsOf(fromS, toS).map((part) => readPart(db, filter, part)));
  return parts.flat();
}

/** Rows that are parsed before others get their turn. */
const ROWS_AT_ONCE = 250;

/** Reads one part. */
export async function readPart(
  db: Kysely<Schema>,
  filter: CountFilter,
  part: Part,
): Promise<readonly CountRow[]> {
  const rows: CountRow[] = [];
  await takePart(db, filter, part, (row) => rows.push(row));
  return rows;
}

const columns = ['app', 'model', 'version', 'rollout', 'stage', 'arm', 'cls'] as const;

/**
 * Reads one part in one statement, since what is folded meanwhile is in one of the tables, never in both, and hands its rows
 * on one by one, so that nobody waits long for a long span.
 */
export async function takePart(
  db: Kysely<Schema>,
  { app, model, version, rollout, cls }: CountFilter,
  { res, from, to }: Part,
  take: (row: CountRow) => void,
): Promise<void> {
  let series = db.selectFrom('series').select(['id', ...columns]);
  if (app !== undefined) series = series.where('app', '=', app);
  if (model !== undefined) series = series.where('model', '=', model);
  if (version !== undefined) series = series.where('version', '=', version);
  if (rollout !== undefined) series = series.where('rollout', '=', rollout);
  if (cls !== undefined) series = series.where('cls', '=', cls);
  const rows = await db
    .with('wanted', () => series)
    .selectFrom('roll')
    .innerJoin('wanted', 'wanted.id', 'roll.series')
    .where('roll.res', '=', res)
    .where('roll.t_s', '>=', from)
    .where('roll.t_s', '<', to)
    .select([...columns, 'roll.t_s as t', 'roll.body as body'])
    .unionAll((both) =>
      both
        .selectFrom('delta')
        .innerJoin('wanted', 'wanted.id', 'delta.series')
        .where('delta.t_s', '>=', from)
        .where('delta.t_s', '<', to)
        .select([...columns, 'delta.t_s as t', 'delta.body as body']),
    )
    .execute();
  for (const [i, { body, t, ...row }] of rows.entries()) {
    take({ ...row, t: beginOf(t, res), res, counts: JSON.parse(body) as Aggregate });
    if (i % ROWS_AT_ONCE === ROWS_AT_ONCE - 1) await setImmediate();
  }
}

/**
 * Counts devices that are surely different ones: the largest number of devices that were new within the same day, hour or 5
 * minutes. A device that reported all the time counts once, and so does one that changed its version for each of them.
 */
export function devicesOf(rows: readonly Pick<CountRow, 't' | 'res' | 'counts'>[]): number {
  const sums = [300, 3600, 86_400].map((span, i) => {
    const byTime = new Map<number, number>();
    for (const { t, res, counts } of rows) {
      // What is summed over more than the span says nothing about it.
      if (res > span) continue;
      const begin = beginOf(t, span);
      byTime.set(begin, (byTime.get(begin) ?? 0) + (counts.dev[i] ?? 0));
    }
    return Math.max(0, ...byTime.values());
  });
  return Math.max(...sums);
}
