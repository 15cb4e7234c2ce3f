import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Compiles `src` to `build` once per run: tests load sources, but a worker thread needs a JavaScript file. What Inlay
 * keeps by default goes into a folder of this run.
 * @returns cleans up.
 */
export default function prepare(): () => void {
  const cache = mkdtempSync(join(tmpdir(), 'inlay-tests-'));
  process.env['INLAY_CACHE_DIR'] = cache;
  const root = fileURLToPath(new URL('..', import.meta.url));
  const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-b', 'src/tsconfig.node.json'], {
    cwd: root,
    encoding: 'utf8',
  });
  // Code is emitted in spite of type errors, and those are for `npm run check` to refuse.
  if (status !== 0) console.warn(`tsc -b found errors in src:\n${stdout.split('\n').slice(0, 3).join('\n')}`);
  return () => {
    rmSync(cache, { recursive: true, force: true });
  };
}
