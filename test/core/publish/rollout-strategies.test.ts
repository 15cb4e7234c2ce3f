/** What the strategies make of plans: arms, shadow, pins, a begin in the future, stages. */
import { describe, expect, it } from 'vitest';
import {
  changeRollout,
  reachedBp,
  readSigned,
  setRollout,
  type RolloutOptions,
} from '../../../src/publish/rollout.ts';
import type { PlanEntry, SignedPlan } from '../../../src/update/plan.ts';

const now = Date.UTC(2030, 0, 1);
const hour = 3_600_000;
const release = (seq: number): PlanEntry & { model: string } => ({
  model: 'digits',
  path: `models/digits/${seq}/model.onnx`,
  sha256: seq.toString(16).repeat(64),
  length: 10 + seq,
  seq,
  version: `1.${seq}.0`,
});
const entry = (seq: number): PlanEntry => {
  const { model: _, ...rest } = release(seq);
  return rest;
};

/** Takes steps after 1.1.0 was completed. */
function steps(...taken: readonly [seq: number, percent: number, options?: RolloutOptions][]): SignedPlan {
  let salts = 0;
  const salt = (): string => (++salts).toString(16).padStart(16, '0');
  let plans = setRollout([], release(1), 100, salt);
  for (const [seq, percent, options] of taken)
    plans = setRollout(plans, release(seq), percent, salt, { now, ...options });
  const [plan] = plans;
  if (plan === undefined) throw new Error('There is a plan.');
  return plan;
}
const act = (plan: SignedPlan, action: Parameters<typeof changeRollout>[2]): SignedPlan => {
  const [next] = changeRollout([plan], 'digits', action, now);
  if (next === undefined) throw new Error('There is a plan.');
  return next;
};
const code = (name: string): unknown => expect.objectContaining({ code: `ERR_INLAY_${name}` });
const a = { name: 'a', entry: release(3), weightBp: 5000 };

describe('arms of a rollout', () => {
  it('share its buckets by weight, and keep those that they have when it grows', () => {
    const plan = steps([2, 10, { arms: [a] }]);
    expect(plan.arms).toEqual([{ name: 'a', entry: entry(3), ranges: [[0, 500]] }]);
    const grown = steps([2, 10, { arms: [a] }], [2, 20, { arms: [{ ...a, weightBp: 1000 }] }]);
    expect(grown).toMatchObject({
      bp: 2000,
      arms: [
        {
          ranges: [
            [0, 500],
            [1000, 1100],
          ],
        },
      ],
    });
    expect(steps([2, 10, { arms: [a] }], [2, 20]).arms?.[0]?.ranges).toEqual([
      [0, 500],
      [1000, 1500],
    ]);
  });

  it('begin side by side in a share that is reached over time', () => {
    const plan = steps([2, 8, { arms: [a], durationS: 3600 }]);
    expect(plan.arms?.[0]?.ranges).toEqual([
      [0, 100],
      [200, 300],
      [400, 500],
      [600, 700],
    ]);
  });

  it('stay through pause, resume, halt and rollback, and end with completion', () => {
    const plan = steps([2, 10, { arms: [a] }]);
    const paused = act(plan, 'pause');
    expect(
      [paused, act(paused, 'resume'), act(plan, 'halt'), act(plan, 'rollback')].map((one) => one.arms),
    ).toEqual([plan.arms, plan.arms, plan.arms, plan.arms]);
    for (const done of [act(plan, 'promote'), steps([2, 10, { arms: [a] }], [2, 100])]) {
      expect(done).toMatchObject({ state: 'complete', bp: 10_000, cand: entry(2) });
      expect(done.arms).toBeUndefined();
    }
  });

  it('over all devices complete nothing: the next base is the one before', () => {
    const plan = steps([2, 99, { arms: [a] }], [2, 100, { arms: [a], startAt: now - hour }], [4, 1]);
    expect(plan).toMatchObject({ cand: entry(4), base: entry(1) });
  });

  it('refuses an arm with another release than it had', () => {
    expect(() => steps([2, 10, { arms: [a] }], [2, 20, { arms: [{ ...a, entry: release(4) }] }])).toThrow(
      /The arm a runs 1\.3\.0 and keeps it/,
    );
  });
});

describe('the shadow of a rollout', () => {
  it('goes before any share, with a tenth of the calls', () => {
    expect(steps([2, 0, { shadow: 20 }])).toMatchObject({
      state: 'ramp',
      bp: 0,
      shadow: { bp: 2000, sampleBp: 1000 },
    });
    expect(steps([2, 0, { shadow: 20, shadowSample: 0 }]).shadow).toEqual({ bp: 2000, sampleBp: 0 });
  });

  it('stays beside a share below it, and ends where the share has reached it', () => {
    expect(steps([2, 0, { shadow: 20 }], [2, 5])).toMatchObject({ bp: 500, shadow: { bp: 2000 } });
    expect(steps([2, 0, { shadow: 20 }], [2, 20]).shadow).toBeUndefined();
    expect(steps([2, 0, { shadow: 20 }], [2, 100])).not.toHaveProperty('shadow');
    expect(steps([2, 0, { shadow: 20 }], [2, 5, { shadow: 0 }]).shadow).toBeUndefined();
    expect(act(steps([2, 0, { shadow: 20 }]), 'promote')).toMatchObject({ state: 'complete' });
  });

  it('refuses one within the share, and a share of nothing without one', () => {
    expect(() => steps([2, 20, { shadow: 20 }])).toThrow(code('REFUSED'));
    expect(() => steps([2, 0])).toThrow(code('REFUSED'));
    expect(() => steps([2, 0, { shadow: 0 }])).toThrow(code('REFUSED'));
  });
});

describe('a pin', () => {
  it('refuses other releases, says how to take it back, and lets its own rollout go on', () => {
    const pin = [2, 100, { pinned: true }] as const;
    expect(() => steps([...pin], [3, 5])).toThrow(
      /^digits is pinned to 1\.2\.0; take that back with `inlay rollout set digits 1\.2\.0 --percent 100 --unpin`\.$/,
    );
    expect(() => steps([...pin], [3, 5])).toThrow(code('CONFLICT'));
    expect(steps([...pin], [2, 100, { pinned: false }], [3, 5])).toMatchObject({ cand: entry(3) });
    expect(steps([2, 5, { pinned: true }], [2, 50])).toMatchObject({ bp: 5000, pinned: true });
  });

  it('ends with a rollback', () => {
    const back = act(steps([2, 100, { pinned: true }]), 'rollback');
    expect(setRollout([back], release(3), 5, () => 'f'.repeat(16))[0]).toMatchObject({ cand: entry(3) });
  });
});

describe('a begin in the future', () => {
  it('has the whole share begin at once then, and is not complete before', () => {
    const plan = steps([2, 100, { startAt: now + hour }]);
    expect(plan).toMatchObject({ state: 'ramp', bp: 10_000, startAt: '2030-01-01T01:00:00Z' });
    expect(plan.durationS).toBeUndefined();
    const read = readSigned(plan);
    expect([reachedBp(read, now), reachedBp(read, now + hour - 1), reachedBp(read, now + hour)]).toEqual([
      0, 0, 10_000,
    ]);
    expect(steps([2, 100, { startAt: now + hour }], [3, 5])).toMatchObject({ base: entry(1) });
    expect(steps([2, 100, { startAt: now + hour }], [3, 5, { now: now + hour }])).toMatchObject({
      base: entry(2),
    });
  });

  it('is when a share over time starts', () => {
    const plan = steps([2, 10, { startAt: now + hour, durationS: 60 }]);
    expect(plan).toMatchObject({ fromBp: 0, bp: 1000, startAt: '2030-01-01T01:00:00Z', durationS: 60 });
  });

  it('ends with promotion', () => {
    expect(act(steps([2, 100, { startAt: now + hour }]), 'promote')).not.toHaveProperty('startAt');
  });
});

describe('a stage', () => {
  it('rises, and starts anew with another rollout', () => {
    const plan = steps([2, 1, { stage: 0 }], [2, 5, { stage: 1 }]);
    expect(plan.stage).toBe(1);
    expect(steps([2, 1, { stage: 3 }], [3, 1]).stage).toBeUndefined();
    expect(() => steps([2, 1, { stage: 3 }], [2, 5, { stage: 2 }])).toThrow(code('REFUSED'));
  });
});

it('says how often devices report', () => {
  expect(steps([2, 1, { reportS: 900 }]).report).toEqual({ everyS: 900 });
  expect(() => steps([2, 1, { reportS: 5 }])).toThrow(code('REFUSED'));
});
