import { performance } from 'node:perf_hooks';

/**
 * Times several contestants in turn, round by round, so that they share whatever else the machine does.
 * @template {string} Name
 * @param {Record<Name, () => Promise<unknown>>} contestants Each does one unit of work.
 * @param {{ rounds: number, repeats: number }} options Repeats are the units per contestant and round.
 * @returns {Promise<Record<Name, number>>} median over the rounds of microseconds per unit.
 */
export async function interleave(contestants, { rounds, repeats }) {
  const entries = Object.entries(contestants);
  const times = Object.fromEntries(entries.map(([name]) => [name, []]));
  for (let round = -1; round < rounds; round += 1) {
    for (const [name, work] of entries) {
      const started = performance.now();
      for (let i = 0; i < repeats; i += 1) await work();
      // The first round warms caches and compilers up.
      if (round >= 0) times[name].push(((performance.now() - started) * 1000) / repeats);
    }
  }
  return Object.fromEntries(entries.map(([name]) => [name, quantile(times[name], 0.5)]));
}

/** @param {readonly number[]} values @param {number} q in [0, 1] */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}
