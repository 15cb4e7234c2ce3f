/**
 * Gives the half-width of a band around an empirical distribution function that holds for all sample sizes at once
 * (Howard & Ramdas, arXiv 1906.09712): the quantile at `p` is between those at `p − width` and `p + width`.
 * @param n - independent values: devices rather than calls.
 * @param alpha - chance that the band is ever left. Default 0.05.
 * @returns in (0, 1]; 1 for no values, which says nothing.
 */
export function quantileBand(n: number, alpha = 0.05): number {
  if (!(n >= 1)) return 1;
  return Math.min(1, 0.85 * Math.sqrt((Math.log1p(Math.log(n)) + 0.8 * Math.log(1612 / alpha)) / n));
}
