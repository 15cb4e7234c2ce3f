/**
 * What one reporter keeps in the store: a line of JSON with the windows that are still open, then one line for each sealed
 * report, verbatim. Every change is a pure function from one record to the next.
 */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { isFields, isSize } from '../trust/parse.ts';
import {
  MAX_REPORT_BYTES,
  MAX_UNACKNOWLEDGED,
  MAX_WINDOWS,
  type Report,
  type ReportWindow,
} from './report.ts';

/** A report whose bytes and number are fixed: it is sent as it is until the server has it. */
export interface Sealed {
  readonly epoch: string;
  readonly seq: number;
  /** The report as JSON, without line breaks. */
  readonly text: string;
}

/** What telemetry has lost, by reason, in windows. */
export type Losses = Readonly<Record<string, number>>;

/** One record. Only who owns its epoch changes it. */
export interface SpoolRecord {
  /** Installation that it is about: what another one left, before consent was taken back, is never sent. */
  readonly dev: string;
  readonly epoch: string;
  /** Number of the next report. */
  readonly seq: number;
  /** Number of the last batch of counts that is in here: a write that is repeated adds nothing. */
  readonly batch: number;
  /** Last batches of earlier owners, for those that do not know whether their last write counted. */
  readonly before: readonly (readonly [epoch: string, batch: number])[];
  readonly open: readonly ReportWindow[];
  readonly drop: Losses;
  readonly sealed: readonly Sealed[];
}

/** Counts that go into a record together. */
export interface Batch {
  readonly number: number;
  readonly windows: readonly ReportWindow[];
  readonly drop: Losses;
}

/** What of a report is the same for all of one reporter. */
export type ReportHead = Omit<Report, 'v' | 'epoch' | 'seq' | 'sent' | 'win' | 'drop'>;

/** Adds up windows of the same series: those whose times fall into the same span of so many seconds. */
export type Join = (windows: readonly ReportWindow[], spanS: number) => readonly ReportWindow[];

/** Lengths of windows, seconds: where nothing can be sent they grow, and the counts stay. */
const SPANS_S = [300, 900, 3600, 21_600] as const;
/** Open windows above which times become coarser. */
const MOST_OPEN = 24;
/** Longest record, bytes. */
export const MAX_SPOOL_BYTES = 524_288;
/** Earlier owners that are remembered. */
const OWNERS = 16;

/** Gives a record to a new owner. What is in it stays. */
export function handOver(record: SpoolRecord | undefined, dev: string, epoch: string): SpoolRecord {
  if (record?.dev !== dev)
    return { dev, epoch, seq: 0, batch: 0, before: [], open: [], drop: {}, sealed: [] };
  const before = [...record.before, [record.epoch, record.batch] as const].slice(-OWNERS);
  return { ...record, epoch, seq: 0, batch: 0, before };
}

/** Takes a batch in, once. */
export function takeIn(record: SpoolRecord, batch: Batch, join: Join): SpoolRecord {
  if (batch.number <= record.batch) return record;
  return {
    ...record,
    batch: batch.number,
    open: coarsen([...record.open, ...batch.windows], join),
    drop: addLosses(record.drop, batch.drop),
  };
}

/** Joins windows over ever longer spans, until few are left. */
export function coarsen(
  windows: readonly ReportWindow[],
  join: Join,
  most: number = MOST_OPEN,
): readonly ReportWindow[] {
  let joined = windows;
  for (const spanS of SPANS_S) {
    joined = join(joined, spanS);
    if (joined.length <= most) break;
  }
  return joined;
}

/** Seals what is open, as far as the server can still remember what it has had. */
export function seal(record: SpoolRecord, head: ReportHead, sentMs: number): SpoolRecord {
  let { seq, drop } = record;
  const sealed = [...record.sealed];
  let open = record.open;
  while (sealed.length < MAX_UNACKNOWLEDGED && open.length > 0) {
    let win: readonly ReportWindow[] = open.slice(0, 1);
    let text = '';
    for (;;) {
      const report: Report = {
        v: 1,
        ...head,
        epoch: record.epoch,
        seq,
        sent: Math.floor(sentMs),
        ...(Object.keys(drop).length > 0 && { drop }),
        win,
      };
      const longer = JSON.stringify(report);
      // Not compressed it may be as long as compressed: then nobody has to try.
      if (text !== '' && longer.length > MAX_REPORT_BYTES) {
        win = win.slice(0, -1);
        break;
      }
      text = longer;
      if (win.length === Math.min(MAX_WINDOWS, open.length)) break;
      win = open.slice(0, win.length + 1);
    }
    sealed.push({ epoch: record.epoch, seq, text });
    open = open.slice(win.length);
    drop = {};
    seq += 1;
  }
  return { ...record, seq, sealed, open, drop };
}

/** Forgets reports that the server has. */
export function forget(record: SpoolRecord, isGone: (sealed: Sealed) => boolean, drop: Losses): SpoolRecord {
  const sealed = record.sealed.filter((one) => !isGone(one));
  if (sealed.length === record.sealed.length) return record;
  return { ...record, sealed, drop: addLosses(record.drop, drop) };
}

/** Keeps a record within {@link MAX_SPOOL_BYTES}: times become as coarse as they can, then the oldest is lost. */
export function fit(record: SpoolRecord, join: Join): SpoolRecord {
  if (sizeOf(record) <= MAX_SPOOL_BYTES) return record;
  const coarser = { ...record, open: coarsen(record.open, join, 0) };
  // Some room is left, so that not every write has to do this.
  let excess = sizeOf(coarser) - (MAX_SPOOL_BYTES * 15) / 16;
  let cap = 0;
  const isKept = (text: string, windows: number): boolean => {
    if (excess <= 0) return true;
    excess -= text.length;
    cap += windows;
    return false;
  };
  const sealed = coarser.sealed.filter((one) => isKept(one.text, windowsOf(one).length));
  const open = coarser.open.filter((window) => isKept(JSON.stringify(window), 1));
  return { ...coarser, sealed, open, drop: addLosses(record.drop, { cap }) };
}

/** Adds losses up, reason by reason. */
export function addLosses(a: Losses, b: Losses): Losses {
  const sum: Record<string, number> = { ...a };
  for (const [reason, count] of Object.entries(b)) if (count > 0) sum[reason] = (sum[reason] ?? 0) + count;
  return sum;
}

/** Windows of a sealed report. */
export function windowsOf({ text }: Sealed): readonly ReportWindow[] {
  return (JSON.parse(text) as Report).win;
}

/** Writes a record down. */
export function encodeSpool({ sealed, ...state }: SpoolRecord): Uint8Array<ArrayBuffer> {
  const numbers = sealed.map(({ epoch, seq }) => [epoch, seq]);
  return toUtf8(
    [JSON.stringify({ v: 1, ...state, sealed: numbers }), ...sealed.map(({ text }) => text)].join('\n'),
  );
}

/** Reads a record; `undefined` for one that is empty or damaged. */
export function decodeSpool(bytes: Uint8Array | undefined): SpoolRecord | undefined {
  if (bytes === undefined || bytes.length === 0) return undefined;
  try {
    const [first = '', ...texts] = fromUtf8(bytes).split('\n');
    const value: unknown = JSON.parse(first);
    if (!isFields(value) || value['v'] !== 1) return undefined;
    const { dev, epoch, seq, batch, before, open, drop, sealed } = value;
    const isWhole =
      typeof dev === 'string' &&
      typeof epoch === 'string' &&
      isSize(seq) &&
      isSize(batch) &&
      Array.isArray(before) &&
      Array.isArray(open) &&
      isFields(drop) &&
      Array.isArray(sealed) &&
      sealed.length === texts.length;
    if (!isWhole) return undefined;
    const numbers = sealed as readonly (readonly [string, number])[];
    return {
      dev,
      epoch,
      seq,
      batch,
      before: before as SpoolRecord['before'],
      open: open as readonly ReportWindow[],
      drop: drop as Losses,
      sealed: numbers.map(([of, number], at) => ({ epoch: of, seq: number, text: texts[at] ?? '' })),
    };
  } catch {
    return undefined;
  }
}

function sizeOf(record: SpoolRecord): number {
  return encodeSpool(record).length;
}
