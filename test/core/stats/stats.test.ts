import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addMoments,
  addValue,
  boundWidth,
  differenceOf,
  logEvidenceBelowZero,
  NO_MOMENTS,
} from '../../../src/stats/confidence-sequence.ts';
import {
  addLook,
  FAIL_RATIOS,
  logEFail,
  logEPass,
  logMeanExp,
  NO_COUNTS,
  noEvidence,
  PASS_RATIOS,
  ratioOf,
  rejectedByEBH,
  stepLogs,
  type Counts,
} from '../../../src/stats/e-process.ts';
import { devicesToVerdict } from '../../../src/stats/power.ts';
import { createRandom, drawBinomial } from '../../../src/stats/random.ts';
import { quantileBand } from '../../../src/stats/quantile-band.ts';
import { logSampleRatio } from '../../../src/stats/sample-ratio.ts';
import {
  chanceOfAtLeast,
  chiSquaredTail,
  gammaP,
  gammaQ,
  lnGamma,
  normalCdf,
  normalQuantile,
  regularizedBeta,
} from '../../../src/stats/special.ts';
import golden from './golden.json' with { type: 'json' };

const closeTo = (actual: number, expected: number, relative = 1e-11): void => {
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(relative * Math.max(Math.abs(expected), 1e-280));
};

const margins = { ratio: 2, rate: 0.01 };
const toCounts = ([treatedBad = 0, treated = 0, controlBad = 0, control = 0]: readonly number[]): Counts => ({
  treatedBad,
  treated,
  controlBad,
  control,
});

const arbitraryCounts = fc
  .tuple(fc.nat(400), fc.nat(400), fc.nat(100), fc.nat(100))
  .map(([treated, control, a, b]) => ({
    treated,
    control,
    treatedBad: Math.min(a, treated),
    controlBad: Math.min(b, control),
  }));

describe('special functions', () => {
  it('equal those of scipy', () => {
    for (const [x = 0, y = 0] of golden.lnGamma) closeTo(lnGamma(x), y, 2e-13);
    for (const [a = 0, x = 0, q = 0] of golden.gammaQ) {
      closeTo(gammaQ(a, x), q);
      expect(gammaP(a, x)).toBeCloseTo(1 - q, 12);
    }
    for (const [a = 0, b = 0, x = 0, y = 0] of golden.beta) closeTo(regularizedBeta(a, b, x), y, 1e-10);
    for (const [p = 0, x = 0] of golden.normal) expect(normalQuantile(p)).toBeCloseTo(x, 10);
    for (const [x = 0, df = 0, p = 0] of golden.chi2) closeTo(chiSquaredTail(x, df), p);
    for (const [k = 0, n = 0, p = 0, y = 0] of golden.binomialTail)
      closeTo(chanceOfAtLeast(k, n, p), y, 1e-9);
  });

  it('invert each other and end at the ends', () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-9, max: 1 - 1e-9, noNaN: true }), (p) => {
        closeTo(normalCdf(normalQuantile(p)), p, 1e-9);
      }),
    );
    expect([gammaP(2, 0), gammaQ(2, 0)]).toEqual([0, 1]);
    expect([regularizedBeta(2, 3, 0), regularizedBeta(2, 3, 1)]).toEqual([0, 1]);
  });
});

describe('an e-process', () => {
  it('has the values of an independent implementation', () => {
    let fail: readonly number[] = FAIL_RATIOS.map(() => 0);
    let pass: readonly number[] = PASS_RATIOS.map(() => 0);
    for (const [i, look] of golden.looks.entries()) {
      fail = stepLogs(fail, FAIL_RATIOS, 1, toCounts(look));
      pass = stepLogs(pass, PASS_RATIOS, 2, toCounts(look));
      expect(logMeanExp(fail)).toBeCloseTo(golden.fail[i] ?? NaN, 11);
      expect(logMeanExp(pass)).toBeCloseTo(golden.pass[i] ?? NaN, 11);
    }
    expect(golden.fail.slice(0, 3).map((log) => log.toFixed(6))).toEqual([
      '0.018654',
      '0.198748',
      '0.818587',
    ]);
  });

  it('lets control devices wait for as many treated ones as belong to them, so that those that come late count, too', () => {
    const control = { ...NO_COUNTS, control: 90, controlBad: 9 };
    const one = { ...NO_COUNTS, treated: 1, treatedBad: 1 };
    let paced = addLook(noEvidence(), { '': control }, margins, 9);
    let greedy = addLook(noEvidence(), { '': control }, margins);
    for (let look = 0; look < 10; look += 1) {
      paced = addLook(paced, { '': one }, margins, 9);
      greedy = addLook(greedy, { '': one }, margins);
    }
    expect(paced.waiting).toEqual({});
    expect(paced.total).toEqual({ treated: 10, treatedBad: 10, control: 90, controlBad: 9 });
    expect(logEFail(paced)).toBeGreaterThan(Math.log(100));
    // All of the control went with the first one, and nothing was left for the others.
    expect(logEFail(greedy)).toBeLessThan(Math.log(20));
  });

  it('starts at 1, says nothing of no devices, and waits for the other arm', () => {
    const start = noEvidence();
    expect([logEFail(start), logEPass(start)]).toEqual([0, 0]);
    expect(addLook(start, { '': NO_COUNTS }, margins)).toMatchObject({ fail: start.fail, pass: start.pass });
    const bad = { treatedBad: 30, treated: 40, controlBad: 0, control: 0 };
    const waiting = addLook(start, { a: bad }, margins);
    expect(logEFail(waiting)).toBe(0);
    expect(waiting.total).toEqual(bad);
    const met = addLook(waiting, { a: { ...NO_COUNTS, control: 400 } }, margins);
    expect(met).toMatchObject({ waiting: {} });
    expect(logEFail(met)).toBeGreaterThan(Math.log(1000));
    // Of another class: nothing to compare with.
    expect(logEFail(addLook(waiting, { b: { ...NO_COUNTS, control: 400 } }, margins))).toBe(0);
  });

  it('goes on from what was written as if it had never stopped', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ x: arbitraryCounts, y: arbitraryCounts }), { maxLength: 8 }),
        (looks) => {
          let kept = noEvidence();
          let restarted = noEvidence();
          for (const look of looks) {
            kept = addLook(kept, look, margins);
            restarted = addLook(JSON.parse(JSON.stringify(restarted)), { y: look.y, x: look.x }, margins);
          }
          expect(restarted).toEqual(kept);
          expect(Number.isFinite(logEFail(kept)) && Number.isFinite(logEPass(kept))).toBe(true);
        },
      ),
    );
  });

  it('proves a candidate harmless that is hardly ever bad, although the control never is either', () => {
    const clean = addLook(noEvidence(), { '': { ...NO_COUNTS, treated: 800, control: 800 } }, margins);
    expect(logEPass(clean)).toBeGreaterThan(Math.log(20));
    expect(logEFail(clean)).toBe(0);
    const bad = { treated: 800, control: 800, treatedBad: 24, controlBad: 8 };
    expect(logEPass(addLook(noEvidence(), { '': bad }, margins))).toBeLessThan(0);
  });

  it('estimates a ratio that is never infinite', () => {
    expect(ratioOf({ treated: 0, treatedBad: 0, control: 9, controlBad: 1 })).toBeNull();
    expect(ratioOf({ treated: 100, treatedBad: 10, control: 100, controlBad: 0 })).toBeCloseTo(21);
  });

  it('rejects the hypotheses that e-BH rejects, in any order', () => {
    expect(rejectedByEBH([Math.log(100), 0, Math.log(41)], 0.05)).toEqual([true, false, true]);
    expect(rejectedByEBH([Math.log(39), 0, Math.log(10)], 0.05)).toEqual([false, false, false]);
    expect(rejectedByEBH([], 0.05)).toEqual([]);
  });
});

describe('a confidence sequence', () => {
  it('has the half-width of the paper', () => {
    for (const [n = 0, error = 0, alpha = 0, planned = 0, width = 0] of golden.bound) {
      closeTo(boundWidth({ estimate: 0, error, n }, alpha, planned), width);
    }
  });

  it('gives the evidence at which its bound touches zero', () => {
    const error = 0.1;
    const alpha = 0.05;
    const width = boundWidth({ estimate: 0, error, n: 700 }, alpha, 500);
    expect(logEvidenceBelowZero({ estimate: -width, error, n: 700 }, alpha, 500)).toBeCloseTo(
      -Math.log(alpha),
      9,
    );
    expect(logEvidenceBelowZero({ estimate: 1, error, n: 700 }, alpha, 500)).toBeLessThan(0);
    expect(logEvidenceBelowZero({ estimate: -1000, error, n: 700 }, alpha, 500)).toBeGreaterThan(1000);
  });

  it('is of sums that add, and undefined where there is nothing to compare', () => {
    const of = (...values: number[]) => values.reduce(addValue, NO_MOMENTS);
    expect(addMoments(of(1, 2), of(3))).toEqual(of(1, 2, 3));
    expect(differenceOf(of(1, 3), of(1, 2, 3))).toMatchObject({ estimate: 0, n: 5 });
    expect(differenceOf(of(1, 3), of(2, 4), 0.5)?.estimate).toBeCloseTo(0.5);
    expect(differenceOf(of(1), of(1, 2))).toBeUndefined();
    expect(differenceOf(of(1, 1), of(2, 2))).toBeUndefined();
  });
});

describe('a quantile band', () => {
  it('narrows with the devices, and says nothing without any', () => {
    for (const [n = 0, alpha = 0, width = 0] of golden.band) closeTo(quantileBand(n, alpha), width);
    expect(quantileBand(1000)).toBeCloseTo(0.087, 2);
    expect([quantileBand(0), quantileBand(1)]).toEqual([1, 1]);
  });
});

describe('a sample ratio', () => {
  it('has the evidence of the closed form', () => {
    for (const [a = 0, b = 0, share = 0, log = 0] of golden.sampleRatio) {
      expect(logSampleRatio(a, b, share)).toBeCloseTo(log, 9);
    }
  });
});

describe('the devices that a verdict takes', () => {
  it('are those of the table in the reference', () => {
    const equal = { controlPerTreated: 1, threshold: 20, most: 40_000, runs: 400 } as const;
    const rows = [
      [{ side: 'fail', baseRate: 0.05, ratio: 2, delta: 1 }, 420],
      [{ side: 'fail', baseRate: 0.1, ratio: 3, delta: 1 }, 80],
      [{ side: 'fail', baseRate: 0.01, ratio: 3, delta: 1 }, 700],
      [{ side: 'pass', baseRate: 0.05, ratio: 1, delta: 2 }, 620],
      [{ side: 'pass', baseRate: 0.1, ratio: 1, delta: 3 }, 140],
    ] as const;
    for (const [row, median] of rows) {
      const ratio = devicesToVerdict({ ...equal, ...row }).median / median;
      expect(ratio).toBeGreaterThan(0.8);
      expect(ratio).toBeLessThan(1.2);
    }
  });

  it('come out the same again, and are infinite where the stage is too small', () => {
    const question = { side: 'fail', baseRate: 0.01, ratio: 1.5, delta: 1, controlPerTreated: 9 } as const;
    const small = { ...question, threshold: 200, most: 100, runs: 50 };
    expect(devicesToVerdict(small)).toEqual(devicesToVerdict(small));
    expect(devicesToVerdict(small)).toMatchObject({ median: Infinity, p90: Infinity });
  });

  it('are counted from binomial draws', () => {
    const random = createRandom(7);
    for (const [n, rate] of [
      [200, 0.03],
      [50, 0.9],
      [10, 0],
      [10, 1],
    ] as const) {
      const draws = Array.from({ length: 4000 }, () => drawBinomial(n, rate, random));
      const mean = draws.reduce((a, b) => a + b, 0) / draws.length;
      expect(Math.abs(mean - n * rate)).toBeLessThanOrEqual(4 * Math.sqrt((n * rate * (1 - rate)) / 4000));
      expect(draws.every((hits) => hits >= 0 && hits <= n)).toBe(true);
    }
  });
});
