/**
 * Randomised response over k answers (Kairouz, Oh & Viswanath 2014): what is counted is the truth only with probability
 * e^ε / (e^ε + k − 1), and each other answer with 1 / (e^ε + k − 1), so that no count tells much about one call.
 *
 * Each call is answered afresh, so the promise is ε per feature and call, and a device that makes n calls reveals up to nε.
 * Only counts of inputs are treated so: guards judge by calls, failures, times and outputs, and those stay exact.
 */

/**
 * Answers for one value.
 * @param truth - slot of the value.
 * @param slots - number of possible answers, 2 at least.
 * @param epsilon - above 0; small is private.
 * @param random - uniform in [0, 1).
 */
export function respond(truth: number, slots: number, epsilon: number, random: () => number): number {
  const { keep } = chancesOf(slots, epsilon);
  if (random() < keep) return truth;
  const other = Math.floor(random() * (slots - 1));
  return other < truth ? other : other + 1;
}

/** Shares of the true answers, as far as noised counts tell. */
export interface EstimatedShares {
  /** Unbiased, so that a rare answer may come out below 0. They add up to 1. */
  readonly shares: readonly number[];
  /** Variance of each of them, from the noise and from the sample. */
  readonly variances: readonly number[];
  /** Number of exact answers that would tell as much where all are equally frequent. */
  readonly effectiveN: number;
}

/**
 * Estimates the shares of true answers from counts that were noised at one ε: (c / n − Q) / (P − Q), with
 * P = e^ε / (e^ε + k − 1) and Q = 1 / (e^ε + k − 1).
 * @param counts - two slots at least, and one count at least.
 */
export function estimateShares(counts: readonly number[], epsilon: number): EstimatedShares {
  const { keep, each } = chancesOf(counts.length, epsilon);
  const n = counts.reduce((sum, count) => sum + count, 0);
  const scale = keep - each;
  const observed = counts.map((count) => count / n);
  return {
    shares: observed.map((share) => (share - each) / scale),
    variances: observed.map((share) => (share * (1 - share)) / (n * scale * scale)),
    effectiveN: n * scale * scale,
  };
}

function chancesOf(slots: number, epsilon: number): { readonly keep: number; readonly each: number } {
  // By e^−ε, which does not overflow.
  const odds = Math.exp(-epsilon);
  const keep = 1 / (1 + (slots - 1) * odds);
  return { keep, each: keep * odds };
}
