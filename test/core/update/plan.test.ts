import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DEFAULT_TRIAL, readPlan, type SignedPlan } from '../../../src/update/plan.ts';
import { isRange } from '../../../src/update/rules.ts';
import { releaseOf } from '../../vectors/decide.ts';

const signed: SignedPlan = {
  id: 'r-1',
  model: 'digits',
  state: 'ramp',
  salt: '0011223344556677',
  bp: 500,
  base: releaseOf('v12'),
  cand: releaseOf('v13'),
};

const armOf = (name: string, ...ranges: readonly (readonly number[])[]): object => ({
  name,
  entry: releaseOf('v14'),
  ranges,
});

/** What is said of each field in the documentation of `Plan`. */
function assertInRange(plan: NonNullable<ReturnType<typeof readPlan>>): void {
  const { bp, fromBp, ctl, startAt, durationS, rules, allow, deny, trial, net, pollS } = plan;
  expect(plan.id.length).toBeGreaterThan(0);
  expect(['ramp', 'paused', 'halted', 'rolledback', 'complete']).toContain(plan.state);
  expect(plan.salt).toMatch(/^[0-9a-f]{16}$/);
  for (const share of [bp, fromBp, ctl]) {
    expect(Number.isInteger(share)).toBe(true);
    expect(share).toBeGreaterThanOrEqual(0);
    expect(share).toBeLessThanOrEqual(10_000);
  }
  expect(fromBp).toBeLessThanOrEqual(bp);
  if (plan.state === 'complete') expect(bp).toBe(10_000);
  // It may be −0, which is as good.
  if (startAt === undefined) expect(durationS + 0).toBe(0);
  else expect(Number.isNaN(Date.parse(startAt))).toBe(false);
  for (const count of [durationS, plan.leaseS, plan.retryNonce, pollS ?? 1, ...Object.values(trial)]) {
    expect(Number.isSafeInteger(count)).toBe(true);
    expect(count).toBeGreaterThanOrEqual(0);
  }
  expect(Object.keys(trial)).toEqual(Object.keys(DEFAULT_TRIAL));
  expect(Object.values(net).map((one) => typeof one)).toEqual(['boolean', 'boolean', 'boolean']);
  for (const list of [allow, deny]) {
    expect(list.length).toBeLessThanOrEqual(500);
    for (const name of list) expect(name).toMatch(/^[0-9a-f]{32}$/);
  }
  for (const { app, sdk } of rules) {
    if (app !== undefined) expect(isRange(app)).toBe(true);
    if (sdk !== undefined) expect(isRange(sdk)).toBe(true);
  }
  const taken = new Set<number>();
  for (const [from, to] of plan.arms.flatMap(({ ranges }) => ranges)) {
    for (let bucket = from; bucket < to; bucket += 1) {
      expect(bucket < bp && !taken.has(bucket)).toBe(true);
      taken.add(bucket);
    }
  }
  if (plan.shadow) expect(plan.shadow.bp).toBeGreaterThan(bp);
  for (const entry of [plan.cand, ...(plan.base ? [plan.base] : []), ...plan.arms.map((arm) => arm.entry)]) {
    expect(entry.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(Object.keys(entry)).toEqual(['path', 'sha256', 'length', 'seq', 'version']);
  }
}

describe('readPlan', () => {
  it('fills in every default', () => {
    expect(readPlan(signed)).toEqual({
      ...signed,
      stage: 0,
      pinned: false,
      arms: [],
      shadow: undefined,
      report: undefined,
      fromBp: 500,
      startAt: undefined,
      durationS: 0,
      ctl: 4500,
      rules: [],
      allow: [],
      deny: [],
      bucketBy: 'install',
      trial: {
        minInferences: 20,
        soakS: 60,
        strikes: 2,
        loadTimeoutS: 20,
        maxErrorBp: 200,
        maxP95Percent: 200,
        maxMemoryMiB: 0,
        graceS: 10,
      },
      net: { unmetered: false, charging: false, idle: false },
      pollS: undefined,
      leaseS: 0,
      retryNonce: 0,
    });
  });

  it('keeps what a plan says, and reads its own result again', () => {
    const full = {
      ...signed,
      stage: 2,
      pinned: true,
      arms: [
        {
          name: 'a',
          entry: releaseOf('v14'),
          ranges: [
            [0, 100],
            [200, 300],
          ],
        },
        {
          name: 'b-2',
          entry: releaseOf('v11'),
          ranges: [
            [100, 200],
            [499, 500],
          ],
        },
      ],
      shadow: { bp: 501, sampleBp: 10_000 },
      report: { everyS: 900, first: false },
      fromBp: 100,
      startAt: '2030-02-28T12:00:00Z',
      durationS: 3600,
      ctl: 1,
      rules: [{ os: ['ios'], app: '>=3.2.0 <4.0.0' }],
      allow: ['0'.repeat(32)],
      deny: ['f'.repeat(32)],
      bucketBy: 'site',
      trial: { ...DEFAULT_TRIAL, strikes: 3 },
      net: { unmetered: true, charging: false, idle: true },
      pollS: 60,
      leaseS: 7200,
      retryNonce: 2,
    };
    expect(readPlan(full)).toEqual(full);
    expect(readPlan(readPlan(signed))).toEqual(readPlan(signed));
  });

  it('measures nine times the share on the base, as far as there is room', () => {
    expect([0, 100, 999, 1000, 1001, 6000, 10_000].map((bp) => readPlan({ ...signed, bp })?.ctl)).toEqual([
      0, 900, 8991, 9000, 8999, 4000, 0,
    ]);
  });

  it('leaves out what it does not know, but keeps unknown conditions of rules, which hold nowhere', () => {
    const rules = [{ os: ['linux'], battery: ['full'] }];
    const plan = readPlan({
      ...signed,
      rules,
      fuel: {},
      trial: { fuel: 3 },
      cand: { ...signed.cand, extra: 1 },
    });
    expect(plan).toEqual({ ...readPlan(signed), rules });
  });

  it.each([
    ['no object', null],
    ['a list', [signed]],
    ['no identifier', { ...signed, id: '' }],
    ['an identifier that is too long', { ...signed, id: 'r'.repeat(129) }],
    ['a model with another name than models have', { ...signed, model: 'Digits/..' }],
    ['a state that nobody knows', { ...signed, state: 'done' }],
    ['a salt in capitals', { ...signed, salt: '00112233445566AA' }],
    ['a fraction of a basis point', { ...signed, bp: 0.5 }],
    ['a share above the whole', { ...signed, bp: 10_001 }],
    ['a share that begins above its end', { ...signed, fromBp: 501 }],
    ['a completed rollout for some', { ...signed, state: 'complete' }],
    ['a base that is missing', { ...signed, base: undefined }],
    ['a base that is not one', { ...signed, base: {} }],
    ['no candidate', { ...signed, cand: null }],
    ['a candidate without a hash', { ...signed, cand: { ...signed.cand, sha256: 'x' } }],
    ['a day that does not exist', { ...signed, startAt: '2030-02-30T00:00:00Z' }],
    ['a time in another zone', { ...signed, startAt: '2030-02-01T00:00:00+01:00' }],
    ['a duration without a beginning', { ...signed, durationS: 60 }],
    ['a duration beyond a year', { ...signed, startAt: '2030-01-01T00:00:00Z', durationS: 31_536_001 }],
    ['a control group above the whole', { ...signed, ctl: 10_001 }],
    ['rules that are no list', { ...signed, rules: {} }],
    ['a rule that is none', { ...signed, rules: ['ios'] }],
    ['a rule with one system that is no list', { ...signed, rules: [{ os: 'ios' }] }],
    ['a rule with a malformed range', { ...signed, rules: [{ app: '~3.0' }] }],
    ['a rule with fractional memory', { ...signed, rules: [{ minMemoryMiB: 0.5 }] }],
    ['attributes that are no lists', { ...signed, rules: [{ attributes: { site: 'graz' } }] }],
    ['33 rules', { ...signed, rules: Array.from({ length: 33 }, () => ({})) }],
    ['501 names', { ...signed, allow: Array.from({ length: 501 }, () => '0'.repeat(32)) }],
    ['install identifiers in place of their hashes', { ...signed, deny: ['install-1'] }],
    ['nothing to place in buckets', { ...signed, bucketBy: '' }],
    ['a stage below the first', { ...signed, stage: -1 }],
    ['half a stage', { ...signed, stage: 0.5 }],
    ['a pin that is neither', { ...signed, pinned: 'yes' }],
    ['arms that are no list', { ...signed, arms: null }],
    ['an arm without ranges', { ...signed, arms: [{ name: 'a', entry: signed.cand }] }],
    ['an arm without a release', { ...signed, arms: [{ name: 'a', ranges: [] }] }],
    ['an arm with the name of the candidate', { ...signed, arms: [armOf('t')] }],
    ['an arm with the name of the control', { ...signed, arms: [armOf('c')] }],
    ['an arm with a name in capitals', { ...signed, arms: [armOf('A')] }],
    ['an arm with a name that is too long', { ...signed, arms: [armOf('a'.repeat(33))] }],
    ['two arms of one name', { ...signed, arms: [armOf('a'), armOf('a')] }],
    ['nine arms', { ...signed, arms: Array.from({ length: 9 }, (_, at) => armOf(`a${at}`)) }],
    ['an empty range', { ...signed, arms: [armOf('a', [3, 3])] }],
    ['a range backwards', { ...signed, arms: [armOf('a', [4, 3])] }],
    ['a range of three', { ...signed, arms: [armOf('a', [1, 2, 3])] }],
    ['a range of halves', { ...signed, arms: [armOf('a', [0.5, 3])] }],
    ['a range above the share', { ...signed, arms: [armOf('a', [499, 501])] }],
    ['ranges in disorder', { ...signed, arms: [armOf('a', [10, 20], [0, 5])] }],
    ['ranges that overlap', { ...signed, arms: [armOf('a', [0, 5], [4, 8])] }],
    ['arms that overlap', { ...signed, arms: [armOf('a', [0, 5]), armOf('b', [4, 8])] }],
    [
      '65 ranges',
      { ...signed, arms: [armOf('a', ...Array.from({ length: 65 }, (_, at) => [2 * at, 2 * at + 1]))] },
    ],
    ['arms of what is complete', { ...signed, state: 'complete', bp: 10_000, arms: [armOf('a')] }],
    ['a shadow within the share', { ...signed, shadow: { bp: 500, sampleBp: 1 } }],
    ['a shadow above the whole', { ...signed, shadow: { bp: 10_001, sampleBp: 1 } }],
    ['a shadow without samples', { ...signed, shadow: { bp: 600 } }],
    ['a shadow that is null', { ...signed, shadow: null }],
    ['reports each second', { ...signed, report: { everyS: 1 } }],
    ['reports without a period', { ...signed, report: { first: true } }],
    ['a trial that is none', { ...signed, trial: 1 }],
    ['a trial without strikes', { ...signed, trial: { strikes: 0 } }],
    ['a rate of more than all', { ...signed, trial: { maxErrorBp: 10_001 } }],
    ['a trial with null', { ...signed, trial: { soakS: null } }],
    ['network rules that are no booleans', { ...signed, net: { idle: 1 } }],
    ['polls without pause', { ...signed, pollS: 0 }],
    ['polls every month', { ...signed, pollS: 2_592_000 }],
    ['a negative lease', { ...signed, leaseS: -1 }],
    ['a fractional nonce', { ...signed, retryNonce: 1.5 }],
  ])('refuses %s', (_, value) => {
    expect(readPlan(value)).toBeUndefined();
  });

  it('gives a plan with all fields in range, or nothing, whatever it reads', () => {
    const odd = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom('', 0, -1, 10_000, null, true, [], {}, '2030-01-01T00:00:00Z'),
    );
    const fields = Object.keys(readPlan(signed) ?? {});
    const range = fc.tuple(fc.integer({ min: -1, max: 501 }), fc.integer({ min: 0, max: 501 }));
    const arm = fc.record({
      name: fc.constantFrom('a', 'b', 't'),
      entry: fc.constant(releaseOf('v14')),
      ranges: fc.array(fc.oneof(range, odd), { maxLength: 2 }),
    });
    const nested = fc.tuple(fc.constantFrom('trial', 'net', 'cand', 'shadow', 'report'), fc.string(), odd);
    const broken = fc.oneof(
      fc.tuple(fc.constantFrom(...fields), odd).map(([key, value]) => ({ ...signed, [key]: value })),
      fc.tuple(fc.constantFrom(...fields), odd, fc.constantFrom(...fields), odd).map(([a, x, b, y]) => ({
        ...signed,
        [a]: x,
        [b]: y,
      })),
      nested.map(([key, name, value]) => ({ ...signed, [key]: { ...DEFAULT_TRIAL, [name]: value } })),
      odd.map((rule) => ({ ...signed, rules: [rule] })),
      fc.array(arm, { maxLength: 2 }).map((arms) => ({ ...signed, arms })),
      odd,
    );
    let read = 0;
    fc.assert(
      fc.property(broken, (value) => {
        const plan = readPlan(value);
        if (plan === undefined) return;
        read += 1;
        assertInRange(plan);
      }),
      { numRuns: 5000 },
    );
    expect(read).toBeGreaterThan(100);
  });
});
