/** Whole lives of rollouts: what people do to them, what the signer lets through, and what devices make of it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import { changeRollout, readSigned, rolloutActions, setRollout } from '../../src/publish/rollout.ts';
import { assertPlans } from '../../src/server/signer/invariants.ts';
import type { Targets } from '../../src/trust/metadata.ts';
import { armAt, CANDIDATE_ARM, entryOf, type PlanArm } from '../../src/update/arms.ts';
import { armLabel, bucketOf, decide, type Decision } from '../../src/update/decide.ts';
import { DEFAULT_TRIAL, type Install, type PlanEntry, type SignedPlan } from '../../src/update/plan.ts';
import { resolvePlan } from '../../src/update/resolve.ts';
import type { Slot, SlotsState } from '../../src/update/slot.ts';
import { seePlan } from '../../src/update/slots-transitions.ts';

const begin = Date.UTC(2030, 0, 1);
const release = (seq: number): PlanEntry & { model: string } => ({
  model: 'digits',
  path: `models/digits/${seq}/digits.onnx`,
  sha256: seq.toString(16).padStart(64, '0'),
  length: 10 + seq,
  seq,
  version: `1.${seq}.0`,
});
const seqs = [1, 2, 3, 4, 5];
const targets: Targets = {
  _type: 'targets',
  spec_version: '1.0.0',
  version: 1,
  expires: '2040-01-01T00:00:00Z',
  targets: Object.fromEntries(
    seqs
      .map(release)
      .map(({ path, sha256, length, seq, version, model }) => [
        path,
        { length, hashes: { sha256 }, custom: { model, seq, version } },
      ]),
  ),
};

/** A device that does what it is told, and on which everything works. */
interface Device {
  readonly install: Install;
  slots: SlotsState;
  last?: Decision;
}

const slotOf = (entry: PlanEntry): Slot => ({
  release: entry,
  file: { sha256: entry.sha256, length: entry.length },
});

function live(device: Device, signed: SignedPlan, now: number): void {
  const target = { length: 1, hashes: { sha256: '0' }, custom: { v: 1, plans: [signed] } };
  const rollout: Targets = { ...targets, targets: { 'rollout/stable.json': target } };
  const plan = resolvePlan({ targets, rollout }, 'stable', 'digits');
  if (plan === undefined) throw new Error('There is a plan.');
  const { id, bp, salt, cand } = plan;
  const see = (begun: { isIn: boolean; arm?: { name: string; sha256: string } }): void => {
    const seen = { id, bp, salt, cand: cand.sha256, verifiedAt: now, ...begun };
    device.slots = seePlan(device.slots, seen).state;
  };
  for (let turn = 0; turn < 8; turn += 1) {
    const next = decide(plan, device.install, now, device.slots);
    device.last = next;
    if (next.reason !== 'plan-broken') see({ isIn: false });
    const { trial, committed, previous, ...rest } = device.slots;
    const tried = { plan: id, rules: DEFAULT_TRIAL, retryNonce: 0, inferences: 0, errors: 0 };
    if (next.kind === 'stay') {
      if (trial?.phase !== 'active') return;
      device.slots = { ...rest, committed: trial, ...(committed && { previous: committed }) };
    } else if (next.kind === 'fetch') {
      device.slots = { ...device.slots, trial: { ...slotOf(next.entry), ...tried, phase: 'staged' } };
    } else if (next.kind === 'activate' || next.to === 'base') {
      const own = entryOf(plan, next.armName);
      if (next.entry.sha256 === own.sha256)
        see({ isIn: true, arm: { name: next.armName ?? CANDIDATE_ARM, sha256: own.sha256 } });
      device.slots = { ...device.slots, trial: { ...slotOf(next.entry), ...tried, phase: 'active' } };
    } else if (next.to === 'previous') {
      device.slots = { ...rest, ...(previous && { committed: previous }) };
    } else device.slots = { ...rest, ...(committed && { committed }), ...(previous && { previous }) };
  }
}

const devicesOf = (count: number): Device[] =>
  Array.from({ length: count }, (_, at) => ({
    install: { id: `device-${at}`, runtime: 'node', sdk: '0.3.0' },
    slots: { rejected: [], markers: [], strikes: {}, committed: slotOf(release(1)) },
  }));

const percents = fc.constantFrom(0, 0.5, 1, 5, 10, 25, 50, 75, 100);
const arms = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('a', 'b', 'c-2'),
    entry: fc.constantFrom(3, 4, 5).map(release),
    weightBp: fc.constantFrom(0, 1000, 3333, 5000),
  }),
  { selector: ({ name }) => name, maxLength: 3 },
);
const steps = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record(
        {
          seq: fc.constantFrom(2, 2, 2, 3),
          percent: percents,
          arms,
          stage: fc.nat(3),
          shadow: percents,
          durationS: fc.constantFrom(0, 3600),
          startAt: fc.constantFrom(begin, begin + 7_200_000),
          pinned: fc.boolean(),
        },
        { requiredKeys: ['seq', 'percent'] },
      ),
    },
    { weight: 1, arbitrary: fc.constantFrom(...rolloutActions) },
  ),
  { minLength: 1, maxLength: 12 },
);

/** Takes a step; one that is refused changes nothing. */
function take(
  plans: readonly SignedPlan[],
  step: typeof steps extends fc.Arbitrary<(infer Step)[]> ? Step : never,
  now: number,
  salt: string,
): readonly SignedPlan[] {
  try {
    if (typeof step === 'string') return changeRollout(plans, 'digits', step, now);
    const { seq, percent, ...options } = step;
    return setRollout(plans, release(seq), percent, () => salt, { ...options, now });
  } catch (error) {
    if (isInlayError(error) && error.name === 'ServerError') return plans;
    throw error;
  }
}

describe('a rollout', () => {
  it('signs every step that it takes, keeps its arms apart, and moves no device to another one', () => {
    let raised = 0;
    let inArms = 0;
    fc.assert(
      fc.property(steps, (taken) => {
        const devices = devicesOf(12);
        let plans: readonly SignedPlan[] = setRollout([], release(1), 100, () => '0000000000000001', {
          now: begin,
        });
        let now = begin;
        for (const [at, step] of taken.entries()) {
          now += 1_800_000;
          const before = plans;
          plans = take(plans, step, now, `ff${at.toString(16).padStart(14, '0')}`);
          const [signed, old] = [plans[0], before[0]];
          if (signed === undefined || old === undefined) throw new Error('There is a plan.');
          assertPlans({ stable: before }, { stable: plans }, targets);
          const plan = readSigned(signed);
          if (plan.id === old.id && plan.bp > old.bp) raised += 1;
          for (const device of devices) {
            const seen = device.slots.plan;
            live(device, signed, now);
            const label = device.last && armLabel(device.last);
            if (label !== undefined && !'tc'.includes(label)) inArms += 1;
            // Once it has begun, it is in the same arm for as long as there are arms.
            const isOver = plan.state === 'complete' || plan.state === 'rolledback';
            if (seen?.id === plan.id && seen.arm && !isOver && device.last?.arm === 'candidate')
              expect(label).toBe(seen.arm.name);
            expect(device.last?.reason).not.toBe('plan-broken');
            const { trial, committed } = device.slots;
            const runs = trial?.phase === 'active' ? trial : committed;
            const listed = [plan.cand, plan.base, ...plan.arms.map(({ entry }) => entry)];
            // Nothing takes the last release from a device.
            if (plan.base) expect(listed.map((entry) => entry?.sha256)).toContain(runs?.release.sha256);
            if (plan.state === 'rolledback' && plan.base) expect(runs?.release.sha256).toBe(plan.base.sha256);
          }
        }
      }),
      { numRuns: 150 },
    );
    expect(raised).toBeGreaterThan(20);
    expect(inArms).toBeGreaterThan(20);
  });

  it('of a thief moves no device that has begun, whatever arms it signs', () => {
    const range = fc
      .tuple(fc.nat(5000), fc.integer({ min: 1, max: 3000 }))
      .map(([from, width]) => [from, Math.min(5000, from + width)] as const)
      .filter(([from, to]) => from < to);
    const thiefs: fc.Arbitrary<readonly PlanArm[]> = fc.uniqueArray(
      fc.record({
        name: fc.constantFrom('a', 'b'),
        entry: fc.constantFrom(3, 4).map((seq) => {
          const { model: _, ...entry } = release(seq);
          return entry;
        }),
        ranges: range.map((one) => [one]),
      }),
      { selector: ({ name }) => name, maxLength: 2 },
    );
    let refused = 0;
    let kept = 0;
    fc.assert(
      fc.property(thiefs, fc.array(thiefs, { maxLength: 3 }), fc.boolean(), (first, others, hasSigner) => {
        const [device] = devicesOf(1);
        if (device === undefined) return;
        const { model: _, ...base } = release(1);
        const { model: __, ...cand } = release(2);
        const facts = { id: 'r-1', model: 'digits', salt: '0011223344556677', bp: 5000, base, cand };
        const bucket = bucketOf(facts.salt, device.install.id);
        let signed: SignedPlan | undefined;
        for (const given of [first, ...others]) {
          const next: SignedPlan = { ...facts, state: 'ramp', arms: given };
          try {
            assertPlans({ stable: signed ? [signed] : [] }, { stable: [next] }, targets);
          } catch {
            refused += 1;
            if (hasSigner || signed === undefined) continue;
          }
          const before = device.slots.plan?.arm;
          const runsBefore = device.slots.committed?.release.sha256;
          try {
            live(device, next, begin);
          } catch (error) {
            // What is malformed counts nowhere.
            if (isInlayError(error) && error.code === 'ERR_INLAY_PLAN_INVALID') continue;
            throw error;
          }
          signed = next;
          if (before !== undefined) {
            kept += 1;
            expect(device.slots.plan?.arm).toEqual(before);
            expect(device.slots.committed?.release.sha256).toBe(runsBefore);
          } else if (bucket < facts.bp)
            expect(device.slots.plan?.arm?.name).toBe(armAt(given, bucket)?.name ?? CANDIDATE_ARM);
        }
      }),
      { numRuns: 300 },
    );
    expect(refused).toBeGreaterThan(50);
    expect(kept).toBeGreaterThan(50);
  });
});
