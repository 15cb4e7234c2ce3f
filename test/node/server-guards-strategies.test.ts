/** Each strategy from its start to its end, and what people do meanwhile; reports go through the real ingest. */
import { createHash } from 'node:crypto';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { z } from 'zod';
import { createGuardEndpoints } from '../../src/server/api/guard-endpoints.ts';
import type { RolloutEvidence } from '../../src/server/api/answers.ts';
import type { Catalog } from '../../src/server/catalog.ts';
import { createGuards } from '../../src/server/guards/guards.ts';
import {
  GUARD_RANGES,
  MOST_SECONDS_RANGE,
  SECONDS_RANGE,
  SHARE_RANGE,
} from '../../src/server/guards/ranges.ts';
import { readProgramme } from '../../src/server/guards/read-programme.ts';
import { createIngest } from '../../src/server/ingest/ingest.ts';
import { createKnown } from '../../src/server/ingest/known.ts';
import { createHistogram } from '../../src/telemetry/histogram.ts';
import type { Report, ReportWindow } from '../../src/telemetry/report.ts';
import { readSigned, reachedBp } from '../../src/publish/rollout.ts';
import { devicesOf, openGuardWorld, type GuardWorld } from './guards-fixture.ts';
import { testPlatform } from './server-fixture.ts';

const digits = { channel: 'stable', model: 'digits' } as const;
const hour = 3600;

const start = ({ guards }: GuardWorld, programme: unknown, version = '2.0.0'): Promise<RolloutEvidence> =>
  guards.start({ ...digits, version, programme }, 'alice');

const first = async ({ guards }: Pick<GuardWorld, 'guards'>): Promise<RolloutEvidence> => {
  const [evidence] = await guards.evidence('stable', 'digits');
  if (!evidence) throw new Error('There is no rollout.');
  return evidence;
};

const lookAfter = async (world: GuardWorld, minutes: number): Promise<RolloutEvidence> => {
  world.advanceMinutes(minutes);
  await world.look();
  return first(world);
};

const times = (seconds: number, count: number) => {
  const histogram = createHistogram();
  for (let i = 0; i < count; i += 1) histogram.record(seconds);
  return histogram.snapshot();
};

const nameOf = (text: string, bytes: number): string =>
  createHash('sha256').update(text).digest().subarray(0, bytes).toString('base64url');

/** Sends one report of each of so many devices of an arm, over the last minutes, to the ingest of a server. */
async function openFleet(world: GuardWorld) {
  const ingest = createIngest({
    db: world.db,
    platform: { ...testPlatform(), now: world.now },
    isKnown: createKnown(() => world.catalog.state()),
    onError: (error) => world.errors.push(error),
    batchMs: 1,
  });
  onTestFinished(() => ingest.close());
  let seq = 0;
  return async (
    arm: string,
    count: number,
    of: (i: number) => Partial<ReportWindow> = () => ({}),
    header: Partial<Report> = {},
  ): Promise<void> => {
    const { id: ro, stage: st = 0 } = await world.plan();
    const t = Math.floor(world.now() / 60_000) * 60 - 300;
    seq += 1;
    const reports = Array.from({ length: count }, (_, i): Report => {
      const dev = `${ro} ${st} ${arm} ${i}`;
      const window: ReportWindow = {
        ...{ t, d: 300, m: 'digits', ver: arm === 'c' ? '1.0.0' : arm === 'b' ? '3.0.0' : '2.0.0' },
        ...{ ro, st, ...(arm !== '' && { arm }), n: 60, ok: 60, cold: 1 },
        h: { lat: times(0.02, 60), load: times(0.5, 1) },
        bl: { n: 100, e: 0, p95: 0.02, load: 0.5 },
        ...of(i),
      };
      return {
        ...{ v: 1, app: 'stable', dev: nameOf(dev, 12), epoch: nameOf(`${dev} ${seq}`, 8), seq: 0 },
        ...{ sent: world.now(), sdk: 'inlay/0.1.0', rt: 'node', cls: 3, consent: 'full', win: [window] },
        ...header,
      };
    });
    for (let i = 0; i < reports.length; i += 500) {
      expect((await ingest.take(reports.slice(i, i + 500))).refused).toEqual([]);
    }
  };
}

describe('a rolling rollout', () => {
  it('adds one cohort after the other, each when the guards have passed the one before', async () => {
    const world = await openGuardWorld();
    const send = await openFleet(world);
    const cohort = (locale: string) => ({
      bp: 5000,
      ctl: 5000,
      soakS: hour,
      maxS: 24 * hour,
      rules: [{ locale: [locale] }],
    });
    const guard = { guards: ['errors', 'latency'], required: ['errors'] };
    await start(world, { strategy: 'rolling', guard, stages: [cohort('de'), cohort('fr')] });
    await send('t', 30);
    await send('c', 30);
    expect(await lookAfter(world, 61)).toMatchObject({ stage: 0, status: 'running' });
    await world.report([...devicesOf('t', 600), ...devicesOf('c', 600)]);
    expect(await lookAfter(world, 1)).toMatchObject({ stage: 1, status: 'running' });
    expect(await world.plan()).toMatchObject({ stage: 1, rules: [{ locale: ['de'] }, { locale: ['fr'] }] });
    await send('c', 100);
    await send('t', 100, (i) => (i % 4 === 0 ? { ok: 40, err: { run: 20 } } : {}));
    expect(await lookAfter(world, 1)).toMatchObject({ status: 'failed', plan: { state: 'rolledback' } });
    expect(world.errors).toEqual([]);
  });
});

describe('a shadow', () => {
  it.each([
    [[20, 20, 0, 0], 'ended', 'ramp'],
    [[20, 12, 8, 0], 'failed', 'rolledback'],
    [[20, 18, 0, 2], 'failed', 'rolledback'],
  ] as const)('of which devices report %j ends as %s', async (sh, status, state) => {
    const world = await openGuardWorld();
    const send = await openFleet(world);
    await start(world, { strategy: 'shadow', stages: [{ bp: 500, soakS: 600, maxS: 7200 }] });
    await send('', 30, () => ({ n: 0, ok: 0, h: {}, sh }));
    expect(await lookAfter(world, 10)).toMatchObject({ shadow: { n: 600 }, status: 'running' });
    await send('', 30, () => ({ n: 0, ok: 0, h: {}, sh }));
    expect(await lookAfter(world, 1)).toMatchObject({ status, plan: { state }, shadow: { n: 1200 } });
  });
});

describe('an A/B test', () => {
  const arms = [{ name: 'b', version: '3.0.0', weightBp: 5000 }];
  const stages = [{ bp: 6000, ctl: 0, soakS: hour, maxS: 24 * hour }];

  it('ends when its arms can be told apart, and says which is better', async () => {
    const world = await openGuardWorld();
    const send = await openFleet(world);
    await start(world, { strategy: 'ab', arms, stages, guard: { required: [] } });
    const failing = (every: number) => (i: number) => (i % every === 0 ? { ok: 30, err: { run: 30 } } : {});
    await send('t', 60, failing(6));
    await send('b', 60, failing(30));
    const open = await lookAfter(world, 61);
    expect(open).toMatchObject({ status: 'running', reason: expect.stringContaining('told apart') });
    expect(open.arms.find(({ arm }) => arm === 'b')?.comparison).toMatchObject({ verdict: 'open' });
    await world.report(devicesOf('t', 600, (i) => (i % 6 === 0 ? { errors: 9 } : {})));
    await world.report(devicesOf('b', 600, (i) => (i % 30 === 0 ? { errors: 9 } : {})));
    const told = await lookAfter(world, 1);
    expect(told).toMatchObject({ status: 'ended', plan: { bp: 6000, state: 'ramp' } });
    expect(told.reason).toMatch(/^b is better than t: 22 of 660 devices are worse off, against 110 of 660/);
    expect(told.arms).toMatchObject([
      { arm: 't', comparison: null },
      { arm: 'b', comparison: { verdict: 'better' } },
    ]);
    expect(await world.guards.verify((await world.plan()).id, 0)).toMatchObject({ broken: [] });
  });

  it('compares the value of a business event where there is one, and says so where it cannot tell', async () => {
    for (const [worth, status, says] of [
      [0.5, 'ended', 'It cannot be told whether b or t is better: sale is worth'],
      [0.4, 'ended', 'b is worse than t: sale is worth 0.4 a call on 400 devices, against 0.5 on 400'],
    ] as const) {
      const world = await openGuardWorld();
      const guard = { biz: { name: 'sale', margin: 0.02 }, required: [] };
      await start(world, { strategy: 'ab', arms, stages, guard });
      const biz = (mean: number) => (i: number) => ({
        biz: JSON.stringify({ sale: [9, 60 * (mean + (i % 2 ? 0.1 : -0.1))] }),
      });
      await world.report(devicesOf('t', 400, biz(0.5)));
      await world.report(devicesOf('b', 400, biz(worth)));
      await lookAfter(world, 61);
      const end = await lookAfter(world, 24 * 60);
      expect(end.status).toBe(status);
      expect(end.reason).toContain(says);
    }
  });
});

describe('a bandit', () => {
  it('gives the better arm more of the buckets that nobody has yet, and takes none from anybody', async () => {
    const world = await openGuardWorld();
    const send = await openFleet(world);
    const stages = [500, 1000, 2000].map((bp) => ({ bp, ctl: bp, soakS: 600, maxS: 7200 }));
    const arms = [{ name: 'b', version: '3.0.0', weightBp: 5000 }];
    await start(world, { strategy: 'bandit', stages, arms, guard: { required: [] } });
    const weights: number[] = [];
    for (let stage = 0; stage < 2; stage += 1) {
      const before = await world.plan();
      await send('t', 60, (i) => (i % 5 === 0 ? { ok: 50, err: { run: 10 } } : {}));
      await send('b', 60);
      await send('c', 120, (i) => (i % 6 === 0 ? { ok: 50, err: { run: 10 } } : {}));
      const { arms: shares } = await lookAfter(world, 11);
      weights.push(shares.find(({ arm }) => arm === 'b')?.weightBp ?? 0);
      const after = await world.plan();
      expect(after.stage).toBe(stage + 1);
      const armAt = (plan: typeof after, bucket: number): boolean =>
        plan.arms?.[0]?.ranges.some(([from, to]) => bucket >= from && bucket < to) === true;
      for (let bucket = 0; bucket < before.bp; bucket += 1) {
        expect(armAt(after, bucket)).toBe(armAt(before, bucket));
      }
    }
    expect(weights[0]).toBeGreaterThan(6000);
    expect(weights[1]).toBeGreaterThan(weights[0] ?? 0);
    expect(world.errors).toEqual([]);
  });
});

describe('a blue-green rollout', () => {
  it('begins everywhere at its time, is judged there, and is complete in the end', async () => {
    const world = await openGuardWorld();
    const startAt = world.now() + 2 * hour * 1000;
    const stages = [{ bp: 10_000, soakS: hour, maxS: 6 * hour }];
    await start(world, { strategy: 'blue-green', stages, startAt });
    const plan = await world.plan();
    expect(plan).toMatchObject({ bp: 10_000, state: 'ramp', startAt: '2026-03-01T14:00:00Z' });
    expect(reachedBp(readSigned(plan), world.now())).toBe(0);
    expect(reachedBp(readSigned(plan), startAt)).toBe(10_000);
    expect(await lookAfter(world, 119)).toMatchObject({ status: 'running', stageAt: startAt });
    await world.report(devicesOf('t', 50));
    expect(await lookAfter(world, 60)).toMatchObject({ status: 'running', plan: { state: 'ramp' } });
    expect(await lookAfter(world, 2)).toMatchObject({ status: 'ended', plan: { state: 'complete' } });
  });

  it('puts every device back at once when it goes wrong, or when a person says so', async () => {
    for (const isJudged of [true, false]) {
      const world = await openGuardWorld();
      await start(world, { strategy: 'blue-green' });
      if (isJudged) {
        await world.report(devicesOf('t', 20, () => ({ errors: 30 })));
        await world.look();
      } else {
        await world.guards.act({ ...digits, action: 'rollback', reason: 'it flickers' }, 'bob');
      }
      expect(await world.plan()).toMatchObject({ state: 'rolledback', base: { version: '1.0.0' } });
      expect(await first(world)).toMatchObject({ status: isJudged ? 'failed' : 'ended' });
    }
  });

  it('leaves the devices of earlier stages alone when everybody follows', async () => {
    const world = await openGuardWorld();
    const stages = [5000, 10_000].map((bp) => ({ bp, soakS: 600, maxS: 7200 }));
    await start(world, { strategy: 'canary', soakOnly: true, stages });
    await world.report(devicesOf('t', 10));
    await lookAfter(world, 10);
    const plan = readSigned(await world.plan());
    expect(plan).toMatchObject({ state: 'ramp', bp: 10_000 });
    // A clock that is an hour behind.
    expect(reachedBp(plan, world.now() - hour * 1000)).toBe(5000);
  });
});

describe('unlike consent', () => {
  const stages = [1000, 5000].map((bp) => ({ bp, ctl: 1000, soakS: 600, maxS: 24 * hour }));
  const devices = async (world: GuardWorld, change: object = {}): Promise<void> => {
    await world.report(devicesOf('t', 300, (i) => ({ consent: i % 3 === 0 ? 1 : 0, ...change })));
    await world.report(devicesOf('c', 300, (i) => ({ consent: i % 3 === 0 ? 0 : 1 })));
  };

  it('holds the guards that need full reports, and only them', async () => {
    const held = await openGuardWorld();
    await start(held, { strategy: 'canary', stages, guard: { required: ['quality'] } });
    await devices(held);
    const evidence = await lookAfter(held, 11);
    expect(evidence).toMatchObject({ status: 'held', stage: 0 });
    expect(evidence.reason).toMatch(/^33.3 % of the devices .* and 66.7 % of the control; quality cannot/);
    expect(evidence.guards.find(({ guard }) => guard === 'quality')).toMatchObject({ verdict: 'hold' });
    expect(evidence.guards.find(({ guard }) => guard === 'errors')?.verdict).not.toBe('hold');

    const open = await openGuardWorld();
    await start(open, { strategy: 'canary', stages, guard: { required: [] } });
    await devices(open);
    expect(await lookAfter(open, 11)).toMatchObject({ status: 'running', stage: 1 });

    const broken = await openGuardWorld();
    await start(broken, { strategy: 'canary', stages, guard: { required: ['quality'] } });
    await devices(broken, { errors: 9 });
    expect(await lookAfter(broken, 11)).toMatchObject({ status: 'failed' });
  });

  it('is none where the shares are alike', async () => {
    const world = await openGuardWorld();
    await start(world, { strategy: 'canary', stages, guard: { required: ['quality'] } });
    await world.report(devicesOf('t', 300, (i) => ({ consent: i % 3 === 0 ? 1 : 0 })));
    await world.report(devicesOf('c', 300, (i) => ({ consent: i % 3 === 0 ? 1 : 0 })));
    expect(await lookAfter(world, 11)).toMatchObject({ status: 'running', stage: 0 });
  });

  it('keeps what people of one side sell from failing the candidate', async () => {
    const world = await openGuardWorld();
    const guard = { guards: ['biz'], required: [], biz: { name: 'sale', margin: 0.02 } };
    await start(world, { strategy: 'canary', stages, guard });
    const sale = (i: number): { biz: string } => ({ biz: JSON.stringify({ sale: [1, 50 + (i % 7)] }) });
    await world.report(
      devicesOf('t', 300, (i) => (i % 3 === 0 ? { consent: 1, ...sale(i) } : { consent: 0 })),
    );
    await world.report(devicesOf('c', 300, (i) => ({ consent: 1, ...sale(i) })));
    expect(await lookAfter(world, 1)).toMatchObject({ status: 'held', plan: { state: 'ramp' } });
  });
});

describe('a model that opens slowly', () => {
  it('is rolled back, by the opens that devices report', async () => {
    const world = await openGuardWorld();
    const send = await openFleet(world);
    await start(world, {
      strategy: 'canary',
      stages: [{ bp: 1000, ctl: 4000, soakS: hour, maxS: 24 * hour }],
    });
    await send('c', 400, (i) => (i % 40 === 0 ? { h: { lat: times(0.02, 60), load: times(0.9, 1) } } : {}), {
      consent: 'necessary',
    });
    await send('t', 100, (i) => (i % 4 === 0 ? { h: { lat: times(0.02, 60), load: times(0.9, 1) } } : {}));
    const { status, guards } = await lookAfter(world, 1);
    expect(status).toBe('failed');
    expect(guards.find(({ guard }) => guard === 'load')).toMatchObject({
      verdict: 'fail',
      treated: { judged: 100, bad: 25 },
      control: { judged: 400, bad: 10 },
    });
    const rows = await world.db
      .selectFrom('stage_device')
      .select(['arm', 'consent', 'base_load', 'load'])
      .execute();
    expect(rows.find(({ arm }) => arm === 'c')).toMatchObject({ consent: 0, base_load: 0.5 });
    expect(rows.find(({ arm }) => arm === 't')).toMatchObject({ consent: 1 });
    expect(JSON.parse(rows[0]?.load ?? '')).toMatchObject({ min: expect.any(Number) });
  });
});

describe('a person who acts while the guards decide', () => {
  /** Guards whose signature comes after something that a person does. */
  const guardsAfter = (world: GuardWorld, act: () => Promise<unknown>) => {
    let isDone = false;
    const behind =
      <Parts extends readonly unknown[], Result>(task: (...parts: Parts) => Promise<Result>) =>
      async (...parts: Parts): Promise<Result> => {
        if (!isDone) {
          isDone = true;
          await act();
        }
        return task(...parts);
      };
    const { setRollout, changeRollout } = world.catalog;
    const catalog: Catalog = {
      ...world.catalog,
      setRollout: behind(setRollout),
      changeRollout: behind(changeRollout),
    };
    const onError = (error: unknown): number => world.errors.push(error);
    return createGuards({ db: world.db, catalog, platform: { now: world.now }, onError });
  };
  const stages = [1000, 5000].map((bp) => ({ bp, ctl: 0, soakS: 600, maxS: 7200 }));

  it.each([
    ['a pause', 'pause', 'ramp', { state: 'paused', stage: 0 }, 'held'],
    ['a halt', 'halt', 'ramp', { state: 'halted', stage: 0 }, 'held'],
    ['a rollback', 'rollback', 'ramp', { state: 'rolledback', stage: 0 }, 'ended'],
    ['a promotion', 'promote', 'fail', { state: 'complete', stage: 0 }, 'ended'],
  ] as const)('has the last word with %s', async (_, action, wish, plan, status) => {
    const world = await openGuardWorld();
    await start(world, { strategy: 'canary', soakOnly: true, stages });
    await world.report(devicesOf('t', 20, () => (wish === 'fail' ? { errors: 30 } : {})));
    world.advanceMinutes(11);
    const before = await world.plan();
    const guards = guardsAfter(world, () =>
      world.guards.act({ ...digits, action, reason: 'I know why' }, 'bob'),
    );
    await guards.job.run(world.now(), new AbortController().signal);
    await lookAfter(world, 1);
    const { stage = 0, ...after } = await world.plan();
    expect({ ...after, stage }).toMatchObject({ ...plan, id: before.id });
    expect((await first(world)).status).toBe(status);
    expect(world.errors).toEqual([]);
  });
});

describe('going round the guards', () => {
  it('is in the audit log with the reason and what was known', async () => {
    const world = await openGuardWorld();
    await start(world, { strategy: 'canary' });
    await world.report([...devicesOf('t', 30, (i) => (i < 2 ? { errors: 9 } : {})), ...devicesOf('c', 90)]);
    await world.look();
    await world.guards.act({ ...digits, action: 'halt', reason: 'odd colours' }, 'bob');
    await world.guards.act({ ...digits, action: 'resume' }, 'bob');
    await world.guards.act({ ...digits, action: 'promote', reason: `urgent ${'!'.repeat(490)}` }, 'bob');
    const rows = await world.db.selectFrom('audit').selectAll().orderBy('seq', 'desc').limit(3).execute();
    const figures = '30 devices had it; 2 of 30 judged ones were worse off, and 0 of 90 in the control.';
    const [promote, , halt] = rows.map(({ action, actor, details }) => ({
      action,
      actor,
      reason: (JSON.parse(details) as { reason: string }).reason,
    }));
    expect(halt).toEqual({ action: 'halt', actor: 'bob', reason: `odd colours (${figures})` });
    expect(promote).toMatchObject({ action: 'promote', actor: 'bob' });
    expect(promote?.reason).toContain(`! (${figures})`);
    expect(promote?.reason.length).toBe(500);
  });
});

describe('the numbers of a programme', () => {
  it('have the same bounds in the API and for whoever reads it elsewhere', async () => {
    const world = await openGuardWorld();
    const fleet = { fleet: () => Promise.reject(new Error('not asked')) };
    const schema = createGuardEndpoints({ guards: world.guards, fleet }).find(({ path }) =>
      path.endsWith('/power'),
    )?.schemas.body as z.ZodType;
    const isTaken = (programme: object): readonly [boolean, boolean] => {
      let isRead = true;
      try {
        readProgramme(programme);
      } catch {
        isRead = false;
      }
      return [schema.safeParse({ programme }).success, isRead];
    };
    const both = (isOk: boolean): readonly [boolean, boolean] => [isOk, isOk];
    for (const [name, [lowest, highest]] of Object.entries(GUARD_RANGES)) {
      const of = (value: number) => isTaken({ strategy: 'canary', guard: { [name]: value } });
      for (const value of [lowest, highest])
        expect([name, value, of(value)]).toEqual([name, value, both(true)]);
      for (const value of [lowest - 1e-7, highest + 0.5, NaN]) {
        expect([name, value, of(value)]).toEqual([name, value, both(false)]);
      }
    }
    const stage = { bp: 100, soakS: 0, maxS: MOST_SECONDS_RANGE[1] };
    for (const [change, isOk] of [
      [{ bp: SHARE_RANGE[0] }, true],
      [{ bp: SHARE_RANGE[0] - 1 }, false],
      [{ bp: SHARE_RANGE[1] + 1 }, false],
      [{ bp: 0.5 }, false],
      [{ soakS: SECONDS_RANGE[1] }, true],
      [{ soakS: -1 }, false],
      [{ maxS: 0 }, false],
      [{ maxS: MOST_SECONDS_RANGE[1] + 1 }, false],
    ] as const) {
      const taken = isTaken({ strategy: 'canary', stages: [{ ...stage, ...change }] });
      expect([change, taken]).toEqual([change, both(isOk)]);
    }
    const arm = { name: 'b', version: '3.0.0', weightBp: 100 };
    for (const [change, isOk] of [
      [{}, true],
      [{ version: 'v 3' }, false],
      [{ weightBp: 10_001 }, false],
    ] as const) {
      expect(isTaken({ strategy: 'ab', arms: [{ ...arm, ...change }] })).toEqual(both(isOk));
    }
    const event = (name: string) => isTaken({ strategy: 'canary', guard: { biz: { name, margin: 0.1 } } });
    expect([event('sale'), event('Sale!')]).toEqual([both(true), both(false)]);
  });
});
