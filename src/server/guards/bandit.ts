/** Shares of arms that follow what is learned: Thompson's probability matching, computed rather than drawn. */

import { regularizedBeta } from '../../stats/special.ts';

/** Devices of an arm, and those that did well. */
export interface ArmReward {
  readonly arm: string;
  readonly devices: number;
  readonly good: number;
}

/** Points of the integration. */
const points = 400;
/** No arm gets less, basis points: what is never tried cannot turn out better. */
const leastBp = 500;

/**
 * Gives the chance that each arm is the best one, with a uniform prior on its share of good devices:
 * `∫ Π_{j≠i} F_j dF_i` over Beta distributions (Thompson 1933).
 */
export function chancesOfBest(arms: readonly ArmReward[]): readonly number[] {
  const tables = arms.map(({ devices, good }) =>
    Array.from({ length: points + 1 }, (_, i) => regularizedBeta(good + 1, devices - good + 1, i / points)),
  );
  return tables.map((table, arm) => {
    let chance = 0;
    for (let i = 0; i < points; i += 1) {
      let others = 1;
      for (const [j, other] of tables.entries()) {
        if (j !== arm) others *= ((other[i] ?? 0) + (other[i + 1] ?? 0)) / 2;
      }
      chance += ((table[i + 1] ?? 0) - (table[i] ?? 0)) * others;
    }
    return chance;
  });
}

/**
 * Gives the weights of the arms for devices that have not begun yet.
 * @returns basis points, in the order given, that add up to 10000.
 */
export function weightsOf(arms: readonly ArmReward[]): readonly number[] {
  const chances = chancesOfBest(arms);
  const total = chances.reduce((a, b) => a + b, 0);
  const free = 10_000 - leastBp * arms.length;
  const weights = chances.map((chance) => leastBp + Math.floor((free * chance) / total));
  const rest = 10_000 - weights.reduce((a, b) => a + b, 0);
  const best = chances.indexOf(Math.max(...chances));
  return weights.map((weight, i) => (i === best ? weight + rest : weight));
}
