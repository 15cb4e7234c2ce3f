/** One part of the verify bench, in a process of its own, so that the first time is a first time. Prints one JSON line. */
import { webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { fromHex, toUtf8 } from '../build/core/bytes.js';
import { createEd25519 } from '../build/ed25519.js';
import { nodePlatform } from '../build/platform-node.js';
import { canonicalJson } from '../build/trust/canonical-json.js';
import { createTrustedMetadata } from '../build/trust/client.js';

const ROUNDS = 7;
const REPEATS = 40;
const [how, path] = process.argv.slice(2);
const texts = JSON.parse(readFileSync(path, 'utf8'));
const files = Object.fromEntries(Object.entries(texts).map(([role, text]) => [role, toUtf8(text)]));
const platform = nodePlatform();
const { subtle } = webcrypto;
const ways = {
  webcrypto: () => refresh(platform),
  noble: () => refresh(withNoble),
  bare: verifyAll,
};
const withNoble = { ...platform, verifyEd25519: createEd25519(undefined) };
const bare = how === 'bare' ? signatures() : [];

const first = await measure(ways[how], 1);
const rounds = [];
for (let round = 0; round < ROUNDS; round += 1) rounds.push(await measure(ways[how], REPEATS));
console.log(JSON.stringify({ first, hot: rounds.slice(1) }));

/** @returns milliseconds for each time, of the wall clock and of processors. */
async function measure(work, times) {
  const began = performance.now();
  const before = process.cpuUsage();
  for (let i = 0; i < times; i += 1) await work();
  const { user, system } = process.cpuUsage(before);
  return { ms: (performance.now() - began) / times, cpuMs: (user + system) / 1000 / times };
}

/** What a device does that has only the root that came with the app. */
async function refresh(device) {
  const trusted = await createTrustedMetadata({ platform: device, root: files.root });
  await trusted.updateTimestamp(files.timestamp);
  await trusted.updateSnapshot(files.snapshot);
  await trusted.updateTargets(files.targets);
  await trusted.updateRollout(files.rollout);
  trusted.assertCurrent();
}

/** The key, the signature and the signed bytes of each file. */
function signatures() {
  const { keys } = JSON.parse(texts.root).signed;
  const known = { ...keys, ...JSON.parse(texts.targets).signed.delegations.keys };
  return Object.values(texts).map((text) => {
    const {
      signed,
      signatures: [{ keyid, sig }],
    } = JSON.parse(text);
    return {
      key: fromHex(known[keyid].keyval.public),
      signature: fromHex(sig),
      message: canonicalJson(signed),
    };
  });
}

async function verifyAll() {
  for (const { key, signature, message } of bare) {
    const imported = await subtle.importKey('raw', key, 'Ed25519', false, ['verify']);
    if (!(await subtle.verify('Ed25519', imported, signature, message)))
      throw new Error('A signature is wrong.');
  }
}
