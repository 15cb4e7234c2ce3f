import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createCost, type Cost } from '../../../src/schedule/cost.ts';
import { seededRandom } from './virtual.ts';

/** Shows runs of random sizes up to 32 that take `perSample · b + perBatch`, give or take `noise`. */
function teach(cost: Cost, perSample: number, perBatch: number, runs: number, noise = 0): void {
  const random = seededRandom(runs);
  for (let run = 0; run < runs; run += 1) {
    const samples = 1 + Math.floor(random() * 32);
    cost.observe(samples, (perSample * samples + perBatch) * (1 + noise * (2 * random() - 1)));
  }
}

describe('cost model', () => {
  it('predicts nothing before it has seen anything', () => {
    expect(createCost().predict(8)).toBe(0);
    expect(createCost().predictAtMost(8)).toBe(0);
    expect(createCost().line()).toEqual({ perSampleMs: 0, perBatchMs: 0 });
  });

  it('finds the cost per sample and per batch of noisy runs', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 5, noNaN: true }),
        fc.double({ min: 0.1, max: 20, noNaN: true }),
        (perSample, perBatch) => {
          const cost = createCost();
          teach(cost, perSample, perBatch, 600, 0.05);
          for (const samples of [1, 4, 16, 32]) {
            const ratio = cost.predict(samples) / (perSample * samples + perBatch);
            expect(ratio).toBeGreaterThan(0.93);
            expect(ratio).toBeLessThan(1.07);
          }
          // Beyond the sizes that were seen, the line speaks.
          const ratio = cost.predict(128) / (perSample * 128 + perBatch);
          expect(ratio).toBeGreaterThan(0.7);
          expect(ratio).toBeLessThan(1.3);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('finds both parameters exactly where there is no noise', () => {
    const cost = createCost();
    teach(cost, 1, 4, 300);
    expect(cost.line().perSampleMs).toBeCloseTo(1, 6);
    expect(cost.line().perBatchMs).toBeCloseTo(4, 6);
  });

  it('has no negative parameters, whatever it sees', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 64 }), fc.double({ min: 0, max: 1e6, noNaN: true })), {
          maxLength: 80,
        }),
        (runs) => {
          const cost = createCost();
          for (const [samples, milliseconds] of runs) cost.observe(samples, milliseconds);
          const { perSampleMs, perBatchMs } = cost.line();
          expect(perSampleMs).toBeGreaterThanOrEqual(0);
          expect(perBatchMs).toBeGreaterThanOrEqual(0);
          for (const samples of [1, 7, 64, 1000]) {
            expect(cost.predict(samples)).toBeGreaterThanOrEqual(0);
            expect(cost.predict(samples)).toBeLessThan(Infinity);
            expect(cost.predictAtMost(samples)).toBeGreaterThanOrEqual(cost.predict(samples));
          }
        },
      ),
    );
  });

  it('takes the whole cost as per sample where one size alone was seen', () => {
    const cost = createCost();
    for (let run = 0; run < 20; run += 1) cost.observe(4, 8);
    expect(cost.predict(4)).toBeCloseTo(8);
    expect(cost.predict(8)).toBeCloseTo(16);
  });

  it('leaves the first run of a size out', () => {
    const cost = createCost();
    cost.observe(1, 900);
    expect(cost.predict(1)).toBe(0);
    cost.observe(1, 5);
    expect(cost.predict(1)).toBeCloseTo(5);
    expect(cost.observations(1)).toBe(2);
    expect(cost.observations(2)).toBe(0);
  });

  it('is moved by less than twice by a run a hundred times as long', () => {
    const cost = createCost();
    teach(cost, 1, 4, 400, 0.02);
    cost.observe(8, 1200);
    expect(cost.predict(8)).toBeLessThan(24);
    expect(cost.predict(9)).toBeLessThan(15);
    for (let run = 0; run < 20; run += 1) cost.observe(8, 12);
    expect(cost.predict(8)).toBeLessThan(13);
  });

  it('follows a machine that has become slower', () => {
    const cost = createCost();
    teach(cost, 1, 4, 400);
    teach(cost, 3, 12, 800);
    for (const samples of [1, 8, 32]) {
      expect(cost.predict(samples) / (3 * samples + 12)).toBeGreaterThan(0.9);
    }
  });

  it('lets a size that was seen often speak for itself', () => {
    const cost = createCost();
    teach(cost, 1, 4, 400);
    for (let run = 0; run < 40; run += 1) cost.observe(32, 20);
    expect(cost.predict(32)).toBeCloseTo(20, 0);
  });

  it('keeps a wider margin where runs differ more', () => {
    const [steady, noisy] = [createCost(), createCost()];
    teach(steady, 1, 4, 400);
    teach(noisy, 1, 4, 400, 0.5);
    expect(steady.predictAtMost(8) / steady.predict(8)).toBeLessThan(1.01);
    expect(noisy.predictAtMost(8) / noisy.predict(8)).toBeGreaterThan(1.2);
    expect(noisy.predictAtMost(8) / noisy.predict(8)).toBeLessThanOrEqual(3);
  });

  it('is the same after it was written down and read', () => {
    const cost = createCost();
    teach(cost, 0.7, 3, 200, 0.2);
    const read = createCost(JSON.parse(JSON.stringify(cost.toRecord())));
    for (let samples = 1; samples < 64; samples += 1) {
      expect(read.predict(samples)).toBeCloseTo(cost.predict(samples), 10);
      expect(read.predictAtMost(samples)).toBeCloseTo(cost.predictAtMost(samples), 10);
      expect(read.observations(samples)).toBe(cost.observations(samples));
    }
    read.observe(8, 9);
    cost.observe(8, 9);
    expect(read.line().perSampleMs).toBeCloseTo(cost.line().perSampleMs, 10);
  });

  it('starts anew where the record has another number of sums', () => {
    const cost = createCost({ sums: [1, 2, 3], sizes: [], spread: 0 });
    expect(cost.predict(4)).toBe(0);
    teach(cost, 1, 4, 300);
    expect(cost.predict(4)).toBeCloseTo(8, 3);
  });

  it('stays finite after any record that the store may hold', () => {
    const value = fc.oneof(fc.constant(0), fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }));
    const record = fc.record({
      sums: fc.array(value, { minLength: 5, maxLength: 5 }),
      sizes: fc.array(fc.tuple(fc.integer({ min: 0, max: 64 }), value, value), { maxLength: 8 }),
      spread: value,
    });
    fc.assert(
      fc.property(record, (hostile) => {
        const cost = createCost(hostile);
        for (const samples of [1, 8, 64]) expect(cost.predict(samples)).not.toBeNaN();
        teach(cost, 1, 4, 3000);
        for (const samples of [1, 8, 32]) {
          expect(cost.predict(samples)).not.toBeNaN();
          expect(cost.predict(samples)).toBeGreaterThanOrEqual(0);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('remembers a bounded number of sizes', () => {
    const cost = createCost();
    for (let samples = 1; samples <= 5000; samples += 1) cost.observe(samples, samples);
    expect(cost.toRecord().sizes.length).toBeLessThanOrEqual(512);
  });
});
