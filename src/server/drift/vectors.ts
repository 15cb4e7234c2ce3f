/** Counts of one feature out of many rows. */

import { estimateShares } from '../../telemetry/response.ts';
import type { Feature } from '../../telemetry/profile.ts';
import { total, type Counts } from '../../stats/distances.ts';
import { devicesOf, type CountRow } from '../counts.ts';

/** Counts of one feature. */
export interface FeatureCounts {
  readonly counts: Counts;
  /** Values that were counted. */
  readonly n: number;
  readonly devices: number;
}

/** Which feature of which profile. */
export interface FeatureName {
  readonly kind: 'input' | 'output';
  readonly name: string;
  /** Hash of the profile. What was counted into the bins of another is of no use here. */
  readonly hash: string;
}

/** Sums up one feature. Vectors of another length than the profile's are left out. */
export function sumFeature(rows: readonly CountRow[], feature: Feature, of: FeatureName): FeatureCounts {
  const sums = feature.counts.map(() => 0);
  const noisy = new Map<number, number[]>();
  const counted: CountRow[] = [];
  for (const row of rows) {
    let isCounted = false;
    const byProfile = of.kind === 'input' ? row.counts.x : row.counts.p;
    for (const [key, vectors] of Object.entries(byProfile ?? {})) {
      const [hash, eps] = key.split('~');
      const vector = Object.hasOwn(vectors, of.name) ? vectors[of.name] : undefined;
      if (hash !== of.hash || vector?.length !== sums.length) continue;
      const into = eps === undefined ? sums : (noisy.get(Number(eps)) ?? sums.map(() => 0));
      vector.forEach((count, i) => {
        into[i] = (into[i] ?? 0) + count;
      });
      if (eps !== undefined) noisy.set(Number(eps), into);
      isCounted = true;
    }
    if (isCounted) counted.push(row);
  }
  const estimates = [...noisy].map(([eps, counts]) => truthful(counts, eps));
  const counts = sums.map((count, i) => estimates.reduce((sum, estimate) => sum + (estimate[i] ?? 0), count));
  return { counts, n: total(counts), devices: devicesOf(counted) };
}

/** Counts that say as much about the truth as noised ones do. */
function truthful(noised: Counts, eps: number): Counts {
  if (!(eps > 0) || noised.length < 2 || total(noised) === 0) return noised.map(() => 0);
  const { shares, effectiveN } = estimateShares(noised, eps);
  const positive = shares.map((share) => Math.max(0, share));
  const all = total(positive);
  return positive.map((share) => (all > 0 ? (share / all) * effectiveN : 0));
}
