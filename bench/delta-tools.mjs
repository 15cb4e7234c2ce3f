import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from 'node:zlib';

const run = promisify(execFile);

/**
 * How others make a file travel. Each gives the bytes on the way, and the file as it comes out.
 * @type {Record<string, { command?: string, make: (at: (name: string) => string) => Promise<{ bytes: number, out: Uint8Array }> }>}
 */
const TOOLS = {
  'gzip -9': {
    make: async (at) => {
      const packed = gzipSync(await readFile(at('next')), { level: 9 });
      return { bytes: packed.length, out: gunzipSync(packed) };
    },
  },
  'brotli -11': {
    make: async (at) => {
      const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 };
      const packed = brotliCompressSync(await readFile(at('next')), { params });
      return { bytes: packed.length, out: brotliDecompressSync(packed) };
    },
  },
  'zstd -19': files('zstd', (at) => [
    ['-q', '-f', '-19', at('next'), '-o', at('way')],
    ['-q', '-f', '-d', at('way'), '-o', at('out')],
  ]),
  'zstd -19 --patch-from': files('zstd', (at) => [
    ['-q', '-f', '-19', '--long=27', `--patch-from=${at('base')}`, at('next'), '-o', at('way')],
    ['-q', '-f', '-d', '--long=27', `--patch-from=${at('base')}`, at('way'), '-o', at('out')],
  ]),
  bsdiff: {
    command: 'bsdiff',
    make: async (at) => {
      await run('bsdiff', [at('base'), at('next'), at('way')]);
      await run('bspatch', [at('base'), at('out'), at('way')]);
      return ends(at);
    },
  },
  xdelta3: files('xdelta3', (at) => [
    ['-9', '-f', '-e', '-s', at('base'), at('next'), at('way')],
    ['-f', '-d', '-s', at('base'), at('way'), at('out')],
  ]),
  casync: {
    command: 'casync',
    make: async (at) => {
      const store = `--store=${at('chunks.castr')}`;
      const index = at('next.caibx');
      await run('casync', ['make', store, at('base.caibx'), at('base')]);
      const before = await sizeOf(at('chunks.castr'));
      await run('casync', ['make', store, index, at('next')]);
      await run('casync', ['extract', store, index, at('out')]);
      const bytes = (await sizeOf(at('chunks.castr'))) - before + (await stat(index)).size;
      return { bytes, out: await readFile(at('out')) };
    },
  },
};

/** Names of all tools, in the order of the tables. */
export const TOOL_NAMES = Object.keys(TOOLS);

/** Why tools cannot be had, by name; `tell` hears it. */
export async function missingTools(tell) {
  const missing = new Set();
  for (const [name, { command }] of Object.entries(TOOLS)) {
    if (command === undefined) continue;
    const isThere = await run('which', [command]).then(
      () => true,
      () => false,
    );
    if (isThere) continue;
    missing.add(name);
    tell(`${name} is left out: there is no ${command} on the PATH`);
  }
  return missing;
}

/**
 * Lets a tool carry `next` to where `base` is.
 * @returns bytes that travel, after the file that came out was compared with `next` by its hash
 */
export async function carry(name, base, next) {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-delta-'));
  const at = (file) => join(folder, file);
  try {
    await writeFile(at('base'), base);
    await writeFile(at('next'), next);
    const { bytes, out } = await TOOLS[name].make(at);
    assertSame(name, out, next);
    return bytes;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** @throws `Error` if a file is not the one that went in. */
export function assertSame(name, out, next) {
  if (sha256(out) !== sha256(next)) throw new Error(`What ${name} gives back is not the file that went in.`);
}

/** @param {Uint8Array} bytes */
export function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A command that writes `way`, and then one that writes `out`. */
function files(command, steps) {
  return {
    command,
    make: async (at) => {
      for (const args of steps(at)) await run(command, args);
      return ends(at);
    },
  };
}

async function ends(at) {
  return { bytes: (await stat(at('way'))).size, out: await readFile(at('out')) };
}

/** Bytes of all files below a folder. */
async function sizeOf(folder) {
  let sum = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).size;
  return sum;
}
