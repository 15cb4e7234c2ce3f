/** Windows that were cut, added up: longer ones where nothing can be sent, and what a device did before a stage. */

import { mergeHistograms, quantileOf } from './histogram.ts';
import {
  FULL_ONLY,
  MAX_CELLS,
  MAX_CODES,
  MAX_EVENTS,
  type HistogramCounts,
  type ReportWindow,
} from './report.ts';
import { textOfKey } from './window.ts';

/**
 * Adds up the windows of each key whose begins lie in the same span of time.
 * @param spanS - 300, 900, 3600 or 21600, say: spans begin at its multiples since 1970.
 * @returns windows by begin, then in the order in which their keys came first.
 */
export function joinWindows(windows: readonly ReportWindow[], spanS: number): readonly ReportWindow[] {
  const joined = new Map<string, ReportWindow>();
  for (const window of windows) {
    const name = `${Math.floor(window.t / spanS)} ${textOfKey(window)}`;
    const known = joined.get(name);
    joined.set(name, known === undefined ? window : mergeWindows(known, window));
  }
  return [...joined.values()].sort((a, b) => a.t - b.t);
}

/** Adds two windows of one key. Every count adds; the times cover both, and the baseline stays as it was. */
export function mergeWindows(a: ReportWindow, b: ReportWindow): ReportWindow {
  const t = Math.min(a.t, b.t);
  const g = either(a.g, b.g, (x, y) => ({
    ...defined(
      'mem',
      either(
        x.mem,
        y.mem,
        ([peak, mean], [otherPeak, other]) =>
          [Math.max(peak, otherPeak), Math.round((mean * a.d + other * b.d) / (a.d + b.d))] as const,
      ),
    ),
    ...defined('cpu', either(x.cpu, y.cpu, add)),
    ...defined('net', either(x.net, y.net, add)),
  }));
  const h = either(a.h, b.h, (x, y) => addByName(x as Times, y as Times, mergeHistograms));
  return {
    ...a,
    ...b,
    t,
    d: Math.max(a.t + a.d, b.t + b.d) - t,
    n: a.n + b.n,
    ok: a.ok + b.ok,
    ...defined('err', either(a.err, b.err, addCodes)),
    ...defined('cold', either(a.cold, b.cold, add)),
    ...defined('fatal', either(a.fatal, b.fatal, add)),
    ...defined('act', either(a.act, b.act, add)),
    ...defined('rej', either(a.rej, b.rej, addCodes)),
    ...defined('com', either(a.com, b.com, add)),
    ...defined('fall', either(a.fall, b.fall, addCodes)),
    ...defined(
      'ch',
      either(a.ch, b.ch, ([x, y], [u, v]) => [x + u, y + v] as const),
    ),
    ...defined('ex', either(a.ex, b.ex, add)),
    ...defined('h', h),
    ...defined('g', g),
    ...defined('cost', either(a.cost, b.cost, add)),
    ...defined('biz', either(a.biz, b.biz, addEvents)),
    ...defined('p', either(a.p, b.p, addVectors)),
    ...defined('x', either(a.x, b.x, addVectors)),
    ...defined('fb', either(a.fb, b.fb, addFeedback)),
    ...defined('bl', a.bl ?? b.bl),
    ...defined(
      'sh',
      either(a.sh, b.sh, ([n, x, y, z], [m, u, v, w]) => [n + m, x + u, y + v, z + w] as const),
    ),
  };
}

/** What of a window may leave the device under necessary consent. */
export function necessaryOnly(window: ReportWindow): ReportWindow {
  const kept: { -readonly [Key in keyof ReportWindow]: ReportWindow[Key] } = { ...window };
  for (const field of FULL_ONLY) delete kept[field];
  return kept;
}

/** Calls below which a device's past says too little to judge it by. */
const BASELINE_CALLS = 100;

/**
 * Sums up what a device did with the version before, to be judged by.
 * @returns `undefined` for fewer than {@link BASELINE_CALLS} calls.
 */
export function baselineOf(windows: readonly ReportWindow[]): NonNullable<ReportWindow['bl']> | undefined {
  const n = windows.reduce((sum, window) => sum + window.n, 0);
  if (n < BASELINE_CALLS) return undefined;
  const ok = windows.reduce((sum, window) => sum + window.ok, 0);
  const p95 = p95Of(windows.map(({ h }) => h?.lat));
  const load = p95Of(windows.map(({ h }) => h?.load));
  const mem = Math.max(0, ...windows.map(({ g }) => g?.mem?.[0] ?? 0));
  return {
    n,
    e: n - ok,
    ...(p95 !== undefined && { p95 }),
    ...(load !== undefined && { load }),
    ...(mem > 0 && { mem }),
  };
}

function p95Of(times: readonly (HistogramCounts | undefined)[]): number | undefined {
  const known = times.filter((counts) => counts !== undefined);
  const p95 = known.length > 0 ? quantileOf(known.reduce(mergeHistograms), 0.95) : undefined;
  return p95 === undefined ? undefined : Number(p95.toPrecision(6));
}

type Times = Readonly<Record<string, HistogramCounts>>;
type Codes = Readonly<Record<string, number>>;
type Vectors = NonNullable<ReportWindow['p']>;
type Labels = NonNullable<ReportWindow['fb']>;

/** Joins what both have; what only one has stays. */
function either<Value>(
  a: Value | undefined,
  b: Value | undefined,
  join: (a: Value, b: Value) => Value,
): Value | undefined {
  return a === undefined || b === undefined ? (a ?? b) : join(a, b);
}

function defined<Name extends string, Value>(
  name: Name,
  value: Value | undefined,
): Partial<Record<Name, Value>> {
  return value === undefined ? {} : ({ [name]: value } as Record<Name, Value>);
}

function add(a: number, b: number): number {
  return a + b;
}

function addByName<Value>(
  a: Readonly<Record<string, Value>>,
  b: Readonly<Record<string, Value>>,
  join: (a: Value, b: Value) => Value,
): Record<string, Value> {
  const sum = { ...a };
  for (const [name, value] of Object.entries(b)) sum[name] = either(sum[name], value, join) as Value;
  return sum;
}

/** Names beyond the limit go to `other`. */
function addCodes(a: Codes, b: Codes): Codes {
  const sum = new Map<string, number>();
  for (const [code, count] of [...Object.entries(a), ...Object.entries(b)]) {
    const isRoom = sum.has(code) || sum.size - (sum.has('other') ? 1 : 0) < MAX_CODES - 1;
    const as = isRoom ? code : 'other';
    sum.set(as, (sum.get(as) ?? 0) + count);
  }
  return Object.fromEntries(sum);
}

function addEvents(
  a: NonNullable<ReportWindow['biz']>,
  b: NonNullable<ReportWindow['biz']>,
): NonNullable<ReportWindow['biz']> {
  const sum = addByName(a, b, ([n, x], [m, y]) => [n + m, x + y] as const);
  return Object.fromEntries(Object.entries(sum).slice(0, MAX_EVENTS));
}

function addVectors(a: Vectors, b: Vectors): Vectors {
  return addByName(a, b, (x, y) => (x.length < y.length ? y : x).map((_, i) => (x[i] ?? 0) + (y[i] ?? 0)));
}

function addFeedback(a: Labels, b: Labels): Labels {
  const cells = new Map<string, readonly [number, number, number]>();
  for (const [actual, predicted, count] of [...(a.cm ?? []), ...(b.cm ?? [])]) {
    const name = `${actual} ${predicted}`;
    if (cells.has(name) || cells.size < MAX_CELLS)
      cells.set(name, [actual, predicted, count + (cells.get(name)?.[2] ?? 0)]);
  }
  const cal = either(a.cal, b.cal, (x, y) =>
    x.map(
      ([n, ok, sure], i) => [n + (y[i]?.[0] ?? 0), ok + (y[i]?.[1] ?? 0), sure + (y[i]?.[2] ?? 0)] as const,
    ),
  );
  return {
    n: a.n + b.n,
    ok: a.ok + b.ok,
    ...(cells.size > 0 && { cm: [...cells.values()] }),
    ...defined('cal', cal),
  };
}
