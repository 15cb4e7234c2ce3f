import { build } from 'esbuild';
import { readFile } from 'node:fs/promises';
import type { Browser } from 'playwright';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ServingInfo } from '../../src/engine/serving.ts';
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
  type OpenedPage,
  type SiteOptions,
} from './fixture.ts';

const model = [...addModel()];
const feeds = { a: [1, 2, 3, 4], b: [10, 20, 30, 40] };
const sums = [11, 22, 33, 44];

const STRICT =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'";

/** The worker of `inlay` as one classic script, as a bundler without modules makes it. */
async function bundleClassic(): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: "import 'inlay/worker';", resolveDir: import.meta.dirname },
    bundle: true,
    format: 'iife',
    platform: 'browser',
    write: false,
    logLevel: 'error',
    logOverride: { 'empty-import-meta': 'silent' },
  });
  return outputFiles[0]?.text ?? '';
}

describePages('workers of a page', () => {
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [browser, folder] = await Promise.all([startChromium(), buildPage('workers.page.ts')]);
  });
  afterAll(async () => {
    await browser.close();
    await removePage(folder);
  });

  const visit = async (
    use: (opened: OpenedPage, requests: readonly string[]) => Promise<void>,
    options: Partial<SiteOptions> = {},
  ): Promise<void> => {
    const site = await startSite({ folder, ...options });
    try {
      const opened = await openPage(browser, site);
      await use(opened, site.requests);
      expect(opened.faults).toEqual([]);
    } finally {
      await site.close();
    }
  };
  const infoOf = async ({ page }: OpenedPage): Promise<ServingInfo> => {
    const { models } = await call<{ models: ServingInfo[] }>(page, 'info');
    return models[0] as ServingInfo;
  };

  it('run a model without any option, and fetch nothing before it is asked for', () =>
    visit(async (opened, requests) => {
      const { page } = opened;
      await call(page, 'create');
      expect(requests.filter((path) => /worker|ort/.test(path))).toEqual([]);
      await call(page, 'load', model);
      expect(await call(page, 'run', feeds)).toEqual(sums);
      expect(await infoOf(opened)).toMatchObject({
        backend: 'onnxruntime-web',
        provider: 'wasm',
        placement: 'worker',
        intraOpThreads: 1,
        attempts: [
          { provider: 'webgpu', outcome: 'refused', reason: expect.stringContaining('software') },
          { provider: 'wasm', outcome: 'chosen' },
        ],
        queue: { slots: ['worker 1'] },
      });
      expect(requests.filter((path) => /asyncify|jspi|webgpu/.test(path))).toEqual([]);
    }));

  it('have as many threads as were asked for in a cross-origin isolated page', () =>
    visit(
      async (opened) => {
        const { page } = opened;
        await call(page, 'create', { intraOpThreads: 2 });
        await call(page, 'load', model);
        expect(await call(page, 'run', feeds)).toEqual(sums);
        expect(await infoOf(opened)).toMatchObject({ placement: 'worker', intraOpThreads: 2 });
      },
      { headers: ISOLATED },
    ));

  it('have one thread in any other page, and say why', () =>
    visit(async (opened) => {
      const { page } = opened;
      await call(page, 'create', { intraOpThreads: 2 });
      await call(page, 'load', model);
      expect(await call(page, 'run', feeds)).toEqual(sums);
      expect(await infoOf(opened)).toMatchObject({
        intraOpThreads: 1,
        threadsReason: expect.stringContaining('not cross-origin isolated'),
      });
    }));

  it('start under a strict content security policy', () =>
    visit(
      async ({ page }) => {
        await call(page, 'load', model);
        expect(await call(page, 'run', feeds)).toEqual(sums);
      },
      { headers: { 'content-security-policy': STRICT } },
    ));

  it('grow in number under load where that is allowed', () =>
    visit(async (opened) => {
      const { page } = opened;
      await call(page, 'create', { workers: 2 });
      await call(page, 'load', model, { maxBatch: 1 });
      for (let round = 0; round < 20; round += 1) {
        const answers = await call<number[][]>(
          page,
          'runMany',
          Array.from({ length: 50 }, () => feeds),
        );
        expect(answers.every((answer) => answer.join() === sums.join())).toBe(true);
      }
      expect((await infoOf(opened)).queue.slots).toEqual(['worker 1', 'worker 2']);
    }));

  it('are classic ones where the app bundles them so', async () => {
    const classic = await bundleClassic();
    const wasm = new URL(
      '../../node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm',
      import.meta.url,
    );
    const binary = await readFile(wasm);
    await visit(
      async (opened, requests) => {
        const { page } = opened;
        await call(page, 'create', { script: 'classic', wasmFrom: '/ort.wasm' });
        await call(page, 'load', model);
        expect(await call(page, 'run', feeds)).toEqual(sums);
        expect(requests.filter((path) => path === '/ort.wasm')).toHaveLength(1);
      },
      {
        answer: (path) => {
          if (path === '/classic.js')
            return { body: classic, headers: { 'content-type': 'text/javascript' } };
          return path === '/ort.wasm' ? { body: binary } : undefined;
        },
      },
    );
  });

  it('host a backend of the app, beside messages of the app', () =>
    visit(async (opened) => {
      const { page } = opened;
      await call(page, 'createOwn', { threads: 1 });
      await call(page, 'load', model);
      expect(await call(page, 'tell', 0, 'ping')).toBe('pong');
      expect(await call(page, 'run', feeds)).toEqual(sums);
      expect(await infoOf(opened)).toMatchObject({ backend: 'own', placement: 'worker' });
    }));

  it('end with their last model, and start again', () =>
    visit(async ({ page }) => {
      await call(page, 'createOwn', { threads: 1 });
      await call(page, 'load', model);
      await call(page, 'unload');
      await call(page, 'load', model);
      expect(await call(page, 'run', feeds)).toEqual(sums);
      expect(await call(page, 'workers')).toBe(2);
    }));

  it('start in a worker of the app as in a page', () =>
    visit(async ({ page }) => {
      const answer = await call(page, 'askNested', model, feeds);
      expect(answer).toMatchObject({ y: sums, info: { provider: 'wasm', placement: 'worker' } });
    }));

  it('are not needed in a SharedWorker, which says so', () =>
    visit(async ({ page }) => {
      expect(await call(page, 'askShared', model, feeds)).toMatchObject({
        y: sums,
        info: {
          provider: 'wasm',
          placement: 'inline',
          attempts: [{ provider: 'webgpu', reason: expect.stringContaining('no Worker') }, {}],
        },
      });
    }));

  it('are not started for models that run inline', () =>
    visit(async (opened, requests) => {
      const { page } = opened;
      await call(page, 'create', { placement: 'inline' });
      await call(page, 'load', model);
      expect(await call(page, 'run', feeds)).toEqual(sums);
      expect(await infoOf(opened)).toMatchObject({ placement: 'inline' });
      expect(requests.filter((path) => path.includes('worker-web'))).toEqual([]);
    }));
});
