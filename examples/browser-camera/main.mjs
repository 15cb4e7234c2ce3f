#!/usr/bin/env node
/**
 * Builds the page that finds faces in a camera or a video, and serves it.
 *
 *   node examples/browser-camera/main.mjs --model ultraface-rfb-320.onnx [--port 4174] [--json]
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serveSite } from '../browser-digits/site.mjs';

const flags = readFlags();
const site = await serveSite({
  root: fileURLToPath(new URL('app', import.meta.url)),
  port: Number(flags.port),
  files: { '/ultraface.onnx': resolve(flags.model) },
  headers: {
    'content-security-policy': [
      "default-src 'self'",
      // WebAssembly counts as script.
      "script-src 'self' 'wasm-unsafe-eval'",
      // Videos that the visitor chooses.
      'media-src blob:',
    ].join('; '),
    'permissions-policy': 'camera=(self)',
    // What lets a page share memory between threads, and so run one model on several of them.
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-embedder-policy': 'require-corp',
  },
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => void site.close().finally(() => process.exit(0)));
}
console.log(flags.json ? JSON.stringify({ url: site.url }) : `Open ${site.url}; Ctrl+C ends it.`);

function readFlags() {
  try {
    const { values } = parseArgs({
      options: {
        model: { type: 'string' },
        port: { type: 'string', default: '4174' },
        json: { type: 'boolean' },
      },
    });
    if (values.model === undefined) throw new Error('Say with --model where UltraFace RFB-320 is.');
    if (!existsSync(values.model)) throw new Error(`There is no file ${values.model}.`);
    if (!/^\d{1,5}$/.test(values.port)) throw new Error(`"${values.port}" is no port.`);
    return values;
  } catch (error) {
    console.error(
      `${error.message}\nUsage: node examples/browser-camera/main.mjs --model FILE [--port 4174] [--json]`,
    );
    return process.exit(2);
  }
}
