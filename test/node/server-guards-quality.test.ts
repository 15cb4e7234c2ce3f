/** What answers and opens are compared with, where the sides are not alike. */
import { describe, expect, it } from 'vitest';
import { tensorFrom } from '../../src/core/tensor.ts';
import { readEmbedded } from '../../src/engine/embedded.ts';
import type { RolloutEvidence } from '../../src/server/api/answers.ts';
import type { StageDeviceTable } from '../../src/server/db/schema.ts';
import { inBins } from '../../src/server/guards/output-bins.ts';
import { compareWith, NO_REFERENCES } from '../../src/server/guards/verdicts.ts';
import { addWindow } from '../../src/server/ingest/stage-device.ts';
import type { CategoryFeature, Profile } from '../../src/telemetry/profile.ts';
import { createProfileBuilder, type ProfileChoice } from '../../src/telemetry/profile-builder.ts';
import { devicesOf, openGuardWorld, timesOf, type GuardWorld } from './guards-fixture.ts';
import { sha256, testPlatform } from './server-fixture.ts';

const [before, after] = ['1'.repeat(16), '2'.repeat(16)];

const profileOf = (values: readonly string[], counts: readonly number[]): Profile => ({
  v: 1,
  inputs: {},
  outputs: { y: { type: 'category', values, counts, tensor: 'y', reading: 'argmax' } },
});

/** What a device answers: its taste is its own, and some answer the other way round. */
const answers = (hash: string, i: number, isOther = false): string => {
  const bins = [40 + (i % 7), 15 - (i % 5), 0, 0];
  return JSON.stringify({ [hash]: { y: isOther ? [bins[1], bins[0], 0, 0] : bins } });
};

const guardOf = ({ guards }: RolloutEvidence, name: string) => guards.find(({ guard }) => guard === name);

/** A canary whose guards look at answers, or opens, with a profile of either version. */
async function startCanary(
  guard: object,
  profiles: readonly (readonly [string, string, Profile])[] = [],
): Promise<GuardWorld & { lookAfter(minutes: number): Promise<RolloutEvidence> }> {
  const world = await openGuardWorld();
  for (const [version, hash, profile] of profiles) {
    const row = { model: 'digits', version, hash, body: JSON.stringify(profile) };
    await world.db.insertInto('profile').values(row).execute();
  }
  const stages = [
    { bp: 1000, ctl: 5000, soakS: 600, maxS: 86_400 },
    { bp: 10_000, soakS: 600, maxS: 86_400 },
  ];
  const programme = { strategy: 'canary', guard, stages };
  await world.guards.start({ channel: 'stable', model: 'digits', version: '2.0.0', programme }, 'alice');
  return {
    ...world,
    lookAfter: async (minutes) => {
      world.advanceMinutes(minutes);
      await world.look();
      const [evidence] = await world.guards.evidence('stable', 'digits');
      if (!evidence) throw new Error('There is no rollout.');
      return evidence;
    },
  };
}

const quality = { guards: ['errors', 'quality'], required: ['errors'] };
const classes = profileOf(['0', '1'], [70, 30, 0, 0]);

describe('the guard of answers', () => {
  it('judges both arms when all devices are ripe in one look', async () => {
    const world = await startCanary(quality, [
      ['1.0.0', before, classes],
      ['2.0.0', after, profileOf(['0', '1'], [10, 90, 0, 0])],
    ]);
    await world.report(devicesOf('c', 400, (i) => ({ outputs: answers(before, i) })));
    await world.report(devicesOf('t', 300, (i) => ({ outputs: answers(after, i, i % 2 === 0) })));
    const { id: rollout } = await world.plan();
    const evidence = await world.lookAfter(1);
    expect(guardOf(evidence, 'quality')).toMatchObject({
      verdict: 'fail',
      treated: { judged: 300 },
      control: { judged: 200 },
    });
    expect(guardOf(evidence, 'quality')?.treated.bad).toBeGreaterThanOrEqual(150);
    const [stage = -1] = await world.guards.lookedAt(rollout);
    expect(await world.guards.verify(rollout, stage)).toEqual({ looks: 1, broken: [] });
    expect(world.errors).toEqual([]);
  });

  it('finds nothing in a candidate that answers alike', async () => {
    const world = await startCanary(quality, [['1.0.0', before, classes]]);
    await world.report(devicesOf('c', 400, (i) => ({ outputs: answers(before, i) })));
    await world.report(devicesOf('t', 300, (i) => ({ outputs: answers(before, i + 3) })));
    const guard = guardOf(await world.lookAfter(1), 'quality');
    expect(guard).toMatchObject({ verdict: expect.stringMatching(/open|pass/), treated: { judged: 300 } });
    expect(guard?.treated.bad).toBeLessThan(30);
  });

  it('does not compare counts in other bins, and says so', async () => {
    const other = profileOf(['1', '0'], [30, 70, 0, 0]);
    const profiles = [
      ['1.0.0', before, classes],
      ['2.0.0', after, other],
    ] as const;
    for (const [required, status] of [
      [['errors'], 'running'],
      [['errors', 'quality'], 'held'],
    ] as const) {
      const world = await startCanary({ guards: quality.guards, required }, profiles);
      await world.report(devicesOf('c', 500, (i) => ({ outputs: answers(before, i) })));
      await world.report(devicesOf('t', 400, (i) => ({ outputs: answers(after, i, true) })));
      const early = await world.lookAfter(1);
      expect(guardOf(early, 'quality')).toMatchObject({
        verdict: 'open',
        treated: { judged: 0 },
        text: expect.stringContaining('different bins'),
      });
      const late = await world.lookAfter(11);
      expect(late).toMatchObject({ status, stage: status === 'running' ? 1 : 0 });
      if (status === 'held') expect(late.reason).toContain('different bins');
    }
  });

  it('has references that do not depend on the order of the devices', async () => {
    const rows = devicesOf('c', 200, (i) => ({ outputs: JSON.stringify({ y: [40 + (i % 7), 15, 0, 0] }) }));
    const blank = { cls: 3, load: '', errors: 0, fatals: 0, rejections: 0, base_errors: 0, biz: '' };
    const times = { base_load: 0, first_at: 0, activated_at: 0, last_at: 0, gap: 0, verdicts: '' };
    const full = rows.map((row) => ({ ...blank, ...times, ...row }) as StageDeviceTable);
    const next = compareWith(NO_REFERENCES, full).next;
    expect(compareWith(NO_REFERENCES, [...full].reverse()).next).toEqual(next);
    expect(next.distances.reduce((a, b) => a + b, 0)).toBe(200);
  });
});

describe('counts of answers', () => {
  it('are kept by profile, and are one where their bins are equal', () => {
    const sighting = { rollout: 'r', stage: 0, arm: 't', dev: 'd', cls: 3, consent: 'full', at: 1 } as const;
    const window = { t: 0, d: 300, m: 'digits', ver: '1', n: 3, ok: 3 };
    const first = addWindow(undefined, sighting, { ...window, prof: before, p: { y: [1, 2] } });
    const { outputs } = addWindow(first, sighting, { ...window, prof: after, p: { y: [3, 4] } });
    expect(JSON.parse(outputs)).toEqual({ [before]: { y: [1, 2] }, [after]: { y: [3, 4] } });
    const bins = (of: string) => new Map([before, after].map((hash, i) => [hash, { y: `${of}${i}` }]));
    const same = new Map([before, after].map((hash) => [hash, { y: 'b' }]));
    expect(JSON.parse(inBins(outputs, same))).toEqual({ 'y~b': [4, 6] });
    expect(JSON.parse(inBins(outputs, bins('b')))).toEqual({ 'y~b0': [1, 2], 'y~b1': [3, 4] });
    expect(Object.keys(JSON.parse(inBins(outputs, new Map())) as object)).toHaveLength(2);
  });

  it('go into the bins of another version where they are of the same kind', () => {
    const choice: ProfileChoice = {
      inputs: {},
      outputs: {
        y: { type: 'category', tensor: 'y', reading: 'elements' },
        z: { type: 'number', tensor: 'z', reading: 'elements' },
      },
    };
    const tensor = (...data: number[]) => tensorFrom('float32', data);
    const values: CategoryFeature = { type: 'category', values: ['7', '1'], counts: [0, 0, 0, 0] };
    const builder = createProfileBuilder(choice, {
      y: { ...values, tensor: 'y', reading: 'elements' },
      z: { type: 'number', edges: [0, 1, 2], counts: [0, 0, 0, 0], tensor: 'z', reading: 'mean' },
    });
    builder.add({}, { y: tensor(1, 7, 7, 9), z: tensor(5, 6) });
    const { outputs } = builder.build();
    expect(outputs['y']).toMatchObject({ values: ['7', '1'], counts: [2, 1, 0, 1] });
    expect(outputs['z']).not.toMatchObject({ edges: [0, 1, 2] });
  });
});

describe('a release that came with the app', () => {
  it('has the profile that was published with it', async () => {
    const bytes = new Uint8Array([1, 2, 3]);
    const file = { sha256: sha256(bytes), length: 3 };
    const release = { path: 'models/digits/1/m.onnx', seq: 1, version: '1.0.0', ...file };
    const profile = { path: 'models/digits/1/profile.json', sha256: 'a'.repeat(64), length: 9 };
    const embedded = { file: bytes, release: { release, file, manifest: { profile } } };
    const { slot } = await readEmbedded(testPlatform(), embedded, async () => ({ bytes }));
    expect(slot).toMatchObject({ release: { version: '1.0.0' }, profile });
  });
});

describe('the guard of opens', () => {
  const slow = { base_load: 0.5, load: timesOf(5, 1) };

  it('says nothing while the control keeps the model open, and stops nothing', async () => {
    const world = await startCanary({});
    await world.report(devicesOf('t', 12, () => slow));
    await world.report(devicesOf('c', 60, (i) => (i < 3 ? { ...slow, load: timesOf(0.5, 1) } : {})));
    const evidence = await world.lookAfter(1);
    expect(evidence.status).toBe('running');
    expect(guardOf(evidence, 'load')).toMatchObject({ treated: { judged: 0 }, control: { judged: 0 } });
  });

  it('compares opens where the control has some, and trips over none while it has few', async () => {
    const world = await startCanary({});
    await world.report(devicesOf('t', 12, () => slow));
    await world.report(devicesOf('c', 300, (i) => (i < 30 ? slow : {})));
    const evidence = await world.lookAfter(1);
    expect(evidence.status).toBe('running');
    expect(guardOf(evidence, 'load')).toMatchObject({
      treated: { judged: 12, bad: 12 },
      control: { judged: 30, bad: 30 },
    });
  });
});
