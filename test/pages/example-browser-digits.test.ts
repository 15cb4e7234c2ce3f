import { mkdir } from 'node:fs/promises';
import type { Browser, Page } from 'playwright';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import {
  drawDigit,
  exampleFile,
  expectAnswer,
  HAND,
  startExample,
  type RunningExample,
} from './example-fixture.ts';
import { describePages, startChromium } from './fixture.ts';

const images = exampleFile('../docs/images');

describePages('the page that reads digits', () => {
  let browser: Browser;
  let example: RunningExample;
  beforeAll(async () => {
    [browser, example] = await Promise.all([startChromium(), startExample('browser-digits')]);
  });
  afterAll(async () => {
    await Promise.all([browser?.close(), example?.stop()]);
  });

  const open = async (): Promise<{ readonly page: Page; readonly faults: string[] }> => {
    const context = await browser.newContext({
      viewport: { width: 1040, height: 760 },
      deviceScaleFactor: 2,
    });
    onTestFinished(() => context.close());
    const page = await context.newPage();
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(`${message.text()} ${message.location().url}`);
    });
    await page.goto(example.facts['url'] as string);
    await expectVersion(page, /^digits/);
    return { page, faults };
  };
  const expectVersion = async (page: Page, version: RegExp | string): Promise<void> => {
    await expect.poll(() => page.textContent('#version'), { timeout: 30_000 }).toMatch(version);
  };

  it('reads every digit that is drawn with a mouse', async () => {
    const { page, faults } = await open();
    for (const digit of HAND.keys()) {
      await drawDigit(page, digit);
      await expectAnswer(page, digit);
    }
    expect(await page.textContent('#place')).toBe('WebAssembly, in a worker');
    expect(await page.textContent('#store')).toBe('files of this browser');
    expect(await page.textContent('#latency')).toMatch(/^\d+\.\d ms$/);
    expect(faults).toEqual([]);
  });

  it('reads a digit that is small and in a corner', async () => {
    const { page } = await open();
    const pad = await page.locator('#pad').boundingBox();
    const { x, y, width } = pad ?? { x: 0, y: 0, width: 0 };
    await page.mouse.move(x + 0.05 * width, y + 0.06 * width);
    await page.mouse.down();
    await page.mouse.move(x + 0.15 * width, y + 0.06 * width, { steps: 4 });
    await page.mouse.move(x + 0.09 * width, y + 0.24 * width, { steps: 6 });
    await page.mouse.up();
    await expectAnswer(page, 7);
  });

  it('draws by itself, for those who cannot, and reads that', async () => {
    const { page } = await open();
    await page.emulateMedia({ reducedMotion: 'reduce' });
    await page.keyboard.press('0');
    await expectAnswer(page, 0);
    await page.keyboard.press('Escape');
    await expect.poll(() => page.textContent('#answer')).toBe('·');
  });

  it('takes a new version over while it is open', async () => {
    const { page, faults } = await open();
    const before = await page.textContent('#version');
    await drawDigit(page, 5);
    await expectAnswer(page, 5);
    const { rolledOut } = await example.enter();
    expect(before).not.toBe(`digits ${rolledOut}`);
    await expectVersion(page, `digits ${rolledOut}`);
    expect(await page.textContent('#news')).toContain(`to ${rolledOut}`);
    await drawDigit(page, 2);
    await expectAnswer(page, 2);
    expect(faults).toEqual([]);
  });

  // Not a test: it makes the pictures of the documentation, when they are asked for.
  if (process.env['INLAY_SCREENSHOTS'] !== undefined) {
    it('has its picture taken', async () => {
      const { page } = await open();
      await mkdir(images, { recursive: true });
      // The time that it shows is the median of the last readings.
      for (const digit of [3, 8]) await drawDigit(page, digit);
      await page.emulateMedia({ reducedMotion: 'reduce' });
      await page.keyboard.press('5');
      await expectAnswer(page, 5);
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
        await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 300)));
        await page.screenshot({ path: `${images}/browser-digits-${colorScheme}.png` });
      }
    });
  }

  it('opens again without any network, and goes on with the version that it had', async () => {
    const { page, faults } = await open();
    const version = (await page.textContent('#version')) as string;
    await expect.poll(() => page.textContent('#network'), { timeout: 30_000 }).toContain('ready without');
    expect(await example.stop()).toBe(0);
    await page.context().setOffline(true);
    faults.length = 0;

    await page.reload();
    await expectVersion(page, version);
    expect(await page.textContent('#network')).toBe('offline');
    await drawDigit(page, 8);
    await expectAnswer(page, 8);
    // The sync server cannot be asked, and the browser says so; nothing else is missing.
    const server = example.facts['server'] as string;
    expect(faults.filter((fault) => !fault.includes(server))).toEqual([]);
  });
});
