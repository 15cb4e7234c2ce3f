/** Takes reports in: many in one transaction, each counted once, acknowledged when they are on disk. */

import type { Kysely } from 'kysely';
import { closedError, ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type { HistogramCounts, Report, ReportsAnswer, ReportWindow } from '../../telemetry/report.ts';
import { createHistogram } from '../../telemetry/histogram.ts';
import { guarded } from '../db/failure.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Schema } from '../db/schema.ts';
import { countReports, type CountableReport } from './batch.ts';
import { ageOf, clockCorrection, type Reception } from './clock.ts';
import { createHealthCounter, type HealthName } from './health.ts';
import { isPlausible } from './merge.ts';
import { createSeriesIndex, keyOf, type IsKnown, type SeriesKey } from './series.ts';

/** Why a report is not taken, ever: it says what cannot be, comes too late, from the future, or of a release that is unknown. */
export type RefusalCode = 'invalid' | 'too_old' | 'future' | 'unknown';

/** What {@link createIngest} needs. */
export interface IngestParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now' | 'monotonicMs' | 'setTimer'>;
  /** Tells whether the catalog has a model and version, and such a place in a rollout. */
  readonly isKnown: IsKnown;
  /** Gets failures that no device is told of. */
  readonly onError: (error: unknown) => void;
  /** Most reports in one transaction. Default 500. */
  readonly batchReports?: number;
  /** Longest wait of a report for others, milliseconds. Default 50. */
  readonly batchMs?: number;
  /** Reports that may wait, however fast they are taken in. Default 5000. */
  readonly maxWaiting?: number;
  /** Longest wait that is let in, milliseconds. Default 2000. */
  readonly maxWaitMs?: number;
}

/** How the ingest of this process is. */
export interface IngestStats {
  /** What it has counted since it began, by name. */
  readonly totals: ReadonlyMap<HealthName, number>;
  /** Reports that wait now. */
  readonly waiting: number;
  /** Seconds from arrival to answer, and seconds of transactions. */
  readonly wait: HistogramCounts;
  readonly transaction: HistogramCounts;
  /** Reports by transaction. */
  readonly batches: number;
}

/** The ingest of one server process. */
export interface Ingest {
  /**
   * Counts reports that were read.
   * @returns when they are on disk.
   * @throws {@link ServerError} `ERR_INLAY_BUSY` under more load than it can take; {@link StoreError} if the database fails.
   * Then nothing is known to be counted, and all may be sent again.
   */
  take(reports: readonly Report[], reception?: { readonly sentAt?: number }): Promise<ReportsAnswer>;
  /** Notes reports that could not be read. */
  refuse(count: number): void;
  /** Deletes what is kept of one device. Sums stay; nobody is in them. */
  forget(dev: string): Promise<void>;
  /** Waits for the reports that wait now. */
  flush(): Promise<void>;
  stats(): IngestStats;
  /** Counts what waits, and takes nothing more. Safe to call twice. */
  close(): Promise<void>;
}

/** Reports of one call of `take`, on their way. */
interface Parcel {
  readonly reports: readonly CountableReport[];
  readonly sinceMs: number;
  done(outcomes: readonly ('new' | 'duplicate' | 'too_old')[]): void;
  fail(error: unknown): void;
}

/** How fast it is before that was measured, reports per second. */
const firstRate = 1_000;

/** Creates the ingest over a database. */
export function createIngest(parts: IngestParts): Ingest {
  const { db, platform, isKnown, onError } = parts;
  const { batchReports = 500, batchMs = 50, maxWaiting = 5_000, maxWaitMs = 2_000 } = parts;
  const health = createHealthCounter(db, platform, onError);
  const series = createSeriesIndex(db, isKnown, () => platform.now());
  const waits = createHistogram();
  const transactions = createHistogram();
  const queue: Parcel[] = [];
  /** Reports in the queue, and those of callers that were not answered yet. */
  let waiting = 0;
  let inside = 0;
  const calls = new Set<Promise<unknown>>();
  /** Callers that do not want to wait for a batch to fill. */
  let hurried = 0;
  let batches = 0;
  /** Reports per second while it works. */
  let rate = firstRate;
  /** Share of the time that it works, over about ten seconds. */
  let load = 0;
  let loadAt = platform.monotonicMs();
  let cancelTimer: (() => void) | undefined;
  let running: Promise<void> | undefined;
  let isClosed = false;

  const commit = async (parcels: readonly Parcel[]): Promise<void> => {
    const reports = parcels.flatMap((parcel) => parcel.reports);
    const beganMs = platform.monotonicMs();
    try {
      const { outcomes, lost, crossed } = await guarded(() =>
        inTransaction(db, (tx) => countReports(tx, reports), { snapshot: true }),
      );
      note(reports, outcomes);
      health.add('lost', lost);
      health.add('crossed', crossed);
      let at = 0;
      for (const parcel of parcels) {
        parcel.done(outcomes.slice(at, at + parcel.reports.length));
        at += parcel.reports.length;
      }
    } catch (error) {
      for (const parcel of parcels) parcel.fail(error);
    }
    const nowMs = platform.monotonicMs();
    const tookMs = Math.max(nowMs - beganMs, 0.1);
    batches += 1;
    transactions.record(tookMs / 1000);
    for (const { sinceMs } of parcels) waits.record((nowMs - sinceMs) / 1000);
    rate += 0.2 * ((reports.length * 1000) / tookMs - rate) * Math.min(1, reports.length / 50);
    const sinceLoadMs = Math.max(nowMs - loadAt, tookMs);
    load += (1 - Math.exp(-sinceLoadMs / 10_000)) * (tookMs / sinceLoadMs - load);
    loadAt = nowMs;
  };

  const note = (
    reports: readonly CountableReport[],
    outcomes: readonly ('new' | 'duplicate' | 'too_old')[],
  ): void => {
    for (const [i, { report, windows }] of reports.entries()) {
      const outcome = outcomes[i];
      if (outcome === 'new') {
        health.add('reports');
        health.add('windows', windows.length);
        health.add(`consent_${report.consent}`);
        health.add('dropped', sumOf(report.drop));
      } else health.add(outcome === 'duplicate' ? 'duplicates' : 'too_old');
    }
  };

  const takeBatch = (): Parcel[] => {
    const parcels: Parcel[] = [];
    let count = 0;
    for (let next = queue[0]; next; next = queue[0]) {
      if (count > 0 && count + next.reports.length > batchReports) break;
      count += next.reports.length;
      parcels.push(next);
      queue.shift();
    }
    waiting -= count;
    return parcels;
  };

  const run = (): void => {
    cancelTimer?.();
    cancelTimer = undefined;
    running ??= (async () => {
      await commit(takeBatch());
      running = undefined;
      schedule();
    })();
  };

  /** Begins a batch when there is one, or when the first report has waited for long enough. */
  const schedule = (): void => {
    const [first] = queue;
    if (running || !first) return;
    const leftMs = first.sinceMs + batchMs - platform.monotonicMs();
    if (waiting >= batchReports || leftMs <= 0 || hurried > 0) run();
    else cancelTimer ??= platform.setTimer(run, leftMs, true);
  };

  const busyForMs = (): number => {
    const oldestMs = platform.monotonicMs() - (queue[0]?.sinceMs ?? Infinity);
    return Math.max((inside * 1000) / rate, oldestMs);
  };

  const assertRoom = (count: number): void => {
    if (isClosed) throw closedError('The ingest');
    if (inside + count <= Math.max(maxWaiting, count) && busyForMs() <= maxWaitMs) return;
    health.add('busy', count);
    throw new ServerError(
      'ERR_INLAY_BUSY',
      `${inside} reports wait for the database; send this request again later.`,
      { details: { waiting: inside, retryAfterS: Math.ceil(Math.max(busyForMs(), 1000) / 1000) * 5 } },
    );
  };

  const prepare = async (
    reports: readonly Report[],
    reception: Reception,
  ): Promise<readonly (CountableReport | RefusalCode)[]> => {
    const dated = reports.map((report) => datedWindows(report, reception));
    const found = await guarded(() =>
      series.resolve(
        reports.flatMap((report, i) => dated[i]?.fine.map((window) => keyOfWindow(report, window)) ?? []),
      ),
    );
    return reports.map((report, i) => {
      const { fine, refused, isSkewed } = dated[i] ?? { fine: [], refused: [], isSkewed: false };
      const windows = fine.flatMap((window) => {
        const place = found.get(keyOf(keyOfWindow(report, window)));
        return place ? [{ window, series: place }] : [];
      });
      health.add('unknown', fine.length - windows.length);
      for (const code of refused) health.add(code === 'invalid' ? 'refused' : code);
      if (isSkewed) health.add('skewed');
      if (windows.length > 0) return { report, at: reception.at, windows };
      return refused[0] ?? 'unknown';
    });
  };

  const deliver = (
    reports: readonly CountableReport[],
  ): Promise<readonly ('new' | 'duplicate' | 'too_old')[]> =>
    reports.length === 0
      ? Promise.resolve([])
      : new Promise((done, fail) => {
          queue.push({ reports, sinceMs: platform.monotonicMs(), done, fail });
          waiting += reports.length;
          schedule();
        });

  const flush = async (): Promise<void> => {
    hurried += 1;
    cancelTimer?.();
    cancelTimer = undefined;
    schedule();
    try {
      await Promise.allSettled(calls);
    } finally {
      hurried -= 1;
    }
    await health.flush();
  };

  const takeIn = async (reports: readonly Report[], reception: Reception): Promise<ReportsAnswer> => {
    const prepared = await prepare(reports, reception);
    const outcomes = await deliver(prepared.filter((one) => typeof one === 'object'));
    const done: { epoch: string; seq: number }[] = [];
    const refused: { epoch: string; seq: number; code: string }[] = [];
    let at = 0;
    for (const [i, { epoch, seq }] of reports.entries()) {
      const one = prepared[i];
      const code = typeof one === 'string' ? one : outcomes[at++] === 'too_old' ? 'too_old' : undefined;
      if (code === undefined) done.push({ epoch, seq });
      else refused.push({ epoch, seq, code });
    }
    const next = nextOf(load);
    return { done, refused, ...(next !== undefined && { next }) };
  };

  return {
    take: async (reports, { sentAt } = {}) => {
      assertRoom(reports.length);
      inside += reports.length;
      const call = takeIn(reports, { at: platform.now(), sentAt });
      calls.add(call);
      try {
        return await call;
      } finally {
        calls.delete(call);
        inside -= reports.length;
      }
    },
    refuse: (count) => {
      health.add('refused', count);
    },
    forget: async (dev) => {
      await flush();
      await guarded(() =>
        inTransaction(db, async (tx) => {
          await tx.deleteFrom('dedupe').where('dev', '=', dev).execute();
          await tx.deleteFrom('device').where('dev', '=', dev).execute();
          await tx.deleteFrom('stage_device').where('dev', '=', dev).execute();
        }),
      );
    },
    flush,
    stats: () => ({
      totals: health.totals(),
      waiting: inside,
      wait: waits.snapshot(),
      transaction: transactions.snapshot(),
      batches,
    }),
    close: async () => {
      isClosed = true;
      await flush();
    },
  };
}

/** Seconds between reports that are asked for at a load: more as it nears what one process can do. */
function nextOf(load: number): number | undefined {
  if (load > 0.9) return 3_600;
  return load > 0.7 ? 900 : undefined;
}

interface DatedWindows {
  readonly fine: readonly ReportWindow[];
  readonly refused: readonly Exclude<RefusalCode, 'unknown'>[];
  readonly isSkewed: boolean;
}

/** Puts the times of windows right, and those aside that cannot be counted. */
function datedWindows({ win, sent }: Report, reception: Reception): DatedWindows {
  const correctionMs = clockCorrection(reception, sent);
  const fine: ReportWindow[] = [];
  const refused: Exclude<RefusalCode, 'unknown'>[] = [];
  for (const window of win) {
    const dated = correctionMs === 0 ? window : { ...window, t: window.t + correctionMs / 1000 };
    const age = ageOf(dated.t, dated.d, reception.at);
    if (age !== 'fine') refused.push(age);
    else if (isPlausible(dated)) fine.push(dated);
    else refused.push('invalid');
  }
  return { fine, refused, isSkewed: correctionMs !== 0 };
}

function keyOfWindow(
  { app, cls }: Report,
  { m: model, ver: version, ro: rollout = '', st: stage = 0, arm = '' }: ReportWindow,
): SeriesKey {
  return { app, model, version, rollout, stage, arm, cls };
}

function sumOf(counts: Readonly<Record<string, number>> = {}): number {
  return Object.values(counts).reduce((all, one) => all + one, 0);
}
