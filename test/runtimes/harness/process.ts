/** Tests in runtimes that start like Node: with a script. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findRuntime } from '../../../scripts/runtimes.mjs';
import { bundleTests, root } from './bundle.ts';
import { playProgram, RECORD, type Played } from './cases.ts';

/** All test files under a folder of `test`. */
export function testsIn(folder: string): string[] {
  return readdirSync(join(root, 'test', folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.ts'))
    .sort()
    .map((path) => join(root, 'test', folder, path));
}

/** What stays outside of the bundle, because it has native parts or starts workers of its own. */
const EXTERNAL = ['node:*', 'onnxruntime-node', 'onnxruntime-web', 'comlink', 'comlink/*'];

const START = `
await play(files, (result) => console.log(${JSON.stringify(RECORD)} + JSON.stringify(result)));
console.log(${JSON.stringify(RECORD)});
process.exit(0);`;

/** Longer than any case may take. */
const STALL_MS = 3 * 60_000;

/** A runtime that was found. */
export interface Runtime {
  readonly program: string;
  readonly version: string;
}

/** Finds a runtime, or prints why the tests in it are skipped. */
export function runtimeFor(name: 'bun' | 'deno' | 'workerd'): Runtime | undefined {
  const found = findRuntime(name);
  if ('program' in found) return found;
  console.log(`The tests in ${name} are skipped: ${found.reason}.`);
  return undefined;
}

/** Runs test files as one script. The bundle lies in `build`, from where packages are found. */
export async function playScript(
  runtime: Runtime,
  flags: readonly string[],
  name: string,
  files: readonly string[],
): Promise<Played> {
  const cwd = mkdtempSync(join(tmpdir(), `inlay-${name}-`));
  const script = join(root, 'build', 'runtimes', `${name}.mjs`);
  try {
    await bundleTests(files, START, script, { platform: 'node', external: EXTERNAL });
    return await playProgram(runtime.program, [...flags, script], {
      cwd,
      env: { INLAY_CACHE_DIR: join(cwd, 'cache') },
      stallMs: STALL_MS,
    });
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}
