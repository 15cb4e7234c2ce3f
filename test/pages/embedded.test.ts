import type { Browser } from 'playwright';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { addModel } from '../conformance/backend-models.ts';
import { startWorld } from '../node/follow-fixture.ts';
import { buildPage, call, describePages, openPage, removePage, startChromium, startSite } from './fixture.ts';

describePages('a page that brings a model along', () => {
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [browser, folder] = await Promise.all([startChromium(), buildPage('workers.page.ts')]);
  });
  afterAll(async () => {
    await browser.close();
    await removePage(folder);
  });

  it('answers at its first start although the sync server is out of reach', async () => {
    const world = await startWorld();
    await world.network.goDown();
    const site = await startSite({
      folder,
      answer: (path) => (path === '/add.onnx' ? { body: addModel() } : undefined),
    });
    const { page } = await openPage(browser, site);
    const sync = { url: world.network.url, root: world.root };
    expect(await call(page, 'follow', sync, '/add.onnx')).toBe('embedded');
    expect(await call(page, 'run', { a: [1, 2, 3, 4], b: [10, 20, 30, 40] })).toEqual([11, 22, 33, 44]);
    await site.close();
  });
});
