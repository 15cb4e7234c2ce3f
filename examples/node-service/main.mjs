#!/usr/bin/env node
/**
 * Measures the service beside the same service without Inlay.
 *
 *   node examples/node-service/main.mjs [--seconds 3] [--rounds 3] [--only digits|wide|deep] [--threads 1] [--json]
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import Table from 'cli-table3';
import { networks } from './networks.mjs';

const DEADLINE_MS = 100;
const SERVICES = ['naive', 'server'];
const COUNTS = ['sent', 'answered', 'refused', 'failed', 'givenUp', 'onTime'];

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string' },
    threads: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const folder = await mkdtemp(join(tmpdir(), 'inlay-service-'));
const running = [];
try {
  const models = { digits: pathOf('../digits/digits-1.1.0.onnx') };
  for (const [name, encoded] of Object.entries(networks)) {
    models[name] = join(folder, `${name}.onnx`);
    await writeFile(models[name], encoded());
  }
  const rows = [];
  for (const [name, path] of Object.entries(models)) {
    if (values.only === undefined || values.only === name) rows.push(...(await measure(name, path)));
  }
  if (values.json) for (const row of rows) console.log(JSON.stringify(row));
  else print(rows);
} finally {
  await Promise.all(running.map(stop));
  await rm(folder, { recursive: true, force: true });
}

async function measure(model, path) {
  const services = {};
  for (const name of SERVICES) services[name] = await start(name, path);
  const rows = [];
  // They take turns, so that each has the machine for itself and both meet whatever else it does.
  const compare = async (load, ...args) => {
    const results = Object.fromEntries(SERVICES.map((name) => [name, []]));
    for (let round = 0; round < rounds; round += 1) {
      for (const name of SERVICES) results[name].push(await ask(services[name], ...args));
    }
    const row = { model, load };
    for (const name of SERVICES) row[name] = summaryOf(results[name]);
    rows.push(row);
    return row;
  };
  for (const url of Object.values(services)) await ask(url, '--connections', '16');
  await compare('1 caller', '--connections', '1');
  const busy = await compare('64 callers', '--connections', '64');
  // The others are cheap enough for HTTP to be what costs, and that is shed before it reaches a service, not in it.
  if (model === 'deep') {
    const capacity = Math.max(...SERVICES.map((name) => busy[name].perSecond));
    for (const factor of [1.5, 3]) {
      const rate = Math.round(factor * capacity);
      await compare(`${factor}× load`, '--rate', String(rate), '--deadline-ms', String(DEADLINE_MS));
    }
  }
  await Promise.all(running.splice(0).map(stop));
  return rows;
}

async function start(name, model) {
  const args = ['--port', '0', '--drain-ms', '0', '--model', model, '--threads', values.threads];
  const child = spawn(process.execPath, [pathOf(`${name}.mjs`), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.push(child);
  const failed = once(child, 'exit').then(([code]) => {
    throw new Error(`${name}.mjs ended with exit code ${code}.`);
  });
  const [line] = await Promise.race([once(createInterface(child.stdout), 'line'), failed]);
  failed.catch(() => {});
  return JSON.parse(line).url;
}

async function stop(child) {
  if (child.exitCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

async function ask(url, ...args) {
  const all = [pathOf('load.mjs'), url, '--seconds', values.seconds, '--json', ...args];
  const { stdout } = await promisify(execFile)(process.execPath, all);
  return JSON.parse(stdout);
}

/** Counts of all rounds, and of everything else the median round. */
function summaryOf(results) {
  const summary = {};
  for (const key of Object.keys(results[0])) {
    const all = results.map((result) => result[key]).sort((a, b) => a - b);
    summary[key] = COUNTS.includes(key) ? all.reduce((sum, value) => sum + value) : all[rounds >> 1];
  }
  return summary;
}

function print(rows) {
  const head = [
    'model',
    'load',
    '',
    'answers/s',
    'on time/s',
    'refused',
    'given up',
    'p50 ms',
    'p99 ms',
    'health p99 ms',
  ];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const { model, load, ...services } of rows) {
    for (const name of SERVICES) {
      const { perSecond, onTimePerSecond, refused, givenUp, failed, sent, p50Ms, p99Ms, healthP99Ms } =
        services[name];
      const share = (count) => `${((100 * count) / sent).toFixed(0)} %`;
      table.push([
        model,
        load,
        name === 'server' ? 'Inlay' : 'by hand',
        perSecond.toFixed(0),
        onTimePerSecond.toFixed(0),
        share(refused),
        share(givenUp + failed),
        p50Ms.toFixed(2),
        p99Ms.toFixed(1),
        healthP99Ms.toFixed(1),
      ]);
    }
  }
  console.log(table.toString());
}

function pathOf(file) {
  return fileURLToPath(new URL(file, import.meta.url));
}
