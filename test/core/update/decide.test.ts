import { describe, expect, it } from 'vitest';
import { bucketOf, decide } from '../../../src/update/decide.ts';
import type { Plan, PlanEntry } from '../../../src/update/plan.ts';
import { testPlatform } from '../platform.ts';

const platform = testPlatform();

describe('bucketOf', () => {
  // The vectors that every implementation of the bucketing reproduces.
  it.each([
    ['0011223344556677', 'install-1', 360],
    ['0011223344556677', 'install-2', 747],
    ['ffeeddccbbaa9988', 'install-1', 3656],
    ['0011223344556677', 'é-ü', 7831],
  ])('places salt %s, unit %s in bucket %i', (salt, unit, bucket) => {
    expect(bucketOf(platform, salt, unit)).toBe(bucket);
  });

  it('fills the buckets evenly', () => {
    const cells = 100;
    const units = 40_000;
    const counts = Array.from({ length: cells }, () => 0);
    for (let i = 0; i < units; i += 1) {
      const cell = Math.floor(bucketOf(platform, '0123456789abcdef', `unit-${i}`) / (10_000 / cells));
      counts[cell] = (counts[cell] ?? 0) + 1;
    }
    const expected = units / cells;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 99 degrees of freedom: 0.1 % of uniform samples lie above 148.2, and 0.1 % below 60.
    expect(chiSquare).toBeLessThan(148.2);
    expect(chiSquare).toBeGreaterThan(60);
  });

  it('places a unit anew in every rollout', () => {
    let both = 0;
    let first = 0;
    for (let i = 0; i < 20_000; i += 1) {
      if (bucketOf(platform, '0000000000000001', `unit-${i}`) >= 500) continue;
      first += 1;
      if (bucketOf(platform, '0000000000000002', `unit-${i}`) < 500) both += 1;
    }
    // Independent placements share 5 %; 1000 units give it a standard deviation of 0.7 points.
    expect(both / first).toBeGreaterThan(0.02);
    expect(both / first).toBeLessThan(0.08);
  });
});

describe('decide', () => {
  const entry = (seq: number): PlanEntry => ({
    path: `models/digits/${seq}/model.onnx`,
    sha256: '0'.repeat(64),
    length: 1,
    seq,
    version: String(seq),
  });
  const plan = (bp: number, base: PlanEntry | null): Plan => ({
    id: 'r',
    model: 'digits',
    state: bp === 10_000 ? 'complete' : 'ramp',
    salt: '0011223344556677',
    bp,
    base,
    cand: entry(2),
  });

  it('gives the candidate to buckets below the share and the base to the others', () => {
    expect(decide(platform, plan(361, entry(1)), 'install-1')?.seq).toBe(2);
    expect(decide(platform, plan(360, entry(1)), 'install-1')?.seq).toBe(1);
    expect(decide(platform, plan(0, entry(1)), 'install-1')?.seq).toBe(1);
    expect(decide(platform, plan(10_000, entry(1)), 'é-ü')?.seq).toBe(2);
  });

  it('gives nothing before the first release reaches the bucket', () => {
    expect(decide(platform, plan(360, null), 'install-1')).toBeNull();
  });
});
