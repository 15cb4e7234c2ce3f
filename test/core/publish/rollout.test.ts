import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { setRollout } from '../../../src/publish/rollout.ts';
import { bucketOf, decide } from '../../../src/update/decide.ts';
import type { Plan, PlanEntry } from '../../../src/update/plan.ts';
import { testPlatform } from '../platform.ts';

const platform = testPlatform();

const release = (seq: number, model = 'digits'): PlanEntry & { model: string } => ({
  model,
  path: `models/${model}/${seq}/model.onnx`,
  sha256: seq.toString(16).repeat(64),
  length: 10 + seq,
  seq,
  version: `1.${seq}.0`,
});
const entry = (seq: number): PlanEntry => {
  const { model: _, ...rest } = release(seq);
  return rest;
};

/** Applies steps to no plans; salts count up. */
const apply = (...steps: [seq: number, percent: number][]): Plan => {
  let salts = 0;
  let plans: Plan[] = [];
  for (const [seq, percent] of steps) {
    plans = setRollout(plans, release(seq), percent, () => (++salts).toString(16).padStart(16, '0'));
  }
  const [plan] = plans;
  if (!plan || plans.length > 1) throw new Error('There is one plan per model.');
  return plan;
};
const refused = expect.objectContaining({ name: 'ServerError', code: 'ERR_INLAY_REFUSED' });

describe('setRollout', () => {
  it('starts the first release with no base', () => {
    expect(apply([1, 10])).toEqual({
      id: 'r-0000000000000001',
      model: 'digits',
      state: 'ramp',
      salt: '0000000000000001',
      bp: 1000,
      base: null,
      cand: entry(1),
    });
  });

  it('raises the share within one rollout and keeps its salt', () => {
    expect(apply([1, 10], [1, 25.5])).toMatchObject({
      id: 'r-0000000000000001',
      salt: '0000000000000001',
      bp: 2550,
    });
  });

  it('completes at 100 %', () => {
    expect(apply([1, 10], [1, 100])).toMatchObject({ state: 'complete', bp: 10_000 });
  });

  it('changes nothing at the same share', () => {
    expect(apply([1, 10], [1, 10])).toEqual(apply([1, 10]));
  });

  it('refuses a falling share and says so', () => {
    expect(() => apply([1, 10], [1, 9.99])).toThrow(refused);
    expect(() => apply([1, 100], [1, 50])).toThrow(/cannot fall from 100 % to 50 %/);
  });

  it('starts the next release over the completed one', () => {
    expect(apply([1, 100], [2, 5])).toMatchObject({
      id: 'r-0000000000000002',
      base: entry(1),
      cand: entry(2),
      bp: 500,
    });
  });

  it('supersedes an open rollout and keeps its base', () => {
    expect(apply([1, 100], [2, 5], [3, 1])).toMatchObject({ base: entry(1), cand: entry(3), bp: 100 });
    expect(apply([1, 5], [2, 1])).toMatchObject({ base: null, cand: entry(2) });
  });

  it('goes back from an open rollout by naming its base', () => {
    const plan = apply([1, 100], [2, 5], [1, 100]);
    expect(plan).toMatchObject({
      id: 'r-0000000000000003',
      base: entry(1),
      cand: entry(1),
      state: 'complete',
    });
  });

  it('goes back from a completed rollout by naming an earlier release', () => {
    expect(apply([1, 100], [2, 100], [1, 50])).toMatchObject({ base: entry(2), cand: entry(1), bp: 5000 });
  });

  it('leaves other models and its input alone', () => {
    const other = setRollout([], release(1, 'faces'), 7, () => 'f'.repeat(16));
    const frozen = Object.freeze(other.map((plan) => Object.freeze(plan)));
    const plans = setRollout(frozen, release(1), 5, () => '0'.repeat(16));
    expect(plans).toHaveLength(2);
    expect(plans[0]).toBe(frozen[0]);
  });

  it.each([0, -1, 100.01, 0.001, 33.333, Number.NaN, Number.POSITIVE_INFINITY])(
    'refuses %f percent',
    (percent) => {
      expect(() => apply([1, percent])).toThrow(refused);
    },
  );

  it('takes every share of two decimals', () => {
    for (let bp = 1; bp <= 10_000; bp += 1) expect(apply([1, bp / 100]).bp).toBe(bp);
    expect(apply([1, Number('28.57')]).bp).toBe(2857);
  });

  it('refuses a malformed salt', () => {
    expect(() => setRollout([], release(1), 5, () => 'xyz')).toThrow(RangeError);
  });

  it('holds its invariants over any history', () => {
    const step = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 10_000 }));
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 15 }), (steps) => {
        let plans: Plan[] = [];
        let completed: PlanEntry | null = null;
        let salts = 0;
        for (const [seq, bp] of steps) {
          const before = plans[0];
          try {
            plans = setRollout(plans, release(seq), bp / 100, () => (++salts).toString(16).padStart(16, '0'));
          } catch (error) {
            expect(error).toEqual(refused);
            expect(before?.cand.seq).toBe(seq);
            expect(bp).toBeLessThan(before?.bp ?? 0);
            continue;
          }
          const [after] = plans;
          if (!after) throw new Error('The plan is missing.');
          expect(plans).toHaveLength(1);
          expect(after.cand).toEqual(entry(seq));
          expect(after.bp).toBe(bp);
          expect(after.state === 'complete').toBe(bp === 10_000);
          if (before?.id === after.id) {
            expect(after.bp).toBeGreaterThanOrEqual(before.bp);
            expect({ ...after, bp: 0, state: '' }).toEqual({ ...before, bp: 0, state: '' });
          } else {
            expect(after.salt).not.toBe(before?.salt);
            // Whoever is outside the share runs the last release that everybody ran.
            expect(after.base).toEqual(completed);
          }
          if (after.state === 'complete') completed = after.cand;
        }
      }),
    );
  });

  it('never takes the candidate from a device while its rollout goes on', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 1, max: 10_000 }), { minLength: 2, maxLength: 6 }),
        (shares) => {
          const rising = shares.sort((a, b) => a - b).map((bp): [number, number] => [2, bp / 100]);
          for (const unit of ['a', 'b', 'c', 'd']) {
            const seqs = rising.map(
              (_, i) => decide(platform, apply([1, 100], ...rising.slice(0, i + 1)), unit)?.seq,
            );
            expect(seqs).toEqual([...seqs].sort((a = 0, b = 0) => a - b));
            const bucket = bucketOf(platform, '0000000000000002', unit);
            expect(seqs).toEqual(rising.map(([, percent]) => (bucket < Math.round(percent * 100) ? 2 : 1)));
          }
        },
      ),
      { numRuns: 50 },
    );
  });
});
