import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createHistogram, type Histogram } from '../../../src/schedule/histogram.ts';

const LOWEST = 2 ** -14;
const HIGHEST = 2 ** 24;

function histogramOf(values: readonly number[]): Histogram {
  const histogram = createHistogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

/** Index of the bucket of a number, by whole numbers only: the least i with value ** 8 ≤ 2 ** (i + 1). */
function exactIndex(value: number): number {
  let exponent = 0;
  let mantissa = value;
  while (!Number.isInteger(mantissa)) {
    mantissa *= 2;
    exponent -= 1;
  }
  const power = BigInt(mantissa) ** 8n;
  return (power - 1n).toString(2).length - (power === 1n ? 1 : 0) + 8 * exponent - 1;
}

/** The number that a share `q` of all does not exceed, by sorting. */
function exactQuantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil(q * sorted.length)) - 1] as number;
}

const inRange = fc.double({ min: LOWEST, max: HIGHEST, noNaN: true, minExcluded: true });
const samples = fc.array(inRange, { minLength: 1, maxLength: 200 });

describe('a histogram', () => {
  it('counts a power of two in the bucket that ends there, and its neighbours on either side', () => {
    for (let exponent = -13; exponent < 24; exponent += 1) {
      const bound = 2 ** exponent;
      const ulp = bound * Number.EPSILON;
      for (const [value, index] of [
        [bound - ulp / 2, 8 * exponent - 1],
        [bound, 8 * exponent - 1],
        [bound + ulp, 8 * exponent],
      ] as const) {
        const [bucket] = histogramOf([value]).snapshot().buckets;
        expect(bucket?.index).toBe(index);
        expect(exactIndex(value)).toBe(index);
      }
      const [bucket] = histogramOf([bound]).snapshot().buckets;
      expect(bucket?.upTo).toBe(bound);
    }
  });

  it('puts every number into the bucket of exact arithmetic', () => {
    fc.assert(
      fc.property(inRange, (value) => {
        expect(histogramOf([value]).snapshot().buckets).toMatchObject([
          { index: exactIndex(value), count: 1 },
        ]);
      }),
      { numRuns: 2000 },
    );
  });

  it('puts numbers on both sides of every bound into neighbouring buckets', () => {
    for (let index = -14 * 8; index < 24 * 8 - 1; index += 1) {
      const bound = 2 ** ((index + 1) / 8);
      for (const [value, expected] of [
        [bound * (1 - 1e-12), index],
        [bound * (1 + 1e-12), index + 1],
      ] as const) {
        const [bucket] = histogramOf([value]).snapshot().buckets;
        expect(bucket?.index).toBe(expected);
        expect(bucket?.above).toBeLessThan(value);
        expect(bucket?.upTo).toBeGreaterThanOrEqual(value);
      }
    }
  });

  it('gives quantiles within 4.5 % of sorting', () => {
    fc.assert(
      fc.property(samples, fc.double({ min: 0, max: 1, noNaN: true }), (values, q) => {
        const exact = exactQuantile(values, q);
        expect(Math.abs(histogramOf(values).quantile(q) / exact - 1)).toBeLessThanOrEqual(0.045);
      }),
    );
  });

  it('knows count, sum, mean and extremes exactly', () => {
    fc.assert(
      fc.property(samples, (values) => {
        const histogram = histogramOf(values);
        const sum = values.reduce((total, value) => total + value, 0);
        const exact = { count: values.length, sum, min: Math.min(...values), max: Math.max(...values) };
        expect(histogram).toMatchObject({ ...exact, mean: sum / values.length });
        expect(histogram.snapshot()).toMatchObject(exact);
        expect(histogram.quantile(0)).toBeGreaterThanOrEqual(exact.min);
        expect(histogram.quantile(1)).toBe(exact.max);
      }),
    );
  });

  it('merges into what it had counted by itself', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 1000 })), fc.array(fc.nat(1000)), (a, b) => {
        const merged = histogramOf(a);
        merged.merge(histogramOf(b).snapshot());
        expect(merged.snapshot()).toEqual(histogramOf([...a, ...b]).snapshot());
      }),
    );
  });

  it('is all zero while it is empty, and again after a reset', () => {
    const histogram = histogramOf([3, 0, 5e9]);
    histogram.reset();
    for (const empty of [createHistogram(), histogram]) {
      expect(empty).toMatchObject({ count: 0, sum: 0, mean: 0, min: 0, max: 0 });
      expect(empty.quantile(0.5)).toBe(0);
      expect(empty.snapshot()).toEqual(createHistogram().snapshot());
      expect(empty.snapshot().buckets).toEqual([]);
    }
  });

  it('counts zero and less as zero, apart from the buckets', () => {
    const histogram = histogramOf([0, -0, -3, 8]);
    expect(histogram.snapshot()).toMatchObject({ count: 4, sum: 8, min: 0, max: 8, zeros: 3 });
    expect(histogram.snapshot().buckets).toHaveLength(1);
    expect(histogram.quantile(0.75)).toBe(0);
    expect(histogram.quantile(1)).toBe(8);
  });

  it('leaves out what is not finite', () => {
    expect(histogramOf([NaN, Infinity]).count).toBe(0);
    expect(histogramOf([NaN, 2, Infinity])).toMatchObject({ count: 1, sum: 2, max: 2 });
  });

  it('keeps the extremes of numbers beyond its range, which share its outermost buckets', () => {
    const histogram = histogramOf([Number.MIN_VALUE, 1e-9, 1e12, Number.MAX_VALUE / 4]);
    expect(histogram).toMatchObject({ count: 4, min: Number.MIN_VALUE, max: Number.MAX_VALUE / 4 });
    expect(histogram.snapshot().buckets.map(({ index, count }) => [index, count])).toEqual([
      [-14 * 8, 2],
      [24 * 8 - 1, 2],
    ]);
  });

  it('refuses a quantile outside [0, 1]', () => {
    for (const q of [-0.1, 1.1, NaN]) expect(() => createHistogram().quantile(q)).toThrow(RangeError);
  });
});
