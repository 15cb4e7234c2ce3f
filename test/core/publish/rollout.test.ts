import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  changeRollout,
  noticesOf,
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

  it('refuses what the other devices run, and says how to go back to it', () => {
    for (const percent of [5, 100]) {
      expect(() => apply([1, 100], [2, 5], [1, percent])).toThrow(
        /^digits 1\.1\.0 is what the other devices run; .* `inlay rollout rollback digits`\.$/,
      );
    }
    const present = [apply([1, 100], [2, 5])];
    expect(() => setRollout(present, release(1), 5, () => 'f'.repeat(16), { channel: 'beta' })).toThrow(
      /`inlay rollout rollback digits --channel beta`/,
    );
  });

  it('completes what all devices run after a rollback', () => {
    const back = changeRollout([apply([1, 100], [2, 5])], 'digits', 'rollback', 0);
    const set = (percent: number): SignedPlan[] =>
      setRollout(back, release(1), percent, () => 'f'.repeat(16));
    expect(set(100)).toMatchObject([{ state: 'complete', cand: entry(1) }]);
    expect(() => set(10)).toThrow(
      /^digits 1\.1\.0 is what all devices run since 1\.2\.0 was rolled back; it takes no share below 100 %\.$/,
    );
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
            if (before?.cand.seq === seq) expect(bp).toBeLessThan(before.bp);
            else expect(before?.base?.seq).toBe(seq);
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
const install = '0123456789abcdef'.repeat(2);
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
    const plan = start({ allow: [install] });
    expect(plan.allow).toEqual([unitHash('0011223344556677', install)]);
    const bySite = start({ allow: ['site-1'], bucketBy: 'site' });
    const [raised] = setRollout([bySite], release(1), 20, () => 'f'.repeat(16), { deny: ['site-2'] });
    expect(raised?.deny).toEqual([unitHash('0011223344556677', 'site-2')]);
  });

  it.each(['site-1', '', install.toUpperCase(), `${install}0`])(
    'refuse %j as an install identifier',
    (id) => {
      for (const options of [{ allow: [id] }, { deny: [id] }, { allow: [id], bucketBy: 'install' }]) {
        expect(() => start(options)).toThrow(/is no install identifier; those are 32 lower-case hex digits/);
      }
    },
  );

  it('refuse a control that is larger than what is left', () => {
    expect(start({ control: 90 }).bp).toBe(1000);
    expect(() => start({ control: 90.01 })).toThrow(
      'A control of 90.01 % does not fit beside a share of 10 %; use 90 % at most.',
    );
    expect(() => setRollout([], release(1), 100, () => '0'.repeat(16), { control: 1 })).toThrow(
      /nothing is left for one/,
    );
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
    const plan = readSigned(start({ durationS: 60, deny: [install], net: { charging: true }, pollS: 100 }));
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

describe('noticesOf', () => {
  const notices = (before: SignedPlan[], seq: number, percent: number, now = noon): readonly string[] => {
    const [plan] = setRollout(before, release(seq), percent, () => 'f'.repeat(16), { now });
    return plan ? noticesOf(before[0], plan, now) : [];
  };
  const open = (percent: number, durationS = 0): SignedPlan[] =>
    setRollout([apply([1, 100])], release(2), percent, () => 'a'.repeat(16), { now: noon, durationS });

  it('has nothing to say of what goes without saying', () => {
    expect(notices([], 1, 100)).toEqual([]);
    expect(notices([apply([1, 100])], 2, 5)).toEqual([]);
    expect(notices(open(20), 2, 50)).toEqual([]);
    expect(notices(changeRollout(open(20), 'digits', 'rollback', noon), 3, 5)).toEqual([]);
  });

  it('says which rollout it ends, and where that stood', () => {
    expect(notices(open(20), 3, 5)).toEqual(['It takes the place of 1.2.0, which ran on 20 %.']);
    expect(notices(open(20, 7200), 3, 5, noon + hourMs)).toEqual([
      'It takes the place of 1.2.0, which ran on 10 %.',
    ]);
    for (const [action, state] of [
      ['pause', 'paused'],
      ['halt', 'halted'],
    ] as const) {
      const stopped = changeRollout(open(20, 7200), 'digits', action, noon + hourMs);
      expect(notices(stopped, 3, 5, noon + 10 * hourMs)).toEqual([
        `It takes the place of 1.2.0, which was ${state} at 10 %.`,
      ]);
    }
  });

  it('says that it goes back', () => {
    expect(notices([apply([1, 100], [2, 100])], 1, 50)).toEqual([
      'This goes back: 1.1.0 was published before 1.2.0.',
    ]);
    expect(notices([apply([1, 100], [3, 20])], 2, 50)).toEqual([
      'It takes the place of 1.3.0, which ran on 20 %.',
      'This goes back: 1.2.0 was published before 1.3.0.',
    ]);
  });

  it('says that a first release leaves the other devices without a model', () => {
    const first = [
      'It is the first release here: the other devices have no model, unless the app brings one.',
    ];
    expect(notices([], 1, 10)).toEqual(first);
    expect(notices([apply([1, 10])], 1, 20)).toEqual(first);
    expect(notices([apply([1, 10])], 1, 100)).toEqual([]);
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
