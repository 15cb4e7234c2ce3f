import { createHash } from 'node:crypto';
import { onTestFinished } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import { openDatabase, type Database } from '../../src/server/db/open.ts';
import { createIngest, type Ingest, type IngestParts } from '../../src/server/ingest/ingest.ts';
import { mergeAggregates, emptyAggregate } from '../../src/server/ingest/merge.ts';
import type { Aggregate } from '../../src/server/ingest/aggregate.ts';
import { createHistogram } from '../../src/telemetry/histogram.ts';
import type { HistogramCounts, Report, ReportWindow } from '../../src/telemetry/report.ts';
import { createPostgres, query } from './postgres.ts';

/** Noon of a day; reports of the tests are about the minutes before it. */
export const noon: number = Date.parse('2026-03-01T12:00:00Z');
export const noonS: number = noon / 1000;

/** A random-looking name of a device or an epoch, the same for the same number. */
export function nameOf(kind: string, index: number, bytes: number): string {
  return createHash('sha256').update(`${kind} ${index}`).digest().subarray(0, bytes).toString('base64url');
}

export function timesOf(values: readonly number[]): HistogramCounts {
  const histogram = createHistogram();
  for (const value of values) histogram.record(value);
  return histogram.snapshot();
}

export function windowOf(fields: Partial<ReportWindow> = {}): ReportWindow {
  return { t: noonS - 300, d: 300, m: 'digits', ver: '1.0.0', n: 10, ok: 10, ...fields };
}

export function reportOf(
  device: number,
  seq: number,
  win: readonly ReportWindow[] = [windowOf()],
  fields: Partial<Report> = {},
): Report {
  return {
    v: 1,
    app: 'prod',
    dev: nameOf('device', device, 12),
    epoch: nameOf('epoch', device, 8),
    seq,
    sent: noon,
    sdk: 'inlay/0.1.0',
    rt: 'node',
    cls: 3,
    consent: 'full',
    win,
    ...fields,
  };
}

/** Gives the same PostgreSQL database each time, without a row: making a new one takes longer than most tests. */
export function emptyPostgres(): () => Promise<string> {
  let made: Promise<string> | undefined;
  const tables = 'dedupe, series, delta, roll, device, stage_device, health, setting';
  return async () => {
    if (made) await query(await made, `truncate ${tables}`);
    made ??= createPostgres();
    return made;
  };
}

/** A clock that is moved by hand; timers are real. */
export interface TestClock {
  now: number;
}

/** An ingest over a database that goes away with the test. */
export async function openIngest(
  target: string = ':memory:',
  parts: Partial<IngestParts> = {},
): Promise<Database & { readonly ingest: Ingest; readonly clock: TestClock; readonly errors: unknown[] }> {
  const database = await openDatabase(target);
  const clock = { now: noon };
  const errors: unknown[] = [];
  const ingest = createIngest({
    db: database.db,
    platform: { ...nodePlatform(), now: () => clock.now },
    isKnown: () => true,
    onError: (error) => errors.push(error),
    batchMs: 1,
    ...parts,
  });
  onTestFinished(async () => {
    await ingest.close().catch(() => undefined);
    await database.db.destroy();
  });
  return { ...database, ingest, clock, errors };
}

/** Everything that is counted, folded or not. */
export async function totalsOf({ db }: Pick<Database, 'db'>): Promise<Aggregate> {
  const folded = await db.selectFrom('roll').select('body').where('res', '=', 300).execute();
  const fresh = await db.selectFrom('delta').select('body').execute();
  return [...folded, ...fresh]
    .map(({ body }) => JSON.parse(body) as Aggregate)
    .reduce(mergeAggregates, emptyAggregate);
}
