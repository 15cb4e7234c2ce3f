/**
 * One process with several devices. Each device is an installation of its own: own store, own identity, own copy of
 * the model. It classifies freshly drawn digits without pause and reports what it saw.
 */
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { createBackends, createInlay } from 'inlay';
import { openFsStore } from 'inlay/stores/fs';
import { createRandom, drawDigit } from '../digits/draw.mjs';

const { folder, url, root, ids, pollMs, pauseMs } = JSON.parse(process.argv[2] ?? '{}');
const backends = createBackends();
const devices = await Promise.all(ids.map(startDevice));
let stopping = false;
// Without the process that started it, there is nobody to report to.
process.once('disconnect', () => process.exit());

const loops = devices.map(classify);
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
  const inlay = createInlay({ store, backends, device: 'cpu', sync: { url, root, pollMs } });
  return { id, inlay, model: await inlay.load({ name: 'digits' }), byVersion: {}, failed: 0, latencies: [] };
}

async function classify(device) {
  const random = createRandom(1_000_000 + device.id);
  while (!stopping) {
    const { label, pixels } = drawDigit(random);
    const started = performance.now();
    // The version that answers is the one that is current when the call starts.
    const { version } = device.model;
    try {
      const { logits } = await device.model.run({ image: pixels });
      device.latencies.push(performance.now() - started);
      const seen = (device.byVersion[version] ??= { calls: 0, correct: 0 });
      seen.calls += 1;
      if (argmax(logits.data) === label) seen.correct += 1;
    } catch (error) {
      device.failed += 1;
      process.send({ error: error.message });
    }
    await sleep(pauseMs);
  }
}

function report() {
  process.send({
    devices: devices.map((device) => ({
      id: device.id,
      version: device.model.version,
      byVersion: device.byVersion,
      failed: device.failed,
      latencies: device.latencies.splice(0),
      bytesDownloaded: device.inlay.info().sync.bytesDownloaded,
    })),
  });
}

function argmax(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}
