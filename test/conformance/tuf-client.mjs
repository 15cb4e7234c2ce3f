/** Bundles `tuf-client.ts` when a source is newer than the last bundle, and runs it: a start takes some 60 ms. */

import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const cache = resolve(here, '../../node_modules/.cache/inlay-tuf-client');
const bundle = join(cache, 'client.mjs');
const inputs = join(cache, 'inputs.json');

const changedAt = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;

const isCurrent = () =>
  existsSync(bundle) &&
  existsSync(inputs) &&
  JSON.parse(readFileSync(inputs, 'utf8')).every(
    (path) => changedAt(resolve(here, path)) < changedAt(bundle),
  );

if (!isCurrent()) {
  const { build } = await import('esbuild');
  mkdirSync(cache, { recursive: true });
  const { metafile, outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: ['tuf-client.ts'],
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    metafile: true,
    write: false,
    outfile: 'client.mjs',
  });
  const replace = (path, content) => {
    // Another process may be reading.
    const part = `${path}.${process.pid}`;
    writeFileSync(part, content);
    renameSync(part, path);
  };
  replace(bundle, outputFiles[0].contents);
  replace(inputs, JSON.stringify(Object.keys(metafile.inputs)));
}

const { main } = await import(pathToFileURL(bundle).href);
process.exitCode = await main(process.argv.slice(2));
