#!/usr/bin/env node
/**
 * A server, four versions of a model, a fleet of devices: a new version reaches all of them, a broken one none of them for
 * long, one that is only a little worse is stopped by what the fleet reports, and no call fails on the way.
 *
 *   npm run demo [-- --json] [-- --keep]
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { accuracy, createDisplay, evidenceTable, outcome } from './display.mjs';
import { startFleet } from './fleet.mjs';
import { writeSamples, zstdPatchBytes } from './patch.mjs';
import { writeProfile } from './profile.mjs';
import { createServer } from './server.mjs';
import { smoothInputs, spoilModel } from './spoil.mjs';

const DEVICES = 60;
const PROCESSES = 4;
const POLL_MS = 3000;
/** Each device makes a call, and waits; a report of it all follows this often. */
const PAUSE_MS = 300;
const REPORT_MS = 4000;
const WATCH_SECONDS = 4;
const RAMP_SECONDS = 12;
const GIVE_UP_SECONDS = 120;
/** Exit code of `inlay rollout watch` where a guard stopped the rollout. */
const GUARD_STOPPED_IT = 3;
/** A version is kept after a minute by default; people who watch a demo have less patience. */
const TRIAL = ['--trial', 'minInferences=20,soakS=2'];
/** For the same reason the guards look every other second instead of every minute, and judge a device by fewer calls. */
const LOOKS = ['--look-every', '2s'];
const CANARY = ['--stages', '20,100', '--over', '30s', '--soak', '10m', '--calls', '30'];

const flags = readFlags();
const display = createDisplay({ quiet: flags.json === true });
const folder = await mkdtemp(join(tmpdir(), 'inlay-demo-'));
const examples = fileURLToPath(new URL('..', import.meta.url));
/** 1.0.0 is 1.1.0 after a seventh of its training. */
const digits = (version) => join(examples, version === '1.0.0' ? 'demo' : 'digits', `digits-${version}.onnx`);
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
  await tell();
} finally {
  await cleanUp();
}

async function tell() {
  display.step('Start a sync server, make keys, publish digits 1.0.0, and put it into an app');
  server = await createServer(folder, LOOKS);
  await inlay('keys', 'init', '--no-passphrase');
  await inlay('publish', digits('1.0.0'), '--name', 'digits', '--version', '1.0.0');
  await inlay('rollout', 'set', 'digits', '1.0.0', '--percent', '100');
  await inlay('embed', 'digits', '--out', 'app');

  display.step(`Start ${DEVICES} devices in ${PROCESSES} processes; each draws digits and classifies them`);
  fleet = startFleet({
    devices: DEVICES,
    processes: PROCESSES,
    folder,
    app: join(folder, 'app'),
    url: server.url,
    root: await readFile(server.root, 'utf8'),
    pollMs: POLL_MS,
    pauseMs: PAUSE_MS,
    reportMs: REPORT_MS,
  });
  await watch(GIVE_UP_SECONDS, (state) => state.devices === DEVICES);
  const before = await watch(WATCH_SECONDS);

  display.step(`Publish digits 1.1.0 and give it to half of them, one after the other; each tries it first`);
  await writeProfile(digits('1.1.0'), join(folder, 'profile.json'));
  const profile = ['--profile', 'profile.json'];
  await writeSamples(join(folder, 'samples.npy'));
  const rounded = ['--near', '--compact-data', 'samples.npy', '--patch-from', '1.0.0', '--json'];
  const told = await inlay(
    'publish',
    digits('1.1.0'),
    '--name',
    'digits',
    '--version',
    '1.1.0',
    ...profile,
    ...rounded,
  );
  const published = JSON.parse(told);
  display.detail(describeRounding(published));
  const ramp = ['--percent', '50', '--over', `${RAMP_SECONDS}s`];
  await inlay('rollout', 'set', 'digits', '1.1.0', ...ramp, ...TRIAL);
  const ramped = sleep(1000 * (RAMP_SECONDS + 1)).then(() => true);
  const victim = loneliest((await watch(GIVE_UP_SECONDS, ({ onTrial }) => onTrial.length > 0)).onTrial);
  if (victim !== undefined) {
    const count = await fleet.crash(victim);
    display.detail(`kill -9 of a process with ${count} devices in the middle of that, and a new start`);
  }
  await watch(GIVE_UP_SECONDS, (state) => state.devices === DEVICES);
  await ramped;
  const half = await watch(
    GIVE_UP_SECONDS,
    steady((state) => state.onTrial.length === 0),
  );
  await inlay('rollout', 'set', 'digits', '1.1.0', '--percent', '100', ...TRIAL);
  const whole = await watch(GIVE_UP_SECONDS, isOnAll('1.1.0'));

  display.step('Publish 1.2.0, whose weights are no numbers: the check refuses it, so leave the check out');
  await spoilModel(digits('1.1.0'), join(folder, 'digits-1.2.0.onnx'));
  const spoiled = ['publish', 'digits-1.2.0.onnx', '--name', 'digits', '--version', '1.2.0'];
  await inlayFails(...spoiled);
  await inlay(...spoiled, '--no-check');
  await inlay('rollout', 'set', 'digits', '1.2.0', '--percent', '25', ...TRIAL);
  const isRejected = ({ devices, rejected }) => devices === 0 && Object.keys(rejected).length > 0;
  await watch(
    GIVE_UP_SECONDS,
    steady(({ versions }) => '1.2.0' in versions && isRejected(versions['1.2.0'])),
  );
  await inlay('rollout', 'rollback', 'digits', '--reason', 'devices reject it');

  display.step('Publish 1.3.0, a little worse: it passes every check, and each device takes it for normal');
  await smoothInputs(digits('1.1.0'), join(folder, 'digits-1.3.0.onnx'));
  await inlay('publish', 'digits-1.3.0.onnx', '--name', 'digits', '--version', '1.3.0', ...profile);
  const canary = await haltedCanary('1.3.0');

  display.step('Withdraw 1.0.0 for good, and let two of three keys sign from now on; devices follow');
  await inlay('revoke', 'digits', '1.0.0', '--reason', 'superseded');
  await inlay('keys', 'rotate', '--add-root', '2', '--threshold', '2', '--no-passphrase');
  await inlay('rollout', 'set', 'digits', '1.1.0', '--percent', '100');
  const follow = (state) => isOnAll('1.1.0')(state) && state.roots.every((root) => root === 2);
  await watch(GIVE_UP_SECONDS, follow);
  await watch(WATCH_SECONDS / 2);
  await fleet.stop();
  display.done();

  const after = fleet.read();
  if (victim !== undefined) {
    display.step('What a device that was killed has to say');
    await inlay('status', '--store', `device-${victim}`, '--events', '12');
  }
  const patch = await patchFacts(published);
  const reached = { '50%': devicesOn(half, '1.1.0'), '100%': devicesOn(whole, '1.1.0') };
  summarise(before, after, { reached, canary, patch });
  if (flags.keep === true) {
    display.step(`The server goes on at ${server.url}; end it with Ctrl+C`);
    display.detail(`dashboard: ${server.url}/dashboard\nadmin token: ${server.token}\nfolder: ${folder}`);
    await server.ended;
  }
}

/** Starts a version in stages, and lets the guards find out. @returns how that went. */
async function haltedCanary(version) {
  await inlay('rollout', 'start', 'digits', version, ...CANARY);
  const startedAt = performance.now();
  const seconds = () => (performance.now() - startedAt) / 1000;
  let evidence;
  let haltSeconds;
  const watcher = server.watch('digits', (seen) => (evidence = seen));
  const isHalted = watcher.ended.then((code) => {
    haltSeconds = seconds();
    return code === GUARD_STOPPED_IT;
  });
  await watch(
    GIVE_UP_SECONDS,
    () => haltSeconds !== undefined,
    () => evidence,
  );
  watcher.stop();
  const halted = await isHalted;
  const { exposed } = fleet.read().versions[version] ?? { exposed: 0 };
  display.detail(
    halted ? `halted after ${haltSeconds.toFixed(0)} s: ${evidence.reason}` : 'nothing stopped it',
  );
  if (evidence !== undefined) display.detail(evidenceTable(evidence));
  await watch(GIVE_UP_SECONDS, isOnAll('1.1.0'));
  const [decidedBy] = evidence?.reason.split(':') ?? [];
  const guards = evidence?.guards.filter(({ guard }) => guard !== 'sample-ratio') ?? [];
  return {
    version,
    halted,
    exposedDevices: Math.max(exposed, fleet.read().versions[version]?.exposed ?? 0),
    decidedBy: guards.some(({ guard }) => guard === decidedBy) ? decidedBy : 'tripwire',
    reason: evidence?.reason,
    haltSeconds,
    backSeconds: seconds(),
    guards: guards.map(({ guard, verdict, logEFail, failAt, treated, control }) => {
      return { guard, verdict, logE: logEFail, failAt, treated, control };
    }),
  };
}

function readFlags() {
  try {
    return parseArgs({ options: { json: { type: 'boolean' }, keep: { type: 'boolean' } } }).values;
  } catch (error) {
    console.error(`${error.message}\nUsage: npm run demo [-- --json] [-- --keep]`);
    return process.exit(2);
  }
}

/** Runs `inlay` as a user would. */
async function inlay(...args) {
  display.detail(`$ inlay ${args.map((arg) => arg.replace(examples, 'examples/')).join(' ')}`);
  const { stdout } = await server.cli(...args);
  if (args[0] === 'status') display.detail(stdout.trimEnd());
  return stdout;
}

/** How far 1.1.0 was rounded towards what devices have, and what the check of that says. */
function describeRounding({ compact: { chosen, anchor } }) {
  if (chosen === null) return 'no rounding is good enough: the weights are published as they are';
  const figures = chosen.verdict.figures.map(({ name, value }) => `${name} ${Number(value.toPrecision(3))}`);
  return `weights rounded around ${anchor}, in steps of ${chosen.step} σ of the update: ${figures.join(', ')}`;
}

/** How 1.1.0 has travelled, and how the same file would have with a tool that knows nothing of models. */
async function patchFacts({ sha256, sizeBytes, ways, compact }) {
  const way = ways.find(({ kind }) => kind === 'patch');
  const zstdBytes = await zstdPatchBytes(digits('1.0.0'), join(folder, 'device-0', 'blobs', sha256));
  return {
    bytes: way?.sizeBytes,
    losslessBytes: compact.losslessBytes,
    fullBytes: sizeBytes,
    ...(zstdBytes !== undefined && { zstdBytes }),
  };
}

function describePatch({ bytes, losslessBytes, fullBytes, zstdBytes }) {
  const kB = (size) => `${(size / 1000).toFixed(1)} kB`;
  if (bytes === undefined) return `1.1.0 travelled whole: ${kB(fullBytes)}`;
  const zstd = zstdBytes === undefined ? '' : `; zstd --patch-from: ${kB(zstdBytes)}`;
  return (
    `1.1.0 travelled as a patch of ${kB(bytes)}, ${((100 * bytes) / fullBytes).toFixed(0)} % of its ` +
    `${kB(fullBytes)}${zstd}; without rounding: ${kB(losslessBytes)}`
  );
}

/** Runs a command that has to fail, and shows why it does. */
async function inlayFails(...args) {
  const error = await inlay(...args).then(
    () => undefined,
    (failure) => failure,
  );
  if (error === undefined) throw new Error(`inlay ${args[0]} was to fail.`);
  display.detail(error.stderr.trim());
}

/**
 * Of devices on trial, one whose process has the fewest of them: to the fleet, a process that ends with three of them is
 * three apps that the version has crashed, and reason enough to take it back.
 */
function loneliest(ids) {
  const inProcess = (id) => ids.filter((other) => other % PROCESSES === id % PROCESSES).length;
  return ids.toSorted((a, b) => inProcess(a) - inProcess(b))[0];
}

function devicesOn(state, version) {
  return state.versions[version]?.devices ?? 0;
}

function isOnAll(version) {
  return (state) => state.onTrial.length === 0 && devicesOn(state, version) === DEVICES;
}

/** A condition that has to hold for as long as two polls. */
function steady(condition) {
  let since = Infinity;
  return (state) => {
    since = condition(state) ? Math.min(since, performance.now()) : Infinity;
    return performance.now() - since > 2 * POLL_MS;
  };
}

/** Shows the fleet until `until` holds or the time is over. */
async function watch(seconds, until = () => false, evidence = () => undefined) {
  const end = performance.now() + seconds * 1000;
  let last = fleet.read();
  let at = performance.now();
  for (;;) {
    await sleep(500);
    const now = performance.now();
    const state = fleet.read();
    const callsPerSecond = (Math.max(0, state.calls - last.calls) * 1000) / (now - at);
    display.show({ ...state, callsPerSecond, evidence: evidence() });
    if (until(state) || now >= end || fleet.errors.length > 0) return state;
    last = state;
    at = now;
  }
}

function summarise(before, after, { reached, canary, patch }) {
  const share = (row) => (row === undefined || row.calls === 0 ? 0 : row.correct / row.calls);
  const rejected = {};
  for (const row of Object.values(after.versions)) {
    for (const [reason, devices] of Object.entries(row.rejected)) {
      rejected[reason] = (rejected[reason] ?? 0) + devices;
    }
  }
  const summary = {
    devices: DEVICES,
    devicesUpdated: devicesOn(after, '1.1.0'),
    devicesPerStage: reached,
    devicesPerVersion: Object.fromEntries(
      Object.entries(after.versions).map(([version, { devices }]) => [version, devices]),
    ),
    devicesWithRoot2: after.roots.filter((root) => root === 2).length,
    rejected,
    canary,
    strikes: after.strikes,
    calls: after.calls,
    failedCalls: after.failedCalls,
    accuracyBefore: share(before.versions['1.0.0']),
    accuracyAfter: share(after.versions['1.1.0']),
    accuracyOfCanary: share(after.versions[canary.version]),
    bytesDownloaded: after.bytesDownloaded,
    patch,
    seconds: (performance.now() - started) / 1000,
    ...(fleet.errors.length > 0 && { errors: fleet.errors }),
  };
  if (flags.json === true) console.log(JSON.stringify(summary));
  else {
    const { calls, failedCalls, strikes, bytesDownloaded, seconds, devicesUpdated } = summary;
    const { exposedDevices, decidedBy, haltSeconds = 0, backSeconds } = canary;
    display.step(`Done: ${devicesUpdated} of ${DEVICES} devices on 1.1.0, ${failedCalls} failed calls`);
    display.detail(outcome(after));
    display.detail(describePatch(patch));
    display.detail(
      `${canary.version}: ${exposedDevices} of ${DEVICES} devices had it; ${decidedBy} stopped it after ` +
        `${haltSeconds.toFixed(0)} s, and after ${backSeconds.toFixed(0)} s the last one was back on 1.1.0`,
    );
    display.detail(
      `${calls.toLocaleString('en')} calls · accuracy ${accuracy(before.versions['1.0.0'])} before, ` +
        `${accuracy(after.versions['1.1.0'])} after · ${strikes} ${strikes === 1 ? 'strike' : 'strikes'} · ` +
        `${(bytesDownloaded / 1e6).toFixed(1)} MB downloaded · ${seconds.toFixed(0)} s`,
    );
  }
  if (summary.failedCalls > 0 || summary.devicesUpdated < DEVICES || !canary.halted) process.exitCode = 1;
}
