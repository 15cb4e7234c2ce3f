import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unzipSync } from 'fflate';
import { describe, expect, it, onTestFinished } from 'vitest';
import { drawSet, SIDE } from '../../examples/digits/draw.mjs';
import { runCommand } from '../../src/cli/program.ts';
import { bytesOf, npy } from './cli-data-fixture.ts';
import { temporaryDirectory } from './server-fixture.ts';

const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));
const digits = fileURLToPath(new URL('../../examples/digits/digits-1.1.0.onnx', import.meta.url));

interface Result {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Starts `inlay run` as a user does. */
function start(cwd: string, ...args: readonly string[]): { child: ChildProcess; result: Promise<Result> } {
  const child = spawn(process.execPath, [main, 'run', digits, ...args], { cwd });
  onTestFinished(() => void child.kill('SIGKILL'));
  let out = '';
  let err = '';
  child.stdout.on('data', (text) => (out += String(text)));
  child.stderr.on('data', (text) => (err += String(text)));
  return {
    child,
    result: once(child, 'close').then(([code]) => ({ code: code as number | null, out, err })),
  };
}

const run = (cwd: string, ...args: readonly string[]): Promise<Result> => start(cwd, ...args).result;

/** Images as an array of bytes, drawn once and repeated. */
function images(count: number): Uint8Array {
  const { pixels } = drawSet(4, 50);
  const data = new Float32Array(count * SIDE * SIDE);
  for (let at = 0; at < data.length; at += pixels.length) data.set(pixels.subarray(0, data.length - at), at);
  return npy({ descr: '<f4', shape: [count, SIDE, SIDE], data: bytesOf(data) });
}

/** Resolves when a file of the folder of a run is at least so large. */
async function grown(folder: string, name: string, sizeBytes: number): Promise<void> {
  const path = join(folder, name);
  const isThere = async (): Promise<boolean> =>
    ((await stat(path).catch(() => undefined))?.size ?? 0) >= sizeBytes;
  await new Promise<void>((resolve) => {
    const look = async (): Promise<void> => {
      if (!(await isThere())) return;
      watcher.close();
      resolve();
    };
    const watcher = watch(folder, { recursive: true }, () => void look());
    void look();
  });
}

describe('inlay run', () => {
  it('runs a model over an array, and says what it did', async () => {
    const cwd = await temporaryDirectory();
    await writeFile(join(cwd, 'images.npy'), images(50));
    const { code, out, err } = await run(cwd, '--input', 'images.npy', '--output', 'logits.npz', '--json');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(JSON.parse(out)).toEqual({
      rows: 50,
      skipped: 0,
      resumedFrom: 0,
      isComplete: true,
      ignored: [],
      output: 'logits.npz',
      seconds: expect.any(Number) as unknown,
    });
    const { 'logits.npy': logits } = unzipSync(await readFile(join(cwd, 'logits.npz')));
    const values = new Float32Array((logits as Uint8Array).slice(-50 * 10 * 4).buffer);
    const guesses = Array.from({ length: 50 }, (_, row) => {
      const scores = [...values.subarray(row * 10, row * 10 + 10)];
      return scores.indexOf(Math.max(...scores));
    });
    const { labels } = drawSet(4, 50);
    const right = guesses.filter((guess, row) => guess === labels[row]).length;
    expect(right).toBeGreaterThanOrEqual(45);
  });

  it('gives the same for a table as for an array', async () => {
    const cwd = await temporaryDirectory();
    const { pixels, labels } = drawSet(4, 8);
    const area = SIDE * SIDE;
    const head = ['label', ...Array.from({ length: area }, (_, index) => `pixel${index}`)].join(',');
    const rows = Array.from(labels, (label, row) =>
      [label, ...pixels.subarray(row * area, (row + 1) * area)].join(','),
    );
    await writeFile(join(cwd, 'images.csv'), [head, ...rows, ''].join('\n'));
    await writeFile(join(cwd, 'images.npy'), images(8));
    const lines = rows.map((row) => JSON.stringify({ image: row.split(',').slice(1).map(Number) }));
    await writeFile(join(cwd, 'images.jsonl'), lines.join('\n'));

    const table = await run(
      cwd,
      '--input',
      'images.csv',
      '--map',
      'pixel*=image',
      '--output',
      'a.jsonl',
      '--batch-rows',
      '4',
    );
    expect(table).toMatchObject({ code: 0, err: '' });
    expect(table.out).toContain('columns that feed no input: label');
    for (const input of ['images.npy', 'images.jsonl']) {
      await run(cwd, '--input', input, '--output', 'b.jsonl', '--batch-rows', '4');
      expect(await readFile(join(cwd, 'b.jsonl'), 'utf8')).toBe(await readFile(join(cwd, 'a.jsonl'), 'utf8'));
    }
    // All 785 columns hold numbers, so that the sample is one too long.
    const whole = await run(cwd, '--input', 'images.csv', '--output', 'c.jsonl');
    expect(whole.code).toBe(1);
    expect(whole.err).toMatch(
      /Line 2 of images\.csv: Input image: float32 \[batch, 1, 28, 28\]: .*ERR_INLAY_FEED_SHAPE/,
    );
  });

  it.each(['jsonl', 'npz'])(
    'gives the same %s when it is killed twice as when it is left alone',
    async (format) => {
      const cwd = await temporaryDirectory();
      await writeFile(join(cwd, 'images.npy'), images(8_000));
      const args = (name: string): string[] => [
        '--input',
        'images.npy',
        '--output',
        `${name}.${format}`,
        '--batch-rows',
        '4',
      ];
      const file = join(`killed.${format}.progress`, format === 'jsonl' ? 'rows.jsonl' : '0.bin');
      let done = 0;
      for (const round of [1, 2]) {
        const { child, result } = start(cwd, ...args('killed'));
        await grown(cwd, file, done + 1);
        child.kill('SIGKILL');
        expect((await result).code).toBeNull();
        done = (await stat(join(cwd, file))).size;
        expect(done, `round ${round}`).toBeGreaterThan(0);
      }
      expect(await readdir(cwd)).not.toContain(`killed.${format}`);
      const { code, out } = await run(cwd, ...args('killed'), '--json');
      expect(code).toBe(0);
      expect(JSON.parse(out)).toMatchObject({ rows: 8_000, isComplete: true });
      await run(cwd, ...args('whole'));
      const [killed, whole] = [
        await readFile(join(cwd, `killed.${format}`)),
        await readFile(join(cwd, `whole.${format}`)),
      ];
      expect(killed.equals(whole)).toBe(true);
      expect((await readdir(cwd)).filter((name) => name.endsWith('.progress'))).toEqual([]);
    },
  );

  it('stops at an interrupt with what it has, and goes on from there', async () => {
    const cwd = await temporaryDirectory();
    await writeFile(join(cwd, 'images.npy'), images(8_000));
    const args = ['--input', 'images.npy', '--output', 'out.jsonl'];
    const { child, result } = start(cwd, ...args);
    await grown(cwd, join('out.jsonl.progress', 'rows.jsonl'), 1);
    child.kill('SIGINT');
    const first = await result;
    expect(first.code).toBe(130);
    expect(first.out).toContain('the same command goes on from there');
    const second = await run(cwd, ...args, '--json');
    const { rows, resumedFrom } = JSON.parse(second.out) as { rows: number; resumedFrom: number };
    expect(rows).toBe(8_000);
    expect(resumedFrom).toBeGreaterThan(0);
    expect((await readFile(join(cwd, 'out.jsonl'), 'utf8')).split('\n')).toHaveLength(8_001);
  });

  it('ends with 3 if rows were skipped, and with 1 if one stops it', async () => {
    const cwd = await temporaryDirectory();
    const image = Array.from({ length: SIDE * SIDE }, () => 0);
    await writeFile(
      join(cwd, 'in.jsonl'),
      [{ image }, { image: image.slice(1) }, { image }].map((row) => JSON.stringify(row)).join('\n'),
    );
    const stopped = await run(cwd, '--input', 'in.jsonl', '--output', 'out.jsonl');
    expect(stopped.code).toBe(1);
    expect(stopped.err).toContain('Line 2 of in.jsonl');
    const skipped = await run(cwd, '--input', 'in.jsonl', '--output', 'out.jsonl', '--on-error', 'skip');
    expect(skipped.code).toBe(3);
    expect(skipped.out).toContain('out.jsonl.skipped');
    const lines = (await readFile(join(cwd, 'out.jsonl'), 'utf8')).split('\n');
    expect(lines.map((line) => line.slice(0, 4))).toEqual(['{"lo', 'null', '{"lo', '']);
  });
});

describe('the command line of inlay run', () => {
  const say = async (...args: readonly string[]): Promise<Result> => {
    const out: string[] = [];
    const err: string[] = [];
    const code = await runCommand(['run', ...args], {
      print: (text) => out.push(text),
      printError: (text) => err.push(text),
      env: {},
      cwd: await temporaryDirectory(),
      interrupted: () => new Promise(() => {}),
    });
    return { code, out: out.join('\n'), err: err.join('\n') };
  };

  it('explains itself', async () => {
    const { code, out } = await say('--help');
    expect(code).toBe(0);
    for (const word of ['--input', '--on-error', 'Exit codes', 'npx inlay run digits.onnx'])
      expect(out).toContain(word);
  });

  it.each([
    ['an input of no known format', ['--input', 'in.txt', '--output', 'o.npz']],
    ['an output of no known format', ['--input', 'in.npy', '--output', 'o.csv']],
    ['no output', ['--input', 'in.npy']],
    ['a map without an input', ['--input', 'in.npy', '--output', 'o.npz', '--map', 'x']],
    ['no concurrency at all', ['--input', 'in.npy', '--output', 'o.npz', '--concurrency', '0']],
    ['half a row', ['--input', 'in.npy', '--output', 'o.npz', '--batch-rows', '0.5']],
    ['an unknown policy', ['--input', 'in.npy', '--output', 'o.npz', '--on-error', 'ask']],
    ['an unknown device', ['--input', 'in.npy', '--output', 'o.npz', '--device', '']],
  ])('refuses %s', async (_, args) => {
    expect((await say(digits, ...args)).code).toBe(2);
  });

  it('names files that are not there', async () => {
    const missing = await say(digits, '--input', 'in.npy', '--output', 'o.npz');
    expect(missing.code).toBe(1);
    expect(missing.err).toContain('in.npy cannot be opened');
    const model = await say('no.onnx', '--input', 'in.npy', '--output', 'o.npz');
    expect(model.err).toContain('ERR_INLAY_MODEL_NOT_FOUND');
    expect((await say(digits, '--input', 'o.npz', '--output', 'o.npz')).err).toContain(
      '--output is the input',
    );
  });
});
