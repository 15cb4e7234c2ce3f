import { fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createReports, send } from './ingest-load.mjs';
import { startPostgres } from './postgres.mjs';
import { figure } from './report.mjs';

/** Reports a second that are asked for, and for how long they come. */
const RATE = 1_000;
const SECONDS = Number(process.env.INLAY_BENCH_SECONDS ?? 32);
const DEVICES = 20_000;
const CONNECTIONS = 800;
/** What a server does in its first seconds is not what it sustains: code is not compiled yet, and tables are empty. */
const WARM_SECONDS = 5;
/** Every twentieth report comes twice. */
const AGAIN = 20;
const BASELINE_SECONDS = 6;

/**
 * Reports per second that a server takes in, with its database and the sender on the same machine. Baseline: the same server
 * with one transaction per report.
 */
export async function run() {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-ingest-'));
  const figures = [];
  try {
    figures.push(...(await measure('SQLite', () => join(folder, `${Math.random()}.db`))));
    const postgres = await startPostgres();
    if (!postgres) console.error('PostgreSQL is not installed here, so it is not measured.');
    else {
      try {
        figures.push(...(await measure('PostgreSQL', databases(postgres.url))));
      } finally {
        await postgres.close();
      }
    }
    return figures;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A schema of its own for each server. */
function databases(url) {
  let count = 0;
  return async () => {
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    count += 1;
    await client.query(`create database bench_${count}`);
    await client.end();
    return url.replace('/postgres?', `/bench_${count}?`);
  };
}

async function measure(name, create) {
  const single = await withServer(await create(), 'single', async (url) => {
    const { reports } = createReports(2_000, 1_000, Date.now());
    const { rate } = await untilTime(url, reports, BASELINE_SECONDS);
    return rate;
  });

  const sustained = await withServer(await create(), 'batch', async (url, ask) => {
    const { reports, truth } = createReports(RATE * (WARM_SECONDS + SECONDS), DEVICES, Date.now());
    const bodies = reports.flatMap(({ body }, i) => (i % AGAIN === 0 ? [body, body] : [body]));
    const options = { connections: CONNECTIONS, rate: RATE * (1 + 1 / AGAIN) };
    const warm = options.rate * WARM_SECONDS;
    await send(url, bodies.slice(0, warm), options);
    const before = await ask('usage');
    const sent = await send(url, bodies.slice(warm), options);
    const after = await ask('usage');
    const cpu = (after.cpuMs - before.cpuMs) / 1000 / sent.seconds;
    const bytes = reports.reduce((sum, { body }) => sum + body.length, 0) / reports.length;
    return { ...sent, cpu, bytes, rate: (bodies.length - warm) / sent.seconds, truth };
  });
  const most = await withServer(await create(), 'batch', async (url) => {
    const { reports } = createReports(15_000, DEVICES, Date.now());
    const { seconds } = await send(
      url,
      reports.map(({ body }) => body),
      { connections: 400 },
    );
    return reports.length / seconds;
  });

  const { truth, totals } = sustained;
  const isExact = Object.entries(truth).every(([key, value]) => totals[key] === value);
  const sorted = sustained.latencies.sort((a, b) => a - b);
  const quantile = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  const label = `${name}, ${SECONDS} s`;
  const add = (metric, value, unit, rest = {}) =>
    figure({ bench: 'ingest', case: label, metric, value, unit, ...rest });
  return [
    add('two-window reports', sustained.rate, '1/s', {
      baseline: single,
      target: RATE,
      better: 'higher',
    }),
    add('wait, median', quantile(0.5), 'ms'),
    add('wait, p99', quantile(0.99), 'ms', { target: 1000 }),
    add('totals that differ from what was sent', isExact ? 0 : 1, '', { target: 0 }),
    add('answers 429', sustained.busy, ''),
    add('server, share of a core', sustained.cpu, ''),
    add('report, gzip', sustained.bytes, 'B'),
    add('most, without a pause', most, '1/s', { baseline: single, better: 'higher' }),
  ];
}

/** As many as go through in a time. */
async function untilTime(url, reports, seconds) {
  const began = performance.now();
  let sent = 0;
  for (let at = 0; at < reports.length && performance.now() - began < seconds * 1000; at += 100) {
    const bodies = reports.slice(at, at + 100).map(({ body }) => body);
    await send(url, bodies, { connections: 100 });
    sent += bodies.length;
  }
  return { rate: sent / ((performance.now() - began) / 1000) };
}

async function withServer(target, mode, task) {
  const child = fork(fileURLToPath(new URL('ingest-child.mjs', import.meta.url)), [target, mode]);
  const ended = new Promise((done) => child.once('exit', done));
  const hear = () => new Promise((done) => child.once('message', done));
  const ask = (message) => {
    const answer = hear();
    child.send(message);
    return answer;
  };
  try {
    const { url } = await hear();
    const result = await task(url, ask);
    const totals = await ask('end');
    return typeof result === 'object' ? { ...result, totals } : result;
  } finally {
    if (child.connected) child.kill();
    await ended;
  }
}
