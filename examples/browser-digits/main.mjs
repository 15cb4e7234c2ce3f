#!/usr/bin/env node
/**
 * Starts a sync server with two versions of the digits model, builds the page, and serves it.
 *
 *   node examples/browser-digits/main.mjs [--port 4173] [--json]
 *
 * Enter rolls the other version out, while the page is open; Ctrl+C ends it.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createServer } from '../demo/server.mjs';
import { serviceWorker } from './shell.mjs';
import { serveSite } from './site.mjs';

const VERSIONS = ['1.0.0', '1.1.0'];

const flags = readFlags();
const folder = await mkdtemp(join(tmpdir(), 'inlay-browser-digits-'));
const undo = [() => rm(folder, { recursive: true, force: true, maxRetries: 5 })];
const cleanUp = async () => {
  while (undo.length > 0) await undo.pop()();
};
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(0)));
}

try {
  const server = await createServer(folder);
  undo.push(() => server.stop());
  await server.cli('keys', 'init');
  for (const version of VERSIONS) {
    await server.cli(
      'publish',
      pathOf(`../digits/digits-${version}.onnx`),
      '--name',
      'digits',
      '--version',
      version,
    );
  }
  await rollOut(server, VERSIONS[0]);

  const sync = { url: server.url, root: await readFile(server.root, 'utf8'), pollMs: 1000 };
  const site = await serveSite({
    root: pathOf('app'),
    port: Number(flags.port),
    define: { SYNC: JSON.stringify(sync) },
    plugins: [serviceWorker(pathOf('app/sw.js'))],
    headers: {
      'content-security-policy': [
        "default-src 'self'",
        // WebAssembly counts as script.
        "script-src 'self' 'wasm-unsafe-eval'",
        `connect-src 'self' ${server.url}`,
      ].join('; '),
    },
  });
  undo.push(() => site.close());

  tell({ url: site.url, server: server.url }, `Open ${site.url} and draw. Enter rolls version 1.1.0 out.`);
  let [next, present] = [...VERSIONS].reverse();
  for await (const _ of createInterface(process.stdin)) {
    await rollOut(server, next);
    [next, present] = [present, next];
    tell({ rolledOut: present }, `${present} is rolled out. Enter brings ${next} back.`);
  }
} catch (error) {
  await cleanUp();
  throw error;
}

function rollOut(server, version) {
  return server.cli('rollout', 'set', 'digits', version, '--percent', '100');
}

function tell(facts, text) {
  console.log(flags.json ? JSON.stringify(facts) : text);
}

function pathOf(file) {
  return fileURLToPath(new URL(file, import.meta.url));
}

function readFlags() {
  try {
    const options = { port: { type: 'string', default: '4173' }, json: { type: 'boolean' } };
    const { values } = parseArgs({ options });
    if (!/^\d{1,5}$/.test(values.port)) throw new Error(`"${values.port}" is no port.`);
    return values;
  } catch (error) {
    console.error(`${error.message}\nUsage: node examples/browser-digits/main.mjs [--port 4173] [--json]`);
    return process.exit(2);
  }
}
