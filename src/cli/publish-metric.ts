/** Scores of model files by a command of the publisher. */

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Most of the output of a command that is kept. */
const mostOutput = 1 << 16;

/** What {@link runMetric} works with. */
export interface MetricOptions {
  /** For the shell; it finds the path of the model in `INLAY_MODEL`. */
  readonly command: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/**
 * Runs a command on a model file.
 * @returns the number that is the last line of its output.
 * @throws `RangeError` if it fails, or its last line is no number.
 */
export async function runMetric(
  { command, cwd, env }: MetricOptions,
  model: Uint8Array<ArrayBuffer>,
): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-metric-'));
  try {
    const path = join(folder, 'model.onnx');
    await writeFile(path, model);
    const { code, output } = await run(command, cwd, { ...env, INLAY_MODEL: path });
    const last = output.trim().split('\n').at(-1)?.trim() ?? '';
    const value = last === '' ? Number.NaN : Number(last);
    if (code === 0 && Number.isFinite(value)) return value;
    throw new RangeError(
      code === 0
        ? `The last line of --compact-metric is ${JSON.stringify(last.slice(0, 200))}; it has to print one number.`
        : `The command of --compact-metric ends with ${code ?? 'a signal'}; run it by hand with INLAY_MODEL set to the path of a model.`,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function run(
  command: string,
  cwd: string,
  env: NodeJS.ProcessEnv,
): Promise<{ readonly code: number | null; readonly output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, { cwd, env, shell: true, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-mostOutput);
    });
    child.on('error', reject).on('close', (code) => {
      resolve({ code, output });
    });
  });
}
