import { createHash } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { nodePlatform } from '../build/platform-node.js';
import { applyPatch } from '../build/update/delta/apply.js';
import { scriptLoops } from '../build/update/delta/hot.js';

/**
 * Applies the patch of a folder again and again, as a device does: from files, block by block, hashes included.
 * Prints `{ ns, peakBytes }`: nanoseconds of processor time per weight of the fastest run, and the most memory that was held at a time.
 */
const [folder, how, weights, repeats] = process.argv.slice(2);
const platform = nodePlatform();
const [base, patch] = await Promise.all(['base', 'patch'].map((name) => fileBlob(join(folder, name))));
const { size: sizeBytes } = await stat(join(folder, 'next'));
const wanted = await hashOf(join(folder, 'next'));

const held = () => {
  const { heapUsed, arrayBuffers, external } = process.memoryUsage();
  return heapUsed + Math.max(arrayBuffers, external);
};
const openLoops =
  how === 'wasm' ? (await import('../build/update/delta/wasm.js')).openLoops : () => scriptLoops;
let loops = openLoops();
if (how === 'wasm' && loops === scriptLoops) throw new Error('There is no WebAssembly here.');
let peakBytes = 0;
if (globalThis.gc !== undefined) {
  // What the compiler keeps is there already.
  await applyPatch({ platform, loops, base, patch, sizeBytes }, async () => {});
  loops = undefined;
  for (let i = 0; i < 3; i += 1) {
    globalThis.gc();
    // Buffers are let go of a little later than what points to them.
    await new Promise((resolve) => void setTimeout(resolve, 20));
  }
  const before = held();
  loops = openLoops();
  await applyPatch({ platform, loops, base, patch, sizeBytes }, async () => {
    // What is garbage already is held by nobody; the second time waits for what the first one frees.
    globalThis.gc();
    globalThis.gc();
    peakBytes = Math.max(peakBytes, held() - before);
  });
}
let best = Infinity;
for (let i = 0; i < Number(repeats); i += 1) {
  const hash = i === 0 ? createHash('sha256') : undefined;
  const started = process.cpuUsage();
  await applyPatch({ platform, loops, base, patch, sizeBytes }, async (piece) => void hash?.update(piece));
  const { user, system } = process.cpuUsage(started);
  best = Math.min(best, user + system);
  if (hash !== undefined && hash.digest('hex') !== wanted) throw new Error('Another file comes out.');
}
console.log(JSON.stringify({ ns: (best * 1000) / Number(weights), peakBytes }));

/** A file that is read by range. */
async function fileBlob(path) {
  const file = await open(path);
  const { size } = await file.stat();
  return {
    sha256: await hashOf(path),
    sizeBytes: size,
    bytes: async () => new Uint8Array(await readFile(path)),
    read: async (offset, length) => {
      const bytes = new Uint8Array(length);
      await file.read(bytes, 0, length, offset);
      return bytes;
    },
  };
}

async function hashOf(path) {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
