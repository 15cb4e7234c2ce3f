import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  changeRollout,
  reachedBp,
  readSigned,
  rolloutActions,
  setRollout,
  toSignedPlan,
  withdrawRollouts,
} from '../../../src/publish/rollout.ts';
import type { PlanEntry, SignedPlan } from '../../../src/update/plan.ts';
import { bucketOf, unitHash } from '../../../src/update/unit.ts';

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
const apply = (...steps: [seq: number, percent: number][]): SignedPlan => {
  let salts = 0;
  let plans: SignedPlan[] = [];
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
        let plans: SignedPlan[] = [];
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
            const bucket = bucketOf('0000000000000002', unit);
            const isIn = rising.map((_, i) => {
              const { salt, bp } = apply([1, 100], ...rising.slice(0, i + 1));
              return bucketOf(salt, unit) < bp;
            });
            expect(isIn).toEqual(rising.map(([, percent]) => bucket < Math.round(percent * 100)));
          }
        },
      ),
      { numRuns: 50 },
    );
  });
});

const noon = Date.parse('2026-03-01T12:00:00Z');
const hourMs = 3_600_000;
const conflict = expect.objectContaining({ name: 'ServerError', code: 'ERR_INLAY_CONFLICT' });

describe('the options of a rollout', () => {
  const start = (options: Parameters<typeof setRollout>[4]): SignedPlan => {
    const [plan] = setRollout([], release(1), 10, () => '0011223344556677', { now: noon, ...options });
    if (!plan) throw new Error('There is a plan.');
    return plan;
  };

  it('are signed only where they differ from what is usual', () => {
    const usual = start({
      control: 90,
      durationS: 0,
      rules: [],
      allow: [],
      bucketBy: 'install',
      trial: { strikes: 2 },
      net: { idle: false },
      leaseS: 0,
    });
    expect(usual).toEqual({ ...apply([1, 10]), id: usual.id, salt: usual.salt });
    expect(start({ control: 0 })).toMatchObject({ ctl: 0 });
  });

  it('name devices by hashes, anew in each rollout', () => {
    const plan = start({ allow: ['install-1'] });
    expect(plan.allow).toEqual([unitHash('0011223344556677', 'install-1')]);
  });

  it('stay as they are when the share is raised', () => {
    const plan = start({ control: 5, pollS: 60, leaseS: 120, trial: { soakS: 1 } });
    const [raised] = setRollout([plan], release(1), 20, () => 'f'.repeat(16));
    expect(raised).toEqual({ ...plan, bp: 2000 });
  });

  it('need a time for a duration', () => {
    expect(() => setRollout([], release(1), 10, () => '0'.repeat(16), { durationS: 60 })).toThrow(RangeError);
  });

  it('come back from the form in which they are signed', () => {
    const plan = readSigned(start({ durationS: 60, deny: ['x'], net: { charging: true }, pollS: 100 }));
    expect(readSigned(toSignedPlan(plan))).toEqual(plan);
  });
});

describe('changeRollout', () => {
  const ramp = setRollout([], release(1), 20, () => '0'.repeat(16), { now: noon, durationS: 36_000 });
  const change = (
    plans: readonly SignedPlan[],
    action: (typeof rolloutActions)[number],
    hours = 0,
  ): SignedPlan => {
    const [plan] = changeRollout(plans, 'digits', action, noon + hours * hourMs);
    if (!plan) throw new Error('There is a plan.');
    return plan;
  };

  it('stops a share that is being reached where it is, and lets nobody out', () => {
    for (const hours of [0, 1, 3.33, 9.99, 10, 20]) {
      const [before] = ramp;
      if (!before) throw new Error('There is a plan.');
      const paused = change(ramp, 'pause', hours);
      const reached = reachedBp(readSigned(before), noon + hours * hourMs);
      expect(readSigned(paused).fromBp).toBe(reached);
      const resumed = change([paused], 'resume', hours + 50);
      expect(reachedBp(readSigned(resumed), noon + (hours + 50) * hourMs)).toBe(reached);
      expect(reachedBp(readSigned(resumed), noon + (hours + 60) * hourMs)).toBe(2000);
    }
  });

  it('changes nothing that is already so', () => {
    const halted = change(ramp, 'halt');
    expect(change([halted], 'halt')).toBe(halted);
  });

  it('refuses what a state does not allow', () => {
    const rolledback = [change(ramp, 'rollback')];
    for (const action of rolloutActions) {
      if (action === 'rollback') continue;
      expect(() => change(rolledback, action)).toThrow(conflict);
    }
    expect(() => change([change(ramp, 'halt')], 'promote')).toThrow(conflict);
    expect(() => change([change(ramp, 'promote')], 'pause')).toThrow(conflict);
    expect(() => change([], 'pause')).toThrow(expect.objectContaining({ code: 'ERR_INLAY_NOT_FOUND' }));
  });

  it('starts a new rollout after the end, over the last that was completed', () => {
    const done = setRollout([], release(1), 100, () => '1'.repeat(16));
    const next = setRollout(done, release(2), 100, () => '2'.repeat(16));
    const back = [change(next, 'rollback')];
    expect(setRollout(back, release(2), 5, () => '3'.repeat(16))).toMatchObject([
      { id: 'r-3333333333333333', base: entry(1), cand: entry(2), state: 'ramp' },
    ]);
  });

  it('takes a share that everybody has reached for completed', () => {
    const whole = setRollout([], release(1), 100, () => '1'.repeat(16), { now: noon, durationS: 3600 });
    expect(whole).toMatchObject([{ state: 'ramp', bp: 10_000 }]);
    const next = (hours: number): SignedPlan[] =>
      setRollout(whole, release(2), 5, () => '2'.repeat(16), { now: noon + hours * hourMs });
    expect(next(0.5)).toMatchObject([{ base: null }]);
    expect(next(1)).toMatchObject([{ base: entry(1) }]);
  });
});

describe('withdrawRollouts', () => {
  it('takes back what does not count, and leaves the rest alone', () => {
    const plans = setRollout(
      setRollout([], release(1), 100, () => '1'.repeat(16)),
      release(2),
      5,
      () => '2'.repeat(16),
    );
    expect(withdrawRollouts(plans, () => true)).toEqual(plans);
    expect(withdrawRollouts(plans, ({ seq }) => seq !== 1)).toEqual(plans);
    expect(withdrawRollouts(plans, ({ seq }) => seq !== 2)).toMatchObject([
      { state: 'rolledback', base: entry(1) },
    ]);
    expect(withdrawRollouts(plans, () => false)).toMatchObject([{ state: 'rolledback', base: null }]);
  });
});
