import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { nodePlatform } from '../build/platform-node.js';
import { roundOntoGrid } from '../build/publish/compact/grid.js';
import { encodePatch } from '../build/publish/delta/encode.js';
import { openPairs } from './delta-pairs.mjs';
import { figure } from './report.mjs';

const CHILD = fileURLToPath(new URL('delta-decode-child.mjs', import.meta.url));
const ROUNDS = 5;
/** Nanoseconds per weight. */
const TARGETS = {
  lossless: { script: 25, jitless: 400 },
  'lossless, of low rank': { script: 25, jitless: 400 },
  compact: { script: 8, jitless: 160 },
};
const ENGINES = {
  script: { name: 'JavaScript', how: 'script', flags: ['--expose-gc'], repeats: 40 },
  wasm: { name: 'WebAssembly', how: 'wasm', flags: ['--expose-gc'], repeats: 40 },
  // Hermes interprets its bytecode; so does V8 without its compilers.
  jitless: { name: 'interpreted (V8 --jitless)', how: 'script', flags: ['--jitless'], repeats: 2 },
};

/** What a patch costs the device that applies it: processor time for each weight, hashes and files
 * included, memory, code. */
export async function run() {
  const {
    large: { base, strong, merged },
  } = await openPairs(() => {});
  const rounded = roundOntoGrid(base, strong, { f: 2, isStochastic: true, seed: 1 });
  const platform = nodePlatform();
  const cases = {
    lossless: { next: strong, patch: encodePatch(base, strong, { platform }) },
    'lossless, of low rank': { next: merged, patch: encodePatch(base, merged, { platform }) },
    compact: {
      next: rounded.bytes,
      patch: encodePatch(base, rounded.bytes, { platform, steps: rounded.steps }),
    },
  };
  const weights = base.length / 4;
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-decode-'));
  try {
    const results = new Map();
    for (const [name, files] of Object.entries(cases)) {
      await mkdir(join(folder, name));
      for (const [file, bytes] of Object.entries({ base, ...files }))
        await writeFile(join(folder, name, file), bytes);
    }
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of Object.keys(cases)) {
        for (const [engine, { how, flags, repeats }] of Object.entries(ENGINES)) {
          const key = `${name} ${engine}`;
          const { stdout } = await promisify(execFile)(process.execPath, [
            ...flags,
            CHILD,
            join(folder, name),
            how,
            String(weights),
            String(repeats),
          ]);
          results.set(key, [...(results.get(key) ?? []), JSON.parse(stdout)]);
        }
      }
    }
    const figures = [];
    for (const name of Object.keys(cases)) {
      for (const [engine, { name: title }] of Object.entries(ENGINES)) {
        const seen = results.get(`${name} ${engine}`);
        const row = (metric, value, unit, target) =>
          figure({
            bench: 'delta-decode',
            case: `${name}, ${title}`,
            metric,
            value,
            unit,
            ...(target !== undefined && { target }),
          });
        // Whoever else uses the machine can only add to it.
        const ns = Math.min(...seen.map((one) => one.ns));
        figures.push(row('processor time for each weight, best run', ns, 'ns', TARGETS[name][engine]));
        const peak = Math.max(...seen.map(({ peakBytes }) => peakBytes));
        if (peak > 0) figures.push(row('memory besides files and code', peak / 1e6, 'MB', 2));
      }
    }
    figures.push(
      figure({
        bench: 'delta-decode',
        case: 'code that applies patches',
        metric: 'min+gzip',
        value: (await codeBytes()) / 1000,
        unit: 'kB',
        target: 6,
      }),
    );
    return figures;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What the decoder adds to a bundle, without what the client of updates has anyway. */
async function codeBytes() {
  const bundle = async (contents) => {
    const { outputFiles } = await build({
      stdin: { contents, resolveDir: fileURLToPath(new URL('../build', import.meta.url)) },
      bundle: true,
      minify: true,
      format: 'esm',
      write: false,
      external: ['node:*'],
    });
    return gzipSync(outputFiles[0].contents, { level: 9 }).length;
  };
  const shared = `export * from './core/bytes.js'; export * from './core/digest.js'; export * from './core/errors.js';`;
  return (await bundle(`${shared} export * from './update/delta/apply.js';`)) - (await bundle(shared));
}
