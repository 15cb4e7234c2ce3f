#!/usr/bin/env node
/**
 * A server, two versions of a model, forty devices: watch a new version reach all of them without a failed call.
 *
 *   npm run demo [-- --json] [-- --keep]
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { accuracy, createDisplay } from './display.mjs';
import { startFleet } from './fleet.mjs';
import { createServer } from './server.mjs';

const DEVICES = 40;
const PROCESSES = 4;
const STAGES = [10, 50, 100];
const STAGE_SECONDS = 8;
const GIVE_UP_SECONDS = 25;

const flags = readFlags();
const display = createDisplay({ quiet: flags.json === true });
const folder = await mkdtemp(join(tmpdir(), 'inlay-demo-'));
const digits = (version) => fileURLToPath(new URL(`../digits/digits-${version}.onnx`, import.meta.url));
const started = performance.now();
let server;
let fleet;

const cleanUp = async () => {
  fleet?.kill();
  await server?.stop();
  await rm(folder, { recursive: true, force: true, maxRetries: 5 });
};
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(130)));
}

try {
  display.step('Start a sync server, make keys, publish digits 1.0.0');
  server = await createServer(folder);
  display.detail(`server at ${server.url}`);
  const inlay = async (...args) => {
    display.detail(
      `$ inlay ${args.map((arg) => arg.replace(fileURLToPath(new URL('..', import.meta.url)), 'examples/')).join(' ')}`,
    );
    await server.cli(...args);
  };
  await inlay('keys', 'init');
  await inlay('publish', digits('1.0.0'), '--name', 'digits', '--version', '1.0.0');
  await inlay('rollout', 'set', 'digits', '1.0.0', '--percent', '100');

  display.step(`Start ${DEVICES} devices in ${PROCESSES} processes; each draws digits and classifies them`);
  fleet = startFleet({
    devices: DEVICES,
    processes: PROCESSES,
    folder,
    url: server.url,
    root: await readFile(server.root, 'utf8'),
    pollMs: 1000,
    pauseMs: 25,
  });
  await watch(GIVE_UP_SECONDS, (state) => state.devices === DEVICES);
  const before = await watch(STAGE_SECONDS);

  display.step('Publish digits 1.1.0, signed offline, and roll it out in stages');
  await inlay('publish', digits('1.1.0'), '--name', 'digits', '--version', '1.1.0');
  const reached = {};
  let state;
  for (const percent of STAGES) {
    await inlay('rollout', 'set', 'digits', '1.1.0', '--percent', String(percent));
    const complete = (now) => percent === 100 && now.versions['1.1.0']?.devices === DEVICES;
    state = await watch(percent === 100 ? GIVE_UP_SECONDS : STAGE_SECONDS, complete);
    reached[`${percent}%`] = state.versions['1.1.0']?.devices ?? 0;
    display.detail(`  ${reached[`${percent}%`]} of ${DEVICES} devices run 1.1.0`);
  }
  state = await watch(STAGE_SECONDS / 2);
  await fleet.stop();
  display.done();
  summarise(before, fleet.read(), reached);
  if (flags.keep === true) {
    display.step(`The server goes on at ${server.url} (admin token ${server.token}); end it with Ctrl+C`);
    await server.ended;
  }
} finally {
  await cleanUp();
}

function readFlags() {
  try {
    return parseArgs({ options: { json: { type: 'boolean' }, keep: { type: 'boolean' } } }).values;
  } catch (error) {
    console.error(`${error.message}\nUsage: npm run demo [-- --json] [-- --keep]`);
    return process.exit(2);
  }
}

/** Shows the fleet until `until` holds or the time is over. */
async function watch(seconds, until = () => false) {
  const end = performance.now() + seconds * 1000;
  let last = fleet.read();
  let at = performance.now();
  for (;;) {
    await sleep(500);
    const now = performance.now();
    const state = fleet.read();
    display.show({ ...state, callsPerSecond: ((state.calls - last.calls) * 1000) / (now - at) });
    if (until(state) || now >= end || fleet.errors.length > 0) return state;
    last = state;
    at = now;
  }
}

function summarise(before, after, reached) {
  const share = (row) => (row === undefined || row.calls === 0 ? 0 : row.correct / row.calls);
  const summary = {
    devices: DEVICES,
    devicesUpdated: after.versions['1.1.0']?.devices ?? 0,
    devicesPerStage: reached,
    calls: after.calls,
    failedCalls: after.failedCalls,
    accuracyBefore: share(before.versions['1.0.0']),
    accuracyAfter: share(after.versions['1.1.0']),
    bytesDownloaded: after.bytesDownloaded,
    seconds: (performance.now() - started) / 1000,
    ...(fleet.errors.length > 0 && { errors: fleet.errors }),
  };
  if (flags.json === true) console.log(JSON.stringify(summary));
  else {
    display.step('Done');
    display.detail(`${summary.calls} calls, ${summary.failedCalls} failed`);
    display.detail(
      `accuracy ${accuracy(before.versions['1.0.0'])} before, ${accuracy(after.versions['1.1.0'])} after`,
    );
    display.detail(
      `${summary.devicesUpdated} of ${DEVICES} devices on 1.1.0 after ${summary.seconds.toFixed(0)} s`,
    );
  }
  if (summary.failedCalls > 0 || summary.devicesUpdated < DEVICES) process.exitCode = 1;
}
