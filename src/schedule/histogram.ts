/**
 * Histograms of fixed size that merge exactly: buckets are powers of 2^(1/8), as in OpenTelemetry's base-2 exponential
 * histogram of scale 3 (OpenTelemetry Metrics Data Model, "ExponentialHistogram").
 */

/** One bucket that is not empty: numbers greater than `above`, up to and including `upTo`. */
export interface Bucket {
  /** i in (2^(i/8), 2^((i+1)/8)], as OpenTelemetry counts at scale 3. */
  readonly index: number;
  readonly above: number;
  readonly upTo: number;
  readonly count: number;
}

/** The content of a {@link Histogram} as plain data. */
export interface HistogramSnapshot {
  readonly count: number;
  readonly sum: number;
  /** Exact extremes; 0 while the histogram is empty. */
  readonly min: number;
  readonly max: number;
  /** Numbers that were zero or less. */
  readonly zeros: number;
  readonly scale: typeof SCALE;
  /** Buckets that are not empty, ascending. */
  readonly buckets: readonly Bucket[];
}

/** Counts numbers by magnitude. Quantiles are off by at most 4.5 %, all other figures are exact. */
export interface Histogram {
  /**
   * Counts a number; allocates nothing. Less than zero counts as zero, since clocks may step back; what is not finite
   * is left out. Below 6.1e-5 and above 1.6e7, all share one bucket.
   */
  record(value: number): void;
  /**
   * Gives a number that at least the share `q` of all numbers does not exceed (nearest rank), 0 while it is empty.
   * @throws `RangeError` if `q` is not in [0, 1].
   */
  quantile(q: number): number;
  readonly count: number;
  readonly sum: number;
  /** 0 while it is empty, like {@link min} and {@link max}. */
  readonly mean: number;
  readonly min: number;
  readonly max: number;
  /** Adds all that another one has counted, as if it had been recorded here. */
  merge(other: HistogramSnapshot): void;
  snapshot(): HistogramSnapshot;
  /** Forgets everything. */
  reset(): void;
}

const SCALE = 3;
const PER_OCTAVE = 2 ** SCALE;
/** 2^-14 to 2^24 holds 1e-4 to 1e7: a tenth of a microsecond to three hours, where values are milliseconds. */
const LOWEST = -14 * PER_OCTAVE;
const BUCKETS = 38 * PER_OCTAVE;

/** Upper bounds; the first entry is the lower bound of all. Whole octaves are exact, as 2 ** whole numbers are. */
const BOUNDS: Float64Array = /* @__PURE__ */ Float64Array.from(
  { length: BUCKETS + 1 },
  (_, i) => 2 ** Math.floor((LOWEST + i) / PER_OCTAVE) * 2 ** ((i % PER_OCTAVE) / PER_OCTAVE),
);

/** A float32 and its bits; both are 32 bits wide, so that the order of bytes does not matter. */
const FLOAT: Float32Array = /* @__PURE__ */ new Float32Array(1);
const FLOAT_BITS: Int32Array = /* @__PURE__ */ new Int32Array(FLOAT.buffer);

/** Bucket within the octave, by the upper eight bits of the mantissa: no such slice holds two bounds. */
const WITHIN_OCTAVE: Uint8Array = /* @__PURE__ */ Uint8Array.from({ length: 256 }, (_, slice) =>
  Math.floor(Math.log2(1 + slice / 256) * PER_OCTAVE),
);

/** Where the figures stand before the counts. One array of doubles: closures would box numbers anew on each change. */
const COUNT = 0;
const ZEROS = 1;
const SUM = 2;
const MIN = 3;
const MAX = 4;
const FIRST = 5;

/** Creates an empty histogram, 2.5 kB large. */
export function createHistogram(): Histogram {
  const state = new Float64Array(FIRST + BUCKETS);
  const at = (index: number): number => state[index] as number;
  const reset = (): void => {
    state.fill(0);
    state[MIN] = Infinity;
  };
  const min = (): number => (at(COUNT) === 0 ? 0 : at(MIN));
  reset();

  return {
    record: (value) => {
      if (!(value < Infinity)) return;
      const number = value > 0 ? value : 0;
      state[COUNT] = at(COUNT) + 1;
      state[SUM] = at(SUM) + number;
      if (number < at(MIN)) state[MIN] = number;
      if (number > at(MAX)) state[MAX] = number;
      const slot = number === 0 ? ZEROS : FIRST + bucketOf(number);
      state[slot] = at(slot) + 1;
    },
    quantile: (q) => {
      if (!(q >= 0 && q <= 1))
        throw new RangeError(`A quantile is asked for by a share in [0, 1], got ${q}.`);
      const rank = Math.max(1, Math.ceil(q * at(COUNT)));
      if (rank >= at(COUNT)) return at(MAX);
      let seen = at(ZEROS);
      if (seen >= rank) return 0;
      for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
        seen += at(FIRST + bucket);
        if (seen < rank) continue;
        // The geometric middle is at most 2^(1/16) away from any number of its bucket.
        const middle = Math.sqrt((BOUNDS[bucket] as number) * (BOUNDS[bucket + 1] as number));
        return Math.min(at(MAX), Math.max(at(MIN), middle));
      }
      return 0;
    },
    get count() {
      return at(COUNT);
    },
    get sum() {
      return at(SUM);
    },
    get mean() {
      return at(COUNT) === 0 ? 0 : at(SUM) / at(COUNT);
    },
    get min() {
      return min();
    },
    get max() {
      return at(MAX);
    },
    merge: (other) => {
      if (other.count === 0) return;
      state[COUNT] = at(COUNT) + other.count;
      state[ZEROS] = at(ZEROS) + other.zeros;
      state[SUM] = at(SUM) + other.sum;
      state[MIN] = Math.min(at(MIN), other.min);
      state[MAX] = Math.max(at(MAX), other.max);
      for (const { index, count } of other.buckets) {
        const slot = FIRST + index - LOWEST;
        state[slot] = at(slot) + count;
      }
    },
    snapshot: () => {
      const buckets: Bucket[] = [];
      for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
        const count = at(FIRST + bucket);
        if (count === 0) continue;
        const [above, upTo] = [BOUNDS[bucket] as number, BOUNDS[bucket + 1] as number];
        buckets.push({ index: bucket + LOWEST, above, upTo, count });
      }
      return {
        count: at(COUNT),
        sum: at(SUM),
        min: min(),
        max: at(MAX),
        zeros: at(ZEROS),
        scale: SCALE,
        buckets,
      };
    },
    reset,
  };
}

/**
 * Bucket of a positive number. The bits of its exponent and the upper eight of its mantissa give the bucket or a
 * neighbour; the bounds decide. That takes half the time of a logarithm.
 */
function bucketOf(value: number): number {
  FLOAT[0] = value;
  const bits = FLOAT_BITS[0] as number;
  const octave = (bits >> 23) - 127;
  const guess = octave * PER_OCTAVE + (WITHIN_OCTAVE[(bits >> 15) & 255] as number) - LOWEST;
  const bucket = guess < 0 ? 0 : guess >= BUCKETS ? BUCKETS - 1 : guess;
  if (value > (BOUNDS[bucket + 1] as number)) return bucket < BUCKETS - 1 ? bucket + 1 : bucket;
  return bucket > 0 && value <= (BOUNDS[bucket] as number) ? bucket - 1 : bucket;
}
