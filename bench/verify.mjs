import { execFile } from 'node:child_process';
import { createHash, webcrypto } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  addRelease,
  createRoot,
  createTargets,
  expiresIn,
  generateKeyPair,
  openSigner,
  signMetadata,
  toKeyFile,
} from 'inlay/publish';
import { startServer } from 'inlay/server';
import { nodePlatform } from '../build/platform-node.js';
import { median } from './measure.mjs';
import { figure } from './report.mjs';

const MODELS = ['digits', 'faces', 'speech', 'sound', 'text'];
const VERSIONS = ['1.0.0', '1.1.0', '1.2.0'];
const ROUNDS = 5;
const CHILD = fileURLToPath(new URL('verify-child.mjs', import.meta.url));
const CASES = { webcrypto: 'WebCrypto', noble: 'JavaScript' };

/**
 * What a device pays for knowing that metadata is what was signed: all of it, from the root that came with the app, beside
 * the bare verification of the five signatures by WebCrypto.
 */
export async function run() {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-verify-'));
  try {
    const texts = await prepare(join(folder, 'server'));
    const path = join(folder, 'metadata.json');
    await writeFile(path, JSON.stringify(texts));
    const runs = { bare: [], webcrypto: [], noble: [] };
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const how of Object.keys(runs)) runs[how].push(await child(how, path));
    }
    const bytes = Object.values(texts).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    const what = `full refresh, ${MODELS.length} models × ${VERSIONS.length} versions, ${Math.round(bytes / 1000)} kB`;
    const hot = (how, part) => median(runs[how].flatMap((each) => each.hot.map((time) => time[part])));
    const first = (how, part) => median(runs[how].map((each) => each.first[part]));
    return Object.entries(CASES).flatMap(([how, name]) => {
      const row = (metric, of, part, target) =>
        figure({
          bench: 'verify',
          case: `${what}, ${name}`,
          metric,
          value: of(how, part),
          baseline: of('bare', part),
          unit: 'ms',
          ...(target !== undefined && { target }),
        });
      return [
        row('processor time', hot, 'cpuMs', how === 'webcrypto' ? 5 : undefined),
        row('time', hot, 'ms'),
        row('processor time, first in a process', first, 'cpuMs'),
        row('time, first in a process', first, 'ms'),
      ];
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function child(how, path) {
  const { stdout } = await promisify(execFile)(process.execPath, [CHILD, how, path]);
  return JSON.parse(stdout);
}

/** Publishes to a real server. @returns the metadata of each role, as a device gets it. */
async function prepare(dataDir) {
  const platform = nodePlatform();
  const server = await startServer({ port: 0, dataDir });
  try {
    const newSigner = async () =>
      openSigner({ subtle: webcrypto.subtle, platform }, toKeyFile(await generateKeyPair(webcrypto.subtle)));
    const [rootSigner, signer] = [await newSigner(), await newSigner()];
    const put = async (path, body) => {
      const response = await fetch(`${server.url}/v1/admin/${path}`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${server.token}` },
        body,
      });
      if (!response.ok) throw new Error(`The server answered ${response.status}: ${await response.text()}`);
    };
    const { onlineKey } = server;
    const expires = expiresIn(platform.now(), 180);
    const root = createRoot({ rootKeys: [rootSigner], targetsKeys: [signer], onlineKey, expires });
    await put('root', await signMetadata(root, [rootSigner]));
    let targets = createTargets({ onlineKey, expires });
    await put('targets', await signMetadata(targets, [signer]));
    for (const model of MODELS) {
      for (const version of VERSIONS) {
        const content = Buffer.from(`${model} ${version}`);
        const sha256 = createHash('sha256').update(content).digest('hex');
        await put(`blobs/${sha256}`, content);
        const release = { model, version, file: 'model.onnx', length: content.length, sha256, expires };
        ({ targets } = addRelease(targets, release));
      }
    }
    const texts = { targets: await signMetadata({ ...targets, version: 2 }, [signer]) };
    await put('targets', texts.targets);
    for (const model of MODELS) {
      for (const [i, version] of VERSIONS.entries())
        await put(`rollouts/stable/${model}`, JSON.stringify({ version, percent: i === 2 ? 10 : 100 }));
    }
    const tip = await (await fetch(`${server.url}/v1/tip?root=0`)).json();
    const { roots, timestamp, snapshot, rollout } = tip;
    return { root: roots[0], timestamp, snapshot, targets: Buffer.from(texts.targets).toString(), rollout };
  } finally {
    await server.close();
  }
}
