import { build as esbuild } from 'esbuild';
import { cp, mkdir, mkdtemp, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Browser } from 'playwright';
import { rollup, type Plugin } from 'rollup';
import { build as vite, createServer } from 'vite';
import { afterAll, beforeAll, expect, it } from 'vitest';
import webpack from 'webpack';
import type { ServingInfo } from '../../src/engine/serving.ts';
import { addModel } from '../conformance/backend-models.ts';
import { call, describePages, openPage, removePage, startChromium, startSite, type Site } from './fixture.ts';

const root = join(import.meta.dirname, '..', '..');
/** Bundlers read some 100 MB, and the machine may have other work. */
const SLOW_MS = 180_000;

const app = (options = ''): string => `
import { createInlay } from 'inlay';
const inlay = createInlay(${options});
globalThis.api = {
  run: async (bytes, feeds) => {
    const model = await inlay.load(Uint8Array.from(bytes));
    const { y } = await model.run(feeds);
    return { y: Array.from(y.data), info: inlay.info().models[0] };
  },
};
`;
const INDEX =
  '<!doctype html><html lang="en"><title>App</title><link rel="icon" href="data:,"><script type="module" src="/main.js"></script>';
/** For bundlers that do not follow \`new Worker(new URL(…))\`. */
const TOLD = "{ worker: () => new Worker('./inlay-worker.js', { type: 'module' }), wasmPaths: './ort/' }";

/** An app in a folder, with `inlay` installed as npm would do it. */
async function createApp(main: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-app-'));
  const modules = join(folder, 'node_modules');
  await mkdir(modules);
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (!name.startsWith('.')) await symlink(join(root, 'node_modules', name), join(modules, name));
  }
  for (const part of ['dist', 'package.json']) {
    await cp(join(root, part), join(modules, 'inlay', part), { recursive: true });
  }
  await writeFile(join(folder, 'package.json'), '{ "type": "module", "private": true }');
  await writeFile(join(folder, 'main.js'), main);
  await writeFile(join(folder, 'index.html'), INDEX);
  return folder;
}

/** Copies the WebAssembly files beside an app, as its build step would. */
async function copyWasm(folder: string): Promise<void> {
  const from = join(root, 'node_modules', 'onnxruntime-web', 'dist');
  await mkdir(join(folder, 'ort'));
  for (const name of ['ort-wasm-simd-threaded.wasm', 'ort-wasm-simd-threaded.mjs']) {
    await cp(join(from, name), join(folder, 'ort', name));
  }
}

/** What `@rollup/plugin-node-resolve` does with \`browser: true\`, as far as it is needed here. */
const resolvePackages: Plugin = {
  name: 'resolve-packages',
  resolveId(source, importer) {
    const [, name, rest = ''] = /^((?:@[^/]+\/)?[^./@][^/]*)(\/.*)?$/.exec(source) ?? [];
    if (name === undefined || importer === undefined) return null;
    let folder = dirname(importer);
    while (!existsSync(join(folder, 'node_modules', name, 'package.json'))) {
      if (folder === dirname(folder)) return null;
      folder = dirname(folder);
    }
    const at = realpathSync(join(folder, 'node_modules', name));
    const manifest = JSON.parse(readFileSync(join(at, 'package.json'), 'utf8')) as {
      exports?: Record<string, unknown>;
      module?: string;
    };
    let target = manifest.exports?.[`.${rest}`] ?? manifest.module;
    while (typeof target === 'object' && target !== null) {
      const [, chosen] =
        Object.entries(target).find(([condition]) => /^(browser|import|module|default)$/.test(condition)) ??
        [];
      target = chosen;
    }
    return typeof target === 'string' ? join(at, target) : null;
  },
};

describePages('an app', () => {
  let browser: Browser;
  const folders: string[] = [];
  beforeAll(async () => {
    browser = await startChromium();
  });
  afterAll(async () => {
    await browser.close();
    await Promise.all(folders.map((folder) => removePage(folder)));
  });

  const create = async (main = app()): Promise<string> => {
    const folder = await createApp(main);
    folders.push(folder);
    return folder;
  };
  const runs = async (site: Pick<Site, 'url'>): Promise<void> => {
    const { page, faults } = await openPage(browser, site as Site);
    const feeds = { a: [1, 2, 3, 4], b: [10, 20, 30, 40] };
    const { y, info } = await call<{ y: number[]; info: ServingInfo }>(page, 'run', [...addModel()], feeds);
    expect(y).toEqual([11, 22, 33, 44]);
    expect(info).toMatchObject({ backend: 'onnxruntime-web', provider: 'wasm', placement: 'worker' });
    expect(faults).toEqual([]);
  };
  const runsFrom = async (folder: string): Promise<void> => {
    const index = await readFile(join(folder, 'index.html'), 'utf8').catch(() => INDEX);
    const site = await startSite({
      folder,
      answer: (path) =>
        path === '/' ? { body: index, headers: { 'content-type': 'text/html' } } : undefined,
    });
    await runs(site);
    await site.close();
  };

  it('built by Vite as it is runs a model', { timeout: SLOW_MS }, async () => {
    const folder = await create();
    await vite({ configFile: false, root: folder, logLevel: 'error', build: { outDir: 'out' } });
    await runsFrom(join(folder, 'out'));
  });

  it.each([
    ['as it is', {}],
    [
      'without a reload',
      { exclude: ['inlay', 'onnxruntime-web'], include: ['inlay > comlink', 'inlay > idb-keyval'] },
    ],
  ])(
    'served by Vite while it is developed runs a model, %s',
    { timeout: SLOW_MS },
    async (_, optimizeDeps) => {
      const folder = await create();
      const server = await createServer({
        configFile: false,
        root: folder,
        logLevel: 'error',
        // Here packages are links out of the app's folder.
        server: { port: 0, host: '127.0.0.1', fs: { strict: false } },
        optimizeDeps,
      });
      await server.listen();
      const [url = ''] = server.resolvedUrls?.local ?? [];
      // Vite reloads the page when it finds packages only while the page runs.
      if (!('include' in optimizeDeps)) await runs({ url }).catch(() => {});
      await runs({ url });
      await server.close();
    },
  );

  it('built by webpack as it is runs a model', { timeout: SLOW_MS }, async () => {
    const folder = await create();
    const path = join(folder, 'out');
    const compiler = webpack({
      mode: 'production',
      context: folder,
      entry: './main.js',
      output: { path, filename: 'main.js' },
      optimization: { minimize: false },
      performance: { hints: false },
    });
    const stats = await new Promise<webpack.Stats | undefined>((resolve, reject) => {
      compiler?.run((error, result) => (error === null ? resolve(result) : reject(error)));
    });
    expect(stats?.toJson({ all: false, errors: true, warnings: true })).toMatchObject({
      errors: [],
      warnings: [],
    });
    await runsFrom(path);
  });

  it('built by Rollup runs a model when it names the worker', { timeout: SLOW_MS }, async () => {
    const folder = await create(app(TOLD));
    const bundle = await rollup({
      input: { main: join(folder, 'main.js'), 'inlay-worker': 'inlay/worker' },
      plugins: [{ ...resolvePackages, ...entryOf(folder) }],
      onwarn: () => {},
    });
    await bundle.write({ dir: join(folder, 'out'), format: 'es', entryFileNames: '[name].js' });
    await bundle.close();
    await copyWasm(join(folder, 'out'));
    await runsFrom(join(folder, 'out'));
  });

  it('built by esbuild runs a model when it names the worker', { timeout: SLOW_MS }, async () => {
    const folder = await create(app(TOLD));
    await esbuild({
      absWorkingDir: folder,
      entryPoints: { main: './main.js', 'inlay-worker': 'inlay/worker' },
      outdir: 'out',
      bundle: true,
      splitting: true,
      format: 'esm',
      logLevel: 'error',
    });
    await copyWasm(join(folder, 'out'));
    await runsFrom(join(folder, 'out'));
  });
});

/** Entries that are packages are looked for from the app's folder. */
function entryOf(folder: string): Pick<Plugin, 'resolveId'> {
  const { resolveId } = resolvePackages;
  return {
    resolveId(source, importer, options) {
      if (typeof resolveId !== 'function') return null;
      return resolveId.call(this, source, importer ?? join(folder, 'main.js'), options);
    },
  };
}
