// Runs vitest with the given arguments and ends with one line: N passed, N failed[, N skipped].
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runMain, runNode } from './run.mjs';

await runMain(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'inlay-test-'));
  const summary = join(folder, 'summary.json');
  try {
    const code = await runNode(
      'node_modules/vitest/vitest.mjs',
      ['run', '--reporter=default', '--reporter=./scripts/summary-reporter.mjs', ...process.argv.slice(2)],
      { env: { INLAY_TEST_SUMMARY: summary } },
    );
    const count = existsSync(summary)
      ? JSON.parse(readFileSync(summary, 'utf8'))
      : { passed: 0, failed: 0, skipped: 0 };
    const failed = code !== 0 && count.failed === 0 ? 1 : count.failed;
    console.log(
      `${count.passed} passed, ${failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`,
    );
    return failed > 0 && code === 0 ? 1 : code;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
