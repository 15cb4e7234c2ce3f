import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { openDatabase } from '../../src/server/db/open.ts';
import type { Aggregate } from '../../src/server/ingest/aggregate.ts';
import { titleOfClass } from '../../src/telemetry/device-class.ts';
import type { TelemetryState } from '../../src/telemetry/options.ts';
import { buildPage, call, describePages, removePage, startChromium, startSite } from './fixture.ts';
import type { StartOptions } from './telemetry.page.ts';
import { AT_ONCE, scale, startWorld } from './updates-fixture.ts';

const SLOW = { timeout: 60_000 };
const soon = { timeout: 15_000, interval: 50 };
/** Reports go out when a test says so, or people leave. */
const full = { consent: 'full', everyMs: 3_600_000 } as const;

/** What the server has counted. */
interface Counted {
  readonly calls: number;
  readonly devices: readonly string[];
  /** What they are. */
  readonly kinds: readonly string[];
}

describePages('the telemetry of a page', () => {
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [browser, folder] = await Promise.all([startChromium(), buildPage('telemetry.page.ts')]);
  });
  afterAll(async () => {
    await browser.close();
    await removePage(folder);
  });

  /** Someone's browser, and the server that it reports to. */
  const visitor = async () => {
    const { sync, ship, dataDir } = await startWorld();
    await ship('1', scale(1), AT_ONCE);
    const { db } = await openDatabase(join(dataDir, 'inlay.db'));
    const site = await startSite({ folder });
    const context = await browser.newContext();
    onTestFinished(async () => {
      await context.close();
      await site.close();
      await db.destroy();
    });
    const open = async (options: Omit<StartOptions, 'sync'> = { telemetry: full }): Promise<Page> => {
      const page = await context.newPage();
      await page.goto(site.url);
      await call(page, 'start', { sync, ...options });
      return page;
    };
    const counted = async (): Promise<Counted> => {
      const rows = await db
        .selectFrom('delta')
        .select('body')
        .unionAll(db.selectFrom('roll').select('body').where('res', '=', 0))
        .execute();
      const devices = await db.selectFrom('device').select(['dev', 'runtime', 'cls']).distinct().execute();
      return {
        calls: rows.reduce((sum, { body }) => sum + (JSON.parse(body) as Aggregate).n, 0),
        devices: devices.map(({ dev }) => dev),
        kinds: devices.map(({ runtime, cls }) => `${runtime}: ${titleOfClass(cls)}`),
      };
    };
    return { sync, site, context, open, counted };
  };

  const ask = (page: Page, times: number): Promise<void> => call(page, 'ask', times);
  const flush = (page: Page): Promise<void> => call(page, 'flush');
  const stateOf = (page: Page): Promise<TelemetryState | undefined> => call(page, 'state');
  const isTelemetry = (path: string): boolean => /telemetry|client/.test(path);

  it(
    'says what it counted, with code that comes after the page, and at once when people look elsewhere',
    SLOW,
    async () => {
      const { open, counted, site } = await visitor();
      const page = await open();
      await ask(page, 3);
      await flush(page);
      const { device, ...state } = (await stateOf(page)) ?? {};
      expect(state).toMatchObject({ consent: 'full', queued: 0, sent: 1, lastError: undefined });
      expect(await counted()).toEqual({
        calls: 3,
        devices: [device],
        kinds: [expect.stringMatching(/^browser: Browser on a /)],
      });
      const scripts = site.requests.filter((path) => path.endsWith('.js'));
      expect(scripts.findIndex(isTelemetry)).toBeGreaterThan(scripts.indexOf('/page.js'));
      await ask(page, 2);
      await leave(page);
      await expect.poll(async () => (await counted()).calls, soon).toBe(5);
    },
  );

  it(
    'is not even loaded where the app has none, and keeps and sends nothing without consent',
    SLOW,
    async () => {
      const { open, counted, site } = await visitor();
      const page = await open({});
      await ask(page, 2);
      await flush(page);
      expect(await stateOf(page)).toBeUndefined();
      expect(site.requests.filter(isTelemetry)).toEqual([]);
      const other = await open({ telemetry: { ...full, consent: 'unset' } });
      await ask(other, 2);
      await flush(other);
      await leave(other);
      expect(await stateOf(other)).toMatchObject({ device: undefined, open: 0, queued: 0 });
      expect(await counted()).toEqual({ calls: 0, devices: [], kinds: [] });
    },
  );

  it('counts once what is reported while the page closes, and again by the next one', SLOW, async () => {
    const { open, counted, context } = await visitor();
    const page = await open();
    await ask(page, 4);
    const arrived = losesAnswers(context);
    await leave(page);
    await arrived;
    await page.close({ runBeforeUnload: true });
    // Requests of the page that is gone are nobody's any more.
    await context.unroute('**/v1/reports').catch(() => {});
    expect((await counted()).calls).toBe(4);
    const next = await open();
    await ask(next, 1);
    await flush(next);
    // What the page before left is sent again by this one, or by a later one if it is not known to be gone yet.
    expect(await stateOf(next)).toMatchObject({ queued: 0 });
    expect((await counted()).calls).toBe(5);
  });

  it('brings what waited to the server after a reload, wherever it was kept', SLOW, async () => {
    const { open, counted, context, sync } = await visitor();
    const devices: unknown[] = [];
    for (const store of ['indexeddb', 'opfs'] as const) {
      const page = await open({ telemetry: full, store });
      await context.route('**/v1/reports', (route) => route.abort());
      await ask(page, 3);
      await flush(page);
      const before = await stateOf(page);
      expect(before).toMatchObject({ queued: 1, sent: 0, lastError: expect.any(String) as string });
      await context.unroute('**/v1/reports');
      await page.reload();
      await call(page, 'start', { sync, telemetry: full, store });
      await flush(page);
      expect(await stateOf(page)).toMatchObject({ queued: 0, device: before?.device });
      devices.push(before?.device);
    }
    const { calls, devices: known } = await counted();
    expect(calls).toBe(6);
    expect(new Set(known)).toEqual(new Set(devices));
  });

  it('counts the calls of two tabs, of one device', SLOW, async () => {
    const { open, counted } = await visitor();
    const tabs = [await open(), await open()] as const;
    for (const times of [1, 2]) {
      await Promise.all([ask(tabs[0], times), ask(tabs[1], 10 * times)]);
      await Promise.all(tabs.map((tab) => flush(tab)));
    }
    const [one, other] = await Promise.all(tabs.map((tab) => stateOf(tab)));
    expect(one?.device).toBe(other?.device);
    expect(await counted()).toMatchObject({ calls: 33, devices: [one?.device] });
  });

  it('forgets all, here and at the server, when consent is taken back', SLOW, async () => {
    const { open, counted, context, sync } = await visitor();
    const page = await open();
    await ask(page, 2);
    await flush(page);
    const { device } = (await stateOf(page)) ?? {};
    await context.route('**/v1/reports', (route) => route.abort());
    await ask(page, 4);
    await flush(page);
    expect(await stateOf(page)).toMatchObject({ queued: 1 });
    await call(page, 'consent', 'unset');
    expect(await stateOf(page)).toMatchObject({ consent: 'unset', queued: 0, open: 0, device: undefined });
    await expect.poll(async () => (await counted()).devices, soon).toEqual([]);
    await context.unroute('**/v1/reports');
    await page.reload();
    await call(page, 'start', { sync, telemetry: full });
    await ask(page, 1);
    await flush(page);
    const after = await stateOf(page);
    expect(after?.device).not.toBe(device);
    expect(await counted()).toMatchObject({ calls: 3, devices: [after?.device] });
  });
});

/** As when people go to another tab, or put their phone away. */
async function leave(page: Page): Promise<void> {
  await page.evaluate(() => {
    Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
}

/** Lets reports through, and no answer back. @returns when the first report has come to the server. */
function losesAnswers(context: BrowserContext): Promise<void> {
  return new Promise((resolve) => {
    void context.route('**/v1/reports', async (route) => {
      await route.fetch();
      resolve();
      await route.abort().catch(() => {});
    });
  });
}
