import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  hellinger,
  jensenShannon,
  kolmogorovSmirnov,
  largestDifference,
  populationStability,
  total,
  wasserstein,
} from '../../../src/stats/distances.ts';
import {
  accuracyBound,
  accuracyEvidence,
  chiSquared,
  compare,
  discoveryLimit,
  effectiveSize,
  judge,
  kolmogorovSmirnovP,
  stabilityThreshold,
  type Drift,
} from '../../../src/stats/drift.ts';
import { chiSquaredQuantile } from '../../../src/stats/special.ts';
import golden from '../../vectors/drift.json' with { type: 'json' };

/** A generator that gives the same numbers each time (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Draws counts of a sample from shares. */
function sample(shares: readonly number[], n: number, random: () => number): number[] {
  const counts = shares.map(() => 0);
  for (let i = 0; i < n; i += 1) {
    let left = random();
    const bin = shares.findIndex((share) => (left -= share) < 0);
    const at = bin < 0 ? shares.length - 1 : bin;
    counts[at] = (counts[at] ?? 0) + 1;
  }
  return counts;
}

const counts = fc.array(fc.nat({ max: 1000 }), { minLength: 2, maxLength: 20 });
const pair = counts.chain((a) =>
  fc.tuple(fc.constant(a), fc.array(fc.nat({ max: 1000 }), { minLength: a.length, maxLength: a.length })),
);

describe('distances', () => {
  it.each(golden.cases)('are those of scipy for $a.length bins', (of) => {
    expect(populationStability(of.a, of.b)).toBeCloseTo(of.psi, 10);
    expect(jensenShannon(of.a, of.b)).toBeCloseTo(of.js, 10);
    expect(hellinger(of.a, of.b)).toBeCloseTo(of.hellinger, 10);
    expect(largestDifference(of.a, of.b)).toBeCloseTo(of.linf, 10);
    expect(kolmogorovSmirnov(of.a, of.b)).toBeCloseTo(of.ks, 10);
    expect(wasserstein(of.a, of.b, of.edges, of.std)).toBeCloseTo(of.w1, 10);
    expect(stabilityThreshold(total(of.a), total(of.b), of.a.length)).toBeCloseTo(of.threshold, 10);
  });

  it('are 0 between a sample and itself, and never negative or undefined', () => {
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const edges = a.map((_, i) => i).concat(a.length);
        for (const distance of [
          populationStability,
          jensenShannon,
          hellinger,
          largestDifference,
          kolmogorovSmirnov,
        ]) {
          expect(distance(a, a)).toBeCloseTo(0, 6);
          expect(distance(a, b)).toBeGreaterThanOrEqual(0);
        }
        expect(wasserstein(a, b, edges)).toBeGreaterThanOrEqual(0);
        expect(jensenShannon(a, b)).toBeLessThanOrEqual(1 + 1e-12);
        expect(jensenShannon(a, b)).toBeCloseTo(jensenShannon(b, a), 10);
      }),
    );
  });

  it('shift as far as the values do', () => {
    const edges = [0, 1, 2, 3, 4];
    expect(wasserstein([10, 0, 0, 0], [0, 0, 10, 0], edges, 2)).toBeCloseTo(1, 12);
    expect(kolmogorovSmirnov([10, 0, 0, 0], [0, 0, 10, 0])).toBe(1);
  });
});

describe('chiSquared', () => {
  it.each(golden.cases)('is that of scipy for $a.length bins', (of) => {
    const { statistic, degrees, p } = chiSquared(of.a, of.b);
    expect(degrees).toBe(of.df);
    expect(statistic / of.chi2).toBeCloseTo(1, 9);
    expect(p).toBeCloseTo(of.chi2P, 9);
  });

  it('pools bins in which fewer than 5 are expected', () => {
    expect(chiSquared([500, 500, 2, 1], [480, 520, 1, 0]).degrees).toBe(1);
    expect(chiSquared([500, 500, 6, 6], [480, 520, 6, 6]).degrees).toBe(2 + 1);
  });

  it('has nothing to say where nothing is left to compare', () => {
    expect(chiSquared([5, 0], [7, 0])).toEqual({ statistic: 0, degrees: 0, p: 1 });
    expect(chiSquared([0, 0], [7, 9]).p).toBe(1);
  });

  it('rejects a true null as often as it says, also where the reference is the smaller sample', () => {
    const random = seeded(11);
    const shares = [0.3, 0.2, 0.2, 0.1, 0.1, 0.1];
    for (const [m, n] of [
      [200, 200],
      [100, 1000],
    ] as const) {
      const rejected = Array.from({ length: 600 }, () =>
        chiSquared(sample(shares, m, random), sample(shares, n, random)),
      ).filter(({ p }) => p < 0.05).length;
      expect(rejected / 600).toBeGreaterThan(0.025);
      expect(rejected / 600).toBeLessThan(0.08);
    }
  });
});

describe('kolmogorovSmirnovP', () => {
  it('is the exact law of scipy to 0.0014 where it is below 0.05, to 0.0033 below 0.2, and to 0.023 anywhere', () => {
    for (const [n = 0, d = 0, p = 0] of golden.kolmogorov) {
      expect(Math.abs(kolmogorovSmirnovP(d, 2 * n, 2 * n) - p)).toBeLessThan(
        p < 0.05 ? 0.0014 : p < 0.2 ? 0.0033 : 0.023,
      );
    }
  });

  it('falls as the distance grows, without a step where the series change', () => {
    let last = 1;
    for (let d = 0; d < 0.2; d += 0.0005) {
      const p = kolmogorovSmirnovP(d, 1000, 1000);
      expect(p).toBeLessThanOrEqual(last + 1e-12);
      expect(last - p).toBeLessThan(0.03);
      last = p;
    }
    expect(last).toBeLessThan(1e-15);
  });
});

describe('chiSquaredQuantile', () => {
  it('is that of scipy', () => {
    for (const [p = 0, df = 0, x = 0] of golden.chiSquaredQuantiles) {
      expect(chiSquaredQuantile(p, df) / x).toBeCloseTo(1, 7);
    }
  });
});

describe('compare', () => {
  const edges = [0, 1, 2, 3, 4];
  const reference = { counts: [2500, 2500, 2500, 2500, 0, 0] };

  it('says nothing under 200 values or 30 devices', () => {
    expect(compare(reference, { counts: [50, 50, 50, 49, 0, 0], devices: 100 }, { edges })).toBeUndefined();
    expect(
      compare(reference, { counts: [500, 500, 500, 499, 0, 0], devices: 29 }, { edges }),
    ).toBeUndefined();
    expect(compare(reference, { counts: [50, 50, 50, 50, 0, 0], devices: 30 }, { edges })).toBeDefined();
  });

  it('counts values that became null for PSI, though not for distances that need an order', () => {
    const drift = compare(reference, { counts: [150, 150, 150, 150, 400, 0], devices: 500 }, { edges });
    expect(drift?.psi).toBeGreaterThan(0.25);
    expect(drift?.ks).toBeCloseTo(0, 12);
    expect(drift?.w1).toBeCloseTo(0, 12);
  });

  it('has no order for categories', () => {
    const drift = compare(reference, { counts: [100, 100, 100, 100, 0, 0], devices: 50 }, {});
    expect(drift).toMatchObject({ ks: null, ksP: null, w1: null });
    expect(drift?.p).toBe(drift?.chi2P);
  });

  it('weighs a thousand values of one device less than those of a thousand devices', () => {
    const skewed = [320, 270, 220, 190, 0, 0];
    const many = compare(reference, { counts: skewed, devices: 1000 }, { edges });
    const few = compare(reference, { counts: skewed, devices: 30 }, { edges });
    expect(many?.psi).toBe(few?.psi);
    expect(few?.p ?? 0).toBeGreaterThan(100 * (many?.p ?? 1));
    expect(stabilityThreshold(10_000, 100, 10)).toBeCloseTo((1 / 10_000 + 1 / 100) * 21.666, 4);
    expect(effectiveSize(10_000, 100)).toBeCloseTo(10_000 / 10.9, 6);
  });
});

describe('judge', () => {
  const calm: Drift = { psi: 0.01, psiAt: 0.1, chi2P: 0.5, ks: 0.01, ksP: 0.5, js: 0.02, w1: 0.01, p: 0.5 };

  it('asks for evidence and for an effect', () => {
    const verdicts = judge([
      calm,
      { ...calm, p: 1e-9 },
      { ...calm, psi: 0.4 },
      { ...calm, p: 1e-9, psi: 0.2 },
      { ...calm, p: 1e-9, psi: 0.4 },
      { ...calm, p: 1e-9, psi: 0.4, psiAt: 0.5 },
      { ...calm, p: 1e-9, w1: 0.2 },
      undefined,
    ]);
    expect(verdicts).toEqual(['none', 'none', 'none', 'warning', 'critical', 'none', 'warning', 'too-few']);
  });

  it('seldom finds drift where there is none, at any size of the sample', () => {
    const random = seeded(5);
    const shares = [0.25, 0.15, 0.15, 0.15, 0.1, 0.1, 0.05, 0.05];
    let found = 0;
    for (const n of [200, 500, 2000]) {
      for (let run = 0; run < 60; run += 1) {
        const drifts = Array.from({ length: 4 }, () => {
          const current = { counts: sample(shares, n, random), devices: n };
          return compare({ counts: sample(shares, 2000, random) }, current, {});
        });
        found += Number(judge(drifts).some((verdict) => verdict !== 'none'));
      }
    }
    expect(found).toBeLessThanOrEqual(3);
  });

  it('finds what Benjamini and Hochberg find', () => {
    expect(discoveryLimit([0.01, 0.04, 0.03, 0.005, 0.9], 0.05)).toBe(0.04);
    expect(discoveryLimit([0.02, 0.9], 0.05)).toBe(0.02);
    expect(discoveryLimit([0.04, 0.9], 0.05)).toBe(-1);
    expect(discoveryLimit([], 0.05)).toBe(-1);
  });
});

describe('accuracyEvidence', () => {
  it('is the mixture of the golden values', () => {
    for (const [right = 0, wrong = 0, accuracy = 0, log = 0] of golden.accuracy) {
      expect(accuracyEvidence(right, wrong, accuracy)).toBeCloseTo(log, 9);
    }
  });

  it('accuses a model that is as good as it says in 5 % of fleets at most, whenever one looks', () => {
    const random = seeded(3);
    let accused = 0;
    for (let run = 0; run < 300; run += 1) {
      let right = 0;
      let wrong = 0;
      let most = -Infinity;
      for (let label = 0; label < 1000; label += 1) {
        if (random() < 0.9) right += 1;
        else wrong += 1;
        if (label % 5 === 0) most = Math.max(most, accuracyEvidence(right, wrong, 0.9));
      }
      accused += Number(most >= Math.log(20));
    }
    expect(accused / 300).toBeLessThan(0.07);
  });

  it('finds 0.80 instead of 0.90 within some 70 labels, half of the time', () => {
    const random = seeded(8);
    const needed = Array.from({ length: 101 }, () => {
      let right = 0;
      let wrong = 0;
      while (accuracyEvidence(right, wrong, 0.9) < Math.log(20)) {
        if (random() < 0.8) right += 1;
        else wrong += 1;
      }
      return right + wrong;
    }).sort((a, b) => a - b);
    expect(needed[50]).toBeGreaterThan(45);
    expect(needed[50]).toBeLessThan(95);
  });

  it('bounds the accuracy where the evidence says so', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2000 }), fc.integer({ min: 1, max: 2000 }), (right, wrong) => {
        const bound = accuracyBound(right, wrong);
        expect(bound).toBeGreaterThan(right / (right + wrong) - 1e-9);
        fc.pre(bound < 0.999 && bound > 0.25);
        expect(accuracyEvidence(right, wrong, bound + 1e-4)).toBeGreaterThanOrEqual(Math.log(20));
        expect(accuracyEvidence(right, wrong, bound - 1e-4)).toBeLessThan(Math.log(20));
      }),
    );
    expect(accuracyBound(10, 0)).toBe(1);
  });
});
