/** Sums of counts: windows into aggregates, aggregates into aggregates. */

import { bucketsOf, countOf, encodeHistogram, mergeHistograms } from '../../telemetry/histogram.ts';
import type { HistogramCounts, ReportWindow } from '../../telemetry/report.ts';
import type { Aggregate } from './aggregate.ts';

/** Nothing. */
export const emptyAggregate: Aggregate = { n: 0, ok: 0, dev: [0, 0, 0] };

/** Most names of one kind in one aggregate. Names come from devices; what is beyond counts as `other`. */
const mostNames = 64;
/** Most profiles that are kept apart in one aggregate. */
const mostProfiles = 8;
/** Most cells of a confusion matrix. */
const mostCells = 4096;

/** Adds two aggregates. */
export function mergeAggregates(a: Aggregate, b: Aggregate): Aggregate {
  return {
    n: a.n + b.n,
    ok: a.ok + b.ok,
    dev: [a.dev[0] + b.dev[0], a.dev[1] + b.dev[1], a.dev[2] + b.dev[2]],
    ...both('err', a.err, b.err, mergeCounts),
    ...both('cold', a.cold, b.cold, sum),
    ...both('fatal', a.fatal, b.fatal, sum),
    ...both('act', a.act, b.act, sum),
    ...both('com', a.com, b.com, sum),
    ...both('rej', a.rej, b.rej, mergeCounts),
    ...both('fall', a.fall, b.fall, mergeCounts),
    ...both('hit', a.hit, b.hit, sum),
    ...both('miss', a.miss, b.miss, sum),
    ...both('ex', a.ex, b.ex, sum),
    ...both('h', a.h, b.h, mergeTimes),
    ...both('mem', a.mem, b.mem, (x, y) => [Math.max(x[0], y[0]), x[1] + y[1], x[2] + y[2]]),
    ...both('cpu', a.cpu, b.cpu, sum),
    ...both('net', a.net, b.net, sum),
    ...both('cost', a.cost, b.cost, sum),
    ...both('biz', a.biz, b.biz, mergeEvents),
    ...both('p', a.p, b.p, mergeProfiles),
    ...both('x', a.x, b.x, mergeProfiles),
    ...both('fb', a.fb, b.fb, mergeFeedback),
    ...both('sh', a.sh, b.sh, (x, y) => [x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]]),
  };
}

/**
 * Writes a window as an aggregate.
 * @param eps - local privacy of its feature counts: those are kept apart, under `<profile>~<eps>`, since they are not shares
 * as they stand.
 */
export function aggregateOf(window: ReportWindow, dev: Aggregate['dev'], eps?: number): Aggregate {
  const { n, ok, err, cold, fatal, act, com, rej, fall, ch, ex, h, g, cost, biz, p, x, fb, sh } = window;
  const profile = `${window.prof ?? ''}${eps === undefined ? '' : `~${eps}`}`;
  return {
    n,
    ok,
    dev,
    ...(err && { err }),
    ...(cold !== undefined && { cold }),
    ...(fatal !== undefined && { fatal }),
    ...(act !== undefined && { act }),
    ...(com !== undefined && { com }),
    ...(rej && { rej }),
    ...(fall && { fall }),
    ...(ch && { hit: ch[0], miss: ch[1] }),
    ...(ex !== undefined && { ex }),
    ...(h && { h: mapValues(h, boundTimes) }),
    ...(g?.mem && { mem: [g.mem[0], g.mem[1], 1] as const }),
    ...(g?.cpu !== undefined && { cpu: g.cpu }),
    ...(g?.net !== undefined && { net: g.net }),
    ...(cost !== undefined && { cost }),
    ...(biz && { biz }),
    ...(p && { p: { [profile]: p } }),
    ...(x && { x: { [profile]: x } }),
    ...(fb && {
      fb: {
        n: fb.n,
        ok: fb.ok,
        ...(fb.cm && { cm: cellsOf(fb.cm) }),
        ...(fb.cal && { cal: fb.cal }),
      },
    }),
    ...(sh && { sh }),
  };
}

/** A microsecond and twelve days: whatever is outside counts at the edge, so that sums have 1,280 buckets at most. */
const [lowestBucket, highestBucket] = [-20 * 32, 20 * 32 - 1];

/** Brings times into the range that is kept. */
export function boundTimes(times: HistogramCounts): HistogramCounts {
  const { s, b: _, ...totals } = times;
  const buckets = bucketsOf(times);
  const isInside = (index = 0): boolean => index >= lowestBucket && index <= highestBucket;
  if (isInside(buckets[0]?.index) && isInside(buckets.at(-1)?.index)) return times;
  const counts = new Map<number, number>();
  for (const { index, count } of buckets) {
    const at = Math.min(Math.max(index, lowestBucket), highestBucket);
    counts.set(at, (counts.get(at) ?? 0) + count);
  }
  return encodeHistogram(
    [...counts].map(([index, count]) => ({ index, count })),
    totals,
    s,
  );
}

/** Calls for which a device may report in one window. */
const mostCalls = 1e7;
/** Elements of one tensor that a device counts at one call. */
const mostElements = 256;

/** Tells whether what a window says can be: no device has more to say than it made calls. */
export function isPlausible({ n, h = {}, p = {}, x = {} }: ReportWindow): boolean {
  if (n > mostCalls) return false;
  const ofCalls = [h.lat, h.queue].every((times) => times === undefined || countOf(times) <= n);
  const ofOthers = [h.load, h.shadow].every((times) => times === undefined || countOf(times) <= mostCalls);
  const vectors = [...Object.values(p), ...Object.values(x)];
  return ofCalls && ofOthers && vectors.every((bins) => bins.reduce(sum, 0) <= n * mostElements);
}

type Counts = Readonly<Record<string, number>>;
type Vectors = Readonly<Record<string, readonly number[]>>;
type Events = Readonly<Record<string, readonly [n: number, sum: number]>>;

/** Adds counts by name. */
function mergeCounts(a: Counts, b: Counts): Counts {
  return mergeNamed(a, b, sum, mostNames, 'other');
}

/** Adds events by name. */
export function mergeEvents(a: Events, b: Events): Events {
  return mergeNamed(a, b, ([n, all], [m, more]) => [n + m, all + more], mostNames, 'other');
}

/** Adds vectors by feature. A vector of another length than the one that is there belongs to something else. */
function mergeVectors(a: Vectors, b: Vectors): Vectors {
  return mergeNamed(
    a,
    b,
    (x, y) => (x.length === y.length ? x.map((count, i) => count + (y[i] ?? 0)) : x),
    2 * mostNames,
  );
}

/** Adds vectors by profile and feature. Of more profiles than a device may have, only the first ones count. */
export function mergeProfiles(
  a: Readonly<Record<string, Vectors>>,
  b: Readonly<Record<string, Vectors>>,
): Readonly<Record<string, Vectors>> {
  return mergeNamed(a, b, mergeVectors, mostProfiles);
}

function mergeTimes(a: NonNullable<Aggregate['h']>, b: NonNullable<Aggregate['h']>): typeof a {
  return mergeNamed(a as Readonly<Record<string, HistogramCounts>>, b, mergeHistograms, 4);
}

type FeedbackSums = NonNullable<Aggregate['fb']>;

function mergeFeedback(a: FeedbackSums, b: FeedbackSums): FeedbackSums {
  return {
    n: a.n + b.n,
    ok: a.ok + b.ok,
    ...both('cm', a.cm, b.cm, (x, y) => mergeNamed(x, y, sum, mostCells)),
    ...both('cal', a.cal, b.cal, (x, y) =>
      x.map(([n, ok, confidence], i) => {
        const [m = 0, right = 0, more = 0] = y[i] ?? [];
        return [n + m, ok + right, confidence + more] as const;
      }),
    ),
  };
}

function cellsOf(cells: NonNullable<NonNullable<ReportWindow['fb']>['cm']>): Counts {
  const counts: Record<string, number> = {};
  for (const [actual, predicted, n] of cells) {
    const key = `${actual},${predicted}`;
    counts[key] = (counts[key] ?? 0) + n;
  }
  return counts;
}

/** Adds values by name. Beyond `most` names, new ones count under `rest`, or not at all. */
function mergeNamed<Value>(
  a: Readonly<Record<string, Value>>,
  b: Readonly<Record<string, Value>>,
  add: (x: Value, y: Value) => Value,
  most: number,
  rest?: string,
): Record<string, Value> {
  const merged: Record<string, Value> = { ...a };
  let names = Object.keys(merged).length;
  for (const [name, value] of Object.entries(b)) {
    const isThere = Object.hasOwn(merged, name);
    const into = isThere || names < most ? name : rest;
    if (into === undefined) continue;
    const present = Object.hasOwn(merged, into) ? merged[into] : undefined;
    if (present === undefined) names += 1;
    merged[into] = present === undefined ? value : add(present, value);
  }
  return merged;
}

function mapValues<Value>(
  record: Readonly<Partial<Record<string, Value>>>,
  change: (value: Value) => Value,
): Record<string, Value> {
  return Object.fromEntries(
    Object.entries(record).flatMap(([name, value]) => (value === undefined ? [] : [[name, change(value)]])),
  );
}

/** A field that is there if either of two is. */
function both<Name extends string, Value>(
  name: Name,
  a: Value | undefined,
  b: Value | undefined,
  add: (x: Value, y: Value) => Value,
): { [Key in Name]?: Value } {
  const value = a === undefined ? b : b === undefined ? a : add(a, b);
  return (value === undefined ? {} : { [name]: value }) as { [Key in Name]?: Value };
}

function sum(a: number, b: number): number {
  return a + b;
}
