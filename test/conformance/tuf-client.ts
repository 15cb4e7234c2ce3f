/**
 * The client under test of https://github.com/theupdateframework/tuf-conformance, over Node's files and HTTP. It speaks the
 * suite's `CLIENT-CLI.md`; everything else is `src/trust`.
 */

import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { nodePlatform } from '../../src/platform-node.ts';
import { assertTarget, receive } from '../../src/trust/checks.ts';
import {
  createRepositoryClient,
  type FoundTarget,
  type MetadataSource,
} from '../../src/trust/repository-client.ts';

const silenceMs = 20_000;

/** Runs one command. @returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    await run(args);
    return 0;
  } catch (error) {
    console.error(error instanceof Error ? (error.stack ?? error.message) : error);
    return 1;
  }
}

async function run(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      'metadata-dir': { type: 'string' },
      'metadata-url': { type: 'string' },
      'target-name': { type: 'string', multiple: true },
      'target-dir': { type: 'string' },
      'target-base-url': { type: 'string' },
    },
  });
  const given = (name: 'metadata-dir' | 'metadata-url' | 'target-dir' | 'target-base-url'): string =>
    values[name] ?? fail(`The option --${name} is missing.`);
  const [command, initialRoot] = positionals;
  const metadataDir = given('metadata-dir');
  if (command === 'init') {
    const root = await readFile(initialRoot ?? fail('The initial root is missing.'));
    await mkdir(metadataDir, { recursive: true });
    await writeWhole(join(metadataDir, 'root.json'), root);
    return;
  }
  if (command !== 'refresh' && command !== 'download') fail(`There is no command ${String(command)}.`);

  const platform = nodePlatform();
  const client = createRepositoryClient({
    platform,
    root: await readFile(join(metadataDir, 'root.json')),
    source: folderSource(metadataDir, given('metadata-url')),
    fetchTarget: async (name, capBytes) => {
      const url = new URL(name, folderUrl(given('target-base-url')));
      return (await fetchFile(url, capBytes)) ?? fail(`There is no target ${name}.`);
    },
  });
  await client.refresh();
  if (command === 'refresh') return;
  const targetDir = given('target-dir');
  for (const path of values['target-name'] ?? []) {
    const target = (await client.find(path)) ?? fail(`Nobody lists the target ${path}.`);
    const file = join(targetDir, encodeURIComponent(path));
    if (await isThere(file, target)) continue;
    await mkdir(targetDir, { recursive: true });
    await writeWhole(file, await client.download(target));
  }

  async function isThere(file: string, target: FoundTarget): Promise<boolean> {
    try {
      assertTarget(target.path, receive(platform, await readFile(file)), target.file);
      return true;
    } catch {
      return false;
    }
  }
}

/** Keeps one file per role, under names without versions: the newest root is the next run's first. */
function folderSource(folder: string, url: string): MetadataSource {
  const fileOf = (key: string): string => {
    const name = key.startsWith('root.') ? 'root' : key.replace(/^delegated\//, '');
    return join(folder, `${encodeURIComponent(name)}.json`);
  };
  return {
    fetchMetadata: (name, capBytes) => fetchFile(new URL(name, folderUrl(url)), capBytes),
    load: async (key) => (key.startsWith('root.') ? undefined : readFile(fileOf(key)).catch(() => undefined)),
    save: async (changes) => {
      for (const [key, bytes] of Object.entries(changes)) {
        if (bytes) await writeWhole(fileOf(key), bytes);
        else await rm(fileOf(key), { force: true });
      }
    },
  };
}

async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const part = `${path}.part`;
  await writeFile(part, bytes, { flush: true });
  await rename(part, path);
}

function folderUrl(url: string): string {
  return url.endsWith('/') ? url : `${url}/`;
}

/** @returns `undefined` if there is no such file. */
function fetchFile(url: URL, capBytes: number): Promise<Uint8Array | undefined> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: silenceMs }, (response) => {
      const { statusCode = 0 } = response;
      if (statusCode === 404 || statusCode === 403) {
        response.resume();
        resolve(undefined);
        return;
      }
      const pieces: Uint8Array[] = [];
      let length = 0;
      response.on('data', (piece: Uint8Array) => {
        length += piece.length;
        pieces.push(piece);
        if (length > capBytes) request.destroy(new Error(`${url.href} has more than ${capBytes} bytes.`));
      });
      response.on('end', () => {
        if (statusCode === 200) resolve(new Uint8Array(Buffer.concat(pieces)));
        else reject(new Error(`${url.href} answers ${statusCode}.`));
      });
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error(`${url.href} is silent.`)));
    request.on('error', reject);
  });
}

function fail(message: string): never {
  throw new Error(message);
}
