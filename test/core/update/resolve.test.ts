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
import type { Plan } from '../../../src/update/plan.ts';
import { resolvePlan } from '../../../src/update/resolve.ts';
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
const resolve = (plans: unknown, model = 'digits', channel = 'stable'): Plan | undefined =>
  resolvePlan({ targets, rollout: withPlans(plans) }, channel, model);
const refused = expect.objectContaining({ name: 'TrustError', code: 'ERR_INLAY_PLAN_INVALID' });

describe('resolvePlan', () => {
  it('finds the plan of a model', () => {
    expect(resolve(ramp)).toEqual(plan);
    expect(resolve(complete)).toEqual(complete[0]);
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
    const base = { ...one, path: 'models/digits/0/gone.onnx' };
    const done = { ...plan, bp: 10_000, state: 'complete' };
    expect(resolve([{ ...done, base }])).toEqual({ ...done, base: null });
    expect(resolve([done])).toEqual(done);
  });

  it('key compromise: the base of a completed rollout cannot be another file than the signed one', () => {
    const base = { ...plan.base, sha256: '9'.repeat(64) };
    expect(() => resolve([{ ...plan, base, bp: 10_000, state: 'complete' }])).toThrow(refused);
  });

  it.each([
    ['two plans for a model', [plan, plan]],
    ['plans that are no list', { plan }],
    ['a share above 100 %', [{ ...plan, bp: 10_001 }]],
    ['a fractional share', [{ ...plan, bp: 0.5 }]],
    ['a short salt', [{ ...plan, salt: '00' }]],
    ['an unknown state', [{ ...plan, state: 'halted' }]],
    ['complete below 100 %', [{ ...plan, state: 'complete' }]],
    ['no candidate', [{ ...plan, cand: null }]],
    ['no identifier', [{ ...plan, id: 1 }]],
  ])('refuses %s', (_, plans) => {
    expect(() => resolve(plans)).toThrow(refused);
  });

  it('is not disturbed by the malformed plan of another model', () => {
    expect(resolve([null, 3, { model: 'faces' }, plan])).toEqual(plan);
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
