import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDatabase, startServer } from 'inlay/server';
import { chromium } from 'playwright';
import { createHistogram } from '../build/telemetry/histogram.js';
import { findChromium, skipsBrowser } from '../scripts/chromium.mjs';
import { median } from './measure.mjs';
import { figure } from './report.mjs';

const SERIES = Number(process.env.BENCH_SERIES ?? 1000);
const VISITS = Number(process.env.BENCH_VISITS ?? 7);
const MODELS = 10;
const HOURS = 24;
const DEVICES = 40;
const FLAGS = ['--no-sandbox', '--disable-background-networking'];

/** The dashboard in Chromium over a server with many series: bytes of the first view, and time until it can be used. */
export async function run() {
  if (skipsBrowser()) {
    console.error('INLAY_SKIP_BROWSER is set: the bench of the dashboard is left out.');
    return [];
  }
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-dashboard-'));
  const server = await startServer({ port: 0, dataDir: folder });
  try {
    await fill(join(folder, 'inlay.db'));
    const browser = await chromium.launch({ executablePath: findChromium(), args: FLAGS });
    try {
      return figuresOf(await visitAll(browser, server));
    } finally {
      await browser.close();
    }
  } finally {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  }
}

function figuresOf(visits) {
  const add = (name, metric, unit, key, target) =>
    figure({
      bench: 'dashboard',
      case: `${name}, ${SERIES} series`,
      metric,
      value: median(visits[name].map((visit) => visit[key])),
      unit,
      ...(target !== undefined && { target }),
    });
  return [
    add('first view', 'transferred', 'kB', 'kB', 100),
    add('first view', 'until it can be used', 'ms', 'ms', 1000),
    add('first view', 'longest task', 'ms', 'longestTaskMs'),
    add('charts of a model', 'until they are drawn', 'ms', 'ms', 1000),
    add('charts of a model', 'transferred', 'kB', 'kB'),
  ];
}

/** Fresh profiles, one after the other: a first visit, and the charts of one model. */
async function visitAll(browser, { url, token }) {
  const visits = { 'first view': [], 'charts of a model': [] };
  for (let i = 0; i < VISITS; i += 1) {
    const context = await browser.newContext();
    await context.addInitScript(() => {
      globalThis.longest = 0;
      new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries())
          globalThis.longest = Math.max(globalThis.longest, duration);
      }).observe({ type: 'longtask', buffered: true });
    });
    const page = await context.newPage();
    page.setDefaultTimeout(120_000);
    const bytes = await countBytes(context, page);
    let beganAt = performance.now();
    await page.goto(`${url}/dashboard/#key=${token}`, { waitUntil: 'commit' });
    // The figures are there, and the page answers to a key.
    await page.waitForFunction(() => document.querySelector('main td') !== null);
    await page.keyboard.press('?');
    await page.waitForFunction(() => document.querySelector('dialog[open]') !== null);
    const longestTaskMs = await page.evaluate(() => globalThis.longest);
    visits['first view'].push({ ms: performance.now() - beganAt, kB: bytes.take(), longestTaskMs });
    await page.keyboard.press('Escape');
    beganAt = performance.now();
    await page.evaluate(
      (model) => {
        location.hash = `#/performance/${model}`;
      },
      `model-${i % MODELS}`,
    );
    await page.waitForFunction(() => document.querySelectorAll('canvas').length > 5);
    visits['charts of a model'].push({ ms: performance.now() - beganAt, kB: bytes.take() });
    await context.close();
  }
  return visits;
}

/** Counts what comes over the network, headers included, as the browser itself does. */
async function countBytes(context, page) {
  const session = await context.newCDPSession(page);
  let received = 0;
  session.on('Network.loadingFinished', ({ encodedDataLength }) => {
    received += encodedDataLength;
  });
  await session.send('Network.enable');
  return {
    take: () => {
      const sum = received / 1000;
      received = 0;
      return sum;
    },
  };
}

/** Writes what devices of many versions and classes would have reported in a day. */
async function fill(path) {
  const { db } = await openDatabase(path);
  const now = Date.now();
  const times = (seconds) => {
    const histogram = createHistogram();
    for (let i = 1; i < 60; i += 1) histogram.record(seconds * (0.5 + i / 40));
    return histogram.snapshot();
  };
  try {
    for (let i = 0; i < SERIES; i += 1) {
      const place = {
        model: `model-${i % MODELS}`,
        version: `1.${Math.floor(i / MODELS) % 10}.0`,
        ...{ rollout: '', stage: 0, arm: '', cls: Math.floor(i / MODELS / 10) % 10 },
      };
      const { id: series } = await db
        .insertInto('series')
        .values({ app: 'stable', ...place })
        .returning('id')
        .executeTakeFirstOrThrow();
      const lat = times(0.01 + (i % 17) / 1000);
      const body = (devices) =>
        JSON.stringify({
          ...{ n: 59, ok: 58, err: { run_failed: 1 }, dev: devices, cold: 3, hit: 20, miss: 39 },
          ...{ h: { lat, load: lat }, mem: [2e8, 1.5e8 * DEVICES, DEVICES] },
        });
      const rolls = [300, 3600].flatMap((res) => {
        const last = Math.floor(now / 1000 / res) * res;
        const counts = body([DEVICES, DEVICES, 2]);
        return Array.from({ length: (HOURS * 3600) / res }, (_, at) => ({
          ...{ res, series, t_s: last - at * res, body: counts },
        }));
      });
      await db.insertInto('roll').values(rolls).execute();
      const devices = Array.from({ length: DEVICES }, (_, at) => ({
        ...{ dev: `${i}-${at}`, ...place, sdk: '', runtime: 'web', app: 'stable', counted: '{}' },
        ...{ first_at: now, last_at: now, last_t_s: 0 },
      }));
      await db.insertInto('device').values(devices).execute();
    }
  } finally {
    await db.destroy();
  }
}
