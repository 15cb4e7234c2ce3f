import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NO_COUNTS, type Counts } from '../../src/stats/e-process.ts';
import { chancesOfBest, weightsOf } from '../../src/server/guards/bandit.ts';
import { alphaOf, DEFAULT_GUARD } from '../../src/server/guards/defaults.ts';
import {
  newStage,
  recompute,
  takeLook,
  type Look,
  type LookInputs,
  type StageRules,
} from '../../src/server/guards/look.ts';
import { readProgramme } from '../../src/server/guards/read-programme.ts';
import { stagePowers } from '../../src/server/guards/stage-power.ts';
import { judge, NO_REFERENCES, withControls, type Device } from '../../src/server/guards/verdicts.ts';
import { createHistogram } from '../../src/telemetry/histogram.ts';
import { devicesOf, openGuardWorld, timesOf } from './guards-fixture.ts';

const rules: StageRules = {
  strategy: 'canary',
  stage: 0,
  stages: 3,
  options: DEFAULT_GUARD,
  limits: { bp: 1000, soakS: 3600, maxS: 86_400 },
  inconclusive: 'hold',
  soakOnly: false,
};

const inputsOf = (at: number, judged: LookInputs['judged'] = {}, any: Counts = NO_COUNTS): LookInputs => ({
  at,
  stageAt: 0,
  rules,
  judged,
  any,
  devices: { treated: 1000, control: 9000 },
  fatal: { treated: 0, control: 0 },
  rejected: { treated: 0, control: 0 },
  hasCalls: true,
});

const counts = fc.tuple(fc.nat(60), fc.nat(500), fc.nat(10), fc.nat(30)).map(([treated, control, a, b]) => ({
  treated,
  control,
  treatedBad: Math.min(a, treated),
  controlBad: Math.min(b, control),
}));

const deviceOf = (change: Partial<Device> = {}): Device => ({
  ...{ dev: 'd', arm: 't', cls: 3, n: 60, errors: 0, fatals: 0, rejections: 0 },
  ...{ base_n: 100, base_errors: 0, base_p95: 0.02, base_mem: 1e8, mem: 1e8 },
  ...{
    hist: timesOf(0.02),
    base_load: 1,
    load: timesOf(1, 3),
    outputs: '',
    biz: '',
    first_at: 0,
    activated_at: 0,
    last_at: 0,
    gap: 0,
    verdicts: '',
  },
  ...change,
});

const badOf = (change: Partial<Device>, references = NO_REFERENCES): Record<string, number> =>
  Object.fromEntries(
    Object.entries(judge(deviceOf(change), DEFAULT_GUARD, references)).map(([name, { bad }]) => [name, bad]),
  );

describe('a look', () => {
  it('is computed again from the log, whatever was seen', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ errors: counts, latency: counts, own: counts }), { maxLength: 12 }),
        (seen) => {
          let state = newStage();
          const log: Look[] = [];
          for (const [i, { errors, latency, own }] of seen.entries()) {
            const judged = { errors: { '': errors }, latency: { '': own, '3': latency } };
            const taken = takeLook(state, inputsOf(i * 600_000, judged, errors));
            state = JSON.parse(JSON.stringify(taken.state));
            log.push(JSON.parse(JSON.stringify(taken.look)) as Look);
          }
          expect(recompute(log)).toEqual([]);
          if (log.length > 0) {
            const last = log.at(-1) as Look;
            const forged = { ...last, evidence: { ...last.evidence, errors: { fail: 99, pass: 0 } } };
            expect(recompute([...log.slice(0, -1), forged])).toEqual([log.length]);
          }
        },
      ),
    );
  });

  it('spends less than α over all stages and guards', () => {
    let spent = 0;
    for (let stage = 0; stage < 50; stage += 1) spent += alphaOf(DEFAULT_GUARD, stage) * 6;
    expect(spent).toBeLessThanOrEqual(0.0501);
    expect(alphaOf(DEFAULT_GUARD, 0)).toBeGreaterThan(1 / 300);
  });

  it('fails nothing whose ratio is small, however sure it is', () => {
    const judged = {
      latency: { '': { treated: 40_000, treatedBad: 2240, control: 360_000, controlBad: 18_000 } },
    };
    const { look } = takeLook(newStage(), inputsOf(0, judged));
    expect(look.evidence.latency?.fail).toBeGreaterThan(-Math.log(alphaOf(DEFAULT_GUARD, 0)));
    expect(look.decision.kind).toBe('wait');
  });

  it('compares the means of a business event, and passes them only when they did not fall by the margin', () => {
    const options = {
      ...DEFAULT_GUARD,
      guards: ['biz'] as const,
      required: ['biz'] as const,
      biz: { name: 'sale', margin: 0.1 },
    };
    const of = (n: number, mean: number) => ({ n, sum: n * mean, squares: n * (mean * mean + 0.04) });
    const decisionOf = (treated: number, n = 4000) =>
      takeLook(newStage(), {
        ...inputsOf(4_000_000, {}, { treated: n, treatedBad: 0, control: n, controlBad: 0 }),
        rules: { ...rules, options },
        biz: { treated: of(n, treated), control: of(n, 0.5) },
      }).look.decision;
    expect(decisionOf(0.4)).toMatchObject({ kind: 'fail', by: 'biz' });
    expect(decisionOf(0.5)).toMatchObject({ kind: 'pass' });
    expect(decisionOf(0.46)).toMatchObject({ kind: 'wait' });
    expect(decisionOf(0.1, 40)).toMatchObject({ kind: 'wait' });
  });
});

describe('a verdict', () => {
  it('is on the device against its own past', () => {
    expect(badOf({})).toMatchObject({ errors: 0, latency: 0, memory: 0, load: 0 });
    expect(badOf({ errors: 2, n: 50 })).toMatchObject({ errors: 1 });
    expect(badOf({ errors: 1 })).toMatchObject({ errors: 0 });
    expect(badOf({ errors: 2, n: 100 })).toMatchObject({ errors: 0 });
    // Many calls: as many failures as two are of the first fifty.
    expect(badOf({ errors: 15, n: 1500 })).toMatchObject({ errors: 0 });
    expect(badOf({ errors: 25, n: 1500 })).toMatchObject({ errors: 1 });
    expect(badOf({ errors: 9, base_errors: 3 })).toMatchObject({ errors: 0 });
    expect(badOf({ fatals: 2 })).toMatchObject({ errors: 1 });
    expect(badOf({ hist: timesOf(0.025) })).toMatchObject({ latency: 1 });
    expect(badOf({ mem: 1.3e8 })).toMatchObject({ memory: 1 });
    expect(badOf({ n: 8, errors: 3, rejections: 1 })).toMatchObject({ errors: 1, load: 0 });
    expect(badOf({ n: 0, rejections: 1, hist: '', load: '' })).toEqual({ errors: 1, memory: 0 });
  });

  it('is against the control of the same class where there is no past', () => {
    const noPast = { base_n: 0, base_p95: 0, base_load: 0, base_mem: 0 };
    expect(Object.keys(badOf({ ...noPast, hist: timesOf(0.5) }))).toEqual(['errors']);
    let references = NO_REFERENCES;
    for (let i = 0; i < 20; i += 1) references = withControls(references, [deviceOf({ arm: 'c' })]);
    const slow = { ...noPast, hist: timesOf(0.5), load: timesOf(1.6, 1), mem: 9e8 };
    expect(badOf(slow, references)).toMatchObject({ latency: 1, load: 1, memory: 1 });
    expect(badOf({ ...slow, load: timesOf(1.4, 1) }, references)).toMatchObject({ load: 0 });
    expect(badOf({ ...slow, load: '' }, references)).not.toHaveProperty('load');
    expect(badOf({ ...noPast, cls: 4, hist: timesOf(0.5) }, references)).not.toHaveProperty('latency');
    expect(judge(deviceOf({ ...noPast }), DEFAULT_GUARD, references).latency).toEqual({
      bad: 0,
      stratum: '3',
    });
  });

  it('takes a model that opens slowly for bad, but not for one slow open among others', () => {
    expect(badOf({ load: timesOf(1.6, 2) })).toMatchObject({ load: 1 });
    expect(badOf({ load: timesOf(1.4, 2) })).toMatchObject({ load: 0 });
    const mixed = createHistogram();
    for (const seconds of [9, 1, 1]) mixed.record(seconds);
    expect(badOf({ load: JSON.stringify(mixed.snapshot()) })).toMatchObject({ load: 0 });
    expect(badOf({ load: timesOf(1.6, 2), base_load: 0 })).not.toHaveProperty('load');
  });

  it('finds answers that no control device gives', () => {
    const answers = (shift: number, seed: number): string => {
      const bins = Array.from({ length: 4 }, (_, i) => 15 + ((i * 7 + seed * 5) % 6));
      bins[0] = (bins[0] ?? 0) + shift;
      return JSON.stringify({ y: bins });
    };
    let references = NO_REFERENCES;
    for (let i = 0; i < 80; i += 1)
      references = withControls(references, [deviceOf({ arm: 'c', outputs: answers(0, i) })]);
    expect(badOf({ outputs: answers(0, 1) }, references)).toMatchObject({ quality: 0 });
    expect(badOf({ outputs: answers(200, 1) }, references)).toMatchObject({ quality: 1 });
    expect(badOf({ outputs: '{"y":[1,2]}' }, references)).not.toHaveProperty('quality');
    expect(badOf({ outputs: answers(200, 1) })).not.toHaveProperty('quality');
  });
});

describe('a bandit', () => {
  it('gives each arm the chance that it is the best, and none of them nothing', () => {
    const even = [
      { arm: 't', devices: 100, good: 90 },
      { arm: 'b', devices: 100, good: 90 },
    ];
    for (const chance of chancesOfBest(even)) expect(chance).toBeCloseTo(0.5, 6);
    const [t = 0, b = 0] = chancesOfBest([
      { arm: 't', devices: 9, good: 6 },
      { arm: 'b', devices: 9, good: 3 },
    ]);
    // P(X > Y) of Beta(7, 4) and Beta(4, 7), summed exactly.
    expect(t).toBeCloseTo(0.9105, 3);
    expect(t + b).toBeCloseTo(1, 3);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(5000), fc.nat(5000)), { minLength: 2, maxLength: 5 }), (arms) => {
        const weights = weightsOf(arms.map(([good, bad], i) => ({ arm: `${i}`, devices: good + bad, good })));
        expect(weights.reduce((a, w) => a + w, 0)).toBe(10_000);
        expect(Math.min(...weights)).toBeGreaterThanOrEqual(500);
      }),
      { numRuns: 20 },
    );
  });

  it('shares the buckets that it wins out by what it has learnt, and leaves the others', async () => {
    const world = await openGuardWorld();
    const stages = [500, 2000].map((bp) => ({ bp, soakS: 600, maxS: 7200 }));
    const arms = [{ name: 'b', version: '3.0.0', weightBp: 5000 }];
    const programme = { strategy: 'bandit', stages, arms };
    const { plan } = await world.guards.start(
      { channel: 'stable', model: 'digits', version: '2.0.0', programme },
      'alice',
    );
    expect(plan.arms).toMatchObject([{ name: 'b', ranges: [[0, 250]] }]);
    await world.report(devicesOf('t', 100, (i) => (i % 5 === 0 ? { errors: 9 } : {})));
    await world.report(devicesOf('b', 100));
    await world.report(devicesOf('c', 1800, (i) => (i % 7 === 0 ? { errors: 9 } : {})));
    world.advanceMinutes(10);
    await world.look();
    const [evidence] = await world.guards.evidence();
    expect(evidence).toMatchObject({ stage: 1, status: 'running' });
    const next = await world.plan();
    const [b] = next.arms ?? [];
    expect(b?.ranges[0]?.[0]).toBe(0);
    const width = b?.ranges.reduce((sum, [from, to]) => sum + to - from, 0) ?? 0;
    // Half of the first 500 buckets, and 95 % of the other 1500.
    expect(width).toBe(250 + 1425);
  });
});

describe('a shadow', () => {
  const start = async (sh: readonly number[]) => {
    const world = await openGuardWorld();
    const stages = [{ bp: 500, soakS: 600, maxS: 7200 }];
    const { plan } = await world.guards.start(
      { channel: 'stable', model: 'digits', version: '2.0.0', programme: { strategy: 'shadow', stages } },
      'alice',
    );
    expect(plan).toMatchObject({ bp: 0, shadow: { bp: 500 } });
    const series = {
      app: 'stable',
      model: 'digits',
      version: '2.0.0',
      rollout: plan.id,
      stage: 0,
      arm: '',
      cls: 1,
    };
    const { id } = await world.db
      .insertInto('series')
      .values(series)
      .returning('id')
      .executeTakeFirstOrThrow();
    const body = JSON.stringify({ n: 0, ok: 0, dev: [0, 0, 0], sh });
    await world.db.insertInto('delta').values({ series: id, t_s: 0, body }).execute();
    await world.db.insertInto('roll').values({ res: 86_400, series: id, t_s: 0, body }).execute();
    world.advanceMinutes(10);
    await world.look();
    const [evidence] = await world.guards.evidence();
    return evidence;
  };

  it('passes when the outputs are alike, and fails when they are not', async () => {
    expect(await start([600, 598, 2, 0])).toMatchObject({
      status: 'ended',
      shadow: { n: 1200, alike: 1196, unlike: 4, failed: 0 },
    });
    expect(await start([600, 500, 100, 0])).toMatchObject({
      status: 'failed',
      plan: { state: 'rolledback' },
    });
    expect(await start([100, 100, 0, 0])).toMatchObject({ status: 'running' });
  });
});

describe('the power of a programme', () => {
  it('says what each stage finds, and that small fleets prove nothing', async () => {
    const [first, second, , last] = await stagePowers(readProgramme({ strategy: 'canary' }), 40_000);
    expect(first).toMatchObject({ bp: 100, treated: 400, control: 3600 });
    expect(first?.rows.find(({ guard, ratio }) => guard === 'latency' && ratio === 3)).toMatchObject({
      detectable: true,
    });
    expect(second?.smallest).toBeLessThanOrEqual(first?.smallest ?? Infinity);
    expect(last).toMatchObject({ control: 0, rows: [], text: expect.stringContaining('tripwires') });
    const [small] = await stagePowers(readProgramme({ strategy: 'canary' }), 300);
    expect(small).toMatchObject({
      treated: 3,
      smallest: null,
      text: expect.stringContaining('nothing passes'),
    });
    const [none] = await stagePowers(readProgramme({ strategy: 'canary' }), 0);
    expect(none?.text).toContain('No device');
  });
});
