/** Reads counts again and again, of spans that move on: blocks that are over are kept in memory for a while. */

import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';
import { partsOf, readPart, type CountRow, type Part } from '../counts.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import type { AlertRule } from './rule.ts';

/** Blocks are kept whole, seconds by resolution. */
const BLOCK_S = { 300: 3600, 3600: 86_400, 86_400: 864_000 } as const;
/** Late reports may still change what is over; milliseconds. */
const KEEP_MS = 600_000;
/** Rows that are kept in all. */
const MOST_ROWS = 20_000;

/** Reads counts; times are milliseconds since 1970. */
export interface CountReader {
  /** In the coarsest resolution that fits. */
  rows(scope: AlertRule['scope'], from: number, to: number): Promise<readonly CountRow[]>;
  /** By 5 minutes. */
  slots(scope: AlertRule['scope'], from: number, to: number): Promise<readonly CountRow[]>;
}

/**
 * Creates a reader.
 * @param isPast - everything that is asked for lies in the past, and changes no more. Default false.
 */
export function createCountReader(db: Kysely<Schema>, isPast = false): CountReader {
  const kept = new Map<string, { readonly at: number; readonly rows: readonly CountRow[] }>();
  let keptRows = 0;

  const forget = (key: string): void => {
    keptRows -= kept.get(key)?.rows.length ?? 0;
    kept.delete(key);
  };

  const readBlock = async (
    scope: AlertRule['scope'],
    block: Part,
    now: number,
  ): Promise<readonly CountRow[]> => {
    const key = JSON.stringify([scope, block.res, block.from]);
    const known = kept.get(key);
    if (known && (isPast || now - known.at < KEEP_MS)) return known.rows;
    const { channel: app, ...filter } = scope;
    const rows = (await readPart(db, { ...filter, app }, block)).map((row) => ({
      ...row,
      counts: lean(row.counts),
    }));
    forget(key);
    if (isPast || block.to * 1000 + KEEP_MS <= now) {
      kept.set(key, { at: now, rows });
      keptRows += rows.length;
    }
    for (const oldest of kept.keys()) if (keptRows > MOST_ROWS) forget(oldest);
    return rows;
  };

  const readParts = async (
    scope: AlertRule['scope'],
    parts: readonly Part[],
    now: number,
  ): Promise<readonly CountRow[]> => {
    const all: CountRow[] = [];
    for (const { res, from, to } of parts) {
      const size = BLOCK_S[res];
      for (let begin = Math.floor(from / size) * size; begin < to; begin += size) {
        const rows = await readBlock(scope, { res, from: begin, to: begin + size }, now);
        for (const row of rows) if (row.t >= from && row.t < to) all.push(row);
      }
    }
    return all;
  };

  return {
    rows: (scope, from, to) => readParts(scope, partsOf(from / 1000, to / 1000), to),
    slots: (scope, from, to) =>
      readParts(scope, [{ res: 300, from: Math.floor(from / 1000), to: Math.floor(to / 1000) }], to),
  };
}

/** Without the vectors, which are large, and of no use to rules. */
function lean({ p: _p, x: _x, biz: _biz, ...counts }: Aggregate): Aggregate {
  return counts;
}
