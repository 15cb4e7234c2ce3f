import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright';
import { build } from 'vite';
import { createServer } from '../examples/demo/server.mjs';
import { findChromium, skipsBrowser } from '../scripts/chromium.mjs';
import { startSite } from './browser/site.mjs';
import { median } from './measure.mjs';
import { cnn, mlp, modelFolder } from './models.mjs';
import { figure } from './report.mjs';

const RUNS = 1000;
const PAGES = Number(process.env.BENCH_PAGES ?? 5);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 9);
const REPEATS = 400;
const CALLERS = 64;
const LENGTH_MS = 1000;
const VISITS = Number(process.env.BENCH_VISITS ?? 5);
/** A home line: 20 Mbit/s, and 40 ms until anything comes. */
const LINE = { bytesPerMs: 2500, delayMs: 40 };
const FLAGS = ['--no-sandbox', '--disable-background-networking', '--enable-unsafe-webgpu'];

/** What a page gets, in headless Chromium, beside what one would write by hand around onnxruntime-web. */
export async function run() {
  if (skipsBrowser()) {
    console.error('INLAY_SKIP_BROWSER is set: the bench of browsers is left out.');
    return [];
  }
  const write = modelFolder();
  const paths = { mlp: write('mlp', mlp()), cnn: write('cnn', cnn()) };
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-browser-'));
  const server = await createServer(folder);
  const undo = [() => rm(folder, { recursive: true, force: true }), () => server.stop()];
  try {
    await server.cli('keys', 'init');
    await server.cli('publish', paths.cnn, '--name', 'cnn', '--version', '1.0.0');
    await server.cli('rollout', 'set', 'cnn', '1.0.0', '--percent', '100');
    const pages = join(folder, 'pages');
    await buildPages(pages, await readFile(server.root, 'utf8'));
    const site = await startSite({
      folder: pages,
      files: { '/mlp.onnx': paths.mlp, '/cnn.onnx': paths.cnn },
    });
    undo.push(() => site.close());
    const figures = [];
    for (const measure of [longTasks, latency, throughput]) figures.push(...(await inPages(site, measure)));
    for (const [name, line] of Object.entries({ '20 Mbit/s and 40 ms': LINE, loopback: undefined })) {
      figures.push(...(await secondVisits(name, { folder: pages, sync: server.url, line })));
    }
    return figures;
  } finally {
    for (const step of undo.reverse()) await step();
  }
}

function buildPages(outDir, root) {
  const source = fileURLToPath(new URL('browser', import.meta.url));
  return build({
    configFile: false,
    root: source,
    logLevel: 'error',
    define: { ROOT: JSON.stringify(root) },
    worker: { format: 'es' },
    build: {
      outDir,
      emptyOutDir: true,
      target: 'es2022',
      rollupOptions: { input: [join(source, 'index.html'), join(source, 'visit.html')] },
    },
  });
}

/** Measures in pages of one Chromium. `call` opens a fresh one. */
async function inPages(site, measure) {
  const browser = await chromium.launch({ executablePath: findChromium(), args: FLAGS });
  try {
    return await measure(async (method, ...args) => {
      const page = await browser.newPage();
      try {
        await page.goto(site.url);
        await page.waitForFunction(() => 'api' in globalThis);
        return await page.evaluate(([name, list]) => globalThis.api[name](...list), [method, args]);
      } finally {
        await page.close();
      }
    });
  } finally {
    await browser.close();
  }
}

async function longTasks(call) {
  const figures = [];
  for (const name of ['mlp', 'cnn']) {
    const [ours, theirs] = [[], []];
    for (let i = 0; i < PAGES; i += 1) {
      ours.push(await call('longTasks', name, RUNS));
      theirs.push(await call('longTasksOfLibrary', name, RUNS));
    }
    const add = (metric, of, unit, rest) =>
      figures.push(
        figure({
          bench: 'browser',
          case: `${name}, load and ${RUNS} runs, beside the library in the page`,
          metric,
          value: median(ours.map(of)),
          baseline: median(theirs.map(of)),
          unit,
          ...rest,
        }),
      );
    add('tasks of the page above 50 ms', (tasks) => tasks.length, 'tasks', { target: 0 });
    add('time in them', (tasks) => tasks.reduce((sum, ms) => sum + ms, 0), 'ms');
  }
  return figures;
}

async function latency(call) {
  const figures = [];
  for (const name of ['mlp', 'cnn']) {
    const { inlay, raw, provider, placement } = await call('latency', name, ROUNDS, REPEATS);
    console.error(`${name}: ${provider}, ${placement}`);
    figures.push(
      figure({
        bench: 'browser',
        case: `${name}, one caller, beside a worker by hand`,
        metric: 'time of a call, p50',
        value: 1000 * median(inlay.map(median)),
        baseline: 1000 * median(raw.map(median)),
        unit: 'µs',
        target: 1.1,
        targetIs: 'ratio',
      }),
    );
  }
  return figures;
}

async function throughput(call) {
  const figures = [];
  for (const name of ['mlp', 'cnn']) {
    const { inlay, raw, batchCap } = await call('throughput', name, ROUNDS, CALLERS, LENGTH_MS);
    console.error(`${name}: batches of up to ${batchCap}`);
    figures.push(
      figure({
        bench: 'browser',
        case: `${name}, ${CALLERS} callers, beside a worker by hand, one run after the other`,
        metric: 'calls per second',
        value: median(inlay),
        baseline: median(raw),
        unit: '1/s',
        target: 1.3,
        targetIs: 'ratio',
        better: 'higher',
      }),
    );
  }
  return figures;
}

/** A visit with a fresh profile, and the next one with what the first one left. */
async function secondVisits(name, options) {
  const site = await startSite(options);
  const visits = [];
  try {
    for (let i = 0; i < VISITS; i += 1) visits.push(await visitTwice(site));
  } finally {
    site.close();
  }
  const of = (visit, key) => median(visits.map((both) => both[visit][key]));
  const add = (metric, key, unit, rest = {}) =>
    figure({
      bench: 'browser',
      case: `second visit beside the first, ${name}`,
      metric,
      value: of('second', key),
      baseline: of('first', key),
      unit,
      ...rest,
    });
  return [
    add('bytes of the model over the network', 'modelBytes', 'bytes', { target: 0 }),
    add('bytes of everything else', 'otherBytes', 'bytes'),
    add('time to the first result', 'firstResultMs', 'ms', {
      ...(options.line && { target: 0.5, targetIs: 'ratio' }),
    }),
  ];
}

async function visitTwice(site) {
  const profile = await mkdtemp(join(tmpdir(), 'inlay-bench-profile-'));
  const visit = async () => {
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: findChromium(),
      args: FLAGS,
    });
    try {
      site.take();
      const page = await context.newPage();
      await page.goto(new URL('visit.html', site.url).href);
      await page.waitForFunction(() => 'visit' in globalThis);
      const { firstResultMs } = await page.evaluate(() => globalThis.visit);
      // Compiled code is written to the profile a little later.
      await page.waitForTimeout(1000);
      const { model, other } = site.take();
      return { firstResultMs, modelBytes: model, otherBytes: other };
    } finally {
      await context.close();
    }
  };
  try {
    return { first: await visit(), second: await visit() };
  } finally {
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
