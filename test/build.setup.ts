import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Compiles `src` to `build` once per run: tests load sources, but a worker thread needs a JavaScript file. */
export default function compileWorkers(): void {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-b', 'src/tsconfig.node.json'], {
    cwd: root,
    encoding: 'utf8',
  });
  // Code is emitted in spite of type errors, and those are for `npm run check` to refuse.
  if (status !== 0) console.warn(`tsc -b found errors in src:\n${stdout.split('\n').slice(0, 3).join('\n')}`);
}
