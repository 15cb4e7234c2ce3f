import { describe, expect, it } from 'vitest';
import type { RolloutEvidence } from '../../src/server/api/answers.ts';
import type { Guards } from '../../src/server/guards/guards.ts';
import { readStage } from '../../src/server/guards/inspect.ts';
import type { ProgrammeInput } from '../../src/server/guards/read-programme.ts';
import { devicesOf, openGuardWorld, timesOf, type GuardWorld } from './guards-fixture.ts';
import { createPostgres, lacksPostgres } from './postgres.ts';

const digits = { channel: 'stable', model: 'digits' } as const;
const hour = 3600;
const stages = [
  { bp: 1000, soakS: hour, maxS: 24 * hour },
  { bp: 5000, soakS: hour, maxS: 24 * hour },
  { bp: 10_000, soakS: hour, maxS: 24 * hour },
];
const canary: ProgrammeInput = { strategy: 'canary', stages };

const start = (
  { guards }: Pick<GuardWorld, 'guards'>,
  programme: unknown = canary,
  version = '2.0.0',
): Promise<RolloutEvidence> => guards.start({ ...digits, version, programme }, 'alice');

const first = async ({ guards }: { readonly guards: Guards }): Promise<RolloutEvidence> => {
  const [evidence] = await guards.evidence('stable', 'digits');
  if (!evidence) throw new Error('There is no rollout.');
  return evidence;
};

/** Looks again and again for so many minutes. */
const lookFor = async (world: GuardWorld, minutes: number, everyMinutes = 10): Promise<void> => {
  for (let passed = 0; passed < minutes; passed += everyMinutes) {
    world.advanceMinutes(everyMinutes);
    await world.look();
  }
};
/** A day and an hour: longer than any stage. */
const overtime = [25 * 60, 100] as const;

const slow = timesOf(0.06);

describe('a programme', () => {
  it('goes through its stages to everybody when the devices do well', async () => {
    const world = await openGuardWorld();
    const { plan, status } = await start(world);
    expect([plan.bp, plan.stage ?? 0, status]).toEqual([1000, 0, 'running']);
    for (const stage of [0, 1]) {
      await world.report(devicesOf(`t`, 900, (i) => ({ dev: `s${stage}t${i}` })));
      await world.report(devicesOf(`c`, stage === 0 ? 8100 : 900, (i) => ({ dev: `s${stage}c${i}` })));
      await world.look();
      expect(await first(world)).toMatchObject({ stage, status: 'running' });
      await world.db
        .updateTable('stage_device')
        .set({ last_at: world.now() + 60_000 })
        .where('stage', '=', stage)
        .execute();
      await lookFor(world, 60);
    }
    expect(await world.plan()).toMatchObject({ stage: 2, bp: 10_000, fromBp: 5000, state: 'ramp' });
    await world.report(devicesOf('t', 30));
    await lookFor(world, 60);
    expect(await first(world)).toMatchObject({ status: 'ended', stage: 2, plan: { state: 'complete' } });
    expect(world.events.map(({ kind }) => kind)).toEqual(['started', 'advanced', 'advanced', 'ended']);
    expect(world.errors).toEqual([]);
    const { id } = await world.plan();
    for (const stage of [0, 1, 2]) expect(await world.guards.verify(id, stage)).toMatchObject({ broken: [] });
  });

  it('is rolled back when devices get slower than they were, with the figures in the audit log', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.report(devicesOf('c', 900, (i) => (i % 20 === 0 ? { hist: slow } : {})));
    await world.report(devicesOf('t', 100, (i) => (i % 4 === 0 ? { hist: slow } : {})));
    await world.look();
    expect(await world.plan()).toMatchObject({ state: 'rolledback' });
    const evidence = await first(world);
    expect(evidence.status).toBe('failed');
    const latency = evidence.guards.find(({ guard }) => guard === 'latency');
    expect(latency).toMatchObject({ verdict: 'fail', treated: { judged: 100, bad: 25 } });
    expect(latency?.logEFail).toBeGreaterThan(latency?.failAt ?? Infinity);
    const record = await world.db.selectFrom('audit').selectAll().orderBy('seq', 'desc').executeTakeFirst();
    expect(record).toMatchObject({ actor: 'guard', action: 'rollback' });
    expect(record?.details).toContain('25 of 100 devices');
    expect(world.events.at(-1)).toMatchObject({ kind: 'failed', by: 'latency', status: 'failed' });
    await lookFor(world, 60);
    expect(world.events.filter(({ kind }) => kind === 'failed')).toHaveLength(1);
  });

  it('is not rolled back for devices that were as bad before', async () => {
    const world = await openGuardWorld();
    await start(world);
    const bad = { errors: 9, base_errors: 15 };
    await world.report(devicesOf('c', 900, (i) => (i % 20 === 0 ? bad : {})));
    await world.report(devicesOf('t', 100, (i) => (i % 4 === 0 ? bad : {})));
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'running' });
  });

  it('fills up bucket by bucket, and adds one cohort after the other', async () => {
    const world = await openGuardWorld();
    const cohort = (locale: string) => ({
      bp: 5000,
      durationS: hour,
      soakS: 600,
      maxS: hour * 24,
      rules: [{ locale: [locale] }],
    });
    await start(world, { strategy: 'rolling', soakOnly: true, stages: [cohort('de'), cohort('fr')] });
    expect(await world.plan()).toMatchObject({ bp: 5000, durationS: hour, rules: [{ locale: ['de'] }] });
    await world.report(devicesOf('t', 5));
    await lookFor(world, 60);
    expect(await first(world)).toMatchObject({ stage: 0 });
    await lookFor(world, 10);
    expect(await first(world)).toMatchObject({ stage: 1, status: 'running' });
    expect(await world.plan()).toMatchObject({ stage: 1, rules: [{ locale: ['de'] }, { locale: ['fr'] }] });
  });

  it('halts or only holds where that is its policy, and looks on while it is paused', async () => {
    for (const [onFail, state] of [
      ['halt', 'halted'],
      ['hold', 'paused'],
    ] as const) {
      const world = await openGuardWorld();
      await start(world, { ...canary, onFail });
      await world.guards.act({ ...digits, action: 'pause' }, 'alice');
      await world.report(devicesOf('t', 20, () => ({ errors: 12 })));
      await world.look();
      expect(await world.plan()).toMatchObject({ state });
      expect(await first(world)).toMatchObject({ status: 'failed' });
    }
  });

  it('trips on a few devices without statistics, and not where the control is alike', async () => {
    const trips = [
      [{ fatals: 1 }, 'fatal'],
      [{ n: 3, rejections: 1 }, 'rejections'],
      [{ errors: 30 }, 'tripwire'],
    ] as const;
    for (const [change, by] of trips) {
      const world = await openGuardWorld();
      await start(world);
      await world.report(devicesOf('t', 12, (i) => (i < 7 ? change : {})));
      await world.look();
      expect(world.events.at(-1)).toMatchObject({ kind: 'failed', by });
    }
    const world = await openGuardWorld();
    await start(world);
    await world.report(devicesOf('c', 40, (i) => (i % 2 === 0 ? { fatals: 1 } : {})));
    await world.report(devicesOf('t', 12, (i) => (i < 6 ? { fatals: 1 } : {})));
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'running' });
  });

  it('counts devices that went silent, against a control that did not', async () => {
    const world = await openGuardWorld();
    await start(world);
    const since = { n: 0, hist: '', mem: 0, first_at: world.now(), activated_at: world.now() };
    await world.report(devicesOf('t', 60, () => since));
    await world.report(
      devicesOf('c', 540, (i) => ({ n: 20, last_at: world.now() + (i % 20 === 0 ? 0 : 60_000) })),
    );
    await lookFor(world, 20);
    expect(await first(world)).toMatchObject({ status: 'running' });
    await lookFor(world, 30);
    expect(await world.plan()).toMatchObject({ state: 'rolledback' });
    expect(await first(world)).toMatchObject({ status: 'failed', devices: { exposed: 60, silent: 60 } });
  });
});

describe('a server that was out of reach', () => {
  /** Devices that began 10 to 25 minutes after the stage, and a control 10 minutes before them, at each its minute. */
  const begin = async (world: GuardWorld): Promise<void> => {
    const from = world.now();
    const at = (minute: number): number => from + minute * 60_000;
    await world.report(
      devicesOf('c', 450, (i) => ({ n: 10, first_at: at(i % 15), last_at: at((i % 15) + 15) })),
    );
    const late = (i: number): number => at(10 + (i % 15));
    await world.report(devicesOf('t', 50, (i) => ({ n: 10, first_at: late(i), activated_at: late(i) })));
  };
  const hear = async (world: GuardWorld): Promise<void> => {
    const row = { dev: 'any', model: 'digits', version: '1.0.0', rollout: '', stage: 0, arm: '', cls: 3 };
    const about = { ...row, sdk: '', runtime: '', app: '', first_at: 0, last_t_s: 0, counted: '{}' };
    await world.db
      .insertInto('device')
      .values({ ...about, last_at: world.now() })
      .onConflict((conflict) => conflict.columns(['dev', 'model']).doUpdateSet({ last_at: world.now() }))
      .execute();
  };

  it('waits until devices have had the time to come back, and counts those that do not', async () => {
    const world = await openGuardWorld();
    await start(world);
    await begin(world);
    const live = async (minutes: number): Promise<void> => {
      for (let minute = 0; minute < minutes; minute += 5) {
        world.advanceMinutes(5);
        await hear(world);
        await world.look();
      }
    };
    await live(25);
    world.advanceMinutes(45);
    await live(85);
    expect(await world.plan()).toMatchObject({ state: 'ramp' });
    await live(15);
    expect(await first(world)).toMatchObject({ status: 'failed', devices: { silent: 50 } });
  });
});

describe('a stage without evidence', () => {
  it('is held when nobody reports, whatever the policy', async () => {
    const world = await openGuardWorld();
    await start(world, { ...canary, soakOnly: true, inconclusive: 'promote' });
    await lookFor(world, ...overtime);
    expect(await first(world)).toMatchObject({ status: 'held', stage: 0 });
    expect((await first(world)).reason).toContain('no data');
    expect(world.events.map(({ kind }) => kind)).toEqual(['started', 'held']);
    const holds = await world.db.selectFrom('audit').selectAll().where('action', '=', 'hold').execute();
    expect(holds).toHaveLength(1);
  });

  it('of one device is held as not proven, or passes by time where that is asked for', async () => {
    const held = await openGuardWorld();
    await start(held);
    await held.report(devicesOf('t', 1));
    await lookFor(held, ...overtime);
    expect(await first(held)).toMatchObject({ status: 'held', stage: 0 });
    expect((await first(held)).reason).toContain('statistically nothing is proven');

    const soaking = await openGuardWorld();
    await start(soaking, { ...canary, soakOnly: true });
    await soaking.report(devicesOf('t', 1));
    await lookFor(soaking, 70);
    expect(await first(soaking)).toMatchObject({ status: 'running', stage: 1 });
  });

  it('ends as its policy says when time is over', async () => {
    for (const [inconclusive, expected] of [
      ['promote', { stage: 1, status: 'running' }],
      ['rollback', { stage: 0, status: 'failed' }],
    ] as const) {
      const world = await openGuardWorld();
      await start(world, { ...canary, inconclusive });
      await world.report(devicesOf('t', 5));
      await lookFor(world, ...overtime);
      expect(await first(world)).toMatchObject(expected);
    }
  });

  it('is held while more devices report the candidate than were assigned, and goes on by itself', async () => {
    const world = await openGuardWorld();
    await start(world, { ...canary, guard: { required: [] } });
    await world.report(devicesOf('t', 300));
    await world.report(devicesOf('c', 300));
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'running' });
    await lookFor(world, 60);
    expect(world.events.at(-1)).toMatchObject({ kind: 'held', by: 'sample-ratio' });
    await world.report(devicesOf('c', 2400, (i) => ({ dev: `later${i}` })));
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'running', stage: 1 });
  });

  it('is not held for what one device says to have lost', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.report([...devicesOf('t', 30), ...devicesOf('c', 270)]);
    const dedupe = { epoch: 'e', seen: '', first_at: 0, last_at: 0 };
    const rows = [...devicesOf('t', 30), ...devicesOf('c', 270)].map(({ dev, arm }, i) => ({
      ...dedupe,
      dev,
      hi: 99,
      lost: 0,
      ...(arm === 't' && i === 0 && { hi: 1e6, lost: 9e5 }),
    }));
    await world.db.insertInto('dedupe').values(rows).execute();
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'running' });
  });

  it('is held while reports of one arm get lost', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.report([...devicesOf('t', 30), ...devicesOf('c', 270)]);
    const dedupe = { epoch: 'e', seen: '', first_at: 0, last_at: 0 };
    await world.db
      .insertInto('dedupe')
      .values([
        ...devicesOf('t', 30).map(({ dev }) => ({ ...dedupe, dev, hi: 100, lost: 40 })),
        ...devicesOf('c', 270).map(({ dev }) => ({ ...dedupe, dev, hi: 100, lost: 1 })),
      ])
      .execute();
    await world.look();
    expect(world.events.at(-1)).toMatchObject({ kind: 'held', by: 'loss' });
  });
});

describe('the evidence', () => {
  const databases = [
    ['SQLite', false],
    ['PostgreSQL', true],
  ] as const;

  it.each(databases)(
    'is counted once by two replicas that look at the same time, on %s',
    async (_, isPostgres) => {
      if (isPostgres && lacksPostgres) return;
      const world = await openGuardWorld(isPostgres ? await createPostgres() : undefined);
      await start(world);
      const other = world.replica();
      for (let round = 0; round < 3; round += 1) {
        await world.report(
          devicesOf('t', 40, (i) => ({ dev: `${round}t${i}`, errors: i % 20 === 0 ? 5 : 0 })),
        );
        await world.report(
          devicesOf('c', 360, (i) => ({ dev: `${round}c${i}`, errors: i % 20 === 0 ? 5 : 0 })),
        );
        world.advanceMinutes(1);
        await Promise.all([world.look(), other.job.run(world.now(), new AbortController().signal)]);
      }
      await world.look();
      const { id } = await world.plan();
      const { state } = await readStage(world.db, { rollout: id, stage: 0 });
      expect(state.evidence.errors?.total).toEqual({
        treated: 120,
        treatedBad: 6,
        control: 1080,
        controlBad: 54,
      });
      expect(await world.guards.verify(id, 0)).toEqual({ looks: state.look, broken: [] });
      expect(world.errors).toEqual([]);
    },
  );

  it('is the same after a restart in the middle of a stage, and in whatever order devices come', async () => {
    const ends = await Promise.all(
      (['as they come', 'with restarts', 'the other way round'] as const).map(async (how) => {
        const world = await openGuardWorld();
        await start(world);
        const name = (round: number, i: number): string =>
          `${round}-${how === 'the other way round' ? 1999 - i : 1000 + i}`;
        let guards = world.guards;
        for (let round = 0; round < 4; round += 1) {
          const treated = devicesOf('t', 30, (i) => ({ dev: name(round, i), mem: i === 0 ? 2e8 : 1e8 }));
          const noPast = { base_n: 0, base_p95: 0 };
          await world.report(treated);
          await world.report(devicesOf('c', 270, (i) => ({ dev: name(round, 100 + i), ...noPast })));
          world.advanceMinutes(1);
          await guards.job.run(world.now(), new AbortController().signal);
          if (how === 'with restarts') guards = world.replica();
        }
        const { id } = await world.plan();
        return readStage(world.db, { rollout: id, stage: 0 });
      }),
    );
    const [plain, restarted, reversed] = ends;
    expect(restarted).toEqual(plain);
    expect(reversed?.state).toEqual(plain?.state);
    expect(plain?.state.evidence.memory?.total.treatedBad).toBe(4);
  });

  it('shows a log that was tampered with', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.report([...devicesOf('t', 30), ...devicesOf('c', 270)]);
    await world.look();
    const { id } = await world.plan();
    const row = await world.db.selectFrom('guard_look').selectAll().executeTakeFirstOrThrow();
    await world.db
      .updateTable('guard_look')
      .set({ body: row.body.replace('"kind":"wait"', '"kind":"pass"') })
      .execute();
    expect(await world.guards.verify(id, 0)).toEqual({ looks: 1, broken: [1] });
  });

  it('has a history, and says how many devices are left to a verdict', async () => {
    const world = await openGuardWorld();
    await start(world);
    for (let round = 0; round < 3; round += 1) {
      await world.report(
        devicesOf('t', 30, (i) => ({ dev: `${round}t${i}`, hist: i < 4 ? slow : timesOf(0.02) })),
      );
      await world.report(
        devicesOf('c', 270, (i) => ({ dev: `${round}c${i}`, hist: i < 13 ? slow : timesOf(0.02) })),
      );
      world.advanceMinutes(1);
      await world.look();
    }
    const latency = (await first(world)).guards.find(({ guard }) => guard === 'latency');
    expect(latency?.history).toHaveLength(3);
    expect(latency?.verdict).toBe('open');
    expect(latency?.devicesLeft).toBeGreaterThan(0);
  });

  it('is there for rollouts without a programme', async () => {
    const world = await openGuardWorld();
    expect(await first(world)).toMatchObject({ status: 'manual', programme: null, guards: [] });
  });
});

describe('a signer that refuses', () => {
  it('holds the programme, which tries again and is carried out in the end', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.report(devicesOf('t', 20, () => ({ errors: 12 })));
    world.refuse(new Error('no'));
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'held' });
    expect((await first(world)).reason).toContain('could not be carried out');
    expect(await world.plan()).toMatchObject({ state: 'ramp' });
    world.advanceMinutes(1);
    await world.look();
    expect(world.errors).toHaveLength(2);
    expect(world.events.filter(({ kind }) => kind === 'held')).toHaveLength(1);
    world.refuse(undefined);
    world.advanceMinutes(1);
    await world.look();
    expect(await world.plan()).toMatchObject({ state: 'rolledback' });
    expect(await first(world)).toMatchObject({ status: 'failed' });
  });

  it('starts nothing', async () => {
    const world = await openGuardWorld();
    world.refuse(new Error('no'));
    await expect(start(world)).rejects.toThrow('no');
    world.refuse(undefined);
    expect(await first(world)).toMatchObject({ status: 'manual' });
    await start(world);
    expect(await first(world)).toMatchObject({ status: 'running' });
  });
});

describe('people', () => {
  it('pause, resume, advance, promote and roll back, and need a reason to go round the guards', async () => {
    const world = await openGuardWorld();
    const { guards } = world;
    await start(world);
    expect(await guards.act({ ...digits, action: 'pause' }, 'bob')).toMatchObject({ status: 'held' });
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'held' });
    expect(await guards.act({ ...digits, action: 'resume' }, 'bob')).toMatchObject({ status: 'running' });
    for (const action of ['advance', 'promote'] as const) {
      await expect(guards.act({ ...digits, action }, 'bob')).rejects.toMatchObject({
        code: 'ERR_INLAY_REFUSED',
      });
    }
    const advanced = await guards.act({ ...digits, action: 'advance', reason: 'small fleet' }, 'bob');
    expect(advanced).toMatchObject({ stage: 1, status: 'running', plan: { bp: 5000, stage: 1 } });
    const promoted = await guards.act({ ...digits, action: 'promote', reason: 'urgent fix' }, 'bob');
    expect(promoted).toMatchObject({ status: 'ended', plan: { state: 'complete' } });
    expect(await guards.act({ ...digits, action: 'rollback' }, 'bob')).toMatchObject({
      plan: { state: 'rolledback' },
    });
    await expect(guards.act({ ...digits, action: 'advance', reason: 'x' }, 'bob')).rejects.toMatchObject({
      code: 'ERR_INLAY_CONFLICT',
    });
    await expect(
      guards.act({ channel: 'none', model: 'digits', action: 'pause' }, 'bob'),
    ).rejects.toMatchObject({
      name: 'ServerError',
    });
  });

  it('publish another version over an open one, whose programme ends', async () => {
    const world = await openGuardWorld();
    await start(world);
    await expect(start(world)).rejects.toMatchObject({ code: 'ERR_INLAY_CONFLICT' });
    await start(world, canary, '3.0.0');
    await world.look();
    const rows = await world.db
      .selectFrom('programme')
      .select(['version', 'status'])
      .orderBy('version')
      .execute();
    expect(rows).toEqual([
      { version: '2.0.0', status: 'ended' },
      { version: '3.0.0', status: 'running' },
    ]);
  });

  it('change the plan behind its back, and it follows', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.catalog.changeRollout({ ...digits, action: 'rollback' }, 'carol');
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'ended', reason: 'It was rolled back.' });
  });

  it('advance nothing that was taken back or replaced, also before the programme has noted that', async () => {
    const { guards, catalog, plan } = await openGuardWorld();
    await start({ guards });
    await catalog.changeRollout({ ...digits, action: 'rollback' }, 'bob');
    const advance = { ...digits, action: 'advance', reason: 'looks fine' } as const;
    const refusal = { code: 'ERR_INLAY_CONFLICT' };
    await expect(guards.act(advance, 'carol')).rejects.toMatchObject(refusal);
    await catalog.setRollout({ ...digits, version: '3.0.0', percent: 10 }, 'bob');
    await expect(guards.act(advance, 'carol')).rejects.toMatchObject(refusal);
    expect(await plan()).toMatchObject({ cand: { version: '3.0.0' }, bp: 1000 });
  });

  it('begin a programme again for a rollout that had one, in stages of their own', async () => {
    const world = await openGuardWorld();
    await start(world);
    await world.report(devicesOf('t', 20, () => ({ errors: 12 })));
    await world.catalog.changeRollout({ ...digits, action: 'halt' }, 'carol');
    await world.look();
    expect(await first(world)).toMatchObject({ status: 'failed' });
    await start(world, canary, '3.0.0');
    expect(await first(world)).toMatchObject({ status: 'running', stage: 0, plan: { bp: 1000 } });
  });

  it('pin a version until they unpin it', async () => {
    const world = await openGuardWorld();
    await start(world, { strategy: 'pin' });
    await expect(start(world, canary, '3.0.0')).rejects.toMatchObject({ code: 'ERR_INLAY_CONFLICT' });
    await world.guards.act({ ...digits, action: 'unpin' }, 'bob');
    expect(await start(world, canary, '3.0.0')).toMatchObject({ status: 'running' });
  });

  it('are told what cannot be carried out', async () => {
    const world = await openGuardWorld();
    const wrong: readonly unknown[] = [
      null,
      {},
      { strategy: 'magic' },
      { strategy: 'canary', stages: [] },
      { strategy: 'canary', stages: [{ bp: 0, soakS: 1, maxS: 2 }] },
      { strategy: 'canary', stages: [{ bp: 100, soakS: 10, maxS: 2 }] },
      { strategy: 'canary', stages: [...stages].reverse() },
      { strategy: 'canary', stages: [{ bp: 6000, ctl: 5000, soakS: 1, maxS: 2 }] },
      { strategy: 'canary', guard: { guards: ['errors', 'biz'] } },
      { strategy: 'canary', guard: { guards: ['errors'], required: ['latency'] } },
      { strategy: 'canary', guard: { alpha: 2 } },
      { strategy: 'canary', arms: [{ name: 'a', version: '3.0.0', weightBp: 1 }] },
      { strategy: 'bandit' },
      { strategy: 'ab', arms: [{ name: 't', version: '3.0.0', weightBp: 1 }] },
      { strategy: 'canary', 'drop table programme': 1 },
    ];
    for (const programme of wrong) {
      await expect(start(world, programme)).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
    }
    await expect(start(world, canary, '9.0.0')).rejects.toMatchObject({ code: 'ERR_INLAY_NOT_FOUND' });
    expect(await world.db.selectFrom('programme').selectAll().execute()).toEqual([]);
  });
});
