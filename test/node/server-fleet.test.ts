import { describe, expect, it } from 'vitest';
import { createFleet } from '../../src/server/fleet/fleet.ts';
import { createFoldJob } from '../../src/server/ingest/fold.ts';
import { quantileBand } from '../../src/stats/quantile-band.ts';
import {
  emptyPostgres,
  noon,
  noonS,
  openIngest,
  reportOf,
  timesOf,
  windowOf,
} from './server-ingest-fixture.ts';
import { lacksPostgres } from './postgres.ts';

const hour = 3_600_000;
const query = { model: 'digits', from: noon - hour, to: noon };

async function openFleet(target?: string) {
  const opened = await openIngest(target);
  const clock = (): number => opened.clock.now;
  const fleet = createFleet({ db: opened.db, platform: { now: clock, monotonicMs: clock } });
  const fold = createFoldJob({ db: opened.db, platform: { monotonicMs: () => performance.now() } });
  /** Takes reports of many devices, a call of `seconds` each, with some failures. */
  const report = async (devices: number, first: number, fields: object, seconds = 0.02): Promise<void> => {
    const win = windowOf({ h: { lat: timesOf([seconds, seconds]) }, ...fields });
    const taken = await opened.ingest.take(
      Array.from({ length: devices }, (_, i) =>
        reportOf(first + i, Math.floor((win.t - noonS) / 300) + 1000, [win], { cls: i % 2 }),
      ),
    );
    expect(taken.refused).toEqual([]);
  };
  return { ...opened, fleet, report, foldAll: () => fold.run(noon, new AbortController().signal) };
}

describe.each([
  ['SQLite', () => Promise.resolve(':memory:'), false],
  ['PostgreSQL', emptyPostgres(), lacksPostgres],
] as const)('the fleet on %s', (_name, create, isSkipped) => {
  it.skipIf(isSkipped)('answers the same before, while and after counts are folded', async () => {
    const { fleet, report, foldAll } = await openFleet(await create());
    await report(25, 0, { t: noonS - 600, ok: 9, err: { timeout: 1 }, ch: [3, 1], cold: 1, cost: 5_000_000 });
    await report(25, 0, { t: noonS - 300 }, 0.04);
    const before = await Promise.all([fleet.series(query), fleet.heatmap(query), fleet.errors(query)]);
    await foldAll();
    await report(20, 100, { t: noonS - 300 }, 0.04);
    const half = await fleet.series(query);
    expect(half.lines[0]?.devices.slice(-2)).toEqual([25, 45]);
    const [series, heatmap, errors] = before;
    expect(series.step).toBe(300);
    expect(series.times).toHaveLength(12);
    const [line] = series.lines;
    expect(line).toMatchObject({ key: '1.0.0' });
    expect(line?.calls.slice(-3)).toEqual([null, 250, 250]);
    expect(line?.errorRate.slice(-2)).toEqual([0.1, 0]);
    expect(line?.cacheHitRate.slice(-2)).toEqual([0.75, null]);
    expect(line?.cost.slice(-2)).toEqual([0.5, null]);
    expect(line?.p50.at(-1)).toBeCloseTo(0.04, 3);
    // 25 devices say nothing about a 95th percentile, and little about the median.
    expect(quantileBand(25)).toBeGreaterThan(0.05);
    expect([line?.p95Low.at(-1) ?? null, line?.p95High.at(-1) ?? null]).toEqual([expect.any(Number), null]);
    expect(heatmap.counts.slice(-2).map((row) => row?.reduce((sum, n) => sum + n, 0))).toEqual([50, 50]);
    expect(heatmap.edges.length).toBeLessThanOrEqual(40);
    expect(errors.rows).toEqual([{ version: '1.0.0', code: 'timeout', calls: 25, share: 0.05 }]);
    await foldAll();
    const after = await fleet.series({ ...query, step: 3600 });
    expect(after.step).toBe(3600);
    expect(after.lines[0]?.devices).toEqual([45]);
  });

  it.skipIf(isSkipped)('says who runs what, and hides what few do', async () => {
    const { fleet, report, clock } = await openFleet(await create());
    await report(40, 0, { ro: 'r-1', st: 1, arm: 'c' });
    await report(19, 100, { ver: '2.0.0', ro: 'r-1', st: 1, arm: 't' });
    const answer = await fleet.fleet();
    expect(answer.devices).toBe(59);
    expect(answer.rows.map(({ version, arm, devices }) => [version, arm, devices])).toEqual([
      ['1.0.0', 'c', 40],
      ['2.0.0', 't', null],
    ]);
    expect(answer.classes.slice(0, 3).map(({ devices }) => devices)).toEqual([30, 29, null]);
    expect(answer.models).toEqual(['digits']);
    const lines = (await fleet.series({ ...query, by: 'arm' })).lines;
    expect(lines.map(({ key, calls }) => [key, calls.at(-1)])).toEqual([
      ['c', 400],
      ['t', null],
    ]);
    clock.now += 25 * hour;
    expect((await fleet.fleet()).rows).toEqual([]);
  });
});

describe('k-anonymity', () => {
  it('is not fooled by devices that count in several versions', async () => {
    const { fleet, report } = await openFleet();
    for (const ver of ['1.0.0', '1.1.0', '1.2.0'])
      await report(10, 0, { ver, t: noonS - 300 * Number(ver[2]) - 300 });
    const hourly = await fleet.series({ ...query, by: 'none', step: 3600 });
    expect(hourly.lines[0]?.calls).toEqual([null]);
    expect((await fleet.heatmap({ ...query, step: 3600 })).counts).toEqual([null]);
  });

  it('hides failures that fewer devices may have had', async () => {
    const { fleet, report } = await openFleet();
    await report(40, 0, { ok: 10 });
    await report(3, 200, { ok: 5, err: { rare: 5 } });
    expect((await fleet.errors(query)).rows).toEqual([
      { version: '1.0.0', code: 'rare', calls: null, share: null },
    ]);
  });
});

describe('the health of telemetry', () => {
  it('says what became of reports, hour by hour', async () => {
    const { fleet, ingest, report } = await openFleet();
    await report(30, 0, {});
    await report(30, 0, {});
    await ingest.take([reportOf(99, 0), reportOf(99, 300), reportOf(99, 10)]);
    await ingest.flush();
    const { counts, hours, consent, lossRate } = await fleet.health();
    expect(hours).toHaveLength(24);
    const last = (name: string): number | undefined => counts[name]?.at(-1);
    expect([last('reports'), last('duplicates'), last('too_old')]).toEqual([32, 30, 1]);
    expect(last('lost')).toBe(172);
    expect(consent).toEqual({ necessary: null, full: 32 });
    expect(lossRate).toBeCloseTo(172 / 204);
  });
});

describe('a query', () => {
  it('gets a step that gives no more points than a chart has', async () => {
    const { fleet } = await openFleet();
    const span = async (days: number) => fleet.series({ ...query, from: noon - days * 24 * hour });
    expect((await span(1)).step).toBe(300);
    expect((await span(7)).step).toBe(3600);
    expect((await span(400)).step).toBe(86_400);
  });

  it('is refused if there is no time in it', async () => {
    const { fleet } = await openFleet();
    for (const [from, to] of [
      [noon, noon],
      [Number.NaN, noon],
      [-1, noon],
      [0, Infinity],
    ] as const)
      await expect(fleet.series({ ...query, from, to })).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  });
});
