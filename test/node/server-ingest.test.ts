import { gzipSync } from 'node:zlib';
import { Hono } from 'hono';
import { describe, expect, it } from 'vitest';
import { createFoldJob } from '../../src/server/ingest/fold.ts';
import { readRequest } from '../../src/server/ingest/request.ts';
import { createRetentionJob } from '../../src/server/ingest/retention.ts';
import { createReportRoutes } from '../../src/server/ingest/routes.ts';
import type { IsKnown } from '../../src/server/ingest/series.ts';
import { countOf } from '../../src/telemetry/histogram.ts';
import type { Report, ReportWindow } from '../../src/telemetry/report.ts';
import { lacksPostgres } from './postgres.ts';
import {
  emptyPostgres,
  nameOf,
  noon,
  noonS,
  openIngest,
  reportOf,
  timesOf,
  totalsOf,
  windowOf,
} from './server-ingest-fixture.ts';

const day = 86_400;
const clock = { monotonicMs: () => performance.now() };
const bodyOf = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const names = (reports: readonly Report[]) => reports.map(({ epoch, seq }) => ({ epoch, seq }));

/** The same rules on both databases. */
for (const [name, create, isSkipped] of [
  ['SQLite', () => Promise.resolve(':memory:'), false],
  ['PostgreSQL', emptyPostgres(), lacksPostgres],
] as const) {
  describe.skipIf(isSkipped)(`ingest on ${name}`, () => {
    it('counts every report once, however often and in whatever order it comes', async () => {
      const opened = await openIngest(await create());
      const reports = Array.from({ length: 60 }, (_, i) => reportOf(i % 7, Math.floor(i / 7)));
      const shuffled = [...reports, ...reports.slice(0, 20), ...reports].sort(
        (a, b) => ((a.seq * 7919 + a.dev.charCodeAt(3)) % 101) - ((b.seq * 7919 + b.dev.charCodeAt(3)) % 101),
      );
      const answers = await Promise.all(shuffled.map((report) => opened.ingest.take([report])));
      expect(answers.flatMap(({ done }) => done)).toEqual(names(shuffled));
      expect(answers.flatMap(({ refused }) => refused)).toEqual([]);
      expect(await totalsOf(opened)).toMatchObject({ n: 600, ok: 600 });
      const totals = opened.ingest.stats().totals;
      expect([totals.get('reports'), totals.get('duplicates')]).toEqual([60, shuffled.length - 60]);
      expect(opened.errors).toEqual([]);
    });

    it('keeps every count of a window, and its device in its stage', async () => {
      const opened = await openIngest(await create());
      const lat = timesOf([0.01, 0.02, 0.04]);
      const window = windowOf({
        ...{ ro: 'r-1', st: 2, arm: 't', prof: '0123456789abcdef', n: 5, ok: 3, err: { timeout: 2 } },
        ...{ cold: 1, fatal: 1, act: 1, rej: { slow: 1 }, com: 1, ch: [4, 1], ex: 4, cost: 1800 },
        ...{ h: { lat }, g: { mem: [900, 700], cpu: 12, net: 34 }, biz: { sale: [2, 9.5] } },
        ...{ p: { y: [1, 2, 0, 0] }, x: { len: [3, 0, 0] }, sh: [3, 2, 1, 0] },
        ...{ bl: { n: 300, e: 3, p95: 0.03, mem: 800 } },
        fb: { n: 2, ok: 1, cm: [[0, 1, 1]], cal: Array.from({ length: 20 }, () => [1, 1, 0.5] as const) },
      });
      const later = { ...window, t: window.t + 300, bl: { n: 1, e: 1 } };
      await opened.ingest.take([reportOf(1, 0, [window])]);
      opened.clock.now += 300_000;
      await opened.ingest.take([reportOf(1, 1, [later])]);

      const totals = await totalsOf(opened);
      expect(totals).toMatchObject({
        ...{ n: 10, ok: 6, err: { timeout: 4 }, cold: 2, fatal: 2, act: 2, rej: { slow: 2 }, com: 2 },
        ...{ hit: 8, miss: 2, ex: 8, mem: [900, 1400, 2], cpu: 24, net: 68, cost: 3600, sh: [6, 4, 2, 0] },
        ...{ biz: { sale: [4, 19] }, dev: [2, 2, 1] },
        p: { '0123456789abcdef': { y: [2, 4, 0, 0] } },
        x: { '0123456789abcdef': { len: [6, 0, 0] } },
      });
      expect(totals.fb).toMatchObject({ n: 4, ok: 2, cm: { '0,1': 2 } });
      expect(totals.fb?.cal?.[19]).toEqual([2, 2, 1]);
      expect(countOf(totals.h?.lat ?? timesOf([]))).toBe(6);

      const rows = await opened.db.selectFrom('stage_device').selectAll().execute();
      expect(rows).toHaveLength(1);
      expect(rows[0]).toMatchObject({
        ...{ rollout: 'r-1', stage: 2, arm: 't', dev: nameOf('device', 1, 12), cls: 3, n: 10, errors: 4 },
        ...{ fatals: 2, rejections: 2, activations: 2, base_n: 300, base_errors: 3, base_p95: 0.03 },
        ...{ base_mem: 800, mem: 900, first_at: noon, activated_at: noon, last_at: noon + 300_000 },
        ...{ gap: 300_000, judged_at: 0, verdicts: '' },
      });
      expect(countOf(JSON.parse(rows[0]?.hist ?? ''))).toBe(6);
    });

    it('counts a device once in five minutes, an hour and a day, also where it changes to and fro', async () => {
      const opened = await openIngest(await create());
      let seq = 0;
      for (const t of [-3600, -3300, -300]) {
        const both = ['1.0.0', '2.0.0'].map((ver) => windowOf({ t: noonS + t, ver }));
        await opened.ingest.take([reportOf(1, seq++, both)]);
        await opened.ingest.take([reportOf(1, seq++, both)]);
      }
      // 11:00 to 11:59 is one hour.
      expect((await totalsOf(opened)).dev).toEqual([6, 2, 2]);
    });

    it('takes no windows of the far past or of the future, and says why', async () => {
      const { ingest } = await openIngest(await create());
      const at = (seq: number, t: number) => reportOf(1, seq, [windowOf({ t: noonS + t })]);
      const answer = await ingest.take([at(0, -14 * day - 600), at(1, 360), at(2, -14 * day), at(3, 300)]);
      expect(answer.refused.map(({ seq, code }) => [seq, code])).toEqual([
        [0, 'too_old'],
        [1, 'future'],
      ]);
      expect(answer.done.map(({ seq }) => seq)).toEqual([2, 3]);
    });

    it('refuses a number that is too far below the others', async () => {
      const opened = await openIngest(await create());
      await opened.ingest.take([reportOf(1, 500)]);
      const { refused } = await opened.ingest.take([reportOf(1, 372), reportOf(1, 373)]);
      expect(refused).toEqual([{ epoch: nameOf('epoch', 1, 8), seq: 372, code: 'too_old' }]);
      expect((await totalsOf(opened)).n).toBe(20);
    });

    it('puts right a clock that is years off, and only that', async () => {
      const opened = await openIngest(await create());
      const years = 9 * 365 * day + 77;
      const off = (seq: number, skewS: number) =>
        reportOf(1, seq, [windowOf({ t: Math.floor((noonS - 600 + skewS) / 60) * 60 })], {
          sent: noon + skewS * 1000,
        });
      const sendAt = (seq: number, skewS: number) =>
        opened.ingest.take([off(seq, skewS)], { sentAt: noon + skewS * 1000 });
      const answers = [await sendAt(0, years), await sendAt(1, -years), await sendAt(2, 200)];
      // Without the time of sending, a clock that is ahead is certainly wrong.
      answers.push(await opened.ingest.take([off(3, years)]));
      expect(answers.map(({ done }) => done.length)).toEqual([1, 1, 1, 1]);
      const times = await opened.db.selectFrom('delta').select('t_s').execute();
      for (const { t_s } of times) expect(Math.abs(t_s - (noonS - 600))).toBeLessThanOrEqual(600);
      expect(opened.ingest.stats().totals.get('skewed')).toBe(3);
    });

    it('lets nobody make series up', async () => {
      const isKnown: IsKnown = ({ model, version, rollout }) =>
        model === 'digits' && version === '1.0.0' && ['', 'r-1'].includes(rollout);
      const opened = await openIngest(await create(), { isKnown });
      const made = Array.from({ length: 50 }, (_, i) => reportOf(i, 0, [windowOf({ m: `made-up-${i}` })]));
      const answer = await opened.ingest.take([
        ...made,
        reportOf(100, 0, [windowOf({ ro: 'never-was', st: 9, arm: 'x' })]),
        reportOf(101, 0, [windowOf(), windowOf({ ver: '6.6.6' })]),
        reportOf(102, 0, [windowOf({ ro: 'r-1', arm: 't' })]),
      ]);
      expect(new Set(answer.refused.map(({ code }) => code))).toEqual(new Set(['unknown']));
      expect(answer.refused).toHaveLength(50);
      const series = await opened.db.selectFrom('series').select(['model', 'version', 'rollout']).execute();
      expect(series.map(({ rollout }) => rollout).sort()).toEqual(['', 'r-1']);
      expect((await totalsOf(opened)).n).toBe(30);
    });

    it('keeps names as what they are, whatever they look like', async () => {
      const hostile = `');drop_table_delta;--<script>alert(1)</script>`;
      const opened = await openIngest(await create());
      const report = reportOf(1, 0, [windowOf({ ver: hostile, ro: hostile, st: 1, arm: 't' })]);
      await opened.ingest.take([report]);
      const [row] = await opened.db.selectFrom('series').selectAll().execute();
      expect(row).toMatchObject({ version: hostile, rollout: hostile });
      expect((await totalsOf(opened)).n).toBe(10);
    });

    it('leaves out of a stage who reports from two of its arms', async () => {
      const opened = await openIngest(await create());
      const inArm = (arm: string) => windowOf({ ro: 'r-1', st: 1, arm });
      await opened.ingest.take([reportOf(1, 0, [inArm('t')]), reportOf(1, 1, [inArm('c')])]);
      const rows = await opened.db.selectFrom('stage_device').select(['arm', 'n']).execute();
      expect(rows).toEqual([{ arm: 't', n: 10 }]);
      expect(opened.ingest.stats().totals.get('crossed')).toBe(1);
    });

    it('refuses what no device can have counted', async () => {
      const opened = await openIngest(await create());
      const wrong: Partial<ReportWindow>[] = [
        { n: 2e7, ok: 2e7 },
        { n: 1, ok: 1, h: { lat: timesOf([1, 1, 1]) } },
        { n: 1, ok: 1, p: { y: [1e6, 0, 0] } },
      ];
      const { refused } = await opened.ingest.take(
        wrong.map((fields, i) => reportOf(i, 0, [windowOf(fields)])),
      );
      expect(refused.map(({ code }) => code)).toEqual(['invalid', 'invalid', 'invalid']);
      expect((await totalsOf(opened)).n).toBe(0);
    });

    it('bounds what forged names and times can add to a sum', async () => {
      const opened = await openIngest(await create());
      const forged = Array.from({ length: 40 }, (_, i) =>
        reportOf(i, 0, [
          windowOf({
            n: 100,
            ok: 0,
            err: Object.fromEntries(Array.from({ length: 8 }, (__, k) => [`code_${i}_${k}`, 1])),
            h: { lat: timesOf(Array.from({ length: 60 }, (__, k) => 2 ** ((i * 60 + k) / 2 - 600))) },
            prof: i.toString(16).padStart(16, '0'),
            p: { y: [1, 1, 1] },
          }),
        ]),
      );
      await opened.ingest.take(forged);
      const totals = await totalsOf(opened);
      expect(totals.n).toBe(4000);
      expect(Object.keys(totals.err ?? {}).length).toBeLessThanOrEqual(65);
      expect(Object.values(totals.err ?? {}).reduce((sum, n) => sum + n, 0)).toBe(320);
      expect((totals.h?.lat?.b.length ?? 0) / 2).toBeLessThanOrEqual(1280);
      expect(countOf(totals.h?.lat ?? timesOf([]))).toBe(2400);
      expect(Object.keys(totals.p ?? {}).length).toBeLessThanOrEqual(8);
    });

    it('forgets a device, and keeps the sums', async () => {
      const opened = await openIngest(await create());
      await opened.ingest.take([reportOf(1, 0, [windowOf({ ro: 'r', st: 0, arm: 't' })]), reportOf(2, 0)]);
      await opened.ingest.forget(nameOf('device', 1, 12));
      for (const table of ['dedupe', 'device', 'stage_device'] as const) {
        const rows = await opened.db.selectFrom(table).select('dev').execute();
        expect(rows.map(({ dev }) => dev)).toEqual(table === 'stage_device' ? [] : [nameOf('device', 2, 12)]);
      }
      expect((await totalsOf(opened)).n).toBe(20);
    });

    it('folds into every resolution what it deletes, in any pieces', async () => {
      const opened = await openIngest(await create());
      for (let i = 0; i < 40; i += 1) {
        const window = windowOf({ t: noonS - 300 * (1 + (i % 30)), h: { lat: timesOf([0.25 * (i + 1)]) } });
        await opened.ingest.take([reportOf(i % 9, Math.floor(i / 9), [window])]);
      }
      const before = await totalsOf(opened);
      const job = createFoldJob({ db: opened.db, platform: clock });
      await job.run(noon, new AbortController().signal);
      expect(await totalsOf(opened)).toEqual(before);
      expect(await opened.db.selectFrom('delta').select('id').execute()).toEqual([]);
      await opened.ingest.take([reportOf(20, 0)]);
      await job.run(noon, new AbortController().signal);
      await job.run(noon, new AbortController().signal);
      for (const res of [300, 3600, 86_400, 0]) {
        const rows = await opened.db.selectFrom('roll').select('body').where('res', '=', res).execute();
        const calls = rows.reduce((sum, { body }) => sum + (JSON.parse(body) as { n: number }).n, 0);
        expect(calls).toBe(410);
      }
    });

    it('deletes what has been kept for long enough, and nothing else', async () => {
      const opened = await openIngest(await create());
      await opened.ingest.take([reportOf(1, 0, [windowOf({ ro: 'r', arm: 't' })])]);
      await createFoldJob({ db: opened.db, platform: clock }).run(noon, new AbortController().signal);
      const left = async (afterDays: number): Promise<(number | string)[]> => {
        await createRetentionJob({ db: opened.db }).run(
          noon + afterDays * day * 1000,
          new AbortController().signal,
        );
        const rolls = await opened.db.selectFrom('roll').select('res').orderBy('res', 'desc').execute();
        const kept: (number | string)[] = rolls.map(({ res }) => res);
        for (const table of ['dedupe', 'device', 'stage_device'] as const) {
          if ((await opened.db.selectFrom(table).select('dev').execute()).length > 0) kept.push(table);
        }
        return kept;
      };
      expect(await left(13)).toEqual([86_400, 3600, 300, 0, 'dedupe', 'device', 'stage_device']);
      expect(await left(15)).toEqual([86_400, 3600, 0, 'device', 'stage_device']);
      expect(await left(91)).toEqual([86_400, 3600, 0]);
      expect(await left(13 * 31 + 2)).toEqual([86_400, 0]);
      expect(await left(5 * 366 + 2)).toEqual([0]);
    });

    it('keeps looks of the guards for 2 years after their rollout ended, and those of others', async () => {
      const { db } = await openIngest(await create());
      const at = noon - 366 * day * 1000;
      for (const [rollout, status] of [
        ['over', 'failed'],
        ['open', 'held'],
      ] as const) {
        const where = { channel: 'stable', model: 'digits', version: '1.1.0' };
        const rest = { body: '{}', stage: 1, reason: '{}', stage_at: at, updated_at: noon };
        await db
          .insertInto('programme')
          .values({ rollout, status, ...where, ...rest })
          .execute();
        const looks = [0, 1].map((stage) => ({ rollout, stage, look: 1, at, decision: 'wait', body: '{}' }));
        await db.insertInto('guard_look').values(looks).execute();
      }
      const left = async (afterDays: number): Promise<readonly string[]> => {
        const retention = createRetentionJob({ db });
        await retention.run(noon + afterDays * day * 1000, new AbortController().signal);
        const rows = await db.selectFrom('guard_look').select('rollout').orderBy('rollout').execute();
        return rows.map(({ rollout }) => rollout);
      };
      expect(await left(731)).toEqual(['open', 'open', 'over', 'over']);
      expect(await left(733)).toEqual(['open', 'open']);
    });
  });
}

describe('ingest under load', () => {
  it('asks devices to come back later rather than letting them wait', async () => {
    const opened = await openIngest(':memory:', { maxWaiting: 10, batchMs: 60_000 });
    const first = opened.ingest.take(Array.from({ length: 10 }, (_, i) => reportOf(i, 0)));
    await expect(opened.ingest.take([reportOf(20, 0)])).rejects.toMatchObject({
      code: 'ERR_INLAY_BUSY',
      details: { retryAfterS: expect.any(Number) },
    });
    await opened.ingest.flush();
    expect((await first).done).toHaveLength(10);
    const again = opened.ingest.take([reportOf(20, 0)]);
    await opened.ingest.flush();
    expect((await again).done).toHaveLength(1);
    expect(opened.ingest.stats().totals.get('busy')).toBe(1);
  });

  it('puts what comes together into one transaction', async () => {
    const opened = await openIngest(':memory:', { batchMs: 60_000, batchReports: 50 });
    const taken = Array.from({ length: 120 }, (_, i) => opened.ingest.take([reportOf(i, 0)]));
    await Promise.all(taken.slice(0, 100));
    expect(opened.ingest.stats()).toMatchObject({ batches: 2, waiting: 20 });
    await opened.ingest.close();
    await Promise.all(taken);
    await expect(opened.ingest.take([reportOf(1, 1)])).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
  });

  it('says nothing is counted where the database fails, and counts it once when it is sent again', async () => {
    const opened = await openIngest();
    await opened.db.schema.alterTable('delta').renameTo('gone').execute();
    await expect(opened.ingest.take([reportOf(1, 0)])).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    await opened.db.schema.alterTable('gone').renameTo('delta').execute();
    await opened.ingest.take([reportOf(1, 0)]);
    await opened.ingest.take([reportOf(1, 0)]);
    expect((await totalsOf(opened)).n).toBe(10);
  });
});

describe('a request with reports', () => {
  it('is read plain or compressed, one report or many', () => {
    const reports = [reportOf(1, 0), reportOf(1, 1)];
    expect(readRequest(bodyOf(reports[0])).reports).toEqual([reports[0]]);
    const packed = gzipSync(bodyOf({ sent: noon, reports }));
    expect(readRequest(packed)).toEqual({ reports, refused: [], invalid: 0, sentAt: noon });
  });

  it('names the reports in it that are none, and keeps the others', () => {
    const good = reportOf(1, 0);
    const request = readRequest(bodyOf({ reports: [{ ...good, seq: 1, email: 'a@b.c' }, good, 7] }));
    expect(request.reports).toEqual([good]);
    expect(request).toMatchObject({ invalid: 2, refused: [{ epoch: good.epoch, seq: 1, code: 'invalid' }] });
  });

  it('is refused if there is no report in it', () => {
    const bodies = [bodyOf([]), bodyOf({ reports: [] }), bodyOf('x'), Uint8Array.of(0xff), new Uint8Array()];
    bodies.push(Uint8Array.of(0x1f, 0x8b, 1, 2, 3), bodyOf({ reports: { length: 1e9 } }), bodyOf(null));
    for (const body of bodies) {
      expect(() => readRequest(body)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_REPORT_INVALID' }));
    }
  });

  it('names a report that is nested deeper than any stack as one that is none', () => {
    const deep = `${'['.repeat(400_000)}${']'.repeat(400_000)}`;
    const good = reportOf(1, 0);
    const request = readRequest(
      new TextEncoder().encode(`{"reports":[${JSON.stringify(good)},{"x":${deep}}]}`),
    );
    expect(request).toMatchObject({ reports: [good], invalid: 1 });
  });

  it('cannot be a bomb', () => {
    const bomb = gzipSync(new Uint8Array(30 * 2 ** 20));
    expect(bomb.length).toBeLessThan(49_152);
    expect(() => readRequest(bomb)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_LENGTH' }));
    const long = { ...reportOf(1, 0), extra: 'x'.repeat(70_000) };
    expect(readRequest(bodyOf({ reports: [long, reportOf(1, 1)] }))).toMatchObject({ invalid: 1 });
  });
});

describe('the routes of reports', () => {
  it('answers any page, and says what became of each report', async () => {
    const { ingest } = await openIngest();
    const app = new Hono().route('/v1', createReportRoutes(ingest));
    const send = (body: Uint8Array) =>
      app.request('/v1/reports', {
        method: 'POST',
        body: new Uint8Array(body),
        headers: { origin: 'https://app.example', 'content-type': 'text/plain' },
      });
    const bad = { ...reportOf(1, 1), unknown: 1 };
    const response = await send(gzipSync(bodyOf({ reports: [reportOf(1, 0), bad] })));
    expect(response.headers.get('access-control-allow-origin')).toBe('*');
    expect(response.headers.get('cache-control')).toBe('no-store');
    const epoch = nameOf('epoch', 1, 8);
    expect(await response.json()).toEqual({
      done: [{ epoch, seq: 0 }],
      refused: [{ epoch, seq: 1, code: 'invalid' }],
    });
    const forget = await app.request('/v1/forget', {
      method: 'POST',
      body: JSON.stringify({ dev: nameOf('device', 1, 12) }),
    });
    expect(forget.status).toBe(204);
  });
});
