import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TrustError } from '../../../src/core/errors.ts';
import {
  addRelease,
  createRolloutTargets,
  createTargets,
  listReleases,
} from '../../../src/publish/release.ts';
import { setRollout } from '../../../src/publish/rollout.ts';
import type { Targets } from '../../../src/trust/metadata.ts';
import { readPlan, type PlanEntry } from '../../../src/update/plan.ts';
import { isWithdrawn, policyOf, resolvePlan, type ResolvedPlan } from '../../../src/update/resolve.ts';
import { testPlatform } from '../platform.ts';

const platform = testPlatform();
const expires = '2031-01-01T00:00:00Z';
const onlineKey = {
  keyid: 'k',
  key: { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: '0'.repeat(64) } },
};

let targets = createTargets({ onlineKey, expires });
for (const n of [1, 2, 3]) {
  const sha256 = String(n).repeat(64);
  const release = { model: 'digits', version: `1.${n}.0`, file: 'm.onnx', length: n, sha256, expires };
  targets = addRelease(targets, release).targets;
}
const [one, two, three] = listReleases(targets);
if (!one || !two || !three) throw new Error('Releases are missing.');
const complete = setRollout([], one, 100, () => '0'.repeat(16));
const ramp = setRollout(complete, two, 10, () => '1'.repeat(16));
const [plan] = ramp;
if (!plan) throw new Error('The plan is missing.');

const withPlans = (plans: unknown): Targets => {
  const rollout = createRolloutTargets(platform, { version: 1, expires, channels: { stable: [] } });
  const path = 'rollout/stable.json';
  return { ...rollout, targets: { [path]: { length: 1, hashes: { sha256: '0' }, custom: { v: 1, plans } } } };
};
const resolve = (plans: unknown, model = 'digits', channel = 'stable'): ResolvedPlan | undefined =>
  resolvePlan({ targets, rollout: withPlans(plans) }, channel, model);
const resolveWith = (policy: unknown, plans: unknown): ResolvedPlan | undefined => {
  const custom = { models: { digits: policy } } as NonNullable<Targets['custom']>;
  return resolvePlan({ targets: { ...targets, custom }, rollout: withPlans(plans) }, 'stable', 'digits');
};
/** What a plan gives where nothing is withdrawn and no release asks for a version of Inlay. */
const resolved = (signed: unknown): unknown => ({
  ...readPlan(signed),
  ...{ policy: { floorSeq: 0, revoked: [] }, minSdk: {}, isCurrent: true },
});
const without = (...gone: readonly PlanEntry[]): Targets => ({
  ...targets,
  targets: Object.fromEntries(
    Object.entries(targets.targets).filter(([path]) => !gone.some((entry) => entry.path === path)),
  ),
});
const entryOf = ({ path, sha256, length, seq, version }: PlanEntry): PlanEntry => ({
  path,
  sha256,
  length,
  seq,
  version,
});
const refused = expect.objectContaining({ name: 'TrustError', code: 'ERR_INLAY_PLAN_INVALID' });
const withdrawn = expect.objectContaining({ name: 'TrustError', code: 'ERR_INLAY_WITHDRAWN' });

describe('resolvePlan', () => {
  it('finds the plan of a model', () => {
    expect(resolve(ramp)).toEqual(resolved(plan));
    expect(resolve(complete)).toEqual(resolved(complete[0]));
  });

  it('finds nothing for other models and channels, or before there is metadata', () => {
    expect(resolve(ramp, 'faces')).toBeUndefined();
    expect(resolve(ramp, 'digits', 'beta')).toBeUndefined();
    expect(resolve(ramp, 'digits', '__proto__')).toBeUndefined();
    expect(resolvePlan({ targets: undefined, rollout: undefined }, 'stable', 'digits')).toBeUndefined();
  });

  it('key compromise: a plan cannot name a file that the offline key did not sign', () => {
    const cand = { ...three, path: 'models/digits/4/m.onnx', seq: 4 };
    expect(() => resolve([{ ...plan, cand }])).toThrow(refused);
    expect(() => resolve([{ ...plan, cand: { ...three, path: '__proto__' } }])).toThrow(refused);
  });

  it('key compromise: an arm cannot name a file that the offline key did not sign', () => {
    const arm = { name: 'a', entry: entryOf(three), ranges: [[0, 10]] };
    expect(resolve([{ ...plan, arms: [arm] }])).toMatchObject({ arms: [arm] });
    for (const change of [
      { sha256: '9'.repeat(64) },
      { length: 99 },
      { seq: 1 },
      { version: '9.9.9' },
      { path: one.path },
      { path: 'models/digits/9/m.onnx' },
    ])
      expect(() => resolve([{ ...plan, arms: [{ ...arm, entry: { ...arm.entry, ...change } }] }])).toThrow(
        refused,
      );
  });

  it('keeps the other arms when the release of one is withdrawn, or gone after that', () => {
    const arms = [{ name: 'a', entry: entryOf(three), ranges: [[0, 10]] }];
    expect(resolveWith({ revoked: [3] }, [{ ...plan, arms }])).toMatchObject({ arms });
    const rollout = withPlans([{ ...plan, arms }]);
    const gone = without(three);
    expect(() => resolvePlan({ targets: gone, rollout }, 'stable', 'digits')).toThrow(refused);
    const custom = { models: { digits: { revoked: [3] } } };
    expect(resolvePlan({ targets: { ...gone, custom }, rollout }, 'stable', 'digits')).toMatchObject({
      arms,
    });
  });

  it('finds the lowest version of Inlay of each arm', () => {
    const target = targets.targets[three.path];
    if (!target) throw new Error('The release is missing.');
    const listed = {
      ...targets.targets,
      [three.path]: { ...target, custom: { ...target.custom, minSdk: '0.9.0' } },
    };
    const rollout = withPlans([{ ...plan, arms: [{ name: 'a', entry: entryOf(three), ranges: [] }] }]);
    const found = resolvePlan({ targets: { ...targets, targets: listed }, rollout }, 'stable', 'digits');
    expect(found?.minSdk).toEqual({ arms: { a: '0.9.0' } });
  });

  it.each([
    ['hash', { sha256: '9'.repeat(64) }],
    ['length', { length: 99 }],
    ['seq', { seq: 1 }],
    ['version', { version: '9.9.9' }],
    ['path', { path: one.path }],
  ])('wrong software: a plan cannot give a release another %s', (_, change) => {
    expect(() => resolve([{ ...plan, cand: { ...plan.cand, ...change } }])).toThrow(refused);
    expect(() => resolve([{ ...plan, base: { ...plan.cand, ...change } }])).toThrow(refused);
  });

  it('wrong software: a plan cannot run a release of another model', () => {
    expect(() => resolve([{ ...plan, model: 'faces' }], 'faces')).toThrow(refused);
  });

  it.each([
    ['the folder of another model', 'models/faces/2/m.onnx', {}],
    ['the folder of another release', 'models/digits/7/m.onnx', {}],
    ['the name of another model', two.path, { model: 'faces' }],
  ])('wrong software: a signed file with %s is no release of this one', (_, path, change) => {
    const target = targets.targets[two.path];
    if (!target) throw new Error('The release is missing.');
    const listed = { ...targets.targets, [path]: { ...target, custom: { ...target.custom, ...change } } };
    const rollout = withPlans([{ ...plan, cand: { ...plan.cand, path } }]);
    expect(() =>
      resolvePlan({ targets: { ...targets, targets: listed }, rollout }, 'stable', 'digits'),
    ).toThrow(refused);
  });

  it('forgets the base of a completed rollout that is no longer signed, since devices may fall back to it', () => {
    const done = { ...plan, fromBp: 10_000, bp: 10_000, state: 'complete' };
    const rollout = withPlans([done]);
    expect(resolvePlan({ targets: without(one), rollout }, 'stable', 'digits')?.base).toBeNull();
    expect(resolve([done])).toEqual(resolved(done));
  });

  it('key compromise: the base of a completed rollout cannot be another file than the signed one', () => {
    const base = { ...plan.base, sha256: '9'.repeat(64) };
    const done = { ...plan, base, fromBp: 10_000, bp: 10_000, state: 'complete' };
    expect(() => resolve([done])).toThrow(refused);
  });

  it.each([
    ['two plans for a model', [plan, plan]],
    ['plans that are no list', { plan }],
    ['a share above 100 %', [{ ...plan, bp: 10_001 }]],
    ['a fractional share', [{ ...plan, bp: 0.5 }]],
    ['a short salt', [{ ...plan, salt: '00' }]],
    ['an unknown state', [{ ...plan, state: 'stopped' }]],
    ['complete below 100 %', [{ ...plan, state: 'complete' }]],
    ['no candidate', [{ ...plan, cand: null }]],
    ['no identifier', [{ ...plan, id: 1 }]],
  ])('refuses %s', (_, plans) => {
    expect(() => resolve(plans)).toThrow(refused);
  });

  it('is not disturbed by the malformed plan of another model', () => {
    expect(resolve([null, 3, { model: 'faces' }, plan])).toEqual(resolved(plan));
  });

  it.each([
    ['is revoked', { revoked: [two.seq] }],
    ['lies below the floor', { floorSeq: two.seq + 1 }],
  ])('rollback: a plan does not count whose candidate %s', (_, policy) => {
    expect(() => resolveWith(policy, ramp)).toThrow(withdrawn);
    for (const state of ['paused', 'halted']) {
      expect(() => resolveWith(policy, [{ ...plan, state }])).toThrow(withdrawn);
    }
  });

  it('rollback: a base that is withdrawn is none', () => {
    expect(resolveWith({ revoked: [one.seq] }, ramp)).toMatchObject({ base: null, cand: { seq: two.seq } });
    expect(resolveWith({ floorSeq: two.seq }, ramp)).toMatchObject({ base: null, cand: { seq: two.seq } });
    expect(resolveWith({ floorSeq: one.seq, revoked: [three.seq] }, ramp)?.base).toEqual(plan.base);
  });

  it('takes a candidate back that is withdrawn, or gone from the targets', () => {
    const over = { ...plan, state: 'rolledback' };
    expect(resolveWith({ revoked: [two.seq] }, [over])).toMatchObject({
      state: 'rolledback',
      base: { seq: one.seq },
      policy: { floorSeq: 0, revoked: [two.seq] },
    });
    const rollout = withPlans([over]);
    expect(resolvePlan({ targets: without(two), rollout }, 'stable', 'digits')?.base).toEqual(plan.base);
    expect(() => resolve([{ ...over, cand: { ...plan.cand, sha256: '9'.repeat(64) } }])).toThrow(refused);
  });

  it('gives the lowest version of Inlay that runs each release', () => {
    const asking = (minSdk: unknown): Targets => {
      const target = targets.targets[two.path];
      if (!target) throw new Error('The release is missing.');
      const custom = { ...target.custom, minSdk };
      return { ...targets, targets: { ...targets.targets, [two.path]: { ...target, custom } } };
    };
    const rollout = withPlans(ramp);
    const of = (minSdk: unknown): ResolvedPlan | undefined =>
      resolvePlan({ targets: asking(minSdk), rollout }, 'stable', 'digits');
    expect(of('0.4.0')?.minSdk).toEqual({ cand: '0.4.0' });
    expect(() => of('latest')).toThrow(refused);
    expect(() => of(4)).toThrow(refused);
  });

  it('wrong software: another file of a release is not its model', () => {
    const target = targets.targets[two.path];
    if (!target) throw new Error('The release is missing.');
    const custom = { ...target.custom, role: 'variant' };
    const listed = { ...targets.targets, [two.path]: { ...target, custom } };
    expect(() =>
      resolvePlan({ targets: { ...targets, targets: listed }, rollout: withPlans(ramp) }, 'stable', 'digits'),
    ).toThrow(refused);
  });

  it('tells at which time the metadata holds', () => {
    const asked: (number | undefined)[] = [];
    const trusted = {
      ...{ targets, rollout: withPlans(ramp) },
      assertCurrent: (atMs?: number) => {
        asked.push(atMs);
        if (atMs === 2) throw new TrustError('ERR_INLAY_EXPIRED', 'It is too old.');
      },
    };
    expect(resolvePlan(trusted, 'stable', 'digits', 1)?.isCurrent).toBe(true);
    expect(resolvePlan(trusted, 'stable', 'digits', 2)?.isCurrent).toBe(false);
    expect(asked).toEqual([1, 2]);
  });

  it('throws nothing but TrustError, whatever the plans are', () => {
    const odd = fc.oneof(fc.jsonValue(), fc.constantFrom('', 0, null, [], {}));
    const broken = fc
      .tuple(fc.constantFrom(...Object.keys(plan)), odd)
      .map(([key, value]) => [{ ...plan, [key]: value }]);
    fc.assert(
      fc.property(fc.oneof(odd, fc.array(odd), broken), (plans) => {
        try {
          resolve(plans);
        } catch (error) {
          expect(error).toBeInstanceOf(TrustError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('policyOf', () => {
  it('finds what is withdrawn of one model', () => {
    const custom = { models: { digits: { floorSeq: 3, revoked: [5] } } };
    expect(policyOf({ custom }, 'digits')).toEqual({ floorSeq: 3, revoked: [5] });
    expect(policyOf({ custom }, 'faces')).toEqual({ floorSeq: 0, revoked: [] });
    expect(policyOf({ custom }, 'constructor')).toEqual({ floorSeq: 0, revoked: [] });
    expect(policyOf({}, 'digits')).toEqual({ floorSeq: 0, revoked: [] });
    const policy = policyOf({ custom }, 'digits');
    expect([1, 2, 3, 4, 5, 6].map((seq) => isWithdrawn(policy, { seq }))).toEqual([
      true,
      true,
      false,
      false,
      true,
      false,
    ]);
  });

  it('refuses what it cannot read, since nobody can tell what that forbids', () => {
    const invalid = expect.objectContaining({ code: 'ERR_INLAY_METADATA_INVALID' });
    for (const models of [
      3,
      null,
      [],
      { digits: 1 },
      { digits: { floorSeq: -1 } },
      { digits: { revoked: 3 } },
    ]) {
      const custom = { models } as NonNullable<Targets['custom']>;
      expect(() => policyOf({ custom }, 'digits')).toThrow(invalid);
    }
    expect(() => resolveWith({ revoked: ['1'] }, ramp)).toThrow(invalid);
  });
});
