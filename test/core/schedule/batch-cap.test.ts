import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createBatchCap, type BatchCap } from '../../../src/schedule/batch-cap.ts';
import { createCost } from '../../../src/schedule/cost.ts';

/** Runs full batches that take `tau`. */
function fill(
  tau: (samples: number) => number,
  limit: number,
  maxRunMs = Infinity,
): { cap: BatchCap; run(batches: number, tau?: (samples: number) => number): void } {
  const cost = createCost();
  const cap = createBatchCap(cost, limit, maxRunMs);
  return {
    cap,
    run: (batches, now = tau) => {
      for (let batch = 0; batch < batches; batch += 1) {
        const { samples } = cap;
        cost.observe(samples, now(samples));
        cap.review(samples);
      }
    },
  };
}

describe('batch cap', () => {
  it('starts at one sample', () => {
    expect(fill((b) => b, 128).cap).toMatchObject({ samples: 1, isSettled: false });
  });

  it('grows to the limit where that pays', () => {
    const { cap, run } = fill((b) => b + 100, 128);
    run(200);
    expect(cap).toMatchObject({ samples: 128, isSettled: true });
  });

  it.each([
    { fixed: 0, knee: 2 },
    { fixed: 0.2, knee: 4 },
    { fixed: 1, knee: 32 },
    { fixed: 4, knee: 128 },
  ])(
    'stops with the first doubling that gains less than 5 %, $knee where a batch costs b + $fixed',
    ({ fixed, knee }) => {
      const { cap, run } = fill((b) => b + fixed, 1024);
      run(200);
      expect(cap).toMatchObject({ samples: knee, isSettled: true });
    },
  );

  it('takes a doubling back that makes samples dearer', () => {
    const { cap, run } = fill((b) => (b <= 8 ? b + 4 : 3 * b), 128);
    run(200);
    expect(cap).toMatchObject({ samples: 8, isSettled: true });
  });

  it('does not aim at runs that take longer than they may', () => {
    const { cap, run } = fill((b) => b + 4, 128, 21);
    run(200);
    expect(cap.samples).toBe(16);
  });

  it('tries again after many full batches, and goes back when the machine has become slower there', () => {
    const { cap, run } = fill((b) => b + 10, 32);
    run(200);
    expect(cap.samples).toBe(32);
    run(3000, (b) => (b <= 16 ? b + 10 : 10 * b));
    expect(cap.samples).toBe(16);
    expect(cap.isSettled).toBe(true);
  });

  it('learns nothing from batches that were not full', () => {
    const cost = createCost();
    const cap = createBatchCap(cost, 64, Infinity, 8);
    for (let batch = 0; batch < 100; batch += 1) {
      cost.observe(2, 3);
      cap.review(2);
    }
    expect(cap).toMatchObject({ samples: 8, isSettled: false });
  });

  it.each([{ rows: 3 }, { rows: 5 }, { rows: 16 }, { rows: 100 }])(
    'grows where every call has $rows samples, so that no batch fits it exactly',
    ({ rows }) => {
      const cost = createCost();
      const cap = createBatchCap(cost, 128, Infinity);
      for (let batch = 0; batch < 300; batch += 1) {
        const samples = Math.max(1, Math.floor(cap.samples / rows)) * rows;
        cost.observe(samples, samples + 100);
        cap.review(samples);
      }
      // The largest number of doublings, or the size of one call.
      expect(cap.samples).toBeGreaterThan(64);
      expect(cap.samples).toBeLessThanOrEqual(128);
    },
  );

  it('goes on from where it was when it was written down', () => {
    const cost = createCost();
    for (let run = 0; run < 10; run += 1)
      for (const samples of [1, 16, 32]) cost.observe(samples, samples + 1);
    const cap = createBatchCap(cost, 128, Infinity, 32);
    cap.review(32);
    expect(cap).toMatchObject({ samples: 32, isSettled: true });
  });

  it('stays between one and its limit, whatever runs take', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 0, max: 500 }),
        fc.array(fc.double({ min: 0, max: 1e5, noNaN: true }), { maxLength: 200, size: 'max' }),
        (limit, start, times) => {
          const cost = createCost();
          const cap = createBatchCap(cost, limit, Infinity, start);
          for (const milliseconds of times) {
            const { samples } = cap;
            cost.observe(samples, milliseconds);
            cap.review(samples);
            expect(Number.isInteger(cap.samples)).toBe(true);
            expect(cap.samples).toBeGreaterThanOrEqual(1);
            expect(cap.samples).toBeLessThanOrEqual(limit);
          }
        },
      ),
    );
  });
});
