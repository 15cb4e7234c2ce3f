import type { Browser, BrowserContext, Page } from 'playwright';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { randomBytes } from '../node/server-fixture.ts';
import {
  buildPage,
  call,
  describePages,
  removePage,
  startChromium,
  startSite,
  type Site,
} from './fixture.ts';
import { AT_ONCE, givesNaN, hangs, scale, startWorld, type World } from './updates-fixture.ts';
import type { StartOptions } from './updates.page.ts';

/** What the page says of the slots of its model. */
interface Slots {
  readonly running: string | undefined;
  readonly committed: string | undefined;
  readonly trial: string | undefined;
  readonly rejected: readonly string[];
  readonly strikes: readonly number[];
  readonly markers: readonly (readonly [string, boolean])[];
  readonly lastError: string | undefined;
}

/** Trying a release ends after 20 seconds. */
const SLOW = { timeout: 100_000 };
const soon = { timeout: 40_000, interval: 100 };

/** The weights make a file of so many mebibytes that does not compress. */
const large = (factor: number, mebibytes: number): Uint8Array<ArrayBuffer> => {
  const numbers = new Float32Array(randomBytes(mebibytes * 2 ** 20).buffer);
  return scale(
    factor,
    numbers.map((value) => (Number.isFinite(value) ? value : 0)),
  );
};

describePages('a page', () => {
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [browser, folder] = await Promise.all([startChromium(), buildPage('updates.page.ts')]);
  });
  afterAll(async () => {
    await browser.close();
    await removePage(folder);
  });

  /** Someone's browser: what a page keeps is there for the next. */
  const visitor = async (
    bytes = scale(1),
  ): Promise<{ world: World; context: BrowserContext; site: Site; open(): Promise<Page> }> => {
    const world = await startWorld();
    const site = await startSite({
      folder,
      answer: (path) => (path === '/digits.onnx' ? { body: bytes } : undefined),
    });
    const context = await browser.newContext();
    onTestFinished(async () => {
      await context.close();
      await site.close();
    });
    const open = async (): Promise<Page> => {
      const page = await context.newPage();
      await page.goto(site.url);
      return page;
    };
    return { world, context, site, open };
  };
  const start = ({ sync }: World, page: Page, more: Omit<StartOptions, 'sync'> = {}): Promise<string> =>
    call(page, 'start', { sync, ...more });
  const slotsOf = (page: Page): Promise<Slots> => call<Slots>(page, 'slots');
  const ask = (page: Page): Promise<unknown> => call(page, 'ask');
  const historyOf = (page: Page): Promise<string[]> => call(page, 'history');

  /** A page on which version 1 is committed. */
  const settled = async () => {
    const known = await visitor();
    await known.world.ship('1', scale(1), AT_ONCE);
    const page = await known.open();
    expect(await start(known.world, page)).toBe('1');
    await ask(page);
    await expect.poll(async () => (await slotsOf(page)).committed, soon).toBe('1');
    return { ...known, page };
  };

  it('goes on while a release hangs where it is tried, and rejects it', SLOW, async () => {
    const { world, page } = await settled();
    await world.ship('2', hangs(), { strikes: 1 });
    await call(page, 'check');
    await expect.poll(() => call(page, 'workers'), soon).toBe(2);
    expect(await ask(page)).toEqual(['1', 1]);
    await expect.poll(async () => (await slotsOf(page)).rejected, soon).toEqual(['2 hang']);
    expect(await ask(page)).toEqual(['1', 1]);
    expect(await slotsOf(page)).toMatchObject({ running: 'committed', committed: '1', trial: undefined });
  });

  it('goes on when a release takes its worker along where it is tried, and rejects it', SLOW, async () => {
    const { world, page } = await settled();
    await world.ship('2', hangs());
    await call(page, 'check');
    await expect
      .poll(async () => {
        // The first worker is the one of version 1; a later one is where the release is tried.
        const newest = (await call<number>(page, 'workers')) - 1;
        if (newest > 0) await call(page, 'terminate', newest);
        return (await slotsOf(page)).rejected.join();
      }, soon)
      // Which of them it is depends on when the worker goes: one that has not begun does not open.
      .toMatch(/^2 (crash|hang|open)$/);
    expect(await ask(page)).toEqual(['1', 1]);
  });

  it('goes back from a release whose answers are no numbers', SLOW, async () => {
    const { world, page } = await settled();
    await world.ship('2', givesNaN());
    await call(page, 'check');
    await expect
      .poll(async () => {
        await ask(page);
        return (await slotsOf(page)).rejected;
      }, soon)
      .toEqual(['2 invalid-outputs']);
    await expect.poll(() => ask(page), soon).toEqual(['1', 1]);
  });

  it('starts offline with what was committed', SLOW, async () => {
    const { world, context, page } = await settled();
    await world.ship('2', scale(2), AT_ONCE);
    await call(page, 'check');
    await expect
      .poll(async () => {
        await ask(page);
        return (await slotsOf(page)).committed;
      }, soon)
      .toBe('2');
    await context.route(`${world.sync.url}/**`, (route) => route.abort());
    await page.reload();
    expect(await start(world, page)).toBe('2');
    expect(await ask(page)).toEqual(['2', 2]);
    expect(await call(page, 'check')).toBe('ERR_INLAY_NETWORK');
    expect(await ask(page)).toEqual(['2', 2]);
  });

  it('that brings a release along downloads it no more, and goes on from it', SLOW, async () => {
    const { world, site, open } = await visitor(scale(1));
    const { path, seq, sha256, length, version } = await world.ship('1', scale(1), AT_ONCE);
    const embedded = {
      file: new URL('/digits.onnx', site.url).href,
      release: { release: { path, seq, sha256, length, version }, file: { sha256, length } },
    };
    const page = await open();
    const asked: string[] = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    expect(await start(world, page, { embedded })).toBe('1');
    await call(page, 'check');
    expect(await slotsOf(page)).toMatchObject({ running: 'embedded', trial: undefined });
    expect(asked.filter((one) => one.includes('/targets/'))).toEqual([]);
    await world.ship('2', scale(2), AT_ONCE);
    await call(page, 'check');
    await expect.poll(() => ask(page), soon).toEqual(['2', 2]);
  });

  it(
    'that crashes twice while it tries a release leaves it, and starts with the last good one',
    SLOW,
    async () => {
      const { world, page: first, open, context } = await settled();
      await world.ship('2', hangs());
      let page = first;
      for (const strikes of [1, 2]) {
        await call(page, 'check');
        await expect.poll(async () => (await slotsOf(page)).markers.at(-1)?.[0], soon).toBe('loading');
        await crash(context, page);
        page = await open();
        expect(await start(world, page)).toBe('1');
        expect(await ask(page)).toEqual(['1', 1]);
        if (strikes === 1) expect((await slotsOf(page)).strikes).toEqual([1]);
      }
      await call(page, 'check');
      expect(await slotsOf(page)).toMatchObject({ rejected: ['2 crash'], trial: undefined, committed: '1' });
    },
  );

  it.each([
    ['goes on to another page', (page: Page) => page.goto('about:blank')],
    ['is reloaded', (page: Page) => page.reload()],
    ['is closed', (page: Page) => page.close({ runBeforeUnload: true })],
  ])('that %s while it tries a release has not crashed', SLOW, async (_, leave) => {
    const { world, page: first, open } = await settled();
    await world.ship('2', hangs());
    let page = first;
    for (let times = 0; times < 3; times += 1) {
      await call(page, 'check');
      await expect.poll(async () => (await slotsOf(page)).markers.at(-1), soon).toEqual(['loading', false]);
      await leave(page);
      page = await open();
      expect(await start(world, page)).toBe('1');
    }
    expect(await slotsOf(page)).toMatchObject({ strikes: [], rejected: [], trial: '2' });
  });

  it('settles what it opens as soon as it is hidden', SLOW, async () => {
    const { world, page } = await settled();
    await world.ship('2', hangs());
    await call(page, 'check');
    await expect.poll(async () => (await slotsOf(page)).markers.at(-1), soon).toEqual(['loading', false]);
    await page.evaluate(() => {
      Object.defineProperty(document, 'visibilityState', { value: 'hidden' });
      document.dispatchEvent(new Event('visibilitychange'));
    });
    await expect.poll(async () => (await slotsOf(page)).markers.at(-1), soon).toEqual(['loading', true]);
  });

  it('does not take the load of another tab that lives for a crash', SLOW, async () => {
    const { world, page, open } = await settled();
    await world.ship('2', hangs());
    await call(page, 'check');
    await expect.poll(async () => (await slotsOf(page)).markers.at(-1)?.[0], soon).toBe('loading');
    for (let times = 0; times < 2; times += 1) {
      const other = await open();
      expect(await start(world, other)).toBe('1');
      const { strikes, rejected } = await slotsOf(other);
      expect({ strikes, rejected }).toEqual({ strikes: [], rejected: [] });
      await other.close({ runBeforeUnload: true });
    }
  });

  it('and another tab come to the same release, which both begin to download at once', SLOW, async () => {
    const { world, page, open } = await settled();
    const other = await open();
    expect(await start(world, other)).toBe('1');
    await world.ship('2', large(2, 3), AT_ONCE);
    await Promise.all([call(page, 'check'), call(other, 'check')]);
    await expect
      .poll(async () => {
        // Each tab hears of what the other has done when it asks the next time.
        await Promise.all([call(page, 'check'), call(other, 'check')]);
        return [await ask(page), await ask(other)];
      }, soon)
      .toEqual([
        ['2', 2],
        ['2', 2],
      ]);
    for (const tab of [page, other]) expect((await slotsOf(tab)).rejected).toEqual([]);
  });

  it(
    'without room for a release keeps it in memory, and starts with the one that there was room for',
    SLOW,
    async () => {
      const { world, page, context } = await settled();
      await world.ship('2', large(2, 12), AT_ONCE);
      const session = await context.newCDPSession(page);
      await session.send('Storage.overrideQuotaForOrigin', {
        origin: new URL(page.url()).origin,
        quotaSize: 4_000_000,
      });
      await call(page, 'check');
      await expect.poll(() => ask(page), soon).toEqual(['2', 2]);
      expect(await call(page, 'degraded')).toMatch(/in memory only/);
      await context.route(`${world.sync.url}/**`, (route) => route.abort());
      await page.reload();
      expect(await start(world, page)).toBe('1');
      expect(await ask(page)).toEqual(['1', 1]);
      expect((await slotsOf(page)).rejected).toEqual([]);
    },
  );

  it('goes on with a download where it was when it was reloaded', SLOW, async () => {
    const { world, page, context } = await settled();
    const { sha256 } = await world.ship('2', large(2, 8), AT_ONCE);
    const session = await context.newCDPSession(page);
    const speed = (bytesPerSecond: number) =>
      session.send('Network.emulateNetworkConditions', {
        offline: false,
        latency: 0,
        downloadThroughput: bytesPerSecond,
        uploadThroughput: -1,
      });
    await session.send('Network.enable');
    await speed(1_500_000);
    await call(page, 'check');
    // What was noted two seconds ago at the latest is there after the reload.
    await expect.poll(() => call<number>(page, 'loadedBytes'), soon).toBeGreaterThan(5_500_000);
    const ranges: (string | undefined)[] = [];
    page.on('request', (request) => {
      if (request.url().includes(sha256)) ranges.push(request.headers()['range']);
    });
    await speed(-1);
    await page.reload();
    expect(await start(world, page)).toBe('1');
    await expect.poll(() => ask(page), soon).toEqual(['2', 2]);
    const [, from] = /^bytes=(\d+)-/.exec(ranges[0] ?? '') ?? [];
    expect(Number(from)).toBeGreaterThan(1_000_000);
    expect(await historyOf(page)).toContain('activated 2');
  });
});

/** Ends the process of a page at once. */
async function crash(context: BrowserContext, page: Page): Promise<void> {
  const session = await context.newCDPSession(page);
  const crashed = page.waitForEvent('crash');
  session.send('Page.crash').catch(() => {});
  await crashed;
  await page.close().catch(() => {});
}
