import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { installed } from './packages.mjs';
import { root, runNpm } from './run.mjs';

const folder = join('test', 'runtimes');

/** Where the packages of each runtime keep its program; its install script, which would link it, does not run. */
const programs = {
  bun: ['@oven', /^bun-/, 'bin/bun'],
  deno: ['@deno', /./, 'deno'],
  workerd: ['@cloudflare', /^workerd-/, 'bin/workerd'],
};

/** True if the person asked to leave the tests in other runtimes out. */
const skipsRuntimes = () => ['1', 'true'].includes(process.env.INLAY_SKIP_RUNTIMES ?? '');

/** Milliseconds that the download of the runtimes, some 300 MB, may take. */
const INSTALL_MS = 5 * 60_000;

/** Installs the other runtimes as their lock file pins them. Tests of what cannot be installed are skipped. */
export async function ensureRuntimes() {
  if (skipsRuntimes()) {
    console.log('INLAY_SKIP_RUNTIMES is set: the tests in other runtimes (test/runtimes) are skipped.');
    return;
  }
  if (installed(folder)) return;
  console.log('Installing Bun, Deno, workerd and Hermes for test/runtimes (npm ci) …');
  const code = await runNpm(['ci', '--prefer-offline', '--loglevel=error'], {
    cwd: join(root, folder),
    signal: AbortSignal.timeout(INSTALL_MS),
  }).catch((error) => error.message);
  if (code !== 0) {
    console.log(
      `\`npm ci\` in ${folder} failed (${code}): tests in runtimes that are missing now will be skipped.`,
    );
  }
}

/**
 * Finds an installed runtime and asks it for its version.
 * @param {'bun' | 'deno' | 'workerd'} name
 * @returns {{ program: string, version: string } | { reason: string }} or why it cannot be used.
 */
export function findRuntime(name) {
  if (skipsRuntimes()) return { reason: 'INLAY_SKIP_RUNTIMES is set' };
  const [scope, pattern, path] = programs[name];
  const scopeFolder = join(root, folder, 'node_modules', scope);
  const candidates = (existsSync(scopeFolder) ? readdirSync(scopeFolder) : [])
    .filter((entry) => pattern.test(entry))
    .map((entry) => join(scopeFolder, entry, process.platform === 'win32' ? `${path}.exe` : path))
    .filter((program) => existsSync(program));
  let reason = `${name} is not installed: run \`node scripts/setup.mjs test\``;
  for (const program of candidates) {
    try {
      const said = execFileSync(program, ['--version'], { encoding: 'utf8', timeout: 30_000 });
      return { program, version: /\d+[.-]\d+[.-]\d+/.exec(said)?.[0] ?? said.trim() };
    } catch (error) {
      reason = `${name} does not start here: ${error.message}`;
    }
  }
  return { reason };
}
