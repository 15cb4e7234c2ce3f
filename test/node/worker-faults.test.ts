import { spawn } from 'node:child_process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { slowModel } from '../conformance/backend-models.ts';
import { temporaryFiles } from './backend-libraries.ts';

const script = fileURLToPath(new URL('./fixtures/worker-scenarios.mjs', import.meta.url));

/** A run of some 300 ms, far longer than it takes to be under way. */
const SIZE = 512;
const TIMES = 60;
/** Without the guard, all of these processes abort. */
const REPEATS = 6;

interface Ending {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function play(scenario: string, path: string, ...more: string[]): Promise<Ending> {
  return start([script, scenario, path, String(SIZE), ...more]);
}

function start(argv: readonly string[]): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, argv);
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (text) => (stdout += text));
    child.stderr.on('data', (text) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

describe('a process with a native run in a worker', () => {
  const write = temporaryFiles();
  let path: string;
  beforeAll(async () => {
    path = await write('slow.onnx', slowModel(SIZE, TIMES));
  });

  const clean = (code: number, stdout = ''): Ending => ({ code, signal: null, stdout, stderr: '' });

  it('exits with its own code in the middle of a run', { timeout: 120_000 }, async () => {
    for (let i = 0; i < REPEATS; i += 1) expect(await play('exit-during-run', path)).toEqual(clean(7));
  });

  it('exits with its own code whatever the worker is doing', { timeout: 120_000 }, async () => {
    for (let i = 0; i < 2 * REPEATS; i += 1) {
      expect(await play('exit-after', path, String(i * 30))).toEqual(clean(7));
    }
  });

  it('reports an uncaught error in the middle of a run, and nothing else', { timeout: 120_000 }, async () => {
    for (let i = 0; i < REPEATS; i += 1) {
      const { code, signal, stderr } = await play('throw-during-run', path);
      expect([code, signal]).toEqual([1, null]);
      expect(stderr).toContain('A bug in the host.');
      expect(stderr).not.toContain('Napi');
    }
  });

  it('lets the runs in flight finish when the backend is closed', async () => {
    expect(await play('close-during-runs', path)).toEqual(clean(0, 'fulfilled fulfilled fulfilled\n'));
  });

  it('rejects the runs in flight when the worker is ended, and starts another one for the next', async () => {
    const lost = 'ERR_INLAY_WORKER_LOST';
    expect(await play('end-during-run', path)).toEqual(clean(0, `${lost} ${lost}\ny\n`));
  });

  it('ends by itself when nothing runs', async () => {
    expect(await play('leave-idle', path)).toEqual(clean(0, 'done\n'));
  });

  it('starts workers from a script on the command line, too', async () => {
    const code = `process.argv.splice(1, 0, ''); await import(${JSON.stringify(pathToFileURL(script).href)});`;
    for (const flags of [['--input-type=module'], ['--input-type', 'module']]) {
      const ending = await start([...flags, '--eval', code, 'leave-idle', path, String(SIZE)]);
      expect(ending).toEqual(clean(0, 'done\n'));
    }
  });

  it('stays alive for a run in flight', async () => {
    expect(await play('leave-running', path)).toEqual(clean(0, 'done\n'));
  });

  it('holds a dozen workers with one exit listener and without a warning', async () => {
    expect(await play('crowd', path)).toEqual(clean(0, '1 of ours\n0 of ours\n'));
  });
});
