import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Browser } from 'playwright';
import { addModel } from '../conformance/backend-models.ts';
import { buildPage, call, describePages, openPage, removePage, startChromium, startSite } from './fixture.ts';

describePages('a page', () => {
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [browser, folder] = await Promise.all([startChromium(), buildPage('basic.page.ts')]);
  });
  afterAll(async () => {
    await browser.close();
    await removePage(folder);
  });

  it('runs a model on its own thread', async () => {
    const site = await startSite({ folder });
    const { page, faults } = await openPage(browser, site);
    const feeds = { a: [1, 2, 3, 4], b: [10, 20, 30, 40] };
    expect(await call(page, 'run', [...addModel()], feeds)).toEqual([11, 22, 33, 44]);
    expect(faults).toEqual([]);
    await site.close();
  });
});
