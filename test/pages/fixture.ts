/** Pages in real Chromium: built by Vite as an app would be, served by a server that says what was asked of it. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { chromium, type Browser, type Page } from 'playwright';
import { build } from 'vite';
import { describe, onTestFinished } from 'vitest';
import { findChromium, skipsBrowser } from '../../scripts/chromium.mjs';

/** `describe`, or a skip with its reason where there is to be no browser. */
export function describePages(name: string, suite: () => void): void {
  if (skipsBrowser()) console.log(`Skipped: ${name} needs a browser, and INLAY_SKIP_BROWSER is set.`);
  describe.skipIf(skipsBrowser())(name, suite);
}

/** Builds a page's script and everything that it reaches, workers and WebAssembly included. @returns the folder. */
export async function buildPage(script: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-page-'));
  const entry = join(import.meta.dirname, script);
  await build({
    configFile: false,
    root: import.meta.dirname,
    logLevel: 'error',
    publicDir: false,
    worker: { format: 'es' },
    build: {
      outDir: folder,
      emptyOutDir: true,
      minify: false,
      target: 'es2022',
      assetsInlineLimit: 0,
      modulePreload: false,
      rollupOptions: { input: { page: entry }, output: { entryFileNames: '[name].js' } },
    },
  });
  return folder;
}

/** What a site answers to one path. */
export interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** Options of {@link startSite}. */
export interface SiteOptions {
  /** What {@link buildPage} built; `index.html` loads its `page.js`. */
  readonly folder: string;
  /** Headers of every answer. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Answers before the folder is looked at; `undefined` leaves the path to the folder. */
  readonly answer?: (path: string, request: IncomingMessage) => Answer | undefined;
}

/** A site on loopback. */
export interface Site {
  readonly url: string;
  /** Paths that were asked for, in order. */
  readonly requests: readonly string[];
  close(): Promise<void>;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.onnx': 'application/octet-stream',
};

/** Cross-origin isolation: with these headers a page may share memory between threads. */
export const ISOLATED: Readonly<Record<string, string>> = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};

const INDEX =
  '<!doctype html><html lang="en"><title>Inlay</title><script type="module" src="/page.js"></script>';

/** Serves a page. */
export async function startSite(options: SiteOptions): Promise<Site> {
  const { folder, headers = {}, answer = () => undefined } = options;
  const requests: string[] = [];
  const fromFolder = async (path: string): Promise<Answer> => {
    if (path === '/favicon.ico') return { status: 204 };
    if (path === '/') return { body: INDEX, headers: { 'content-type': TYPES['.html'] as string } };
    const body = await readFile(join(folder, normalize(path))).catch(() => undefined);
    if (body === undefined) return { status: 404, body: 'not found' };
    return { body, headers: { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' } };
  };
  const respond = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://site').pathname);
    requests.push(path);
    const { status = 200, headers: own, body = '' } = answer(path, request) ?? (await fromFolder(path));
    response.writeHead(status, { 'cache-control': 'no-store', ...headers, ...own });
    response.end(body);
  };
  const server = createServer((request, response) => void respond(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    requests,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Flags that every Chromium of the tests has: a software WebGPU adapter, and nothing that calls home. */
export const FLAGS: readonly string[] = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--enable-unsafe-webgpu',
];

/** Starts Chromium. Call it in `beforeAll`, and close it in `afterAll`. */
export async function startChromium(args: readonly string[] = []): Promise<Browser> {
  const executablePath = findChromium();
  return chromium.launch({ ...(executablePath && { executablePath }), args: [...FLAGS, ...args] });
}

/** Removes a folder that {@link buildPage} made. */
export async function removePage(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}

/** A page of a site. What it throws, and what it logs as an error, is in `faults`. */
export interface OpenedPage {
  readonly page: Page;
  readonly faults: string[];
}

/** Opens a site in a context of its own, closed at the end of the test; its script puts an `api` on the window. */
export async function openPage(browser: Browser, site: Site): Promise<OpenedPage> {
  const context = await browser.newContext();
  onTestFinished(() => context.close());
  const page = await context.newPage();
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(message.text());
  });
  await page.goto(site.url);
  return { page, faults };
}

/** Calls a function that the page's script exported as `window.api`. Arguments and the answer are plain data. */
export async function call<T>(page: Page, name: string, ...args: readonly unknown[]): Promise<T> {
  await page.waitForFunction(() => 'api' in globalThis);
  return page.evaluate(
    async ([method, values]) => {
      const { api } = globalThis as unknown as { api: Record<string, (...list: unknown[]) => unknown> };
      return (await api[method]?.(...values)) as never;
    },
    [name, args] as const,
  );
}
