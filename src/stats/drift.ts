/**
 * Whether what a model sees and gives today differs from its reference: a verdict asks for evidence (a test's p-value) and
 * for an effect that matters, and for enough devices, so that it does not flip with the amount of data.
 */

import {
  jensenShannon,
  kolmogorovSmirnov,
  populationStability,
  total,
  wasserstein,
  type Counts,
} from './distances.ts';
import { chiSquaredQuantile, chiSquaredTail } from './special.ts';

/** Fewest values and devices for a verdict. */
export const FEWEST_VALUES = 200;
export const FEWEST_DEVICES = 30;
/** Effects that count: PSI, and Wasserstein-1 over the standard deviation. */
const EFFECT = { warningPsi: 0.1, criticalPsi: 0.25, wasserstein: 0.1 };
/** Chance that chance alone exceeds {@link stabilityThreshold}. */
const THRESHOLD_CHANCE = 0.01;
/** Fewest values that a bin is expected to have, for the chi-squared law to hold (Cochran's rule). */
const FEWEST_EXPECTED = 5;
/** Correlation of two values from one device, where nobody has measured it. */
const CORRELATION = 0.1;

/** Result of a test. */
export interface TestResult {
  readonly statistic: number;
  /** Degrees of freedom; 0 where the data leave nothing to test. */
  readonly degrees: number;
  /** Chance of such a statistic if nothing differs. */
  readonly p: number;
}

/**
 * Tests whether two samples have the same law by the two-sample chi-squared statistic Σ (√(m/n) b − √(n/m) a)² / (a + b).
 * The one-sample form, as in Evidently and whylogs, takes the reference for exact and rejects far too often when it is not
 * much larger than the other. Bins in which either sample is expected to have fewer than 5 are pooled.
 */
export function chiSquared(a: Counts, b: Counts): TestResult {
  const m = total(a);
  const n = total(b);
  const cells = m > 0 && n > 0 ? pooled(a, b, Math.min(m, n) / (m + n)) : [];
  const statistic = cells.reduce(
    (sum, [x, y]) => sum + (Math.sqrt(m / n) * y - Math.sqrt(n / m) * x) ** 2 / (x + y),
    0,
  );
  const degrees = Math.max(0, cells.length - 1);
  return { statistic, degrees, p: degrees > 0 ? chiSquaredTail(statistic, degrees) : 1 };
}

/** Pools bins until each is expected to have enough. @param share - of the smaller sample. */
function pooled(a: Counts, b: Counts, share: number): readonly (readonly [number, number])[] {
  const isLarge = ([x, y]: readonly [number, number]): boolean => share * (x + y) >= FEWEST_EXPECTED;
  const cells = a.map((x, i): readonly [number, number] => [x, b[i] ?? 0]);
  const large = cells.filter(isLarge).sort(([ax, ay], [bx, by]) => bx + by - ax - ay);
  let rest: readonly [number, number] = [0, 0];
  for (const [x, y] of cells) if (!isLarge([x, y])) rest = [rest[0] + x, rest[1] + y];
  while (rest[0] + rest[1] > 0 && !isLarge(rest)) {
    const [x, y] = large.pop() ?? [0, 0];
    if (x + y === 0) return [];
    rest = [rest[0] + x, rest[1] + y];
  }
  return rest[0] + rest[1] > 0 ? [...large, rest] : large;
}

/**
 * Finds the p-value of a two-sample Kolmogorov–Smirnov statistic by Kolmogorov's law with Stephens' correction
 * (J. R. Stat. Soc. B 32, 1970): λ = (√N + 0.12 + 0.11/√N) D with N = mn/(m + n). Against the exact law it is off
 * by 0.0014 at most where p < 0.05, by 0.0033 where p < 0.2, and by 0.023 anywhere, for N ≥ 5. With values in bins D is too small, so p is too large, never too small.
 */
export function kolmogorovSmirnovP(statistic: number, m: number, n: number): number {
  if (!(m > 0) || !(n > 0)) return 1;
  const root = Math.sqrt((m * n) / (m + n));
  const lambda = (root + 0.12 + 0.11 / root) * statistic;
  if (lambda <= 0) return 1;
  // Two series of the same function (Jacobi's identity); either needs a few terms on its side.
  return clamp(lambda < 1.18 ? 1 - lowerSeries(lambda) : upperSeries(lambda));
}

function lowerSeries(lambda: number): number {
  let sum = 0;
  for (let k = 1; k <= 7; k += 2) sum += Math.exp(-((k * Math.PI) ** 2) / (8 * lambda ** 2));
  return (Math.sqrt(2 * Math.PI) / lambda) * sum;
}

function upperSeries(lambda: number): number {
  let sum = 0;
  for (let k = 1; k <= 6; k += 1) sum += (k % 2 === 1 ? 2 : -2) * Math.exp(-2 * (k * lambda) ** 2);
  return sum;
}

/**
 * PSI from which on chance alone is no explanation: max(0.1, (1/m + 1/n) χ²₀.₉₉(B − 1)). Without drift PSI behaves like
 * (1/m + 1/n) times a chi-squared variable with B − 1 degrees of freedom.
 * @param bins - number of bins, at least 2.
 */
export function stabilityThreshold(m: number, n: number, bins: number): number {
  if (!(m > 0) || !(n > 0)) return Infinity;
  return Math.max(
    EFFECT.warningPsi,
    (1 / m + 1 / n) * chiSquaredQuantile(1 - THRESHOLD_CHANCE, Math.max(1, bins - 1)),
  );
}

/**
 * Computes how many independent values n values of devices are worth: n / (1 + (k − 1) ρ) with k values per device, the
 * design effect of cluster samples (Kish, Survey Sampling, 1965).
 * @param correlation - ρ, of two values of one device, in [0, 1]. Default 0.1.
 */
export function effectiveSize(n: number, devices: number, correlation: number = CORRELATION): number {
  return devices > 0 ? n / (1 + Math.max(0, n / devices - 1) * correlation) : 0;
}

/** A sample of one feature. */
export interface Sample {
  /** Counts by bin; of a number: the bins of `edges`, then null, then out of range. */
  readonly counts: Counts;
  /** Devices that it comes from; absent where values are independent, as in a publisher's reference. */
  readonly devices?: number;
}

/** What is known of the bins. */
export interface Bins {
  /** Ascending, of a number; absent for categories. */
  readonly edges?: readonly number[];
  /** Standard deviation of the reference. */
  readonly deviation?: number | undefined;
}

/** Distances and p-values of one feature; `null` where they do not apply. */
export interface Drift {
  readonly psi: number;
  /** What {@link Drift.psi} has to reach; see {@link stabilityThreshold}. */
  readonly psiAt: number;
  readonly chi2P: number;
  readonly ks: number | null;
  readonly ksP: number | null;
  readonly js: number;
  readonly w1: number | null;
  /** The smaller p-value, doubled where there are two (Bonferroni). */
  readonly p: number;
}

/**
 * Compares a feature with its reference, or `undefined` while there are fewer than 200 values or 30 devices. Counts of
 * devices weigh as much as their effective size; PSI and the distances are of the counts as they are. Null and out of
 * range are bins of their own for PSI, chi-squared and Jensen–Shannon, and are left out of Kolmogorov–Smirnov and Wasserstein, which
 * need an order.
 */
export function compare(reference: Sample, current: Sample, bins: Bins): Drift | undefined {
  const isEnough = ({ counts, devices = FEWEST_DEVICES }: Sample): boolean =>
    total(counts) >= FEWEST_VALUES && devices >= FEWEST_DEVICES;
  if (!isEnough(current) || (reference.devices !== undefined && !isEnough(reference))) return undefined;
  const { counts: a } = reference;
  const { counts: b } = current;
  const weighedA = weighed(reference);
  const weighedB = weighed(current);
  const chi2P = chiSquared(weighedA, weighedB).p;
  const occupied = a.filter((count, i) => count + (b[i] ?? 0) > 0).length;
  const { edges, deviation } = bins;
  const ordered = edges && inRange(a, b, edges);
  const ks = ordered ? kolmogorovSmirnov(ordered.a, ordered.b) : null;
  const ksP =
    ks === null || !edges
      ? null
      : kolmogorovSmirnovP(
          ks,
          total(weighedA.slice(0, edges.length - 1)),
          total(weighedB.slice(0, edges.length - 1)),
        );
  return {
    psi: populationStability(a, b),
    psiAt: stabilityThreshold(total(weighedA), total(weighedB), occupied),
    chi2P,
    ks,
    ksP,
    js: jensenShannon(a, b),
    w1: ordered ? wasserstein(ordered.a, ordered.b, ordered.edges, deviation) : null,
    p: ksP === null ? chi2P : clamp(2 * Math.min(chi2P, ksP)),
  };
}

/** Counts that weigh as much as so many independent values. */
function weighed({ counts, devices }: Sample): Counts {
  if (devices === undefined) return counts;
  const n = total(counts);
  const weight = n > 0 ? effectiveSize(n, devices) / n : 0;
  return counts.map((count) => count * weight);
}

function inRange(
  a: Counts,
  b: Counts,
  edges: readonly number[],
): { readonly a: Counts; readonly b: Counts; readonly edges: readonly number[] } {
  const bins = edges.length - 1;
  return { a: a.slice(0, bins), b: b.slice(0, bins), edges };
}

/** Judgement of one feature. */
export type DriftVerdict = 'none' | 'warning' | 'critical' | 'too-few';

/**
 * Judges features together: those whose p-values pass Benjamini–Hochberg and whose effect matters. PSI of 0.25 is critical,
 * PSI of 0.1 or a shift of 0.1 standard deviations a warning, each not before it exceeds what chance does.
 * @param drifts - `undefined` for features with too few values.
 * @param falseRate - share of false ones among the features found. Default 0.05.
 */
export function judge(drifts: readonly (Drift | undefined)[], falseRate = 0.05): readonly DriftVerdict[] {
  const known = drifts.filter((drift) => drift !== undefined);
  const limit = discoveryLimit(
    known.map(({ p }) => p),
    falseRate,
  );
  return drifts.map((drift) => {
    if (!drift) return 'too-few';
    if (drift.p > limit) return 'none';
    if (drift.psi >= Math.max(EFFECT.criticalPsi, drift.psiAt)) return 'critical';
    const isShifted = drift.psi >= drift.psiAt || (drift.w1 ?? 0) >= EFFECT.wasserstein;
    return isShifted ? 'warning' : 'none';
  });
}

/**
 * Finds the largest p-value that is a discovery when the share of false ones may be `falseRate` (Benjamini & Hochberg, J. R.
 * Stat. Soc. B 57, 1995).
 * @returns a number below 0 where there is none.
 */
export function discoveryLimit(ps: readonly number[], falseRate: number): number {
  const sorted = [...ps].sort((x, y) => x - y);
  return Math.max(-1, ...sorted.filter((p, i) => p <= ((i + 1) / sorted.length) * falseRate));
}

/** Shortfalls of accuracy that are looked for; the evidence is the mean over them. */
const SHORTFALLS = [0.02, 0.05, 0.1, 0.2];

/**
 * Computes the natural logarithm of the evidence against "at least `accuracy` of the answers are right", by a mixture of
 * likelihood ratios over shortfalls of 0.02 to 0.2. It is an e-process: whoever looks again and again sees it reach
 * ln 20 with a chance of 5 % at most if the accuracy holds (Ville's inequality), labels being independent.
 * @param right - labels that agree with the answer.
 * @param wrong - labels that do not.
 * @param accuracy - in (0, 1).
 */
export function accuracyEvidence(right: number, wrong: number, accuracy: number): number {
  const logs = SHORTFALLS.filter((d) => d < accuracy).map(
    (d) =>
      (right === 0 ? 0 : right * Math.log((accuracy - d) / accuracy)) +
      (wrong === 0 ? 0 : wrong * Math.log((1 - accuracy + d) / (1 - accuracy))),
  );
  if (logs.length === 0) return 0;
  const most = Math.max(...logs);
  return most === Infinity
    ? Infinity
    : most + Math.log(logs.reduce((sum, l) => sum + Math.exp(l - most), 0) / logs.length);
}

/**
 * Finds the upper end of the confidence sequence for the accuracy: every accuracy above it is refuted by {@link accuracyEvidence}.
 * @param threshold - evidence that refutes. Default 20, for 95 %.
 * @returns a number in (0, 1]; 1 while nothing is refuted.
 */
export function accuracyBound(right: number, wrong: number, threshold = 20): number {
  const isRefuted = (accuracy: number): boolean =>
    accuracyEvidence(right, wrong, accuracy) >= Math.log(threshold);
  // Evidence grows with the accuracy that is claimed.
  let low = Math.min(...SHORTFALLS);
  let high = 1 - 1e-9;
  if (wrong === 0 || !isRefuted(high)) return 1;
  for (let step = 0; step < 40; step += 1) {
    const middle = (low + high) / 2;
    if (isRefuted(middle)) high = middle;
    else low = middle;
  }
  return high;
}

function clamp(chance: number): number {
  return Math.min(1, Math.max(0, chance));
}
