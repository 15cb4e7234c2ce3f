/** Lines of charts from counts. */

import { quantileBand } from '../../stats/quantile-band.ts';
import { quantileOf } from '../../telemetry/histogram.ts';
import type { HistogramCounts } from '../../telemetry/report.ts';
import type { SeriesLine } from '../api/answers.ts';
import type { Cell } from './cell.ts';

/** One point of a line; `null` where there is nothing to say. */
type Point = { readonly [Name in Exclude<keyof SeriesLine, 'key'>]: number | null };

/**
 * Writes a line.
 * @param cells - by time, in order; `undefined` for no data.
 * @param least - devices below which a cell is hidden.
 */
export function lineOf(key: string, cells: readonly (Cell | undefined)[], least: number): SeriesLine {
  const points = cells.map((cell) => (cell && cell.surely >= least ? pointOf(cell) : hidden));
  const list = (name: keyof Point): (number | null)[] => points.map((point) => point[name]);
  return {
    key,
    calls: list('calls'),
    devices: list('devices'),
    errorRate: list('errorRate'),
    p50: list('p50'),
    p50Low: list('p50Low'),
    p50High: list('p50High'),
    p95: list('p95'),
    p95Low: list('p95Low'),
    p95High: list('p95High'),
    p99: list('p99'),
    cacheHitRate: list('cacheHitRate'),
    coldStarts: list('coldStarts'),
    loadP95: list('loadP95'),
    memory: list('memory'),
    cost: list('cost'),
  };
}

const hidden: Point = {
  calls: null,
  devices: null,
  errorRate: null,
  p50: null,
  p50Low: null,
  p50High: null,
  p95: null,
  p95Low: null,
  p95High: null,
  p99: null,
  cacheHitRate: null,
  coldStarts: null,
  loadP95: null,
  memory: null,
  cost: null,
};

function pointOf({ counts, devices, surely }: Cell): Point {
  const { n, ok, h = {}, hit = 0, miss = 0, cold = 0, mem, cost } = counts;
  const { lat, load } = h;
  // Calls of one device are alike, so the band counts devices (Howard & Ramdas, arXiv 1906.09712).
  const width = quantileBand(surely);
  return {
    calls: n,
    devices,
    errorRate: ratio(n - ok, n),
    p50: at(lat, 0.5),
    p50Low: at(lat, 0.5 - width),
    p50High: at(lat, 0.5 + width),
    p95: at(lat, 0.95),
    p95Low: at(lat, 0.95 - width),
    p95High: at(lat, 0.95 + width),
    p99: at(lat, 0.99),
    cacheHitRate: ratio(hit, hit + miss),
    coldStarts: cold,
    loadP95: at(load, 0.95),
    memory: mem ? ratio(mem[1], mem[2]) : null,
    cost: cost === undefined ? null : ratio(cost / 1e6, n),
  };
}

/** A quantile; `null` for one that the data do not bound. */
function at(times: HistogramCounts | undefined, share: number): number | null {
  return times === undefined || share <= 0 || share >= 1 ? null : (quantileOf(times, share) ?? null);
}

function ratio(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}
