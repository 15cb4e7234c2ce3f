/**
 * How far two histograms over the same bins lie apart: `a` is the reference with m values, `b` what is looked at, with n.
 * Lists of counts need not be whole numbers (counts may be scaled to an effective sample), are never negative, and have
 * the same length; what is longer is ignored. Nothing here says whether a distance is surprising; see `drift.ts`.
 */

/** Counts by bin. */
export type Counts = readonly number[];

/** Added to each bin before shares are taken, so that an empty bin has a logarithm (Jeffreys' prior). */
const SMOOTHING = 0.5;

/** Adds up counts. */
export function total(counts: Counts): number {
  return counts.reduce((sum, count) => sum + count, 0);
}

/** Shares of counts, all 0 where there are none. */
export function shares(counts: Counts): readonly number[] {
  const all = total(counts);
  return counts.map((count) => (all > 0 ? count / all : 0));
}

/**
 * Computes the population stability index Σ (q − p) ln(q / p) of shares that are smoothed by half a count per bin. Evidently
 * replaces empty shares by 0.0001 and chooses bins anew at each comparison, and Fiddler adds one count: their figures
 * differ where bins are nearly empty.
 * @returns 0 for equal shares; no upper bound.
 */
export function populationStability(a: Counts, b: Counts): number {
  const p = smoothedShares(a);
  const q = smoothedShares(b);
  return sumOver(p, q, (x, y) => (y - x) * Math.log(y / x));
}

function smoothedShares(counts: Counts): readonly number[] {
  const all = total(counts) + SMOOTHING * counts.length;
  return counts.map((count) => (count + SMOOTHING) / all);
}

/**
 * Computes the Jensen–Shannon distance: the root of the divergence, in bits (base 2, as NannyML has it; with Evidently's
 * natural logarithm it is smaller by the factor √ln 2 ≈ 0.833).
 * @returns a number in [0, 1].
 */
export function jensenShannon(a: Counts, b: Counts): number {
  const term = (x: number, middle: number): number => (x > 0 ? x * Math.log2(x / middle) : 0);
  const divergence = sumOver(shares(a), shares(b), (p, q) => {
    const middle = (p + q) / 2;
    return (term(p, middle) + term(q, middle)) / 2;
  });
  return Math.sqrt(Math.max(0, divergence));
}

/** Computes the Hellinger distance √(Σ (√p − √q)²) / √2. @returns a number in [0, 1]. */
export function hellinger(a: Counts, b: Counts): number {
  return Math.sqrt(sumOver(shares(a), shares(b), (p, q) => (Math.sqrt(p) - Math.sqrt(q)) ** 2) / 2);
}

/** Finds the largest difference of two shares. @returns a number in [0, 1]. */
export function largestDifference(a: Counts, b: Counts): number {
  const q = shares(b);
  return shares(a).reduce((most, p, i) => Math.max(most, Math.abs(p - (q[i] ?? 0))), 0);
}

/**
 * Computes the Kolmogorov–Smirnov statistic at the edges of the bins, which are in ascending order. The statistic of the
 * values themselves is at least this, and larger by no more than the largest share of one bin.
 * @returns a number in [0, 1].
 */
export function kolmogorovSmirnov(a: Counts, b: Counts): number {
  return Math.max(0, ...cumulativeDifferences(a, b));
}

/**
 * Computes the Wasserstein-1 distance of two histograms, each bin standing for its midpoint, over the standard deviation of
 * the reference. Evidently divides so as well.
 * @param edges - edges of the bins, ascending; one more than there are counts.
 * @param deviation - of the reference; taken from its bins where it is absent or not positive.
 * @returns 0 where either has no values, or the reference only one.
 */
export function wasserstein(a: Counts, b: Counts, edges: readonly number[], deviation?: number): number {
  const points = a.map((_, i) => ((edges[i] ?? 0) + (edges[i + 1] ?? 0)) / 2);
  const scale = deviation !== undefined && deviation > 0 ? deviation : deviationOf(a, points);
  if (!(scale > 0) || total(a) === 0 || total(b) === 0) return 0;
  const distance = cumulativeDifferences(a, b).reduce(
    (sum, difference, i) => sum + difference * ((points[i + 1] ?? points[i] ?? 0) - (points[i] ?? 0)),
    0,
  );
  return distance / scale;
}

/** |P − Q| at the upper edge of each bin. */
function cumulativeDifferences(a: Counts, b: Counts): readonly number[] {
  const q = shares(b);
  let difference = 0;
  return shares(a).map((p, i) => {
    difference += p - (q[i] ?? 0);
    return Math.abs(difference);
  });
}

function deviationOf(counts: Counts, points: readonly number[]): number {
  const p = shares(counts);
  const mean = sumOver(p, points, (share, x) => share * x);
  return Math.sqrt(sumOver(p, points, (share, x) => share * (x - mean) ** 2));
}

function sumOver(p: Counts, q: Counts, term: (p: number, q: number) => number): number {
  return p.reduce((sum, share, i) => sum + term(share, q[i] ?? 0), 0);
}
