/**
 * The example for Electron without Electron, which cannot be had everywhere: its main process runs here, with the few
 * parts of Electron that it uses passed in; its page runs in Chromium, under the policy that its own protocol sends.
 */
import { EventEmitter } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { Browser, Page } from 'playwright';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { drawDigit, exampleFile, expectAnswer } from './example-fixture.ts';
import { describePages, startChromium } from './fixture.ts';

type Listener = (...args: never[]) => unknown;
interface Reading {
  readonly digit: number;
  readonly shares: Float32Array;
}

/** The parts of Electron that the example uses, with what it did to them. */
function createElectron() {
  const handlers = new Map<string, (event: object, ...args: unknown[]) => Promise<unknown>>();
  const schemes: { readonly scheme: string }[] = [];
  const windows: {
    readonly options: Record<string, unknown>;
    url?: string;
    readonly contents: EventEmitter;
  }[] = [];
  let answer: ((request: Request) => Promise<Response>) | undefined;
  let quits = 0;
  const app = Object.assign(new EventEmitter(), {
    whenReady: () => Promise.resolve(),
    quit: () => {
      quits += 1;
      let isPrevented = false;
      app.emit('will-quit', {
        preventDefault: () => {
          isPrevented = true;
        },
      });
      if (!isPrevented) app.emit('quit');
    },
  });
  class BrowserWindow {
    readonly webContents = Object.assign(new EventEmitter(), { setWindowOpenHandler: () => {} });
    readonly #record: (typeof windows)[number];
    constructor(options: { readonly webPreferences: Record<string, unknown> }) {
      this.#record = { options: options.webPreferences, contents: this.webContents };
      windows.push(this.#record);
    }
    loadURL(url: string): Promise<void> {
      this.#record.url = url;
      return Promise.resolve();
    }
  }
  return {
    app,
    BrowserWindow,
    ipcMain: {
      handle: (channel: string, handler: Listener) => {
        handlers.set(channel, handler as never);
      },
    },
    protocol: {
      registerSchemesAsPrivileged: (list: readonly { readonly scheme: string }[]) => schemes.push(...list),
      handle: (_scheme: string, handler: (request: Request) => Promise<Response>) => {
        answer = handler;
      },
    },
    schemes,
    windows,
    quits: () => quits,
    /** What `ipcRenderer.invoke` does, out of a page of that address. */
    invoke: async (channel: string, argument: unknown, from = 'app://digits/') =>
      handlers.get(channel)?.({ senderFrame: { url: from } }, argument),
    request: async (url: string) => {
      if (answer === undefined) throw new Error('There is no protocol.');
      return answer(new Request(url));
    },
  };
}

const { startApp } = (await import(new URL('../../examples/electron/app.mjs', import.meta.url).href)) as {
  startApp(electron: ReturnType<typeof createElectron>): Promise<void>;
};
const { drawSet } = (await import(new URL('../../examples/digits/draw.mjs', import.meta.url).href)) as {
  drawSet(seed: number, count: number): { readonly labels: Uint8Array; readonly pixels: Float32Array };
};

describe('the main process of the example for Electron', () => {
  let electron: ReturnType<typeof createElectron>;
  beforeEach(async () => {
    electron = createElectron();
    await startApp(electron);
  });
  afterEach(async () => {
    const isOver = new Promise((resolve) => electron.app.once('quit', resolve));
    electron.app.emit('window-all-closed');
    await isOver;
  });

  it('reads digits with a real model', async () => {
    const { labels, pixels } = drawSet(5, 20);
    let right = 0;
    for (const [index, label] of labels.entries()) {
      const grey = pixels.subarray(784 * index, 784 * (index + 1));
      const image = { width: 28, height: 28, data: Uint8ClampedArray.from(grey, (value) => 255 * value) };
      const { digit, shares } = (await electron.invoke('digits:read', image)) as Reading;
      expect(shares.reduce((sum, share) => sum + share)).toBeCloseTo(1, 5);
      if (digit === label) right += 1;
    }
    expect(right).toBeGreaterThanOrEqual(18);
    expect(await electron.invoke('digits:info', undefined)).toMatchObject({ backend: 'onnxruntime-node' });
  });

  it('answers only its own page, and only pictures', async () => {
    const image = { width: 28, height: 28, data: new Uint8ClampedArray(784) };
    await expect(electron.invoke('digits:read', image, 'https://example.com/')).rejects.toThrow(
      'may not use',
    );
    for (const bad of [undefined, {}, { ...image, width: 2800 }, { ...image, data: [1, 2, 3] }]) {
      await expect(electron.invoke('digits:read', bad)).rejects.toThrow();
    }
  });

  it('gives its window nothing of Node, and keeps it where it is', () => {
    const [window] = electron.windows;
    expect(window?.options).toMatchObject({ sandbox: true, contextIsolation: true, nodeIntegration: false });
    expect(window?.url).toBe('app://digits/');
    expect(electron.schemes.map(({ scheme }) => scheme)).toEqual(['app']);
    let isPrevented = false;
    window?.contents.emit('will-navigate', {
      preventDefault: () => {
        isPrevented = true;
      },
    });
    expect(isPrevented).toBe(true);
  });

  it('serves the files of its page and no others', async () => {
    const page = await electron.request('app://digits/');
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'/);
    for (const path of ['main.mjs', '..%2fmain.mjs', 'constructor', 'preload.cjs']) {
      expect((await electron.request(`app://digits/${path}`)).status).toBe(404);
    }
  });

  it('waits for its model before it quits', async () => {
    await electron.invoke('digits:info', undefined);
    const isOver = new Promise((resolve) => electron.app.once('quit', resolve));
    electron.app.quit();
    await isOver;
    expect(electron.quits()).toBe(2);
  });
});

describePages('the page of the example for Electron', () => {
  let browser: Browser;
  let electron: ReturnType<typeof createElectron>;
  beforeAll(async () => {
    electron = createElectron();
    [browser] = await Promise.all([startChromium(), startApp(electron)]);
  });
  afterAll(async () => {
    await browser?.close();
    const isOver = new Promise((resolve) => electron.app.once('quit', resolve));
    electron.app.quit();
    await isOver;
  });

  /** Opens the page at an origin that stands for `app://digits`, which no Chromium but Electron's knows. */
  const open = async (): Promise<{ readonly page: Page; readonly faults: string[] }> => {
    const context = await browser.newContext({ viewport: { width: 1040, height: 780 } });
    onTestFinished(() => context.close());
    const page = await context.newPage();
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(message.text());
    });
    await page.route('https://digits.test/**', async (route) => {
      const { pathname } = new URL(route.request().url());
      const response = await electron.request(`app://digits${pathname}`);
      await route.fulfill({
        status: response.status,
        headers: Object.fromEntries(response.headers),
        body: Buffer.from(await response.arrayBuffer()),
      });
    });
    await page.exposeFunction('invoke', async (channel: string, image: { data: object } | undefined) => {
      // Playwright carries plain data between the two; Electron would clone the arrays.
      const data = image && { ...image, data: Uint8ClampedArray.from(Object.values(image.data) as number[]) };
      const reply = await electron.invoke(channel, data);
      return JSON.parse(
        JSON.stringify(reply, (_, value: unknown) => (value instanceof Float32Array ? [...value] : value)),
      ) as object;
    });
    const preload = await readFile(exampleFile('electron/preload.cjs'), 'utf8');
    await page.addInitScript(`{
      const require = () => ({
        contextBridge: { exposeInMainWorld: (name, api) => { globalThis[name] = Object.freeze(api); } },
        ipcRenderer: {
          invoke: (channel, image) => globalThis.invoke(channel, image && { ...image, data: Array.from(image.data) }),
        },
      });
      ${preload}
    }`);
    await page.goto('https://digits.test/');
    return { page, faults };
  };

  it('shows what the main process reads in a drawing', async () => {
    const { page, faults } = await open();
    await expect.poll(() => page.textContent('#place'), { timeout: 20_000 }).toMatch(/^onnxruntime-node/);
    for (const digit of [2, 4, 7]) {
      await drawDigit(page, digit);
      await expectAnswer(page, digit);
    }
    expect(faults).toEqual([]);
  });

  it('lets nothing in that did not come with the app', async () => {
    const { page, faults } = await open();
    await expect.poll(() => page.textContent('#place')).not.toBe('–');
    const outcome = await page.evaluate(async () => {
      const script = document.createElement('script');
      script.textContent = 'globalThis.isIn = true;';
      document.body.append(script);
      const fetched = await fetch('https://digits.test/style.css').then(
        () => 'fetched',
        () => 'refused',
      );
      return {
        isIn: 'isIn' in globalThis,
        fetched,
        hasNode: 'process' in globalThis || 'require' in globalThis,
      };
    });
    expect(outcome).toEqual({ isIn: false, fetched: 'refused', hasNode: false });
    expect(faults.every((fault) => fault.includes('Content Security Policy'))).toBe(true);
  });
});
