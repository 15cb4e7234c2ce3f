// Everything that must hold besides the tests: node scripts/check.mjs. Stops at the first failure.
import { performance } from 'node:perf_hooks';
import { buildDist } from './dist.mjs';
import { withLock } from './lock.mjs';
import { runBin, runMain, runNode, runNpm, SetupError } from './run.mjs';

const folders = ['src', 'test', 'examples', 'bench', 'scripts'];

const steps = {
  'packages are installed': () => runNode('scripts/setup.mjs', ['check']),
  'the lock file is complete': () => runNpm(['ci', '--dry-run', '--silent', '--prefer-offline']),
  'dist is built': () => withLock(buildDist),
  'types hold, tests included': () => runBin('tsc', ['-b']),
  'examples in the documentation compile': () => runNode('scripts/check-examples.mjs'),
  'lint rules hold': () => runBin('oxlint', ['--type-aware', ...folders]),
  'files are formatted': () => runBin('oxfmt', ['--check']),
  'the package is well formed': () => runBin('publint', ['--strict']),
  'types resolve for every importer': () =>
    runBin('attw', [
      '--pack',
      '.',
      '--profile',
      'esm-only',
      '--format',
      'table-flipped',
      '--no-summary',
      '--no-color',
    ]),
  'sizes stay in their budgets': () => runBin('size-limit'),
  'nothing is unused': () => runBin('knip'),
  'subpaths are documented and importable': () => runNode('scripts/check-subpaths.mjs'),
  'the table of runtimes is that of the tests': () => runNode('scripts/runtime-matrix.mjs', ['--check']),
  'nothing bleeds into the browser bundle': () => runNode('scripts/check-bleed.mjs'),
};

await runMain(async () => {
  const started = performance.now();
  for (const [name, step] of Object.entries(steps)) {
    console.log(`\n▸ ${name}`);
    const before = performance.now();
    const code = (await step()) ?? 0;
    if (code !== 0) throw new SetupError(`✗ ${name}: failed with code ${code}.`);
    console.log(`✓ ${seconds(before)}`);
  }
  console.log(`\nAll ${Object.keys(steps).length} checks hold (${seconds(started)}).`);
});

function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}
