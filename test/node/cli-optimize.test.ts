import { readFile, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, parseModel } from '../../src/onnx/index.ts';
import type { Decision } from '../../src/optimize/decision.ts';
import { openModelFile, saveModelFile } from '../../src/optimize-node/model-file.ts';
import { temporaryDirectory } from './server-fixture.ts';
import type { Result } from './cli-user.ts';

vi.mock('../../src/optimize-node/target.ts', () => import('./optimize-fixture.ts'));

const width = 256;

function wave(length: number, step: number, scale: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => scale * Math.sin(step * i * i + i));
}

/** Two products of matrices. */
function largeProduct(): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'large', opset: 17 });
  graph.input('x', 'float32', ['batch', width]);
  const w = graph.initializer('w', new Tensor('float32', [width, 1024], wave(width * 1024, 0.37, 0.05)));
  const v = graph.initializer('v', new Tensor('float32', [1024, 8], wave(1024 * 8, 0.11, 0.01)));
  const hidden = graph.node('Relu', [graph.node('MatMul', ['x', w], {}, { name: 'wide' })]);
  graph.node('MatMul', [hidden, v], {}, { name: 'narrow', outputs: 'y' });
  graph.output('y', 'float32', ['batch', 8]);
  return encodeModel(graph.toModel());
}

let cwd: string;
beforeEach(async () => {
  cwd = await temporaryDirectory();
  await writeFile(join(cwd, 'model.onnx'), largeProduct());
  const rows = Array.from({ length: 8 }, (_, i) => JSON.stringify({ x: [...wave(width, 0.7 + i, 1)] }));
  await writeFile(join(cwd, 'samples.jsonl'), `${rows.join('\n')}\n`);
});

async function inlay(...args: readonly string[]): Promise<Result> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCommand(args, {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: {},
    cwd,
    interrupted: () => Promise.resolve(),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

const path = (name: string): string => join(cwd, name);
const optimize = [
  'optimize',
  'model.onnx',
  '-o',
  'out.onnx',
  '--inputs',
  'samples.jsonl',
  '--runs',
  '4',
] as const;

describe('inlay optimize', () => {
  it('writes a faster model, a report in each form, and golden inputs that publishing takes', async () => {
    const files = ['r.md', 'r.html', 'r.json'].flatMap((name) => ['--report', name]);
    const { code, out, err } = await inlay(...optimize, '--auto', ...files, '--golden-out', 'golden.json');
    expect([code, err]).toEqual([0, expect.stringContaining('measuring speed')]);
    expect(out).toMatch(/Candidates\ncandidate +size +1 row +SQNR/);
    expect(out).toMatch(/\nint\S+ runs .* times as fast in 2\d/);
    expect(out).toMatch(/Wrote out\.onnx: 2\d\d kB instead of 1\.\d+ MB/);
    expect(parseModel(new Uint8Array(await readFile(path('out.onnx')))).graph.node.length).toBeGreaterThan(3);
    expect(await readFile(path('r.md'), 'utf8')).toMatch(/^# Optimised: int8/);
    expect(await readFile(path('r.html'), 'utf8')).toMatch(/^<!doctype html>/);
    const decision = JSON.parse(await readFile(path('r.json'), 'utf8')) as Decision;
    expect(
      decision.attempts.find(({ outcome }) => outcome === 'chosen')?.times?.[0]?.speedup,
    ).toBeGreaterThan(1);
    const golden = JSON.parse(await readFile(path('golden.json'), 'utf8')) as {
      outputs: { y: number[][] };
    }[];
    expect(golden.map(({ outputs }) => outputs.y[0]?.length)).toEqual([8, 8, 8, 8]);
  });

  it('keeps the original with exit code 2, and writes no model, where the goal is not met', async () => {
    const { code, out } = await inlay(...optimize, '--min-speedup', '50');
    expect(code).toBe(2);
    expect(out).toContain('times as fast with 1 row, asked for are 50');
    expect(out).toMatch(
      /The original was kept: no candidate holds the goal; int8-static was not tried: .*calibration data\.\nout\.onnx was not written\.$/,
    );
    expect(existsSync(path('out.onnx'))).toBe(false);
  });

  it('keeps ranges for the next time, unless something is another then', async () => {
    const calib = ['--calib', 'samples.jsonl', '--calibration', 'ranges.json'] as const;
    const run = [
      ...optimize,
      '--technique',
      'int8-static',
      '--min-sqnr',
      '1',
      '--min-speedup',
      '0',
      ...calib,
    ];
    const first = await inlay(...run);
    expect([first.code, first.err]).toEqual([0, expect.not.stringContaining('ranges.json')]);
    const made = await readFile(path('out.onnx'));
    // Ranges that no data gives tell where they are from.
    const kept = JSON.parse(await readFile(path('ranges.json'), 'utf8')) as {
      ranges: Record<string, unknown>;
    };
    await writeFile(path('ranges.json'), JSON.stringify({ ...kept, ranges: { ...kept.ranges, x: [-9, 9] } }));
    const second = await inlay(...run);
    expect([second.code, second.err]).toEqual([
      0,
      expect.stringMatching(/note: Ranges are those of .*ranges/),
    ]);
    expect((await readFile(path('out.onnx'))).equals(made)).toBe(false);
    const third = await inlay(...run, '--calib-method', 'minmax');
    expect([third.code, third.err]).toEqual([0, expect.stringContaining('it is made anew')]);
  });

  it('takes the technique that is named, as JSON', async () => {
    const { code, out } = await inlay(...optimize, '--technique', 'fp16', '--min-speedup', '0', '--json');
    const decision = JSON.parse(out) as Decision & { isChanged: boolean; saved: { sizeBytes: number } };
    expect([code, decision.chosen, decision.isChanged]).toEqual([0, 'fp16', true]);
    expect(decision.attempts.map(({ name }) => name)).toEqual(['fp16']);
    expect(decision.attempts[0]?.sizeRatio).toBeLessThan(0.51);
  });

  it.each(['int8-conv', 'int8-block128', 'int4-block32', 'int4-block128'])(
    'takes %s by the name that reports call it',
    async (name) => {
      const { out } = await inlay(...optimize, '--technique', name, '--json');
      expect((JSON.parse(out) as Decision).attempts[0]?.name).toBe(name);
    },
  );

  it('tells the size of a model with external data with its data', async () => {
    const { model } = await openModelFile(path('model.onnx'));
    await saveModelFile(path('split.onnx'), model, { external: 'always' });
    const [, , ...rest] = optimize;
    const { out } = await inlay(
      'optimize',
      'split.onnx',
      ...rest,
      '--technique',
      'fp16',
      '--min-speedup',
      '0',
    );
    expect(out).toMatch(/Wrote out\.onnx: 5\d\d kB instead of 1\.\d+ MB$/);
  });

  it('tells of a model that is quantized already', async () => {
    await inlay('quantize', 'dynamic', 'model.onnx', '-o', 'small.onnx');
    const [, , ...rest] = optimize;
    expect((await inlay('optimize', 'small.onnx', ...rest)).out).toContain('quantized already');
  });

  it('tells of names to exclude that no node has', async () => {
    const { err } = await inlay(...optimize, '--technique', 'fp16', '--exclude', 'narrow', 'nothing');
    expect(err).toMatch(/note: No node, and no output of one, is called nothing,/);
    expect(err).not.toContain('called narrow');
  });

  it('leaves excluded nodes as they are', async () => {
    const flags = [
      '--technique',
      'int8-dynamic',
      '--min-speedup',
      '0',
      '--exclude',
      'narrow',
      '--json',
    ] as const;
    const { out } = await inlay(...optimize, ...flags);
    const { attempts } = JSON.parse(out) as Decision;
    expect(attempts[0]?.changed).toBe(1);
  });

  it.each([
    [['--technique', 'int3'], 64, 'int8-row'],
    [['--auto', '--technique', 'fp16'], 64, 'cannot be used with'],
    [['--target', 'moon'], 64, 'node-cpu'],
    [['--batch', '0'], 64, 'whole number'],
    [['--min-agreement', '3'], 64, 'from 0 to 1'],
    [['--report', 'r.pdf'], 64, '.html'],
    [['--exclude', '/(/'], 1, 'is no pattern'],
    [['--technique', 'int8-static'], 1, 'calibration data'],
    [['--inputs', 'nothing.npz'], 1, 'nothing.npz'],
    [['-o', 'model.onnx'], 1, 'the model itself'],
    [['-o', 'nowhere/out.onnx'], 1, 'folder is not there'],
    [['--report', 'nowhere/r.md'], 1, 'folder is not there'],
    [['--calibration', 'ranges.json'], 1, 'give both'],
    [['--calibration', 'samples.jsonl'], 64, '.json'],
  ])('refuses %j', async (flags, code, message) => {
    const result = await inlay(...optimize, ...flags);
    expect([result.code, result.err]).toEqual([code, expect.stringContaining(message)]);
  });
});
