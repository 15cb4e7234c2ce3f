import { lnBeta } from './special.ts';

/** Devices of an arm, and those of them that are meant. */
export interface Share {
  readonly n: number;
  readonly hits: number;
}

/**
 * Gives the logarithm of the evidence that two arms have different shares, valid at every look and however the arms grow:
 * uniform mixtures over the share of each, over the highest likelihood of one share for both (universal inference, Wasserman,
 * Ramdas & Balakrishnan, arXiv 1912.11436).
 */
export function logShareDifference(a: Share, b: Share): number {
  const hits = a.hits + b.hits;
  return (
    mixture(a) + mixture(b) - hits * ln(hits, a.n + b.n) - missesOf(a, b) * ln(missesOf(a, b), a.n + b.n)
  );
}

function mixture({ n, hits }: Share): number {
  return lnBeta(1 + hits, 1 + n - hits);
}

function missesOf(a: Share, b: Share): number {
  return a.n + b.n - a.hits - b.hits;
}

/** `0 · ln 0` is 0. */
function ln(part: number, whole: number): number {
  return part === 0 ? 0 : Math.log(part / whole);
}
