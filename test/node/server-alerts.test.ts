import { afterEach, describe, expect, it } from 'vitest';
import { createAlerts, type AlertsParts } from '../../src/server/alerts/alerts.ts';
import type { AlertNotification, Notification } from '../../src/server/alerts/notification.ts';
import type { DriftRow } from '../../src/server/api/answers.ts';
import type { Drift } from '../../src/server/drift/drift.ts';
import type { Aggregate } from '../../src/server/ingest/aggregate.ts';
import { lacksPostgres, startPostgres } from './postgres.ts';
import { openCounts, timesOf } from './server-fleet-counts.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const start = Date.parse('2026-03-10T10:00:00Z');

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

const noDrift: Pick<Drift, 'rows' | 'profiles'> = {
  rows: () => Promise.resolve([]),
  profiles: () => Promise.resolve([]),
};

async function world(parts: Partial<AlertsParts> = {}, database?: string) {
  const counts = await openCounts(database);
  closers.push(() => counts.db.destroy());
  const clock = { now: start };
  const errors: unknown[] = [];
  const alerts = createAlerts({
    db: counts.db,
    drift: noDrift,
    platform: { now: () => clock.now, random: () => 0.5 },
    env: {},
    onError: (error) => errors.push(error),
    ...parts,
  });
  const [alertsJob, outboxJob] = alerts.jobs;
  const { signal } = new AbortController();
  return {
    ...counts,
    alerts,
    clock,
    errors,
    /** Only the rule at hand. */
    only: async (rule: unknown) => {
      for (const { rule: seeded } of await alerts.rules()) await alerts.removeRule(seeded.id);
      await alerts.putRule(rule);
    },
    look: async (at: number) => {
      clock.now = at;
      await alertsJob?.run(at, signal);
      return (await alerts.list()).alerts.map(({ rule, state, level }) => `${rule} ${state} ${level}`);
    },
    send: () => outboxJob?.run(clock.now, signal),
    outbox: async () =>
      (await counts.db.selectFrom('outbox').select(['contact', 'body']).orderBy('id').execute()).map(
        ({ contact, body }) => ({ contact, body: JSON.parse(body) as Notification }),
      ),
    kinds: async () => (await alerts.list()).events.map(({ kind }) => kind).reverse(),
  };
}

/** Counts of 5 minutes. */
function calls(n: number, failed: number, devices = 60): Partial<Aggregate> {
  return { n, ok: n - failed, dev: [devices, devices, devices] };
}

describe('the default rules', () => {
  it('say nothing of a fleet without data', async () => {
    const { look, alerts } = await world();
    expect(await look(start)).toEqual([]);
    expect(await alerts.rules()).toHaveLength(9);
    expect((await alerts.list()).events).toEqual([]);
  });

  it('stay removed', async () => {
    const { look, alerts } = await world();
    await look(start);
    await alerts.removeRule('slo');
    await look(start + minute);
    expect((await alerts.rules()).map(({ rule }) => rule.id)).not.toContain('slo');
    await expect(alerts.removeRule('slo')).rejects.toMatchObject({ code: 'ERR_INLAY_NOT_FOUND' });
  });

  it('find a version that fails, against the week before its model, and end when it is well again', async () => {
    const { look, fold, delta } = await world();
    for (let back = 1; back <= 7; back += 1)
      await fold(start - back * day, 'digits', '1.0.0', calls(10_000, 50));
    await delta(start, 'digits', '1.0.0', calls(1000, 5));
    await delta(start, 'digits', '2.0.0', calls(1000, 45));
    const found = (await look(start + 4 * minute)).filter((line) => line.startsWith('error-rate'));
    expect(found).toEqual(['error-rate firing critical']);
    // Half an hour later nothing of it is in the window any more.
    await delta(start + 30 * minute, 'digits', '2.0.0', calls(1000, 5));
    expect(await look(start + 34 * minute)).toContain('error-rate firing critical');
    expect(await look(start + 40 * minute)).toContain('error-rate resolved critical');
  });

  it('wait for 30 devices', async () => {
    const { look, delta } = await world();
    await delta(start, 'digits', '2.0.0', calls(1000, 500, 29));
    expect(await look(start + minute)).toEqual([]);
  });

  it('find slow calls, silence, and rollouts that were stopped', async () => {
    const { look, fold, delta, db } = await world();
    await fold(start - day, 'digits', '1.0.0', { ...calls(1000, 0), h: timesOf(0.02, 1000) });
    await delta(start, 'digits', '1.0.0', { ...calls(1000, 0), h: timesOf(0.05, 1000) });
    const programme = {
      rollout: 'r1',
      channel: 'stable',
      model: 'digits',
      version: '2.0.0',
      body: '{}',
      stage: 1,
      status: 'failed',
      reason: JSON.stringify({ by: 'errors', text: 'Too many devices fail.', at: start }),
      stage_at: start,
      updated_at: start,
    };
    await db.insertInto('programme').values(programme).execute();
    const devices = Array.from({ length: 40 }, (_, i) => ({
      dev: `d${i}`,
      model: 'faces',
      version: '1.0.0',
      rollout: '',
      stage: 0,
      arm: '',
      cls: 1,
      sdk: '',
      runtime: '',
      app: 'stable',
      first_at: 0,
      last_at: start - 16 * minute - i,
      last_t_s: 0,
      counted: '',
    }));
    await db.insertInto('device').values(devices).execute();
    expect((await look(start + minute)).sort()).toEqual([
      'latency firing critical',
      'rollout firing critical',
      'silence firing emergency',
    ]);
  });

  it('count lost reports and wrong clocks', async () => {
    const { look, db } = await world();
    const t_s = start / 1000;
    const rows = [
      { t_s, name: 'reports', n: 950 },
      { t_s, name: 'lost', n: 50 },
      { t_s, name: 'skewed', n: 9 },
    ];
    await db.insertInto('health').values(rows).execute();
    expect(await look(start + minute)).toEqual(['telemetry firing warning']);
  });

  it('do not stop when one of them cannot be looked at', async () => {
    const broken = { ...noDrift, rows: () => Promise.reject(new Error('no drift today')) };
    const { look, delta, errors } = await world({ drift: broken });
    await delta(start, 'digits', '2.0.0', calls(1000, 500));
    expect(await look(start + minute)).toContain('error-rate firing emergency');
    expect(errors).toEqual([new Error('no drift today')]);
  });
});

describe('alerts', () => {
  const rule = {
    id: 'errors',
    cond: { kind: 'threshold', signal: 'errorRate', windowS: 300 },
    levels: { warning: 0.05, critical: 0.5 },
    clear: { ratio: 0.8, forS: 0 },
  };

  it('are told to contacts, acknowledged, raised and resolved', async () => {
    const { look, delta, alerts, only, outbox, kinds, clock } = await world();
    await only({ ...rule, escalate: [{ afterS: 900, to: 'boss' }], runbook: 'https://example.org/errors' });
    await alerts.putContact({ id: 'pager', kind: 'slack', url: 'https://example.org/' });
    await alerts.putContact({ id: 'boss', kind: 'slack', url: 'https://example.org/', isDefault: false });
    await delta(start, 'digits', '1.0.0', calls(1000, 100));
    await look(start + minute);
    expect(await outbox()).toEqual([]);
    await look(start + 2 * minute);
    const [told] = await outbox();
    expect(told).toMatchObject({
      contact: 'pager',
      body: {
        kind: 'alerts',
        status: 'firing',
        level: 'warning',
        labels: { model: 'digits' },
        alerts: [
          {
            rule: 'errors',
            labels: { model: 'digits', version: '1.0.0' },
            value: 0.1,
            text: '10 % of calls failed in 5 min, 1000 calls of at least 60 devices',
            runbook: 'https://example.org/errors',
          },
        ],
      },
    });
    const [alert] = (await alerts.list()).alerts;
    await alerts.acknowledge(alert?.fingerprint ?? '', 'ada');
    await alerts.acknowledge(alert?.fingerprint ?? '', 'bob');
    expect((await alerts.list()).alerts).toMatchObject([{ state: 'acked', ackedBy: 'ada' }]);

    // Nobody is told again or above, for hours.
    for (let at = 10; at <= 360; at += 10) {
      await delta(start + at * minute, 'digits', '1.0.0', calls(1000, 100));
      await look(start + (at + 1) * minute);
    }
    expect(await outbox()).toHaveLength(1);

    const later = start + 370 * minute;
    await delta(later, 'digits', '1.0.0', calls(1000, 900));
    expect(await look(later + minute)).toEqual(['errors firing critical']);
    expect(await outbox()).toHaveLength(2);
    expect((await alerts.list()).alerts[0]?.ackedBy).toBeNull();
    await look(later + 4 * minute);
    await delta(later + 10 * minute, 'digits', '1.0.0', calls(1000, 900));
    await look(later + 12 * minute);
    expect((await outbox()).map(({ contact }) => contact)).toEqual(['pager', 'pager']);
    await look(later + 16 * minute + 1);
    expect((await outbox()).map(({ contact }) => contact)).toEqual(['pager', 'pager', 'boss']);

    await delta(later + 30 * minute, 'digits', '1.0.0', calls(1000, 0));
    expect(await look(later + 31 * minute)).toEqual(['errors resolved critical']);
    const last = (await outbox()).slice(3);
    expect(last.map(({ contact, body }) => [contact, (body as AlertNotification).status])).toEqual([
      ['boss', 'resolved'],
      ['pager', 'resolved'],
    ]);
    await expect(alerts.acknowledge(alert?.fingerprint ?? '', 'ada')).rejects.toMatchObject({
      code: 'ERR_INLAY_CONFLICT',
    });
    await expect(alerts.acknowledge('nobody', 'ada')).rejects.toMatchObject({ code: 'ERR_INLAY_NOT_FOUND' });
    expect(await kinds()).toEqual(
      expect.arrayContaining(['firing', 'notified', 'acked', 'raised', 'escalated', 'resolved']),
    );
    expect(clock.now).toBe(later + 31 * minute);
  });

  it('stay where they are while there is no data', async () => {
    const { look, delta, only } = await world();
    await only(rule);
    await delta(start, 'digits', '1.0.0', calls(1000, 100));
    expect(await look(start + minute)).toEqual(['errors firing warning']);
    expect(await look(start + 3 * hour)).toEqual(['errors firing warning']);
    expect(await look(start + 27 * hour)).toEqual(['errors resolved warning']);
  });

  it('end when their rule is switched off', async () => {
    const { look, delta, only, alerts, kinds } = await world();
    await only(rule);
    await delta(start, 'digits', '1.0.0', calls(1000, 100));
    await look(start + minute);
    await alerts.putRule(rule, false);
    expect(await look(start + 2 * minute)).toEqual(['errors resolved warning']);
    expect(await kinds()).toEqual(['firing', 'expired']);
  });

  it('are the same after a round that was cut off, and told once', async () => {
    const { look, delta, only, alerts, outbox, db } = await world();
    await only({ ...rule, groupBy: [] });
    await alerts.putContact({ id: 'pager', kind: 'slack', url: 'https://example.org/' });
    await delta(start, 'digits', '1.0.0', calls(1000, 100));
    await look(start + minute);
    await db.schema.alterTable('outbox').renameTo('outbox_away').execute();
    await expect(look(start + 2 * minute)).rejects.toThrow();
    await db.schema.alterTable('outbox_away').renameTo('outbox').execute();
    await look(start + 2 * minute);
    await look(start + 2 * minute);
    expect(await outbox()).toHaveLength(1);
  });

  it('are silenced by labels, for a time', async () => {
    const { look, delta, only, alerts, outbox, clock } = await world();
    await only(rule);
    await alerts.putContact({ id: 'pager', kind: 'slack', url: 'https://example.org/' });
    clock.now = start;
    const silence = await alerts.silence(
      { matchers: { rule: 'errors' }, untilAt: start + hour, comment: 'known' },
      'ada',
    );
    await delta(start, 'digits', '1.0.0', calls(1000, 100));
    await look(start + minute);
    await look(start + 3 * minute);
    expect(await outbox()).toEqual([]);
    await alerts.endSilence(silence.id);
    await look(start + 4 * minute);
    await look(start + 5 * minute);
    expect(await outbox()).toHaveLength(1);
    expect(await alerts.silences()).toMatchObject([
      { actor: 'ada', comment: 'known', untilAt: start + 3 * minute },
    ]);
    await expect(alerts.silence({ matchers: {}, untilAt: start + day }, 'ada')).rejects.toMatchObject({
      code: 'ERR_INLAY_REFUSED',
    });
    await expect(alerts.silence({ matchers: { rule: 'x' }, untilAt: 5 }, 'ada')).rejects.toMatchObject({
      code: 'ERR_INLAY_REFUSED',
    });
  });

  it('take a rollout back in an emergency, again if that fails, and not twice', async () => {
    const taken: string[] = [];
    let isBroken = true;
    const { look, delta, only, send, clock, alerts, errors } = await world({
      rollback: ({ model, version, alert }) => {
        if (isBroken) return Promise.reject(new Error('the signer is away'));
        taken.push(`${model} ${version} ${alert.rule}`);
        return Promise.resolve();
      },
    });
    await only({ ...rule, levels: { emergency: 0.25 }, rollback: true });
    await delta(start, 'digits', '2.0.0', calls(1000, 300));
    await look(start + minute);
    await send();
    expect(await alerts.deliveries()).toMatchObject([
      { contact: '@rollback', state: 'waiting', attempts: 1 },
    ]);
    expect(errors).toHaveLength(1);
    isBroken = false;
    await look(start + 2 * minute);
    clock.now += hour;
    await send();
    await send();
    expect(taken).toEqual(['digits 2.0.0 errors']);
    expect(await alerts.deliveries()).toMatchObject([{ state: 'delivered', attempts: 2 }]);
  });

  it('ask for a training with the features that drift', async () => {
    const row = (feature: string, verdict: DriftRow['verdict'], psi: number): DriftRow => ({
      model: 'digits',
      version: '1.0.0',
      feature,
      kind: 'input',
      against: 'training',
      n: 1000,
      devices: 100,
      psi,
      psiAt: 0.1,
      chi2P: 0,
      ks: null,
      ksP: null,
      js: 0.1,
      w1: null,
      verdict,
      bins: ['a', 'b'],
      reference: [0.5, 0.5],
      current: [0.9, 0.1],
      history: [],
    });
    const rows = [row('length', 'critical', 0.8), row('label', 'none', 0.01), row('few', 'too-few', 0)];
    const { look, only, outbox } = await world({ drift: { ...noDrift, rows: () => Promise.resolve(rows) } });
    await only({
      id: 'drift',
      cond: { kind: 'drift' },
      levels: { warning: 1, critical: 2 },
      retrain: 'trainer',
    });
    expect(await look(start)).toEqual(['drift firing critical']);
    expect(await outbox()).toMatchObject([
      {
        contact: 'trainer',
        body: {
          kind: 'retrain',
          model: 'digits',
          version: '1.0.0',
          features: [{ feature: 'length', psi: 0.8 }],
        },
      },
    ]);
  });

  it('burn an allowance in both spans or not at all', async () => {
    const { look, fold, only } = await world();
    const windows = [{ longS: 3600, shortS: 300, factor: 14.4, level: 'critical' }];
    await only({ id: 'slo', cond: { kind: 'burn-rate', objective: 0.99, windows }, by: ['model'] });
    await fold(start - 50 * minute, 'digits', '1.0.0', calls(1000, 900));
    await fold(start - minute, 'digits', '1.0.0', calls(1000, 0));
    expect(await look(start)).toEqual([]);
    await fold(start + 5 * minute, 'digits', '1.0.0', calls(1000, 500));
    expect(await look(start + 6 * minute)).toEqual(['slo firing critical']);
  });
});

describe('a dry run', () => {
  it('says when a rule would have fired', async () => {
    const { alerts, fold, clock } = await world();
    clock.now = start;
    for (let back = 0; back < 3 * 288; back += 1) {
      const at = start - back * 5 * minute - minute;
      const isBad = at >= start - 30 * hour && at < start - 29 * hour;
      await fold(at, 'digits', '1.0.0', calls(100, isBad ? 60 : 1));
    }
    const run = await alerts.dryRun(
      {
        id: 'try',
        cond: { kind: 'threshold', signal: 'errorRate', windowS: 300 },
        levels: { warning: 0.1, critical: 0.5 },
        clear: { forS: 600 },
      },
      2,
    );
    expect(run).toMatchObject({ looks: 2 * 288 + 1, fired: 1, from: start - 2 * day, to: start });
    expect(run.events.map(({ kind, at }) => [kind, (at - start) / minute])).toEqual([
      ['firing', -30 * 60 + 5],
      ['raised', -30 * 60 + 10],
      ['resolved', expect.any(Number)],
    ]);
    expect(run.events[0]?.labels).toEqual({ model: 'digits', version: '1.0.0' });
    await expect(
      alerts.dryRun({ id: 'g', cond: { kind: 'guard' }, levels: { warning: { held: 1 } } }, 2),
    ).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  });

  it('sees silence in the past, and not the future', async () => {
    const { alerts, fold, clock } = await world();
    clock.now = start;
    for (let back = 0; back < 288; back += 1) {
      const at = start - back * 5 * minute - minute;
      const isDown = at >= start - 6 * hour && at < start - 5 * hour;
      if (!isDown) await fold(at, 'digits', '1.0.0', calls(100, 0));
    }
    const run = await alerts.dryRun(
      {
        id: 'try',
        cond: { kind: 'absence' },
        levels: { emergency: 900 },
        min: { devices: 30 },
        by: ['model'],
      },
      1,
    );
    expect(run.fired).toBe(1);
    expect((run.events[0]?.at ?? 0) - (start - 6 * hour)).toBe(20 * minute);
  });
});

describe.skipIf(lacksPostgres)('on PostgreSQL', () => {
  it('alerts are looked at, told, acknowledged and delivered as on SQLite', async () => {
    const postgres = await startPostgres();
    closers.push(() => Promise.resolve(postgres.close()));
    const { db, alerts, look, fold, delta, outbox, send } = await world({}, await postgres.create());
    await alerts.putContact({ id: 'pager', kind: 'slack', urlEnv: 'INLAY_ALERT_GONE' });
    for (let back = 1; back <= 7; back += 1)
      await fold(start - back * day, 'digits', '1.0.0', calls(10_000, 50));
    await delta(start, 'digits', '2.0.0', calls(1000, 45));
    await db
      .insertInto('health')
      .values([
        { t_s: start / 1000, name: 'reports', n: 900 },
        { t_s: start / 1000, name: 'lost', n: 50 },
      ])
      .execute();
    expect((await look(start + minute)).sort()).toEqual([
      'error-rate firing critical',
      'telemetry firing warning',
    ]);
    await look(start + 2 * minute);
    expect(await outbox()).toHaveLength(2);
    const [first, second] = (await alerts.list()).alerts;
    await Promise.all([
      alerts.acknowledge(first?.fingerprint ?? '', 'ada'),
      alerts.acknowledge(second?.fingerprint ?? '', 'ada'),
      look(start + 3 * minute),
    ]);
    expect((await alerts.list()).alerts.map(({ state, ackedBy }) => [state, ackedBy])).toEqual([
      ['acked', 'ada'],
      ['acked', 'ada'],
    ]);
    await send();
    expect((await alerts.deliveries()).map(({ state }) => state)).toEqual(['dead', 'dead']);
    const run = await alerts.dryRun({ id: 'try', cond: { kind: 'absence' }, levels: { emergency: 900 } }, 1);
    expect(run.looks).toBe(289);
    const silence = await alerts.silence(
      { matchers: { model: "x'; drop table alert; --" }, untilAt: start + day },
      'ada',
    );
    await alerts.endSilence(silence.id);
    await alerts.removeContact('pager');
    expect(await alerts.contacts()).toEqual([]);
  });
});
