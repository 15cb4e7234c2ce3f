import { performance } from 'node:perf_hooks';

/**
 * Times several contestants in turn, round by round, so that they share whatever else the machine does.
 * @template {string} Name
 * @param {Record<Name, () => Promise<unknown>>} contestants Each does one unit of work.
 * @param {{ rounds: number, repeats: number }} options Repeats are the units per contestant and round.
 * @returns {Promise<Record<Name, number[]>>} for each round, the median of its units in microseconds.
 */
export async function interleave(contestants, { rounds, repeats }) {
  const entries = Object.entries(contestants);
  const results = Object.fromEntries(entries.map(([name]) => [name, []]));
  const times = new Float64Array(repeats);
  for (let round = -1; round < rounds; round += 1) {
    for (const [name, work] of entries) {
      for (let i = 0; i < repeats; i += 1) {
        const started = performance.now();
        await work();
        times[i] = (performance.now() - started) * 1000;
      }
      // The first round warms caches and compilers up.
      if (round >= 0) results[name].push(median(times));
    }
  }
  return results;
}

/** Median. @param {readonly number[]} values */
export function median(values) {
  return quantile(values, 0.5);
}

/** Median of what `b` takes longer than `a`, round by round, so that a slow moment counts for both. */
export function added(a, b) {
  return median(b.map((value, round) => value - a[round]));
}

/** @param {readonly number[]} values @param {number} q in [0, 1] */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}
