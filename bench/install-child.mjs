/** One install, in a process of its own, so that its memory and its first time are its own. Prints one JSON line. */
import { createHash } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { createBackends, createInlay } from 'inlay';
import { openFsStore } from 'inlay/stores/fs';
import ort from 'onnxruntime-node';
import { nodePlatform } from '../build/platform-node.js';
import { downloadTarget, targetUrl } from '../build/update/download.js';

/** @typedef {{ url: string, root: string, target: import('../build/update/manifest.js').FileRef, chunks: object, width: number }} Release */
const [what, rounds, json] = process.argv.slice(2);
/** @type {Release} */
const { url, root, target, chunks, width } = JSON.parse(json);
const x = new Float32Array(width).fill(0.5);

const ways = {
  plain,
  stored: async (path) => {
    const store = openFsStore({ directory: path });
    await downloadTarget({ platform: nodePlatform(), store, url, target, chunks });
    await store.close();
  },
  bare: async (path) => {
    await plain(path);
    const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
    await session.run({ x: new ort.Tensor('float32', x, [1, width]) });
  },
  install: (path) => install(path, createBackends()),
  /** What it would take without a process of its own for each release's first try. */
  unproven: (path) =>
    install(
      path,
      createBackends().map((backend) => ({ ...backend, isolated: undefined })),
    ),
};

const rootText = await readFile(root, 'utf8');
const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-install-'));
const runs = [];
for (let round = 0; round < Number(rounds); round += 1) {
  const path = join(folder, `${round}`);
  const before = process.cpuUsage();
  const began = performance.now();
  await ways[what](path);
  const { user, system } = process.cpuUsage(before);
  runs.push({ ms: performance.now() - began, cpuMs: (user + system) / 1000 });
  await rm(path, { recursive: true, force: true });
}
console.log(JSON.stringify({ runs, peakBytes: process.resourceUsage().maxRSS * 1024 }));
await rm(folder, { recursive: true, force: true });
// Whoever measures does not wait for what closes.
process.exit();

/** What nobody can do without: bytes come in, are hashed, and are on the disk. */
async function plain(path) {
  const hash = createHash('sha256');
  const file = await open(path, 'w');
  const response = await fetch(targetUrl(url, target), { cache: 'no-store' });
  for await (const piece of response.body) {
    hash.update(piece);
    await file.write(piece);
  }
  await file.sync();
  await file.close();
  if (hash.digest('hex') !== target.sha256) throw new Error('The file is not what was sent.');
}

/** A new installation, up to the first answer of a release that is on trial. */
async function install(path, backends) {
  const inlay = createInlay({
    backends,
    device: 'cpu',
    store: openFsStore({ directory: path }),
    sync: { url, root: rootText },
  });
  const model = await inlay.load({ name: 'big' });
  await model.run({ x });
}
