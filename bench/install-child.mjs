/** One part of the install bench, in a process of its own so that its memory is its own. Prints one JSON line. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { nodePlatform } from '../build/platform-node.js';
import { openFsStore } from '../build/stores/fs.js';
import { downloadTarget } from '../build/update/download.js';

const ROUNDS = 15;
const CHUNK_BYTES = 1_048_576;
const [what, length] = [process.argv[2], Number(process.argv[3])];

/** Serves a file whose byte number i is i · 7919 / 256, and first tells its port and the hashes. */
const SERVER = `
  const { createHash } = require('node:crypto');
  const { createServer } = require('node:http');
  const bytes = Buffer.alloc(${length});
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = (i * 7919) >>> 8;
  const hash = (part) => createHash('sha256').update(part).digest('hex');
  let chunks = '';
  for (let at = 0; at < bytes.length; at += ${CHUNK_BYTES}) chunks += hash(bytes.subarray(at, at + ${CHUNK_BYTES}));
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': bytes.length, etag: '"one"' });
    response.end(bytes);
  }).listen(0, '127.0.0.1', () => {
    console.log(JSON.stringify({ port: server.address().port, sha256: hash(bytes), chunks }));
  });`;
const server = spawn(process.execPath, ['-e', SERVER], { stdio: ['ignore', 'pipe', 'inherit'] });
const [line] = await once(server.stdout, 'data');
const { port, sha256, chunks } = JSON.parse(line);
const url = `http://127.0.0.1:${port}`;
const target = { path: 'models/bench/1/model.onnx', sha256, length };
const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-install-'));

const ways = {
  plain,
  pieces: install({ chunks: { size: CHUNK_BYTES, sha256: chunks } }),
  whole: install({}),
};
if (what === 'times') {
  const times = { plain: [], pieces: [], whole: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [how, run] of Object.entries(ways)) {
      const began = performance.now();
      const before = process.cpuUsage();
      await run(join(folder, `${how}-${round}`));
      const { user, system } = process.cpuUsage(before);
      // The first ones compile.
      if (round > 1) times[how].push({ ms: performance.now() - began, cpuMs: (user + system) / 1000 });
    }
  }
  console.log(JSON.stringify(times));
} else {
  await ways[what](join(folder, what));
  console.log(JSON.stringify({ peakBytes: process.resourceUsage().maxRSS * 1024 }));
}
await rm(folder, { recursive: true, force: true });
server.kill();

/** What nobody can do without: bytes come in, are hashed, and are on the disk. */
async function plain(path) {
  const hash = createHash('sha256');
  const file = await open(path, 'w');
  const response = await fetch(url, { cache: 'no-store' });
  for await (const piece of response.body) {
    hash.update(piece);
    await file.write(piece);
  }
  await file.sync();
  await file.close();
  if (hash.digest('hex') !== sha256) throw new Error('The file is not what was sent.');
}

function install(options) {
  return async (directory) => {
    const store = openFsStore({ directory });
    await downloadTarget({ platform: nodePlatform(), store, url, target, ...options });
    await store.close();
  };
}
