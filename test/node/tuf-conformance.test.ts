/**
 * The public TUF conformance suite, where a checkout of it and a Python with its dependencies are there:
 * INLAY_TUF_CONFORMANCE names the folder of github.com/theupdateframework/tuf-conformance, INLAY_PYTHON the interpreter.
 * The suite also needs `faketime` in the path.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const client = fileURLToPath(new URL('../conformance/tuf-client', import.meta.url));
const suite = process.env['INLAY_TUF_CONFORMANCE'] ?? '';
const python = process.env['INLAY_PYTHON'] ?? '';
/** Tests of the suite when it was last looked at. */
const knownTests = 113;

const missing = [
  ...(existsSync(join(suite, 'tuf_conformance'))
    ? []
    : ['INLAY_TUF_CONFORMANCE names no checkout of the suite']),
  ...(python !== '' && existsSync(python) ? [] : ['INLAY_PYTHON names no interpreter']),
  ...(spawnSync('faketime', ['--version']).error ? ['faketime is not installed'] : []),
];
if (missing.length > 0) console.log(`The TUF conformance suite is skipped: ${missing.join('; ')}.`);

it.skipIf(missing.length > 0)(
  'passes the public TUF conformance suite, without expected failures',
  { timeout: 600_000 },
  async () => {
    const args = ['-m', 'pytest', 'tuf_conformance', '--entrypoint', client, '-q', '-p', 'no:cacheprovider'];
    const running = spawn(python, args, { cwd: suite, env: { ...process.env, PYTHONPATH: suite } });
    let output = '';
    for (const stream of [running.stdout, running.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    const code = await new Promise((resolve) => running.on('close', resolve));
    expect(code, output).toBe(0);
    expect(Number(/(\d+) passed/.exec(output)?.[1])).toBeGreaterThanOrEqual(knownTests);
    expect(output).not.toMatch(/xfailed|xpassed|failed|skipped/);
    expect(existsSync(`${client}.xfails`)).toBe(false);
  },
);

it.skipIf(process.platform === 'win32')('starts the client under test, which says what is wrong', () => {
  const folder = mkdtempSync(join(tmpdir(), 'inlay-tuf-'));
  try {
    const run = (...args: string[]): { status: number | null; stderr: string } =>
      spawnSync(client, args, { encoding: 'utf8' });
    expect(run('--metadata-dir', folder, 'init', join(folder, 'none.json'))).toMatchObject({ status: 1 });
    expect(run('--metadata-dir', folder, 'init', client)).toEqual(
      expect.objectContaining({ status: 0, stderr: '' }),
    );
    const refusal = run('--metadata-dir', folder, '--metadata-url', 'http://127.0.0.1:9/', 'refresh');
    expect(refusal.status).toBe(1);
    expect(refusal.stderr).toContain('TrustError');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
