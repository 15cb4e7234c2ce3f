/** How long a batch takes, learned from those that ran. */

/** A learned cost as plain data, for the store. */
export interface CostRecord {
  /** Decayed sums of the weighted least squares. */
  readonly sums: readonly number[];
  /** `[samples, observations, milliseconds]` by batch size. */
  readonly sizes: readonly (readonly [number, number, number])[];
  readonly spread: number;
}

/** The affine cost τ(b) = α·b + τ0 of `b` samples, corrected where a size was seen often. */
export interface Cost {
  /** Milliseconds that a batch of `samples` takes; 0 while nothing is known. */
  predict(samples: number): number;
  /** Like {@link predict}, with a margin that runs of this kind seldom exceed. */
  predictAtMost(samples: number): number;
  /** Learns from a run. The first one of each size is left out: it pays for compilation and memory. */
  observe(samples: number, milliseconds: number): void;
  /** Runs that were seen of exactly this size. */
  observations(samples: number): number;
  /** Milliseconds per sample, and per batch. */
  line(): { readonly perSampleMs: number; readonly perBatchMs: number };
  toRecord(): CostRecord;
}

/** Share of the past that remains after each run. */
const MEMORY = 0.98;
/** Weight of the newest run of its size. */
const NEWEST = 0.2;
/** From this many runs on, without the first, a size speaks for itself. */
export const ENOUGH = 5;
/** Mean absolute deviations that a cautious prediction adds. */
const MARGIN = 2;
const SIZES_KEPT = 512;
/** Runs of other sizes after which the line knows better. */
const STALE_AFTER = 100;

interface Size {
  seen: number;
  milliseconds: number;
  /** Runs of all sizes that had been seen when this one was last. */
  at: number;
}

/** Creates a cost model, empty or as it was recorded. */
export function createCost(record?: CostRecord): Cost {
  // Σw, Σwb, Σwb², Σwt, Σwbt with w = 1/t², so that relative errors count, whatever the size.
  const sums = Float64Array.from(record?.sums.length === 5 ? record.sums : [0, 0, 0, 0, 0]);
  const sizes = new Map<number, Size>(
    record?.sizes.map(([samples, seen, milliseconds]) => [samples, { seen, milliseconds, at: 0 }]),
  );
  let runs = 0;
  /** Mean relative deviation from the prediction. */
  let spread = Math.min(1, record?.spread ?? 0);
  let perSample = 0;
  let perBatch = 0;

  const add = (sum: number, term: number): void => {
    sums[sum] = at(sum) * MEMORY + term;
  };
  const at = (sum: number): number => sums[sum] as number;
  const fit = (): void => {
    const [w, wb, wbb, wt, wbt] = [at(0), at(1), at(2), at(3), at(4)];
    if (w === 0) return;
    const determinant = w * wbb - wb * wb;
    // One size alone says nothing about the slope: then all is put on the samples.
    perSample = determinant > 1e-9 * w * wbb ? (w * wbt - wb * wt) / determinant : wt / wb;
    perBatch = (wt - perSample * wb) / w;
    if (perSample < 0) {
      perSample = 0;
      perBatch = wt / w;
    } else if (perBatch < 0) {
      perBatch = 0;
      perSample = wbt / wbb;
    }
    if (Number.isFinite(perSample + perBatch)) return;
    // A record may hold anything.
    sums.fill(0);
    perSample = 0;
    perBatch = 0;
  };
  fit();

  const predict = (samples: number): number => {
    const size = sizes.get(samples);
    return size !== undefined && size.seen > ENOUGH && runs - size.at < STALE_AFTER
      ? size.milliseconds
      : perSample * samples + perBatch;
  };

  return {
    predict,
    predictAtMost: (samples) => predict(samples) * (1 + MARGIN * spread),
    observe: (samples, milliseconds) => {
      const took = Math.max(milliseconds, 1e-4);
      const size = sizes.get(samples);
      runs += 1;
      if (size === undefined) {
        sizes.set(samples, { seen: 1, milliseconds: took, at: runs });
        const oldest = sizes.size > SIZES_KEPT ? sizes.keys().next() : undefined;
        if (oldest?.done === false) sizes.delete(oldest.value);
        return;
      }
      const expected = predict(samples);
      // The sizes that were not seen for longest are forgotten first.
      sizes.delete(samples);
      sizes.set(samples, size);
      size.seen += 1;
      size.at = runs;
      // A pause of the whole machine must not look like the model's own slowness.
      const counted = size.seen > ENOUGH ? Math.min(took, 4 * size.milliseconds) : took;
      size.milliseconds =
        size.seen === 2 ? counted : size.milliseconds + NEWEST * (counted - size.milliseconds);
      if (expected > 0) spread += 0.05 * (Math.min(1, Math.abs(counted - expected) / expected) - spread);
      const weight = 1 / (counted * counted);
      add(0, weight);
      add(1, weight * samples);
      add(2, weight * samples * samples);
      add(3, weight * counted);
      add(4, weight * samples * counted);
      fit();
    },
    observations: (samples) => sizes.get(samples)?.seen ?? 0,
    line: () => ({ perSampleMs: perSample, perBatchMs: perBatch }),
    toRecord: () => ({
      sums: [...sums],
      sizes: [...sizes].map(([samples, { seen, milliseconds }]) => [samples, seen, milliseconds] as const),
      spread,
    }),
  };
}
