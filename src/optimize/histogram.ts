/** Histograms of values of unknown range, and the ranges that are read off them. */

import type { Range } from './technique.ts';

/** Counts of elements in bins of equal width. Memory is bounded however far values spread. */
export interface Histogram {
  /** Adds elements, all finite, that lie in `observed`. */
  add(values: ArrayLike<number>, observed: Range): void;
  /** Elements in each bin; of at least two bins once a value other than 0 came. */
  readonly counts: Float64Array;
  /** Borders of the bins: one more than bins, rising. */
  readonly edges: Float32Array;
  /** Smallest and largest element so far; `undefined` before the first. */
  readonly observed: Range | undefined;
}

/** How a histogram is laid out. */
export interface HistogramOptions {
  /** Bins at first, an even number of at least 2. Default 2048. */
  readonly bins?: number;
  /** Counts magnitudes from 0 on, instead of values around 0. Default false. */
  readonly isOfMagnitudes?: boolean;
}

/** Times that a histogram may outgrow its first number of bins before neighbours are merged. */
const GROWTH = 4;

/**
 * Creates a histogram. The first elements set the width of a bin, as `numpy.histogram` does in float32; later ones that
 * lie outside add bins of the same width, until there are too many and pairs are merged.
 */
export function createHistogram({ bins = 2048, isOfMagnitudes = false }: HistogramOptions = {}): Histogram {
  if (!Number.isSafeInteger(bins) || bins < 2 || bins % 2 !== 0)
    throw new RangeError(`A histogram has an even number of bins of at least 2, got ${bins}.`);
  let counts = new Float64Array(0);
  let edges = new Float32Array(0);
  let observed: Range | undefined;
  let zeros = 0;

  const start = (low: number, high: number): void => {
    counts = new Float64Array(bins);
    edges = spread(low, high, bins);
    if (zeros > 0) count(new Float32Array(zeros), counts, edges, false);
  };

  const widen = (limit: number): void => {
    // Around zero, both sides grow alike, so that zero stays the border in the middle.
    const sides = isOfMagnitudes ? 1 : 2;
    for (;;) {
      const last = edges[counts.length] as number;
      const first = edges[0] as number;
      if (limit <= last) return;
      const width = (last - first) / counts.length;
      const more = Math.floor((limit - last) / width) + 1;
      if (counts.length + sides * more <= GROWTH * bins) {
        const before = isOfMagnitudes ? 0 : more;
        const grown = new Float64Array(counts.length + sides * more);
        grown.set(counts, before);
        counts = grown;
        edges = spread(first - before * width, last + more * width, counts.length);
        return;
      }
      ({ counts, edges } = merge(counts, edges, sides));
    }
  };

  return {
    add: (values, { min, max }) => {
      if (values.length === 0) return;
      observed = observed
        ? { min: Math.min(observed.min, min), max: Math.max(observed.max, max) }
        : { min, max };
      const limit = Math.max(Math.abs(min), Math.abs(max));
      if (counts.length === 0) {
        if (limit === 0) {
          zeros += values.length;
          return;
        }
        const least = isOfMagnitudes ? leastMagnitude(values) : -limit;
        start(zeros > 0 || least === limit ? Math.min(0, least) : least, limit);
      } else {
        widen(limit);
      }
      count(values, counts, edges, isOfMagnitudes);
    },
    get counts() {
      return counts;
    },
    get edges() {
      return edges;
    },
    get observed() {
      return observed;
    },
  };
}

/**
 * The range that holds a share of the elements: `percentile` of the magnitudes, or of the values with as much cut at
 * either end.
 * @param percentile - in (0, 100].
 */
export function percentileRange(
  { counts, edges, observed = NOTHING }: Histogram,
  percentile: number,
  isOfMagnitudes: boolean,
): Range {
  if (counts.length === 0) return observed;
  const total = counts.reduce((sum, one) => sum + one, 0);
  const edgeAt = (share: number): number => {
    let sum = 0;
    const at = counts.findIndex((one) => (sum += one / total) >= share);
    return edges[at < 0 ? counts.length : at] as number;
  };
  if (isOfMagnitudes) {
    const limit = edgeAt(percentile / 100);
    return clipped({ min: -limit, max: limit }, observed);
  }
  const cut = (100 - percentile) / 200;
  return clipped({ min: edgeAt(cut), max: edgeAt(1 - cut) }, observed);
}

/**
 * The range around 0 whose quantized distribution diverges least from that of the values (S. Migacz, "8-bit inference
 * with TensorRT", GTC 2017). The histogram is one around 0.
 * @param levels - that a range is quantized to in the comparison.
 */
export function entropyRange({ counts, edges, observed = NOTHING }: Histogram, levels = 128): Range {
  const zero = counts.length / 2;
  const least = Math.min(levels / 2, zero);
  let best: Range = observed;
  let smallest = Number.POSITIVE_INFINITY;
  for (let half = least; half <= zero; half += 1) {
    const divergence = divergenceOf(counts, zero - half, zero + half, levels);
    // Of equals the widest: sparse data give no reason to cut.
    if (divergence <= smallest) {
      smallest = divergence;
      best = { min: edges[zero - half] as number, max: edges[zero + half] as number };
    }
  }
  return clipped(best, observed);
}

const NOTHING: Range = { min: 0, max: 0 };

/** Kullback-Leibler divergence of bins `from` to `to`, with what lies outside in the outermost, from their quantized form. */
function divergenceOf(counts: Float64Array, from: number, to: number, levels: number): number {
  const sumOf = (start: number, end: number): number => {
    let sum = 0;
    for (let i = start; i < end; i += 1) sum += counts[i] as number;
    return sum;
  };
  const below = sumOf(0, from);
  const above = sumOf(to, counts.length);
  const inside = sumOf(from, to);
  const total = below + inside + above;
  const trueCount = (i: number): number =>
    (counts[i] as number) + (i === from ? below : 0) + (i === to - 1 ? above : 0);
  const perLevel = Math.max(1, Math.floor((to - from) / levels));
  let divergence = 0;
  for (let level = 0; level < levels && from + level * perLevel < to; level += 1) {
    const start = from + level * perLevel;
    const end = level === levels - 1 ? to : Math.min(to, start + perLevel);
    let filled = 0;
    for (let i = start; i < end; i += 1) if (trueCount(i) > 0) filled += 1;
    if (filled === 0) continue;
    const share = sumOf(start, end) / filled / inside;
    for (let i = start; i < end; i += 1) {
      const p = trueCount(i) / total;
      // Nothing can make up for values that the quantized form gives no probability at all.
      if (p > 0) divergence += share > 0 ? p * Math.log(p / share) : Number.POSITIVE_INFINITY;
    }
  }
  return divergence;
}

function clipped({ min, max }: Range, observed: Range): Range {
  return { min: Math.max(min, observed.min), max: Math.min(max, observed.max) };
}

/** Borders in float32, as `numpy.linspace` computes them. */
function spread(low: number, high: number, bins: number): Float32Array<ArrayBuffer> {
  const edges = new Float32Array(bins + 1);
  const step = Math.fround(Math.fround(high - low) / bins);
  for (let i = 0; i < bins; i += 1) edges[i] = Math.fround(i * step) + low;
  edges[bins] = high;
  return edges;
}

function merge(
  counts: Float64Array,
  edges: Float32Array,
  sides: number,
): { counts: Float64Array<ArrayBuffer>; edges: Float32Array<ArrayBuffer> } {
  const width = ((edges.at(-1) as number) - (edges[0] as number)) / counts.length;
  // One bin more at each end where pairs would otherwise straddle the middle, or one would stay alone.
  const isOdd = (counts.length / sides) % 2 !== 0;
  const before = isOdd && sides === 2 ? 1 : 0;
  const padded = counts.length + (isOdd ? sides : 0);
  const merged = new Float64Array(padded / 2);
  counts.forEach((one, i) => {
    const at = (i + before) >> 1;
    merged[at] = (merged[at] as number) + one;
  });
  const low = (edges[0] as number) - before * width;
  return { counts: merged, edges: spread(low, low + padded * width, merged.length) };
}

/** Counts values: the lower border of a bin belongs to it. */
function count(
  values: ArrayLike<number>,
  counts: Float64Array,
  edges: Float32Array,
  isOfMagnitudes: boolean,
): void {
  const last = counts.length - 1;
  const low = edges[0] as number;
  const perUnit = counts.length / ((edges[last + 1] as number) - low);
  for (let i = 0; i < values.length; i += 1) {
    const given = values[i] as number;
    const value = isOfMagnitudes && given < 0 ? -given : given;
    const guess = (value - low) * perUnit;
    // Rounding misses by one bin at most; what lies below the first is counted there.
    let at = guess >= last ? last : guess > 0 ? Math.trunc(guess) : 0;
    if (at > 0 && value < (edges[at] as number)) at -= 1;
    else if (at < last && value >= (edges[at + 1] as number)) at += 1;
    counts[at] = (counts[at] as number) + 1;
  }
}

function leastMagnitude(values: ArrayLike<number>): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < values.length; i += 1) least = Math.min(least, Math.abs(values[i] as number));
  return least;
}
