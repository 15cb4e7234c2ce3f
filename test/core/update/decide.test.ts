import { describe, expect, it } from 'vitest';
import { bucketOf, decide, unitHash } from '../../../src/update/decide.ts';
import placed from '../../vectors/bucket.json' with { type: 'json' };
import { decideVectors } from '../../vectors/decide.ts';

describe('bucketOf and unitHash', () => {
  it.each(placed)('place salt $salt, unit $unit as published', ({ salt, unit, bucket, hash }) => {
    expect(bucketOf(salt, unit)).toBe(bucket);
    expect(unitHash(salt, unit)).toBe(hash);
  });

  it.each([
    ['0011223344556677', 'install-1', 360],
    ['0011223344556677', 'install-2', 747],
    ['ffeeddccbbaa9988', 'install-1', 3656],
    ['0011223344556677', 'é-ü', 7831],
  ])('never place salt %s, unit %s in another bucket than %i', (salt, unit, bucket) => {
    expect(bucketOf(salt, unit)).toBe(bucket);
  });

  it('fill the buckets evenly', () => {
    const cells = 100;
    const units = 40_000;
    const counts = Array.from({ length: cells }, () => 0);
    for (let i = 0; i < units; i += 1) {
      const cell = Math.floor(bucketOf('0123456789abcdef', `unit-${i}`) / (10_000 / cells));
      counts[cell] = (counts[cell] ?? 0) + 1;
    }
    const expected = units / cells;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 99 degrees of freedom: 0.1 % of uniform samples lie above 148.2, and 0.1 % below 60.
    expect(chiSquare).toBeLessThan(148.2);
    expect(chiSquare).toBeGreaterThan(60);
  });

  it('place a unit anew in every rollout', () => {
    let both = 0;
    let first = 0;
    for (let i = 0; i < 20_000; i += 1) {
      if (bucketOf('0000000000000001', `unit-${i}`) >= 500) continue;
      first += 1;
      if (bucketOf('0000000000000002', `unit-${i}`) < 500) both += 1;
    }
    // Independent placements share 5 %; 1000 units give it a standard deviation of 0.7 points.
    expect(both / first).toBeGreaterThan(0.02);
    expect(both / first).toBeLessThan(0.08);
  });
});

describe.each(decideVectors)('decide: %s', (_, vectors) => {
  it.each(vectors)('$name', ({ plan, install, now, slots, expected }) => {
    expect(decide(plan, install, now, slots)).toEqual(expected);
  });
});

describe('the vectors', () => {
  it('are many, and each has a name of its own', () => {
    const names = decideVectors.flatMap(([file, vectors]) => vectors.map(({ name }) => `${file} ${name}`));
    expect(names.length).toBeGreaterThanOrEqual(60);
    expect(new Set(names).size).toBe(names.length);
  });
});
