import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bucketOf, decide, type Decision, type SlotsView } from '../../../src/update/decide.ts';
import { DEFAULT_TRIAL, type Install, type Plan, type PlanEntry } from '../../../src/update/plan.ts';
import { isWithdrawn, type ResolvedPlan } from '../../../src/update/resolve.ts';
import type { Slot, Trial } from '../../../src/update/slot.ts';
import { releaseOf, slotOf, trialOf, type ReleaseName } from '../../vectors/decide.ts';

const now = Date.UTC(2030, 0, 1);
const names: readonly ReleaseName[] = ['v11', 'v12', 'v13', 'v14', 'v9-same-bytes-as-v12'];
const nothingWithdrawn = { floorSeq: 0, revoked: [] };

const planOf = (parts: Partial<Plan> = {}): ResolvedPlan => ({
  id: 'r-1',
  model: 'digits',
  state: 'ramp',
  stage: 0,
  pinned: false,
  salt: '0011223344556677',
  fromBp: parts.bp ?? 500,
  bp: 500,
  startAt: undefined,
  durationS: 0,
  ctl: 4500,
  base: releaseOf('v12'),
  cand: releaseOf('v13'),
  arms: [],
  shadow: undefined,
  rules: [],
  allow: [],
  deny: [],
  bucketBy: 'install',
  trial: DEFAULT_TRIAL,
  net: { unmetered: false, charging: false, idle: false },
  pollS: undefined,
  report: undefined,
  leaseS: 0,
  retryNonce: 0,
  policy: nothingWithdrawn,
  minSdk: {},
  isCurrent: true,
  ...parts,
});
const installOf = (id: string): Install => ({ id, runtime: 'node', sdk: '0.3.0' });
const fresh: SlotsView = { rejected: [] };
const arm = (plan: ResolvedPlan, id: string, at = now): Decision['arm'] =>
  decide(plan, installOf(id), at, fresh).arm;

const ids = fc.string({ minLength: 1, maxLength: 8 });
const shares = fc.integer({ min: 0, max: 10_000 });
const releases = fc.constantFrom(...names);
const entries = releases.map(releaseOf);
const policies = fc.record({
  floorSeq: fc.constantFrom(0, 0, 10, 12, 13, 15),
  revoked: fc.subarray([9, 11, 12, 13, 14]),
});

/** Arms that share the buckets below the share out in blocks of 500. */
const armsBelow = (bp: number, owners: readonly (ReleaseName | undefined)[]): Plan['arms'] =>
  [...new Set(owners)].flatMap((owner, at) => {
    if (owner === undefined) return [];
    const ranges = owners
      .map((name, block) => [name, block * 500, Math.min(bp, block * 500 + 500)] as const)
      .filter(([name, from, to]) => name === owner && from < to)
      .map(([, from, to]) => [from, to] as const);
    return [{ name: `a${at}`, entry: releaseOf(owner), ranges }];
  });

const plans: fc.Arbitrary<ResolvedPlan> = fc
  .record({
    id: fc.constantFrom('r-1', 'r-2'),
    state: fc.constantFrom('ramp', 'paused', 'halted', 'rolledback', 'complete'),
    salt: fc.constantFrom('0011223344556677', 'ffeeddccbbaa9988'),
    bp: shares,
    ctl: shares,
    base: fc.option(entries),
    cand: entries,
    rules: fc.constantFrom([], [{ os: ['linux'] }], [{ app: '>=2.0.0' }]),
    bucketBy: fc.constantFrom('install', 'site'),
    startAt: fc.constantFrom(undefined, '2029-12-31T23:00:00Z', '2030-01-01T01:00:00Z'),
    durationS: fc.constantFrom(0, 3600),
    leaseS: fc.constantFrom(0, 3600),
    retryNonce: fc.constantFrom(0, 1),
    policy: policies,
    isCurrent: fc.boolean(),
    minSdk: fc.constantFrom({}, { cand: '0.4.0' }, { base: '0.4.0' }, { arms: { a0: '0.4.0' } }),
    owners: fc.array(fc.option(releases, { nil: undefined }), { maxLength: 20 }),
    shadowBp: fc.option(shares),
    sampleBp: fc.constantFrom(0, 1000),
  })
  .map(({ isCurrent, policy, minSdk, bp, owners, shadowBp, sampleBp, ...parts }) => ({
    ...planOf(parts),
    ...{ isCurrent, policy, minSdk },
    bp: parts.state === 'complete' ? 10_000 : bp,
    fromBp: Math.floor(bp / 2),
    arms: parts.state === 'complete' ? [] : armsBelow(bp, owners),
    ...(shadowBp !== null && shadowBp > bp && { shadow: { bp: shadowBp, sampleBp } }),
  }));

const installs: fc.Arbitrary<Install> = fc
  .record({
    id: ids,
    os: fc.constantFrom('linux', 'ios'),
    app: fc.constantFrom('1.0.0', '2.0.0', 'unknown'),
    attributes: fc.constantFrom({}, { site: 'graz' }),
  })
  .map((facts) => ({ runtime: 'node', sdk: '0.3.0', ...facts }));

const slotStates: fc.Arbitrary<SlotsView> = fc.record(
  {
    embedded: releases.map(slotOf),
    committed: releases.map(slotOf),
    previous: releases.map(slotOf),
    trial: fc
      .tuple(releases, fc.constantFrom('r-1', 'r-2'), fc.constantFrom('staged', 'active'))
      .map(([name, plan, phase]) => trialOf(name, plan, phase)),
    rejected: fc.array(
      fc.tuple(entries, fc.constantFrom(null, now - 1, now + 1000)).map(([release, until]) => ({
        ...{ sha256: release.sha256, version: release.version, seq: release.seq },
        ...{ reason: 'crash' as const, detail: '', at: now - 1000, count: 1, until },
        ...{ retryNonce: 0, sdk: '0.3.0', app: '2.0.0' },
      })),
      { maxLength: 2 },
    ),
    plan: fc.record({
      id: fc.constantFrom('r-1', 'r-2'),
      bp: shares,
      salt: fc.constantFrom('0011223344556677', 'ffeeddccbbaa9988'),
      cand: entries.map(({ sha256 }) => sha256),
      isIn: fc.boolean(),
      verifiedAt: fc.constantFrom(0, now - 1_800_000, now, now + 1_800_000),
    }),
    policy: policies,
  },
  { requiredKeys: ['rejected'] },
);

const anything = [fc.option(plans, { nil: undefined }), installs, slotStates] as const;
const check = (rule: (plan: ResolvedPlan | undefined, install: Install, slots: SlotsView) => void): void =>
  fc.assert(fc.property(...anything, rule), { numRuns: 3000 });
const entryOf = (decision: Decision): PlanEntry | undefined =>
  decision.kind === 'stay' ? undefined : decision.entry;

describe('arms', () => {
  it('keep whoever is in the candidate there while the share rises', () => {
    fc.assert(
      fc.property(ids, shares, shares, (id, one, other) => {
        const [less, more] = [Math.min(one, other), Math.max(one, other)];
        if (arm(planOf({ bp: less }), id) === 'candidate')
          expect(arm(planOf({ bp: more }), id)).toBe('candidate');
      }),
    );
  });

  it('move nobody from the candidate to control or back while the share rises', () => {
    fc.assert(
      fc.property(ids, shares, shares, shares, (id, one, other, ctl) => {
        const arms = [Math.min(one, other), Math.max(one, other)].map((bp) => arm(planOf({ bp, ctl }), id));
        expect(arms.join()).not.toBe('candidate,control');
      }),
    );
  });

  it('are the candidate from below and control from above, each for its share of the buckets', () => {
    fc.assert(
      fc.property(ids, shares, shares, (id, bp, ctl) => {
        const plan = planOf({ bp, ctl });
        const bucket = bucketOf(plan.salt, id);
        const inCandidate = bucket < bp;
        const inControl = bucket >= bp && 10_000 - bucket <= ctl;
        const expected = inCandidate ? 'candidate' : inControl ? 'control' : 'base';
        expect(arm(plan, id)).toBe(expected);
      }),
    );
  });

  it('begin with the candidate in the order of their buckets', () => {
    const shift = fc.integer({ min: -1000, max: 8_000_000 });
    fc.assert(
      fc.property(ids, ids, shares, shares, shift, (a, b, one, other, afterMs) => {
        const [fromBp, bp] = [Math.min(one, other), Math.max(one, other)];
        const plan = planOf({ fromBp, bp, startAt: '2030-01-01T00:00:00Z', durationS: 7200 });
        const [low, high] = [a, b].sort((x, y) => bucketOf(plan.salt, x) - bucketOf(plan.salt, y));
        if (low === undefined || high === undefined) return;
        if (arm(plan, high, now + afterMs) === 'candidate')
          expect(arm(plan, low, now + afterMs)).toBe('candidate');
        if (bucketOf(plan.salt, high) < bp) expect(arm(plan, high, now + 7_200_000)).toBe('candidate');
      }),
    );
  });

  it('do not fall back in time: whose turn has come keeps it', () => {
    const times = fc.integer({ min: -1000, max: 8_000_000 });
    fc.assert(
      fc.property(ids, shares, times, times, (id, bp, s, t) => {
        const plan = planOf({ fromBp: 0, bp, startAt: '2030-01-01T00:00:00Z', durationS: 7200 });
        if (arm(plan, id, now + Math.min(s, t)) === 'candidate')
          expect(arm(plan, id, now + Math.max(s, t))).toBe('candidate');
      }),
    );
  });

  it('say when a turn comes to the millisecond', () => {
    fc.assert(
      fc.property(ids, shares, (id, bp) => {
        const plan = planOf({ fromBp: 0, bp, startAt: '2030-01-01T00:00:00Z', durationS: 7200 });
        const { reason, dueAt = 0 } = decide(plan, installOf(id), now - 1, fresh);
        if (reason !== 'not-yet') return;
        expect(arm(plan, id, dueAt)).toBe('candidate');
        expect(arm(plan, id, dueAt - 1)).toBe('base');
      }),
    );
  });
});

describe('decide', () => {
  it('gives the same answer to the same question, and changes nothing', () => {
    check((plan, install, slots) => {
      const before = JSON.stringify([plan, install, slots]);
      expect(decide(plan, install, now, slots)).toEqual(decide(plan, install, now, slots));
      expect(JSON.stringify([plan, install, slots])).toBe(before);
    });
  });

  it('never names a release that is withdrawn', () => {
    check((plan, install, slots) => {
      const entry = entryOf(decide(plan, install, now, slots));
      if (entry === undefined) return;
      expect(isWithdrawn(plan?.policy ?? {}, entry)).toBe(false);
      expect(isWithdrawn(slots.policy ?? {}, entry)).toBe(false);
    });
  });

  it('fetches and tries nothing but what a current plan names', () => {
    check((plan, install, slots) => {
      const decision = decide(plan, install, now, slots);
      if (decision.kind !== 'fetch' && decision.kind !== 'activate') return;
      expect(plan?.isCurrent).toBe(true);
      const named = plan ? [plan.cand, plan.base, ...plan.arms.map(({ entry }) => entry)] : [];
      expect(named).toContain(decision.entry);
    });
  });

  it('goes back only to a slot that there is', () => {
    check((plan, install, slots) => {
      const decision = decide(plan, install, now, slots);
      const to = decision.kind === 'revert' ? decision.to : 'meanwhile' in decision && decision.meanwhile;
      if (!to) return;
      const slot = to === 'base' ? slots.trial : slots[to];
      expect(slot).toBeDefined();
      if (decision.kind === 'revert') expect(slot?.release.sha256).toBe(decision.entry.sha256);
    });
  });

  it('lets nobody begin outside the candidate arm', () => {
    check((plan, install, slots) => {
      const decision = decide(plan, install, now, slots);
      if (plan === undefined || (decision.kind !== 'fetch' && decision.kind !== 'activate')) return;
      const isOnlyCandidate = decision.entry.sha256 !== plan.base?.sha256;
      // Bringing it for the shadow is no beginning.
      if (decision.kind === 'fetch' && decision.reason === 'shadow') return;
      if (isOnlyCandidate) expect(decision.arm).toBe('candidate');
    });
  });

  it('runs in the shadow what is staged, beside something else that answers', () => {
    let seen = 0;
    const shadow = { bp: 10_000, sampleBp: 1000 };
    const inShadow = plans.map((plan): ResolvedPlan => ({
      ...plan,
      ...{ state: 'ramp', bp: 0, fromBp: 0, ctl: 0, arms: [], shadow, rules: [], bucketBy: 'install' },
      ...{ policy: nothingWithdrawn, minSdk: {} },
    }));
    const rule = (plan: ResolvedPlan, install: Install, others: SlotsView): void => {
      const name = names.find((one) => releaseOf(one) === plan.cand) ?? 'v13';
      const { policy: _, plan: __, ...kept } = others;
      const slots = { ...kept, trial: trialOf(name, plan.id, 'staged') };
      const decision = decide(plan, install, now, slots);
      if (decision.kind !== 'stay' || decision.shadow === undefined) return;
      seen += 1;
      const { entry } = decision.shadow;
      expect([decision.arm, slots.trial.release]).toEqual(['base', entry]);
      const { sha256, seq } = (slots.committed ?? slots.embedded)?.release ?? entry;
      expect([sha256, seq]).not.toEqual([entry.sha256, entry.seq]);
    };
    fc.assert(fc.property(inShadow, installs, slotStates, rule), { numRuns: 1000 });
    expect(seen).toBeGreaterThan(50);
  });

  it('leaves a model where there was one, and comes to rest', () => {
    check((plan, install, start) => {
      let slots = start;
      const had = hasModel(slots);
      for (let step = 0; step < 12; step += 1) {
        const decision = decide(plan, install, now, slots);
        const next = apply(decision, slots);
        if (had) expect(hasModel(next)).toBe(true);
        if (next === slots) return;
        slots = next;
      }
      throw new Error('It does not come to rest.');
    });
  });

  it('ends a withdrawn or rolled back candidate wherever something else is at hand', () => {
    check((plan, install, start) => {
      if (plan === undefined || plan.state !== 'rolledback') return;
      let slots = start;
      let decision = decide(plan, install, now, slots);
      for (let step = 0; step < 12; step += 1) {
        slots = apply(decision, slots);
        decision = decide(plan, install, now, slots);
      }
      const running = slots.trial?.phase === 'active' ? slots.trial : (slots.committed ?? slots.embedded);
      const isLeft = [plan.cand, ...plan.arms.map(({ entry }) => entry)].every(
        ({ sha256, seq }) => running?.release.sha256 !== sha256 || running.release.seq !== seq,
      );
      const without = ['no-plan', 'plan-broken', 'no-alternative', 'withdrawn-no-alternative'];
      expect(isLeft || without.includes(decision.reason)).toBe(true);
    });
  });
});

function hasModel({ committed, embedded, trial }: SlotsView): boolean {
  return committed !== undefined || embedded !== undefined || trial !== undefined;
}

/** What a device has after it did as it was told, and after a trial that went well. */
function apply(decision: Decision, slots: SlotsView): SlotsView {
  const { trial, committed, previous, ...rest } = slots;
  const keep = (parts: {
    committed?: Slot | undefined;
    previous?: Slot | undefined;
    trial?: Trial;
  }): SlotsView => {
    const { committed: own, previous: before, trial: tried } = parts;
    return {
      ...rest,
      ...(own && { committed: own }),
      ...(before && { previous: before }),
      ...(tried && { trial: tried }),
    };
  };
  if (decision.kind === 'stay') {
    const isDone = trial?.phase === 'active' && decision.arm !== 'out';
    return isDone ? keep({ committed: trial, previous: committed }) : slots;
  }
  const name = names.find((one) => releaseOf(one) === decision.entry);
  if (name === undefined) throw new Error('The release is none of those in the test.');
  if (decision.kind === 'fetch') return keep({ committed, previous, trial: trialOf(name, 'r', 'staged') });
  if (decision.kind === 'activate' || decision.to === 'base')
    return keep({ committed, previous, trial: trialOf(name, 'r', 'active') });
  if (decision.to === 'committed') return keep({ committed, previous });
  return decision.to === 'previous' ? keep({ committed: previous }) : keep({ previous: committed });
}
