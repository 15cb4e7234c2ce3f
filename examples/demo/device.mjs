/**
 * One process with several devices. Each device is an installation of its own: own store, own identity, own copy of
 * the model. It classifies freshly drawn digits without pause, tells the server how that goes, and the demo what it saw.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { createBackends, createInlay } from 'inlay';
import { openFsStore } from 'inlay/stores/fs';
import { createRandom, drawDigit } from '../digits/draw.mjs';

const { folder, url, root, app, ids, pollMs, pauseMs, reportMs } = JSON.parse(process.argv[2] ?? '{}');
const release = JSON.parse(await readFile(join(app, 'digits.inlay.json'), 'utf8'));
const embedded = { file: join(app, release.file.name), release };
const backends = createBackends();
const devices = await Promise.all(ids.map(startDevice));
let stopping = false;
// Without the process that started it, there is nobody to report to.
process.once('disconnect', () => process.exit());

const loops = devices.flatMap((device) => [classify(device), look(device)]);
const reporting = setInterval(report, 250);
await once(process, 'message');
stopping = true;
await Promise.all(loops);
clearInterval(reporting);
report();
await Promise.all(devices.map(({ inlay }) => inlay.close()));
await Promise.all(backends.map((backend) => backend.close()));
process.disconnect();

async function startDevice(id) {
  const store = openFsStore({ directory: join(folder, `device-${id}`) });
  // A real app would ask its user first.
  const telemetry = { consent: 'full', everyMs: reportMs };
  const inlay = createInlay({ store, backends, device: 'cpu', sync: { url, root, pollMs }, telemetry });
  const strikes = [];
  await inlay.updates.onEvent(({ type, reason }) => {
    if (type === 'strike') strikes.push(reason);
  });
  // It answers at once with the version that came with the app, or with what it had when it was killed.
  const model = await inlay.load({ name: 'digits', embedded });
  const updates = await inlay.updates.state();
  return { id, inlay, model, updates, strikes, byVersion: {}, named: 0, failed: 0, latencies: [] };
}

async function classify(device) {
  const random = createRandom(1_000_000 + device.id);
  while (!stopping) {
    const { label, pixels } = drawDigit(random);
    const started = performance.now();
    // The version that answers is the one that is current when the call starts.
    const { version } = device.model;
    try {
      const id = String((device.named += 1));
      const { logits } = await device.model.run({ image: pixels }, { id });
      device.latencies.push(performance.now() - started);
      const seen = (device.byVersion[version] ??= { calls: 0, correct: 0 });
      seen.calls += 1;
      if (largest(logits.data) === label) seen.correct += 1;
      // The demo knows what it drew. Labels stay on the device; only counts leave it.
      device.model.feedback(id, { label });
    } catch (error) {
      device.failed += 1;
      process.send({ error: error.message });
    }
    await sleep(pauseMs);
  }
}

/** Keeps an eye on what its updates are at, without holding up a report. */
async function look(device) {
  do {
    device.updates = await device.inlay.updates.state();
    await sleep(1000);
  } while (!stopping);
  device.updates = await device.inlay.updates.state();
}

function report() {
  const reports = devices.map(({ id, model, updates, strikes, byVersion, failed, latencies }) => {
    const { running, trial, rejected } = updates.models.digits;
    return {
      id,
      version: model.version,
      onTrial: running === 'trial' ? trial?.release.version : undefined,
      rejected: rejected.map(({ version, reason }) => ({ version, reason })),
      root: updates.sync.metadata?.root,
      bytesDownloaded: updates.sync.bytesDownloaded,
      strikes: strikes.length,
      byVersion,
      failed,
      latencies: latencies.splice(0),
    };
  });
  process.send({ devices: reports });
}

/** Where the largest value is; nowhere among values that are no numbers. */
function largest(values) {
  return values.indexOf(Math.max(...values));
}
