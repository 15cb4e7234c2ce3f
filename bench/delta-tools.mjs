import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from 'node:zlib';

/** Runs a command below a shell, which knows the processor time of what it ran. @returns seconds */
async function run(command, args) {
  const { stderr } = await promisify(execFile)('sh', ['-c', '"$@" && times >&2', 'sh', command, ...args]);
  const [, user, system] = /(\S+) (\S+)\s*$/.exec(stderr);
  return [user, system].reduce((sum, text) => {
    const [minutes, seconds] = text.split('m').map(Number.parseFloat);
    return sum + 60 * minutes + seconds;
  }, 0);
}

/** Packs here. @returns what comes of it, with the seconds of processor time that it took */
function pack(make) {
  const started = process.cpuUsage();
  const packed = make();
  const { user, system } = process.cpuUsage(started);
  return { packed, cpuS: (user + system) / 1e6 };
}

/**
 * How others make a file travel. Each gives the bytes on the way, the processor time of making them, and the file as it comes out.
 * @type {Record<string, { command?: string, make: (at: (name: string) => string) => Promise<{ bytes: number, cpuS: number, out: Uint8Array }> }>}
 */
const TOOLS = {
  'gzip -9': {
    make: async (at) => {
      const next = await readFile(at('next'));
      const { packed, cpuS } = pack(() => gzipSync(next, { level: 9 }));
      return { bytes: packed.length, cpuS, out: gunzipSync(packed) };
    },
  },
  'brotli -11': {
    make: async (at) => {
      const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 };
      const next = await readFile(at('next'));
      const { packed, cpuS } = pack(() => brotliCompressSync(next, { params }));
      return { bytes: packed.length, cpuS, out: brotliDecompressSync(packed) };
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
      const cpuS = await run('bsdiff', [at('base'), at('next'), at('way')]);
      await run('bspatch', [at('base'), at('out'), at('way')]);
      return { ...(await ends(at)), cpuS };
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
      const cpuS = await run('casync', ['make', store, index, at('next')]);
      await run('casync', ['extract', store, index, at('out')]);
      const bytes = (await sizeOf(at('chunks.castr'))) - before + (await stat(index)).size;
      return { bytes, cpuS, out: await readFile(at('out')) };
    },
  },
};

/** Names of all tools, in the order of the tables. */
export const TOOL_NAMES = Object.keys(TOOLS);

/** Which tools cannot be had, by name; `tell` hears why, and the versions of those that can. */
export async function missingTools(tell) {
  const missing = new Set();
  const { node, zlib, brotli } = process.versions;
  tell(`Node ${node}, zlib ${zlib}, brotli ${brotli}`);
  const told = new Set();
  for (const [name, { command }] of Object.entries(TOOLS)) {
    if (command === undefined) continue;
    const isThere = await run('which', [command]).then(
      () => true,
      () => false,
    );
    if (!isThere) {
      missing.add(name);
      tell(`${name} is left out: there is no ${command} on the PATH`);
    } else if (!told.has(command)) tell(`${command}: ${await versionOf(command)}`);
    told.add(command);
  }
  return missing;
}

/** What a command says of itself, or what it was installed as: bsdiff says nothing. */
async function versionOf(command) {
  const asked = { zstd: '--version', xdelta3: '-V', casync: '--version' }[command];
  const [file, args] = asked ? [command, [asked]] : ['dpkg-query', ['-W', '-f', '${Version}', command]];
  const { stdout, stderr } = await promisify(execFile)(file, args).catch(() => ({ stdout: '', stderr: '' }));
  const text = stdout || stderr;
  return (/\d+\.\d[\w.+-]*/.exec(text) ?? /\d+/.exec(text))?.[0] ?? 'of an unknown version';
}

/**
 * Lets a tool carry `next` to where `base` is.
 * @returns bytes that travel, after the file that came out was compared with `next` by its hash, and seconds of processor time
 */
export async function carry(name, base, next) {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-delta-'));
  const at = (file) => join(folder, file);
  try {
    await writeFile(at('base'), base);
    await writeFile(at('next'), next);
    const { bytes, cpuS, out } = await TOOLS[name].make(at);
    assertSame(name, out, next);
    return { bytes, cpuS };
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
      const [there, back] = steps(at);
      const cpuS = await run(command, there);
      await run(command, back);
      return { ...(await ends(at)), cpuS };
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
