import { lnBeta } from './special.ts';

/** E-value at which arms count as not filled as they were assigned. */
export const SAMPLE_RATIO_LIMIT = 1000;

/**
 * Gives the logarithm of the evidence that devices came to the arms in another ratio than they were assigned in: a Beta
 * mixture, centred on the assigned share, over the assigned share itself (Lindon & Malek, arXiv 2011.03567).
 * @param share - assigned share of the first arm, in (0, 1).
 */
export function logSampleRatio(first: number, second: number, share: number): number {
  // As heavy as two devices: it looks for any ratio.
  const a = 2 * share;
  const b = 2 * (1 - share);
  return lnBeta(a + first, b + second) - lnBeta(a, b) - first * Math.log(share) - second * Math.log1p(-share);
}
