import { createMemoryStore } from 'inlay/stores/memory';
import { nodePlatform } from '../build/platform-node.js';
import { encodePatch } from '../build/publish/delta/encode.js';
import { createDeltaPatcher } from '../build/update/delta/patcher.js';
import { assertSame, sha256 } from './delta-tools.mjs';

const platform = nodePlatform();
const patcher = createDeltaPatcher(platform);

/**
 * Encodes a patch, and applies it as a device does; without a base, a file that is coded by itself.
 * @returns its bytes, and the seconds of processor time of encoding it
 */
export async function makePatch(base, next, steps) {
  const started = process.cpuUsage();
  const patch = encodePatch(base, next, { platform, ...(steps && { steps }) });
  const { user, system } = process.cpuUsage(started);
  const store = createMemoryStore();
  const [from, way] = await Promise.all(
    [base ?? new Uint8Array(0), patch].map((bytes) => store.putBlob(sha256(bytes), bytes)),
  );
  const pieces = [];
  for await (const piece of patcher.apply(from, way, next.length)) pieces.push(piece.slice());
  assertSame('the patch', Buffer.concat(pieces), next);
  return { bytes: patch.length, cpuS: (user + system) / 1e6 };
}
