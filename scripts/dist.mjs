import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, runBin, SetupError } from './run.mjs';

const stamp = join(root, 'build', '.dist.sha256');

/** Builds `dist` unless it stands for the present sources. */
export async function ensureDist() {
  if (existsSync(join(root, 'dist', 'node.js')) && readStamp() === digestOfSources()) return;
  console.log('Building dist …');
  await buildDist();
}

/** Builds `dist` and remembers from which sources. */
export async function buildDist() {
  const digest = digestOfSources();
  for (const [name, args] of [
    ['tsc', ['-b', 'src/tsconfig.node.json']],
    ['rollup', ['-c', '--silent']],
  ]) {
    if ((await runBin(name, args)) !== 0) {
      throw new SetupError(
        `The build failed in ${name}: mend the errors above, then run this command again.`,
      );
    }
  }
  mkdirSync(join(root, 'build'), { recursive: true });
  writeFileSync(stamp, digest);
}

function digestOfSources() {
  const hash = createHash('sha256');
  const sources = readdirSync(join(root, 'src'), { recursive: true }).map((path) => join('src', path));
  const configs = ['package.json', 'package-lock.json', 'rollup.config.mjs', 'scripts/dashboard.mjs'];
  for (const path of [...configs, ...sources.sort()]) {
    if (/\.(?:tsx?|json|mjs|css|html)$/.test(path)) hash.update(path).update(readFileSync(join(root, path)));
  }
  return hash.digest('hex');
}

function readStamp() {
  return existsSync(stamp) ? readFileSync(stamp, 'utf8') : undefined;
}
