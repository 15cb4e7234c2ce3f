#!/usr/bin/env node
/**
 * Puts load on a digit service, from a process of its own.
 *
 *   node examples/node-service/load.mjs URL [--seconds 5] [--connections 64 | --rate 500] [--deadline-ms 100] [--json]
 *
 * `--connections` callers ask again as soon as they are answered; `--rate` requests per second come as those of
 * independent people do, whether or not earlier ones were answered.
 */
import { Agent, request } from 'node:http';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { drawSet } from '../digits/draw.mjs';

/** Nobody waits longer for a digit. */
const GIVE_UP_MS = 1000;
const PROBE_MS = 50;
/** Beyond this many open requests, a further one is given up before it is sent. */
const MOST_OPEN = 2000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '5' },
    connections: { type: 'string', default: '64' },
    rate: { type: 'string' },
    'deadline-ms': { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const [url] = positionals;
if (url === undefined) {
  console.error(
    'Usage: node examples/node-service/load.mjs URL [--seconds 5] [--connections 64 | --rate 500]',
  );
  process.exit(2);
}
const deadlineMs = values['deadline-ms'] === undefined ? undefined : Number(values['deadline-ms']);
const { pixels } = drawSet(11, 64);
const images = Array.from({ length: 64 }, (_, i) => Buffer.from(pixels.slice(784 * i, 784 * (i + 1)).buffer));
const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
const counts = { answered: 0, refused: 0, failed: 0, givenUp: 0 };
const latencies = [];
const probes = [];
let sent = 0;
let open = 0;
let isOver = false;

const began = performance.now();
const end = began + Number(values.seconds) * 1000;
const probing = probe();
await (values.rate === undefined ? askInLoops(Number(values.connections)) : askAtRate(Number(values.rate)));
const seconds = (performance.now() - began) / 1000;
isOver = true;
await probing;
agent.destroy();
report();

async function askInLoops(callers) {
  const caller = async () => {
    while (performance.now() < end) await ask(performance.now());
  };
  await Promise.all(Array.from({ length: callers }, caller));
}

async function askAtRate(perSecond) {
  const asked = [];
  let dueMs = began;
  for (;;) {
    // Timers are coarser than the gaps, so each tick sends all that have become due.
    for (const now = performance.now(); dueMs <= now && dueMs < end;) {
      asked.push(ask(dueMs));
      dueMs += (-Math.log(1 - Math.random()) / perSecond) * 1000;
    }
    if (dueMs >= end) break;
    await sleep(1);
  }
  await Promise.all(asked);
}

/** Asks once. Latency counts from the moment at which it was to be asked. */
function ask(dueMs) {
  sent += 1;
  if (open >= MOST_OPEN) {
    counts.givenUp += 1;
    return Promise.resolve();
  }
  open += 1;
  const headers = {
    'content-type': 'application/octet-stream',
    ...(deadlineMs !== undefined && { 'x-deadline-ms': deadlineMs }),
  };
  return new Promise((resolve) => {
    const settle = (outcome) => {
      clearTimeout(timer);
      open -= 1;
      counts[outcome] += 1;
      if (outcome === 'answered') latencies.push(performance.now() - dueMs);
      resolve();
    };
    // Timers may end a little before the clock says so.
    let isGivenUp = false;
    const timer = setTimeout(() => {
      isGivenUp = true;
      asking.destroy();
    }, GIVE_UP_MS);
    const asking = request(`${url}/classify`, { agent, method: 'POST', headers }, (response) => {
      response.resume().once('close', () => {
        if (!response.complete) settle('givenUp');
        else settle({ 200: 'answered', 503: 'refused' }[response.statusCode] ?? 'failed');
      });
    });
    asking.once('error', () => {
      settle(isGivenUp ? 'givenUp' : 'failed');
    });
    asking.end(images[sent % images.length]);
  });
}

/** Asks for the health now and then: what a load balancer does to find out whether the service is alive. */
async function probe() {
  while (!isOver) {
    const asked = performance.now();
    const signal = AbortSignal.timeout(GIVE_UP_MS);
    await fetch(`${url}/healthz`, { signal })
      .then((response) => response.text())
      .catch(() => {});
    probes.push(performance.now() - asked);
    await sleep(PROBE_MS);
  }
}

function quantile(list, q) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
}

function report() {
  const onTime = latencies.filter((latency) => latency <= (deadlineMs ?? GIVE_UP_MS)).length;
  const result = {
    sent,
    ...counts,
    onTime,
    sentPerSecond: sent / seconds,
    perSecond: latencies.length / seconds,
    onTimePerSecond: onTime / seconds,
    p50Ms: quantile(latencies, 0.5),
    p99Ms: quantile(latencies, 0.99),
    healthP99Ms: quantile(probes, 0.99),
  };
  if (values.json) {
    console.log(JSON.stringify(result));
    return;
  }
  const table = new Table({ style: { head: [], border: [] } });
  for (const [name, value] of Object.entries(result)) table.push([name, Number(value.toPrecision(4))]);
  console.log(table.toString());
}
