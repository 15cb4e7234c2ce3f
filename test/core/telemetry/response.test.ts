import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { estimateShares, respond } from '../../../src/telemetry/response.ts';
import { testPlatform } from '../platform.ts';

/** Noises n true answers. */
function noised(truth: readonly number[], n: number, epsilon: number, seed: number): number[] {
  const { random } = testPlatform({ seed });
  const counts = truth.map(() => 0);
  for (const [slot, share] of truth.entries()) {
    for (let i = 0; i < share * n; i += 1) {
      const said = respond(slot, truth.length, epsilon, random);
      counts[said] = (counts[said] as number) + 1;
    }
  }
  return counts;
}

describe('respond', () => {
  it('gives an answer that there is', () => {
    const unit = fc.double({ min: 0, max: 1 - 2 ** -53, noNaN: true });
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 66 }), fc.nat(), unit, unit, (slots, at, a, b) => {
        const draws = [a, b];
        const said = respond(at % slots, slots, 1, () => draws.shift() ?? 0);
        expect(said).toBeGreaterThanOrEqual(0);
        expect(said).toBeLessThan(slots);
      }),
    );
  });

  it('keeps the promise: no answer is more than e^ε times as likely for one truth as for another', () => {
    const epsilon = 1;
    const n = 40_000;
    const given = [0, 1, 2].map((truth) => {
      const only = [0, 0, 0];
      only[truth] = 1;
      return noised(only, n, epsilon, 3 + truth).map((count) => count / n);
    });
    for (const answer of [0, 1, 2]) {
      const likely = given.map((shares) => shares[answer] as number);
      expect(Math.max(...likely) / Math.min(...likely)).toBeLessThan(Math.E * 1.04);
    }
    // And no less than that: the noise is not more than was asked for.
    expect((given[0]?.[0] as number) / (given[1]?.[0] as number)).toBeGreaterThan(Math.E * 0.96);
  });

  it('tells the truth where ε is large', () => {
    expect(noised([0.25, 0.75], 100, 40, 1)).toEqual([25, 75]);
    expect(noised([0.25, 0.75], 100, 1000, 1)).toEqual([25, 75]);
  });
});

describe('estimateShares', () => {
  it('finds the shares again, within its own variance', () => {
    const truth = [0.5, 0.3, 0.15, 0.05];
    let off = 0;
    const rounds = 40;
    for (let seed = 1; seed <= rounds; seed += 1) {
      const { shares, variances } = estimateShares(noised(truth, 5000, 1, seed), 1);
      expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 10);
      for (const [i, share] of shares.entries())
        off += (share - (truth[i] as number)) ** 2 / (variances[i] as number);
    }
    // Squares of standardised errors are 1 on average. The sample is not drawn at random, so a little less.
    const mean = off / (rounds * truth.length);
    expect(mean).toBeGreaterThan(0.6);
    expect(mean).toBeLessThan(1.3);
  });

  it.each([
    [10, 1, 46],
    [10, 2, 6.6],
    [10, 4, 1.41],
    [3, 1, 7.5],
    [3, 2, 2.2],
    [3, 4, 1.12],
  ])(
    'has %i equally frequent answers at ε = %f vary %f times as much as exact ones',
    (k, epsilon, inflation) => {
      const n = 1000 * k;
      const { effectiveN, variances } = estimateShares(
        Array.from({ length: k }, () => 1000),
        epsilon,
      );
      expect(n / effectiveN / inflation).toBeCloseTo(1, 1);
      expect((variances[0] as number) / ((1 / k) * (1 - 1 / k)) / (1 / effectiveN)).toBeCloseTo(1, 10);
    },
  );
});
