import { readFileSync } from 'node:fs';
import type { Browser } from 'playwright';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { addModel } from '../conformance/backend-models.ts';
import {
  buildPage,
  call,
  describePages,
  ISOLATED,
  openPage,
  removePage,
  startChromium,
  startSite,
  type Answer,
  type OpenedPage,
  type Site,
  type SiteOptions,
} from './fixture.ts';

const WASM = 'ort-wasm-simd-threaded.wasm';
const library = (file: string): Uint8Array =>
  readFileSync(new URL(`../../node_modules/onnxruntime-web/dist/${file}`, import.meta.url));
const HTML: Answer = {
  body: '<!doctype html><title>Not found</title>',
  headers: { 'content-type': 'text/html; charset=utf-8' },
};
const two = [2, 2, 2, 2];

/** What the page answers when a session does not open. */
interface Failure {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

describePages('onnxruntime-web in a page', () => {
  const model = [...addModel()];
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [browser, folder] = await Promise.all([startChromium(), buildPage('onnxruntime-web.page.ts')]);
  });
  afterAll(async () => {
    await browser.close();
    await removePage(folder);
  });

  const visit = async (options: Omit<SiteOptions, 'folder'> = {}): Promise<OpenedPage & { site: Site }> => {
    const site = await startSite({ folder, ...options });
    onTestFinished(() => site.close());
    return { ...(await openPage(browser, site)), site };
  };
  const isWasm = (path: string): boolean => path.endsWith('.wasm');

  it('asks its own site only, and the GPU for nothing', async () => {
    const { page, faults, site } = await visit();
    const elsewhere: string[] = [];
    page.on('request', (request) => {
      if (!request.url().startsWith(site.url)) elsewhere.push(request.url());
    });
    expect(await call(page, 'wasm', {}, model)).toEqual({ y: two, intraOpThreads: 1 });
    expect(elsewhere).toEqual([]);
    expect(faults).toEqual([]);
    expect(site.requests.filter((path) => isWasm(path))).toHaveLength(1);
  });

  it('has as many threads as it is asked for in an isolated page, else one and the reason', async () => {
    const isolated = await visit({ headers: ISOLATED });
    expect(await call(isolated.page, 'wasm', { threads: 2 }, model)).toEqual({ y: two, intraOpThreads: 2 });
    const { page } = await visit();
    expect(await call(page, 'wasm', { threads: 2 }, model)).toEqual({
      y: two,
      intraOpThreads: 1,
      threadsReason: expect.stringContaining('not cross-origin isolated') as string,
    });
  });

  it('fetches nothing when it is given the binary', async () => {
    const { page, site } = await visit({
      answer: (path) => (path === '/binary' ? { body: library(WASM) } : undefined),
    });
    const opened = await call(page, 'wasm', { wasmBinary: '/binary' }, model);
    expect(opened).toMatchObject({ y: two });
    expect(site.requests.filter((path) => isWasm(path))).toEqual([]);
  });

  it('takes WebAssembly that is served with a wrong type', async () => {
    const { page } = await visit({
      answer: (path) =>
        isWasm(path) ? { body: library(WASM), headers: { 'content-type': 'text/plain' } } : undefined,
    });
    expect(await call(page, 'wasm', {}, model)).toMatchObject({ y: two });
  });

  const truncated = {
    body: library(WASM).subarray(0, 100_000),
    headers: { 'content-type': 'application/wasm' },
  };
  const found = /\/assets\/ort-wasm[^ ]*\.wasm/;
  const faulty: readonly [string, Answer, RegExp][] = [
    ['HTML', HTML, /begins with 3c 21 64 6f 63 .*"<!doctype html><" instead of 00 61 73 6d/],
    ['404', { status: 404, body: 'gone' }, /answers with HTTP 404 and begins with 67 6f 6e 65 "gone"/],
    ['nothing', { body: '' }, /begins with nothing/],
    ['half of it', truncated, /its 100000 bytes do not compile/],
  ];
  for (const [what, answer, words] of faulty) {
    it(`says which file is not the library's, and what it is instead: ${what}`, async () => {
      const { page, site } = await visit({ answer: (path) => (isWasm(path) ? answer : undefined) });
      const failure = await call<Failure>(page, 'wasm', {}, model);
      expect(failure.code).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
      expect(failure.message).toMatch(words);
      expect(failure.message).toMatch(found);
      expect(failure.message).toMatch(/set wasmPaths or wasmBinary\.$/);
      const asked = site.requests.length;
      // The realm is spoiled: the same answer, without asking again.
      expect(await call(page, 'wasm', {}, model)).toEqual(failure);
      expect(site.requests).toHaveLength(asked);
    });
  }

  it('says the same of files under wasmPaths, of the script as of the binary', async () => {
    const files = (path: string): Answer | undefined => {
      if (path === `/ort/${WASM}` || path.startsWith('/nothing/')) return HTML;
      if (path.endsWith('.mjs')) {
        return {
          body: library('ort-wasm-simd-threaded.mjs'),
          headers: { 'content-type': 'text/javascript' },
        };
      }
      return undefined;
    };
    const binary = await visit({ answer: files });
    const failure = await call<Failure>(binary.page, 'wasm', { wasmPaths: '/ort/' }, model);
    expect(failure.message).toMatch(/\/ort\/ort-wasm-simd-threaded\.wasm begins with 3c/);
    const script = await visit({ answer: files });
    const other = await call<Failure>(script.page, 'wasm', { wasmPaths: '/nothing/' }, model);
    expect(other.code).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
    expect(other.message).toMatch(
      /\/nothing\/\S+\.mjs is served as "text\/html.*" instead of text\/javascript/,
    );
  });

  it('says what the binary is that it was given', async () => {
    const { page } = await visit({ answer: (path) => (path === '/binary' ? HTML : undefined) });
    const failure = await call<Failure>(page, 'wasm', { wasmBinary: '/binary' }, model);
    expect(failure.code).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
    expect(failure.message).toMatch(/the wasmBinary of 39 bytes begins with 3c 21/);
  });

  it('says that the policy of the page forbids WebAssembly', async () => {
    const { page } = await visit({ headers: { 'content-security-policy': `script-src 'self'` } });
    const failure = await call<Failure>(page, 'wasm', {}, model);
    expect(failure.code).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
    expect(failure.message).toContain(`allow 'wasm-unsafe-eval'`);
  });

  it('says the same on WebGPU', async () => {
    const { page } = await visit({ answer: (path) => (isWasm(path) ? HTML : undefined) });
    const failure = await call<Failure>(page, 'gpu', {}, model);
    expect(failure.code).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
    expect(failure.message).toMatch(/asyncify\S*\.wasm begins with 3c 21/);
  });

  it('runs on WebGPU without asking another site', async () => {
    const { page, site } = await visit();
    expect(await call(page, 'gpu', {}, model)).toEqual({ y: two, intraOpThreads: 1 });
    expect(site.requests.filter((path) => isWasm(path))).toHaveLength(1);
  });
});
