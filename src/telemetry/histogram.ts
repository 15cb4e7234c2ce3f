/**
 * Base-2 exponential histograms of one fixed scale, as OpenTelemetry defines them (Metrics Data Model, "ExponentialHistogram"):
 * bucket `i` holds values in `(2^(i/32), 2^((i+1)/32)]`. One scale for everybody makes every merge exact, and the indexes
 * come from bits and a table, so that all engines agree on them: `Math.log2` is not specified to the bit.
 */

import type { HistogramCounts } from './report.ts';

/** Scale of all histograms: 32 buckets per power of two. */
const HISTOGRAM_SCALE = 5;
/** Values up to this have no bucket: a nanosecond, where values are seconds. */
export const SMALLEST_VALUE: number = 2 ** -30;
/** Values above this count as this: twelve days. So a histogram has 1600 buckets at most, whatever was merged into it. */
export const LARGEST_VALUE: number = 2 ** 20;
/** Largest relative error of a value read off a bucket: (b − 1) / (b + 1) with b = 2^(1/32). */
export const VALUE_ERROR = 0.01083;

const PER_OCTAVE = 32;
const LOWEST_BUCKET = -30 * PER_OCTAVE;
const HIGHEST_BUCKET = 20 * PER_OCTAVE - 1;

/**
 * 2^(j/32), rounded down. All but the first are irrational, so a double above the rounded edge is above the true one, too.
 */
const EDGES: readonly number[] = [
  1.0, 1.0218971486541166, 1.0442737824274138, 1.0671404006768235, 1.0905077326652575, 1.1143867425958924,
  1.1387886347566916, 1.1637248587775775, 1.189207115002721, 1.2152473599804687, 1.241857812073484,
  1.2690509571917332, 1.2968395546510096, 1.325236643159741, 1.3542555469368927, 1.3839098819638318,
  // oxlint-disable-next-line oxc/approx-constant -- Math.SQRT2 is rounded up.
  1.414213562373095, 1.4451808069770464, 1.4768261459394991, 1.5091644275934226, 1.5422108254079407,
  1.5759808451078863, 1.6104903319492543, 1.6457554781539647, 1.681792830507429, 1.7186192981224777,
  1.7562521603732995, 1.7947090750031072, 1.8340080864093424, 1.8741676341102997, 1.9152065613971472,
  1.9571441241754002,
];

const double = /* @__PURE__ */ new DataView(new ArrayBuffer(8));

/**
 * Index of the bucket of a value. Exact for every double, subnormals included.
 * @param value - positive and finite.
 */
export function bucketOfValue(value: number): number {
  double.setFloat64(0, value);
  let high = double.getUint32(0);
  let exponent = (high >>> 20) - 1023;
  if (exponent === -1023) {
    // A subnormal times a power of two is exact and normal.
    double.setFloat64(0, value * 2 ** 52);
    high = double.getUint32(0);
    exponent = (high >>> 20) - 1023 - 52;
  }
  double.setUint32(0, (high & 0xf_ff_ff) | 0x3f_f0_00_00);
  const mantissa = double.getFloat64(0);
  // The number of edges below the mantissa.
  let below = 0;
  for (let step = PER_OCTAVE / 2; step >= 1; step /= 2) {
    if ((EDGES[below + step - 1] as number) < mantissa) below += step;
  }
  if ((EDGES[below] as number) < mantissa) below += 1;
  return exponent * PER_OCTAVE + below - 1;
}

/** Upper edge of a bucket: its largest value, to the last bit or one less. */
export function upperEdge(index: number): number {
  const octave = Math.floor((index + 1) / PER_OCTAVE);
  const mantissa = EDGES[index + 1 - octave * PER_OCTAVE] as number;
  // Below the normal numbers in two steps, so that only the second one rounds.
  return octave < -1022 ? mantissa * 2 ** (octave + 60) * 2 ** -60 : mantissa * 2 ** octave;
}

/** One bucket that holds something. */
export interface Bucket {
  readonly index: number;
  readonly count: number;
}

/** The histogram of nothing. */
export const EMPTY_HISTOGRAM: HistogramCounts = { s: HISTOGRAM_SCALE, z: 0, sum: 0, b: [] };

/** What a histogram has beside its buckets. */
export type HistogramTotals = Omit<HistogramCounts, 's' | 'b'>;

/** Writes buckets, ascending by index, as a histogram. */
export function encodeHistogram(
  buckets: Iterable<Bucket>,
  totals: HistogramTotals,
  scale: number = HISTOGRAM_SCALE,
): HistogramCounts {
  const b: number[] = [];
  let last = 0;
  for (const { index, count } of buckets) {
    b.push(index - last, count);
    last = index;
  }
  return { s: scale, ...totals, b };
}

/** The buckets of a histogram, ascending by index. */
export function bucketsOf({ b }: HistogramCounts): readonly Bucket[] {
  const buckets: Bucket[] = [];
  let index = 0;
  for (let i = 0; i + 1 < b.length; i += 2) {
    index += b[i] as number;
    buckets.push({ index, count: b[i + 1] as number });
  }
  return buckets;
}

/** How many values a histogram holds. */
export function countOf({ z, b }: HistogramCounts): number {
  let count = z;
  for (let i = 1; i < b.length; i += 2) count += b[i] as number;
  return count;
}

/** Adds two histograms of one scale. Counts are exact in any order; sums round like numbers. */
export function mergeHistograms(x: HistogramCounts, y: HistogramCounts): HistogramCounts {
  const b: number[] = [];
  let last = 0;
  let i = 0;
  let j = 0;
  let xIndex = x.b[0] ?? Infinity;
  let yIndex = y.b[0] ?? Infinity;
  while (xIndex !== Infinity || yIndex !== Infinity) {
    const index = Math.min(xIndex, yIndex);
    let count = 0;
    if (xIndex === index) {
      count += x.b[i + 1] as number;
      i += 2;
      xIndex = i < x.b.length ? xIndex + (x.b[i] as number) : Infinity;
    }
    if (yIndex === index) {
      count += y.b[j + 1] as number;
      j += 2;
      yIndex = j < y.b.length ? yIndex + (y.b[j] as number) : Infinity;
    }
    b.push(index - last, count);
    last = index;
  }
  return {
    s: x.s,
    z: x.z + y.z,
    sum: x.sum + y.sum,
    ...rangeOf(Math.min(x.min ?? Infinity, y.min ?? Infinity), Math.max(x.max ?? 0, y.max ?? 0)),
    b,
  };
}

function rangeOf(min: number, max: number): { readonly min?: number; readonly max?: number } {
  return min === Infinity ? {} : { min, max };
}

/**
 * Rewrites a histogram at a coarser scale, for charts and for exporters that take fewer buckets. No value moves further than
 * into the bucket that it would have been counted in at once ("perfect subsetting").
 * @param by - 1 to 5.
 */
export function downscale(counts: HistogramCounts, by: number): HistogramCounts {
  const { s, b: _, ...totals } = counts;
  const coarse: { index: number; count: number }[] = [];
  for (const { index, count } of bucketsOf(counts)) {
    const into = index >> by;
    const last = coarse.at(-1);
    if (last?.index === into) last.count += count;
    else coarse.push({ index: into, count });
  }
  return encodeHistogram(coarse, totals, s - by);
}

/**
 * The value below or at which a share of all values lies, by nearest rank.
 * @param q - in [0, 1].
 * @returns within {@link VALUE_ERROR} of the true one; 0 among values that are not positive, `undefined` for nothing.
 */
export function quantileOf(counts: HistogramCounts, q: number): number | undefined {
  const total = countOf(counts);
  if (total === 0) return undefined;
  const rank = Math.max(1, Math.ceil(q * total));
  const { z, b, min = 0, max = Number.MAX_VALUE } = counts;
  if (rank <= z) return 0;
  let seen = z;
  let index = 0;
  for (let i = 0; i < b.length; i += 2) {
    index += b[i] as number;
    seen += b[i + 1] as number;
    if (seen >= rank) break;
  }
  const lower = upperEdge(index - 1);
  const upper = upperEdge(index);
  // The value whose relative error is the same at both edges.
  const middle = (2 * lower * upper) / (lower + upper);
  return Math.min(Math.max(middle, min), max);
}

/**
 * How many values are above a threshold. Values of the bucket that holds the threshold count as not above, so up to
 * 2.2 % above it may be missed; at an edge the count is exact.
 */
export function countAbove(counts: HistogramCounts, threshold: number): number {
  const holds = threshold > 0 ? bucketOfValue(Math.min(threshold, LARGEST_VALUE)) : -Infinity;
  return bucketsOf(counts).reduce((sum, { index, count }) => (index > holds ? sum + count : sum), 0);
}

/**
 * Steps of the distribution function at the buckets' edges, ascending, for charts, Kolmogorov distances and bands.
 * @returns for each step the edge and the number of values up to it; `0` as the first edge where values are not positive.
 */
export function cumulativeOf(
  counts: HistogramCounts,
): readonly { readonly upTo: number; readonly count: number }[] {
  let sum = counts.z;
  const steps = sum > 0 ? [{ upTo: 0, count: sum }] : [];
  for (const { index, count } of bucketsOf(counts)) {
    sum += count;
    steps.push({ upTo: upperEdge(index), count: sum });
  }
  return steps;
}

/** Counts values. */
export interface Histogram {
  /** Counts a value. Those up to {@link SMALLEST_VALUE}, negative ones too, have no bucket; NaN and infinite ones are ignored. */
  record(value: number): void;
  /** Adds what another one has counted, at the same scale. */
  add(counts: HistogramCounts): void;
  /** Number of values so far. */
  readonly count: number;
  /** What was counted so far. Sum and range have six digits: more than buckets tell, and fewer bytes to send. */
  snapshot(): HistogramCounts;
}

/** Creates an empty histogram. */
export function createHistogram(): Histogram {
  const buckets = new Map<number, number>();
  let zero = 0;
  let positive = 0;
  let sum = 0;
  let min = Infinity;
  let max = 0;

  const addTo = (index: number, count: number): void => {
    buckets.set(index, (buckets.get(index) ?? 0) + count);
    positive += count;
  };

  return {
    record: (value) => {
      if (!Number.isFinite(value)) return;
      const within = Math.min(value, LARGEST_VALUE);
      if (within > SMALLEST_VALUE) {
        addTo(bucketOfValue(within), 1);
        sum += within;
      } else zero += 1;
      min = Math.min(min, Math.max(within, 0));
      max = Math.max(max, within);
    },
    add: (counts) => {
      for (const { index, count } of bucketsOf(counts)) addTo(index, count);
      zero += counts.z;
      sum += counts.sum;
      min = Math.min(min, counts.min ?? Infinity);
      max = Math.max(max, counts.max ?? 0);
    },
    get count() {
      return zero + positive;
    },
    snapshot: () => {
      const ascending = [...buckets].sort(([a], [b]) => a - b).map(([index, count]) => ({ index, count }));
      return encodeHistogram(ascending, {
        z: zero,
        sum: toSixDigits(sum),
        ...rangeOf(toSixDigits(min), toSixDigits(max)),
      });
    },
  };
}

function toSixDigits(value: number): number {
  return Number(value.toPrecision(6));
}

/**
 * Checks what is said to be a histogram.
 * @returns a copy with nothing but what belongs there, or `undefined` if it is none: another scale, counts that are no
 * positive safe integers, buckets out of order or range, or a smallest and largest value that do not fit.
 */
export function readHistogram(value: unknown): HistogramCounts | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  for (const key of Object.keys(value)) if (!KEYS.has(key)) return undefined;
  const { s, z, sum, min, max, b } = value as Readonly<Record<string, unknown>>;
  if (s !== HISTOGRAM_SCALE || !isCount(z) || !isAmount(sum) || !Array.isArray(b)) return undefined;
  if (b.length % 2 !== 0) return undefined;
  let total = z;
  let index = 0;
  for (let i = 0; i < b.length; i += 2) {
    const [distance, count] = [b[i] as unknown, b[i + 1] as unknown];
    if (!Number.isSafeInteger(distance) || !isCount(count) || count === 0) return undefined;
    if (i > 0 && (distance as number) < 1) return undefined;
    index += distance as number;
    total += count;
    if (index < LOWEST_BUCKET || index > HIGHEST_BUCKET) return undefined;
  }
  if (!Number.isSafeInteger(total)) return undefined;
  const counts: HistogramCounts = { s, z, sum, b: b as number[] };
  if (total === 0) return sum === 0 && min === undefined && max === undefined ? counts : undefined;
  if (!isAmount(min) || !isAmount(max) || min > max) return undefined;
  return { ...counts, min, max };
}

const KEYS: ReadonlySet<string> = /* @__PURE__ */ new Set(['s', 'z', 'sum', 'min', 'max', 'b']);

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isAmount(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value < Infinity;
}
