import { describe, expect, it } from 'vitest';
import { createHistogram, entropyRange, percentileRange } from '../../../src/optimize/histogram.ts';

const sum = (counts: Float64Array): number => counts.reduce((total, one) => total + one, 0);
const add = (histogram: ReturnType<typeof createHistogram>, values: readonly number[]): void =>
  histogram.add(Float32Array.from(values), { min: Math.min(...values), max: Math.max(...values) });

describe('a histogram', () => {
  it('puts a value into the bin whose lower border it is, and the largest into the last', () => {
    const histogram = createHistogram({ bins: 4 });
    add(histogram, [-2, -1, 0, 1, 2]);
    expect([...histogram.edges]).toEqual([-2, -1, 0, 1, 2]);
    expect([...histogram.counts]).toEqual([1, 1, 1, 2]);
  });

  it.each([false, true])(
    'loses nothing as it widens, and stays bounded (magnitudes: %s)',
    (isOfMagnitudes) => {
      const histogram = createHistogram({ bins: 8, isOfMagnitudes });
      let total = 0;
      for (const scale of [1e-6, 1, 3, 7, 1000, 1e9, 5, 1e30]) {
        add(histogram, [-scale, 0, scale / 2, scale]);
        total += 4;
        expect(sum(histogram.counts)).toBe(total);
        expect(histogram.counts.length).toBeLessThanOrEqual(32);
        expect(histogram.edges.at(-1)).toBeGreaterThanOrEqual(Math.fround(scale) * 0.999999);
      }
      expect([...histogram.edges]).toEqual([...histogram.edges].sort((a, b) => a - b));
    },
  );

  it('keeps zeros that came before anything else', () => {
    const histogram = createHistogram({ bins: 4 });
    add(histogram, [0, 0, 0]);
    expect(percentileRange(histogram, 99, false)).toEqual({ min: 0, max: 0 });
    add(histogram, [-1, 1]);
    expect(sum(histogram.counts)).toBe(5);
  });

  it('refuses an odd number of bins', () => {
    expect(() => createHistogram({ bins: 5 })).toThrow(RangeError);
  });
});

describe('a range', () => {
  const values = Array.from({ length: 2001 }, (_, i) => (i - 1000) / 1000);

  it.each([true, false])('by percentile leaves the rarest out (magnitudes: %s)', (isOfMagnitudes) => {
    const histogram = createHistogram({ bins: 512, isOfMagnitudes });
    add(histogram, [...values, 100, -40]);
    const { min, max } = percentileRange(histogram, 99.8, isOfMagnitudes);
    expect(max).toBeLessThan(2);
    expect(min).toBeGreaterThan(-2);
  });

  it('by percentile stays within what was seen', () => {
    const histogram = createHistogram({ isOfMagnitudes: true });
    add(histogram, values.map(Math.abs));
    expect(percentileRange(histogram, 99.999, true).min).toBe(0);
  });

  it('by entropy leaves out what would cost all others their precision', () => {
    const histogram = createHistogram();
    add(histogram, [...values.flatMap((value) => [value, value / 2, value / 3]), 30]);
    const { max } = entropyRange(histogram);
    expect(max).toBeGreaterThan(0.5);
    expect(max).toBeLessThan(15);
  });

  it('by entropy keeps values that are evenly spread', () => {
    const histogram = createHistogram({ bins: 256 });
    add(histogram, values);
    expect(entropyRange(histogram).max).toBeGreaterThan(0.95);
  });
});
