/** Random numbers of a simulation: the same seed, the same fleet. */

import { createRandom } from '../../stats/random.ts';

/** Draws from one seed. */
export interface Draws {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Standard normal, by Box and Muller. */
  normal(): number;
  /** Lognormal with median 1. @param sigma - spread of the logarithm. */
  spread(sigma: number): number;
}

/** Creates the draws of a seed. */
export function createDraws(seed: number): Draws {
  const uniform = createRandom(seed);
  let spare: number | undefined;
  const normal = (): number => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
  return { uniform, normal, spread: (sigma) => Math.exp(sigma * normal()) };
}

/** Mixes a seed with a number into another seed, so that neighbours have nothing in common (finaliser of MurmurHash3). */
export function mixed(seed: number, number: number): number {
  let h = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(number + 1, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
