/**
 * Asymptotic confidence sequences for differences of means (Waudby-Smith et al., arXiv 2103.06476): bounds that hold at
 * every look, once there are enough devices for the central limit theorem.
 */

/** Sums over the devices of one arm. They add. */
export interface Moments {
  readonly n: number;
  readonly sum: number;
  readonly squares: number;
}

/** Difference of two means, with what it takes to say how sure it is. */
export interface Difference {
  readonly estimate: number;
  /** Standard error of the estimate. */
  readonly error: number;
  /** Devices of both arms. */
  readonly n: number;
}

/** No devices. */
export const NO_MOMENTS: Moments = { n: 0, sum: 0, squares: 0 };

/** Takes one device in. */
export function addValue({ n, sum, squares }: Moments, value: number): Moments {
  return { n: n + 1, sum: sum + value, squares: squares + value * value };
}

/** Adds the devices of two looks or two arms. */
export function addMoments(a: Moments, b: Moments): Moments {
  return { n: a.n + b.n, sum: a.sum + b.sum, squares: a.squares + b.squares };
}

/**
 * Compares the mean of the candidate with a share of that of the control.
 * @param share - 1 for the plain difference.
 * @returns `undefined` while an arm has fewer than two devices, or all of them say the same.
 */
export function differenceOf(treated: Moments, control: Moments, share = 1): Difference | undefined {
  if (treated.n < 2 || control.n < 2) return undefined;
  const variance = varianceOf(treated) / treated.n + (share * share * varianceOf(control)) / control.n;
  if (!(variance > 0)) return undefined;
  return {
    estimate: treated.sum / treated.n - (share * control.sum) / control.n,
    error: Math.sqrt(variance),
    n: treated.n + control.n,
  };
}

/**
 * Gives the one-sided half-width: with a chance of `1 − alpha` the true difference never leaves
 * `estimate ± boundWidth`, on that side, at any look.
 * @param planned - number of devices at which the bound is tightest.
 */
export function boundWidth({ error, n }: Difference, alpha: number, planned: number): number {
  const { scaled, root } = scaleOf(n, planned, alpha);
  return error * Math.sqrt((2 * (scaled + 1) * Math.log1p(root / (2 * alpha))) / scaled);
}

/**
 * Gives the logarithm of the evidence that the true difference is below 0: of `1/α` for the α at which the upper bound
 * touches 0. It has a meaning from `alpha` downwards, for which the bound is tuned.
 */
export function logEvidenceBelowZero(
  { estimate, error, n }: Difference,
  alpha: number,
  planned: number,
): number {
  const { scaled, root } = scaleOf(n, planned, alpha);
  if (estimate >= 0) return -Math.log(root);
  const exponent = ((estimate / error) ** 2 * scaled) / (2 * (scaled + 1));
  // ln(e^x − 1) without overflow.
  const grown = exponent > 30 ? exponent : Math.log(Math.expm1(Math.max(exponent, Number.MIN_VALUE)));
  return grown + Math.LN2 - Math.log(root);
}

/** `n ρ²` and its root plus one, ρ being what makes the bound tightest at the planned number. */
function scaleOf(n: number, planned: number, alpha: number): { scaled: number; root: number } {
  const log = -2 * Math.log(2 * alpha);
  const scaled = (n * (log + Math.log1p(log))) / planned;
  return { scaled, root: Math.sqrt(scaled + 1) };
}

function varianceOf({ n, sum, squares }: Moments): number {
  return Math.max(0, (squares - (sum * sum) / n) / (n - 1));
}
