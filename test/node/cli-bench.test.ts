import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { BenchReport } from '../../src/cli/bench.ts';
import { runCommand } from '../../src/cli/program.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { temporaryDirectory } from './server-fixture.ts';

const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));
const digits = fileURLToPath(new URL('../../examples/digits/digits-1.1.0.onnx', import.meta.url));

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function bench(...args: string[]): Promise<Result> {
  const child = spawn(process.execPath, [main, 'bench', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number]>,
  ]);
  return { code, out: out.trimEnd(), err: err.trimEnd() };
}

/** The same in this process, which is quicker but has no worker script beside its sources. */
async function run(...args: string[]): Promise<Result> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await runCommand(['bench', ...args], {
    print: (line) => out.push(line),
    printError: (line) => err.push(line),
    env: {},
    cwd: process.cwd(),
    interrupted: () => Promise.resolve(),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

async function report(...args: string[]): Promise<BenchReport> {
  const { code, out, err } = await bench(...args, '--json');
  if (code !== 0) throw new Error(`inlay bench ends with ${code}: ${err}`);
  return JSON.parse(out) as BenchReport;
}

/** `y = x · 2`, float32 [batch, width]. */
async function double(): Promise<string> {
  const graph = createGraph({ name: 'double', opset: 17 });
  graph.input('x', 'float32', ['batch', 'width']);
  graph.initializer('two', new Tensor('float32', [1], new Float32Array([2])));
  graph.node('Mul', ['x', 'two'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 'width']);
  const path = join(await temporaryDirectory(), 'double.onnx');
  await writeFile(path, encodeModel(graph.toModel()));
  return path;
}

describe('inlay bench', () => {
  it('measures Inlay and raw onnxruntime-node in turns under each load', async () => {
    const args = ['--against', 'raw', '--concurrency', '1,4', '--seconds', '0.2'];
    const { model, feeds, secondsEach, machine, versions, served, figures } = await report(digits, ...args);
    expect({ model, secondsEach }).toEqual({ model: 'digits-1.1.0.onnx', secondsEach: 0.2 });
    expect(feeds).toEqual([{ name: 'image', dtype: 'float32', shape: [1, 1, 28, 28] }]);
    expect(machine).not.toBe('');
    expect(versions).toMatchObject({ node: process.versions.node });
    expect(served).toMatchObject({ backend: 'onnxruntime-node', provider: 'cpu' });
    expect(served.queue.slots.length).toBeGreaterThan(0);
    for (const concurrency of [1, 4]) {
      const [inlay, ...raws] = figures.filter((own) => own.concurrency === concurrency);
      expect(inlay?.name).toBe('inlay');
      expect(raws[0]?.name).toBe('raw, 1 thread');
      for (const { callsPerSecond, p50Ms, p99Ms, calls, rounds, ratio } of [inlay!, ...raws]) {
        expect(rounds).toHaveLength(5);
        expect(calls).toBeGreaterThanOrEqual(5 * concurrency);
        expect(callsPerSecond).toBeGreaterThan(0);
        expect(p50Ms).toBeGreaterThan(0);
        expect(p99Ms).toBeGreaterThanOrEqual(p50Ms);
        expect(ratio).toBeGreaterThan(0);
      }
      // The fastest raw setting is what all are compared with.
      expect(raws.map(({ ratio }) => ratio)).toContain(1);
    }
  });

  it('prints a table to paste, and what it was measured on', async () => {
    const { code, out, err } = await bench(digits, '--concurrency', '2', '--seconds', '0.05');
    expect({ code, err }).toEqual({ code: 0, err: 'Measuring with 2 callers …' });
    const [head, rule, row, empty, ...facts] = out.split('\n');
    expect(head).toMatch(/^\| callers \| +\| +calls\/s \| +p50 ms \| +p99 ms \|$/);
    expect(rule).toMatch(/^\| -+: \| -+ \| -+: \| -+: \| -+: \|$/);
    expect(row).toMatch(/^\| +2 \| inlay \| +[\d,.]+ \| +[\d,.]+ \| +[\d,.]+ \|$/);
    expect(empty).toBe('');
    expect(facts[0]).toBe('- `digits-1.1.0.onnx` with `image: float32 [1, 1, 28, 28]`');
    expect(facts[1]).toMatch(
      /^- served by onnxruntime-node, cpu, (inline|worker).*; (batches of up to|no batches)/,
    );
    expect(facts[2]).toContain(`node ${process.versions.node}`);
  });

  it('takes the sizes of symbolic axes, 1 where none is given', async () => {
    const path = await double();
    const { feeds } = await report(path, '--dim', 'width=3', '--concurrency', '1', '--seconds', '0.05');
    expect(feeds).toEqual([{ name: 'x', dtype: 'float32', shape: [1, 3] }]);
    const { code, out, err } = await bench(path, '--dim', 'height=3');
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toBe(
      'error: No input has an axis "height"; the symbolic axes are batch, width. (ERR_INLAY_FEED_SHAPE)',
    );
  });

  it('says what is wrong with a model that is not there', async () => {
    const { code, out, err } = await run(join(await temporaryDirectory(), 'none.onnx'));
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toContain('ERR_INLAY_MODEL_NOT_FOUND');
  });

  it.each([
    ['--concurrency', '1,zero'],
    ['--concurrency', '0'],
    ['--concurrency', ''],
    ['--seconds', '-1'],
    ['--seconds', 'soon'],
    ['--dim', 'batch'],
    ['--dim', 'batch=0'],
    ['--against', 'everyone'],
  ])('refuses %s %j', async (flag, value) => {
    const { code, out, err } = await run(digits, flag, value);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toContain(flag);
  });
});
