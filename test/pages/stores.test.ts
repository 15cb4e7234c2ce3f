import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium, type Browser, type Page } from 'playwright';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { findChromium } from '../../scripts/chromium.mjs';
import {
  buildPage,
  call,
  describePages,
  FLAGS,
  openPage,
  removePage,
  startChromium,
  startSite,
  type Site,
} from './fixture.ts';
import type { Findings } from './stores.page.ts';
import { strideOf } from '../node/thorough.ts';

const KINDS = ['opfs', 'indexeddb'] as const;
/** Kills of a browser: thirty with `INLAY_TEST_THOROUGH=1`. */
const KILLS = strideOf(2) === 1 ? 30 : 12;
const MB = 1 << 20;

describePages('stores in pages', () => {
  let folder: string;
  let site: Site;
  beforeAll(async () => {
    folder = await buildPage('stores.page.ts');
    site = await startSite({ folder });
  });
  afterAll(async () => {
    await site.close();
    await removePage(folder);
  });

  describe('of one browser', () => {
    let browser: Browser;
    beforeAll(async () => {
      browser = await startChromium();
    });
    afterAll(() => browser.close());

    /** Two tabs of one site. */
    const openTabs = async (): Promise<readonly [Page, Page]> => {
      const { page } = await openPage(browser, site);
      const other = await page.context().newPage();
      await other.goto(site.url);
      return [page, other];
    };

    describe.each(KINDS)('%s', (kind) => {
      it('writes with what the bundler made of it', async () => {
        const { page, faults } = await openPage(browser, site);
        const sha256 = await call<string>(page, 'putWhole', kind, 'inlay', 1, 5_000_000);
        expect(await call<Findings>(page, 'inspect', kind, 'inlay')).toEqual({
          intact: [sha256],
          damaged: [],
          count: 0,
          leftovers: [],
        });
        expect(faults).toEqual([]);
        // The page would write by itself if its worker did not start.
        if (kind === 'opfs') expect(site.requests.some((path) => path.includes('opfs-writer'))).toBe(true);
      });

      it('loses no update of two tabs', async () => {
        const tabs = await openTabs();
        await Promise.all(tabs.map((tab) => call(tab, 'count', kind, 'inlay', 200)));
        expect(await call<Findings>(tabs[0], 'inspect', kind, 'inlay')).toMatchObject({ count: 400 });
      });

      it('takes the same blobs from two tabs at once', async () => {
        const tabs = await openTabs();
        const seeds = [1, 2, 3, 4, 5, 6, 7, 8];
        const names = await Promise.all(
          tabs.map(async (tab) => {
            const put: string[] = [];
            for (const seed of seeds) put.push(await call<string>(tab, 'put', kind, 'inlay', seed, 300_000));
            return put;
          }),
        );
        expect(names[0]).toEqual(names[1]);
        for (const tab of tabs) {
          expect(await call<Findings>(tab, 'inspect', kind, 'inlay')).toEqual({
            intact: [...(names[0] ?? [])].sort(),
            damaged: [],
            count: 0,
            leftovers: [],
          });
        }
      });

      it('leaves the unfinished blob of another tab alone until that tab is closed', async () => {
        const [writer, other] = await openTabs();
        const hangs = writer.waitForEvent('console', (message) => message.text() === 'hangs');
        await call(writer, 'hang', kind, 'inlay');
        await hangs;
        expect((await call<Findings>(other, 'inspect', kind, 'inlay')).leftovers).toHaveLength(1);
        await writer.close();
        await other.reload();
        expect((await call<Findings>(other, 'inspect', kind, 'inlay')).leftovers).toEqual([]);
      });

      it('lets a tab take over the part of another, which sees that at its next step', async () => {
        const [first, second] = await openTabs();
        const name = 'a'.repeat(64);
        await call(first, 'hold', kind, 'inlay', name);
        expect(await call(second, 'takeOver', kind, 'inlay', name)).toEqual({ note: 'held', bytes: [5] });
        expect(await call(first, 'holdOn')).toBe('ERR_INLAY_STORE_IO');
        expect(await call(second, 'holdOn')).toBe('written');
        // Of a tab that is gone, nothing has to be copied.
        await second.close();
        expect(await call(first, 'takeOver', kind, 'inlay', name)).toMatchObject({ note: 'held' });
        expect(await call(first, 'holdOn')).toBe('written');
      });

      it('that is full evicts what nobody needs, and refuses what will not fit without a trace', async () => {
        const { page } = await openPage(browser, site);
        await limitQuota(page, 16 * MB);
        const names = await call<string[]>(page, 'fill', kind, 'inlay', 10, 3);
        expect(await call(page, 'putWhole', kind, 'inlay', 99, 40 * MB)).toBe('ERR_INLAY_STORE_FULL');
        const before = await call<Findings>(page, 'inspect', kind, 'inlay');
        expect(before).toMatchObject({ intact: [...names].sort(), damaged: [], leftovers: [] });

        // A busy browser takes its time to free what a failed write has left.
        let fits = 'ERR_INLAY_STORE_FULL';
        for (let tries = 0; tries < 10 && fits === 'ERR_INLAY_STORE_FULL'; tries += 1) {
          fits = await call<string>(page, 'putWhole', kind, 'inlay', 100, 8 * MB);
        }
        const after = await call<Findings>(page, 'inspect', kind, 'inlay');
        expect(after).toMatchObject({ damaged: [], leftovers: [] });
        expect(after.intact).toEqual(expect.arrayContaining([fits, ...names.slice(0, 3)]));
        expect(after.intact.length).toBeLessThan(11);
      });
    });

    it('the default store of a page goes on in memory when the browser gives no more, and warns', async () => {
      const { page } = await openPage(browser, site);
      await limitQuota(page, 8 * MB);
      const names = await call<string[]>(page, 'fill', 'web', 'inlay', 4, 4);
      expect(await call(page, 'info', 'web', 'inlay')).toMatchObject({ kind: 'opfs' });
      const warning = page.waitForEvent('console', (message) => message.text().includes('memory only'));
      const large = await call<string>(page, 'putWhole', 'web', 'inlay', 99, 20 * MB);
      await warning;
      expect(await call(page, 'info', 'web', 'inlay')).toEqual({
        kind: 'memory',
        degraded: expect.stringMatching(/memory only.*no more space/) as string,
      });
      expect(await call<Findings>(page, 'inspect', 'web', 'inlay')).toEqual({
        intact: [...names, large].sort(),
        damaged: [],
        count: 0,
        leftovers: [],
      });
    });
  });

  describe('of a browser that is killed', () => {
    it(
      'are whole, keep what was reported kept, and have nothing else in them',
      { timeout: 300_000 },
      async () => {
        const profile = await mkdtemp(join(tmpdir(), 'inlay-profile-'));
        onTestFinished(() => rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }));
        const expected = Object.fromEntries(
          KINDS.map((kind) => [kind, { count: 0, put: new Set<string>(), part: undefined, saved: 0 }]),
        ) as Record<
          (typeof KINDS)[number],
          { count: number; put: Set<string>; part: number | undefined; saved: number }
        >;
        let resumed = 0;
        const unfinished = { opfs: 0, indexeddb: 0 };
        const random = mulberry32(20_261_121);
        let databasesLost = 0;

        for (let kills = 0; kills <= KILLS; kills += 1) {
          const { page, kill } = await startProcess(profile, site);
          for (const kind of KINDS) {
            if (kills > 0) {
              const leftovers = await call<string[]>(page, 'leftovers', kind, 'inlay');
              unfinished[kind] += leftovers.filter((each) => !each.endsWith('.part')).length;
            }
            const { part, saved } = expected[kind];
            const resumption =
              part === undefined
                ? undefined
                : await call<{ sha256: string; from: number; sizeBytes: number }>(
                    page,
                    'resume',
                    kind,
                    'inlay',
                    part,
                  );
            const found = await call<Findings>(page, 'inspect', kind, 'inlay');
            const { count, put } = expected[kind];
            expect(found, `${kind} after ${kills} kills`).toMatchObject({ damaged: [], leftovers: [] });
            // Chromium has been seen to begin a whole database anew, once in some hundred kills.
            const isNew = found.count === 0 && count > 0;
            if (isNew) {
              databasesLost += 1;
              console.warn(`Chromium has lost the database of ${kind}.`);
              expected[kind].count = 0;
            } else expect(found.count).toBeGreaterThanOrEqual(count);
            if (!isNew || kind === 'opfs') expect(found.intact).toEqual(expect.arrayContaining([...put]));
            if (resumption) {
              expect(found.intact).toContain(resumption.sha256);
              if (!isNew) expect(resumption.from).toBeGreaterThanOrEqual(saved);
              if (resumption.from > 0 && resumption.from < resumption.sizeBytes) resumed += 1;
            }
            await call(page, 'clear', kind, 'inlay');
            put.clear();
            expected[kind].part = undefined;
          }
          if (kills === KILLS) {
            await kill();
            break;
          }
          page.on('console', (message) => {
            const [kind, what, value = ''] = message.text().split(' ');
            const of = expected[kind as (typeof KINDS)[number]];
            if (what === 'count') of.count = Number(value);
            else if (what === 'put') of.put.add(value);
            else if (what === 'delete') of.put.delete(value);
            else if (what === 'part') [of.part, of.saved] = [Number(value), 0];
            else if (what === 'saved') of.saved = Number(value);
            else if (what === 'done') {
              of.put.add(value);
              of.part = undefined;
            }
          });
          for (const kind of KINDS) await call(page, 'churn', kind, 'inlay', kills * 1_000);
          await new Promise((resolve) => {
            setTimeout(resolve, 50 + random() * 450);
          });
          await kill();
        }
        expect(resumed).toBeGreaterThan(0);
        expect(databasesLost).toBeLessThanOrEqual(1);
        for (const kind of KINDS) {
          expect(expected[kind].count).toBeGreaterThan(KILLS);
          // Otherwise the kills came when nothing was being written.
          expect(unfinished[kind]).toBeGreaterThan(0);
        }
      },
    );
  });
});

/** Gives a site so many bytes more than it has now. */
async function limitQuota(page: Page, quotaBytes: number): Promise<void> {
  const session = await page.context().newCDPSession(page);
  await session.send('Storage.overrideQuotaForOrigin', {
    origin: new URL(page.url()).origin,
    quotaSize: quotaBytes,
  });
}

/** Starts a Chromium in a process group of its own, so that all of it can be killed at once. */
async function startProcess(profile: string, { url }: Site): Promise<{ page: Page; kill(): Promise<void> }> {
  const child = spawn(
    findChromium() ?? 'chromium',
    [...FLAGS, '--headless=new', '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'],
    { detached: true, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const exit = once(child, 'exit');
  onTestFinished(() => killGroup(child));
  const endpoint = await endpointOf(child);
  const browser = await chromium.connectOverCDP(endpoint);
  const page = await browser.contexts()[0]!.newPage();
  await page.goto(url);
  return {
    page,
    kill: async () => {
      killGroup(child);
      await exit;
      await browser.close().catch(() => {});
    },
  };
}

function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid !== undefined && exitCode === null && signalCode === null) process.kill(-pid, 'SIGKILL');
}

async function endpointOf(child: ChildProcess): Promise<string> {
  for await (const line of createInterface({ input: child.stderr! })) {
    const [, endpoint] = /DevTools listening on (ws:\S+)/.exec(line) ?? [];
    if (endpoint !== undefined) {
      child.stderr!.resume();
      return endpoint;
    }
  }
  throw new Error('Chromium ended before it was ready.');
}

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
