import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bucketOfValue,
  bucketsOf,
  countAbove,
  countOf,
  createHistogram,
  cumulativeOf,
  downscale,
  EMPTY_HISTOGRAM,
  encodeHistogram,
  LARGEST_VALUE,
  mergeHistograms,
  quantileOf,
  readHistogram,
  SMALLEST_VALUE,
  upperEdge,
  VALUE_ERROR,
} from '../../../src/telemetry/histogram.ts';
import type { HistogramCounts } from '../../../src/telemetry/report.ts';

const view = new DataView(new ArrayBuffer(8));

/** The double that is so many units in the last place away. */
function away(value: number, units: bigint): number {
  view.setFloat64(0, value);
  view.setBigUint64(0, view.getBigUint64(0) + units);
  return view.getFloat64(0);
}

/**
 * The index by its definition, in integers: with v = m · 2^e, bucket i holds v if 2^i < m^32 · 2^(32e) ≤ 2^(i+1).
 */
function exactBucket(value: number): number {
  view.setFloat64(0, value);
  const bits = view.getBigUint64(0);
  const biased = Number(bits >> 52n);
  const fraction = bits & ((1n << 52n) - 1n);
  const mantissa = biased === 0 ? fraction : fraction | (1n << 52n);
  const exponent = Math.max(biased, 1) - 1075;
  const power = mantissa ** 32n;
  // For integers, ⌈log2(N)⌉ is the length of N − 1 in bits.
  const before = power - 1n;
  const hex = before.toString(16);
  const bitLength =
    before === 0n ? 0 : (hex.length - 1) * 4 + Number.parseInt(hex[0] ?? '0', 16).toString(2).length;
  return bitLength + 32 * exponent - 1;
}

function histogramOf(values: readonly number[]): HistogramCounts {
  const histogram = createHistogram();
  for (const value of values) histogram.record(value);
  return histogram.snapshot();
}

const seconds = fc.double({ min: 1e-8, max: 1e6, noNaN: true });

describe('bucketOfValue', () => {
  it('puts powers of two, and their neighbours, where the definition has them', () => {
    for (let exponent = -1074; exponent <= 1023; exponent += 1) {
      const power = 2 ** exponent;
      expect(bucketOfValue(power)).toBe(32 * exponent - 1);
      expect(bucketOfValue(away(power, 1n))).toBe(exactBucket(away(power, 1n)));
      if (exponent > -1074) expect(bucketOfValue(away(power, -1n))).toBe(exactBucket(away(power, -1n)));
    }
  });

  it('is exact within one unit in the last place of every edge', () => {
    for (const exponent of [-1022, -1000, -301, -30, -7, -1, 0, 1, 5, 20, 77, 512, 1022]) {
      for (let edge = 0; edge < 32; edge += 1) {
        const near = upperEdge(32 * exponent + edge - 1);
        for (const units of [-2n, -1n, 0n, 1n, 2n]) {
          const value = away(near, units);
          expect(bucketOfValue(value)).toBe(exactBucket(value));
        }
      }
    }
  });

  it('is exact for any double, subnormals included', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 0x7fef_ffff_ffff_ffffn }), (bits) => {
        view.setBigUint64(0, bits);
        const value = view.getFloat64(0);
        expect(bucketOfValue(value)).toBe(exactBucket(value));
      }),
      { numRuns: 3000 },
    );
    for (let bits = 1n; bits < 200n; bits += 1n) {
      const value = away(0, bits);
      expect(bucketOfValue(value)).toBe(exactBucket(value));
    }
    expect(bucketOfValue(Number.MAX_VALUE)).toBe(exactBucket(Number.MAX_VALUE));
  });

  it('gives the bucket of its own upper edge', () => {
    for (let index = -960; index < 640; index += 1) {
      expect(bucketOfValue(upperEdge(index))).toBe(index);
      expect(bucketOfValue(away(upperEdge(index), 1n))).toBe(index + 1);
    }
  });
});

describe('createHistogram', () => {
  it('counts zero, negative and tiny values apart', () => {
    const counts = histogramOf([0, -0, -3, SMALLEST_VALUE, 5e-324]);
    expect(counts).toEqual({ s: 5, z: 5, sum: 0, min: 0, max: 9.31323e-10, b: [] });
  });

  it('ignores what is no number', () => {
    expect(histogramOf([Number.NaN, Infinity, -Infinity])).toEqual(EMPTY_HISTOGRAM);
  });

  it('counts what is too large in the last bucket', () => {
    expect(histogramOf([LARGEST_VALUE, 1e300]).b).toEqual([639, 2]);
  });

  it('writes the distances between buckets', () => {
    expect(histogramOf([1, 1, 2, 2.01])).toEqual({
      s: 5,
      z: 0,
      sum: 6.01,
      min: 1,
      max: 2.01,
      b: [-1, 2, 32, 1, 1, 1],
    });
  });

  it('adds what another one has counted', () => {
    fc.assert(
      fc.property(fc.array(seconds), fc.array(seconds), (a, b) => {
        const histogram = createHistogram();
        for (const value of a) histogram.record(value);
        histogram.add(histogramOf(b));
        expect(histogram.snapshot().b).toEqual(histogramOf([...a, ...b]).b);
        expect(histogram.count).toBe(a.length + b.length);
      }),
    );
  });
});

describe('mergeHistograms', () => {
  it('gives what one histogram of all values would have counted', () => {
    const values = fc.array(fc.oneof(seconds, fc.constantFrom(0, -1, 1, 2, 4)));
    fc.assert(
      fc.property(values, values, (a, b) => {
        const merged = mergeHistograms(histogramOf(a), histogramOf(b));
        const whole = histogramOf([...a, ...b]);
        expect({ ...merged, sum: 0 }).toEqual({ ...whole, sum: 0 });
        expect(Math.abs(merged.sum - whole.sum)).toBeLessThanOrEqual(2e-5 * whole.sum);
        expect(mergeHistograms(histogramOf(b), histogramOf(a)).b).toEqual(merged.b);
      }),
    );
  });

  it('takes nothing from an empty one', () => {
    const counts = histogramOf([0.1, 0.2]);
    expect(mergeHistograms(counts, EMPTY_HISTOGRAM)).toEqual(counts);
    expect(mergeHistograms(EMPTY_HISTOGRAM, EMPTY_HISTOGRAM)).toEqual(EMPTY_HISTOGRAM);
  });
});

describe('downscale', () => {
  it('counts as a coarser histogram would have at once', () => {
    fc.assert(
      fc.property(fc.array(seconds, { minLength: 1 }), fc.integer({ min: 1, max: 5 }), (values, by) => {
        const coarse = downscale(histogramOf(values), by);
        expect(coarse.s).toBe(5 - by);
        const expected = new Map<number, number>();
        for (const value of values) {
          // Bucket i of scale s holds v if 2^i < v^(2^s) ≤ 2^(i+1); powers of two of an index are shifts.
          const index = Math.floor(exactBucket(value) / 2 ** by);
          expected.set(index, (expected.get(index) ?? 0) + 1);
        }
        expect(new Map(bucketsOf(coarse).map(({ index, count }) => [index, count]))).toEqual(expected);
        expect(countOf(coarse)).toBe(values.length);
      }),
    );
  });

  it('puts a power of two at the top of its bucket at every scale', () => {
    for (const by of [1, 2, 3, 4, 5])
      expect(downscale(histogramOf([8]), by).b).toEqual([3 * 2 ** (5 - by) - 1, 1]);
  });
});

describe('quantileOf', () => {
  it('is within its error of the true value by rank', () => {
    fc.assert(
      fc.property(
        fc.array(seconds, { minLength: 1, maxLength: 300 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, q) => {
          const ascending = [...values].sort((a, b) => a - b);
          const truth = ascending[Math.max(1, Math.ceil(q * values.length)) - 1] as number;
          const told = quantileOf(histogramOf(values), q) as number;
          // The range has six digits.
          expect(Math.abs(told - truth) / truth).toBeLessThanOrEqual(VALUE_ERROR + 6e-6);
        },
      ),
    );
  });

  it('is the value itself for one value', () => {
    expect(quantileOf(histogramOf([0.0123]), 0.5)).toBe(0.0123);
  });

  it('is zero among values that are not positive, and nothing of nothing', () => {
    expect(quantileOf(histogramOf([0, 0, 5]), 0.5)).toBe(0);
    expect(quantileOf(histogramOf([0, 0, 5]), 1)).toBe(5);
    expect(quantileOf(EMPTY_HISTOGRAM, 0.5)).toBeUndefined();
  });
});

describe('countAbove and cumulativeOf', () => {
  it('are exact at edges and count upwards', () => {
    const counts = histogramOf([0, 0.5, 1, 1.01, 2, 4, 1000]);
    expect(countAbove(counts, 1)).toBe(4);
    expect(countAbove(counts, 2)).toBe(2);
    expect(countAbove(counts, 0)).toBe(6);
    expect(countAbove(counts, 1e9)).toBe(0);
    const steps = cumulativeOf(counts);
    expect(steps[0]).toEqual({ upTo: 0, count: 1 });
    expect(steps.at(-1)?.count).toBe(7);
    expect(steps.every(({ upTo }, i) => i === 0 || upTo > (steps[i - 1]?.upTo as number))).toBe(true);
  });

  it('agree with each other', () => {
    fc.assert(
      fc.property(fc.array(seconds, { minLength: 1 }), (values) => {
        const counts = histogramOf(values);
        for (const { upTo, count } of cumulativeOf(counts)) {
          expect(countAbove(counts, upTo)).toBe(values.length - count);
        }
      }),
    );
  });
});

describe('readHistogram', () => {
  it('reads what was written', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(seconds, fc.constant(0))), (values) => {
        const counts = histogramOf(values);
        expect(readHistogram(JSON.parse(JSON.stringify(counts)))).toEqual(counts);
        expect(encodeHistogram(bucketsOf(counts), { z: counts.z, sum: counts.sum }).b).toEqual(counts.b);
      }),
    );
  });

  it.each([
    ['another scale', { s: 4 }],
    ['a key of its own', { q: 1 }],
    ['a negative count', { b: [1, -1] }],
    ['a count of nothing', { b: [1, 0] }],
    ['a fraction', { b: [1, 1.5] }],
    ['half a run', { b: [1, 1, 2] }],
    ['buckets that go back', { b: [5, 1, -1, 1] }],
    ['a bucket twice', { b: [5, 1, 0, 1] }],
    ['a bucket beyond the range', { b: [640, 1] }],
    ['a bucket below the range', { b: [-961, 1] }],
    ['more than can be counted', { b: [1, Number.MAX_SAFE_INTEGER] }],
    ['a negative sum', { sum: -1 }],
    ['no largest value', { max: undefined }],
    ['a smallest above the largest', { min: 3 }],
    ['text', { z: '1' }],
    ['values of nothing', { z: 0, b: [] }],
  ])('refuses %s', (_, change) => {
    const valid = { s: 5, z: 1, sum: 3, min: 0, max: 2, b: [-1, 1, 32, 1] };
    expect(readHistogram(valid)).toEqual(valid);
    expect(readHistogram({ ...valid, ...change })).toBeUndefined();
  });

  it('refuses anything else', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(readHistogram(value)).toBeUndefined();
      }),
    );
  });
});
