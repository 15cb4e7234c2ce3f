import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { openSamples, readSamples } from '../../src/cli/optimize-inputs.ts';
import { bytesOf, npy } from './cli-data-fixture.ts';
import type { Result } from './cli-user.ts';
import { gauss } from './optimize-golden.ts';
import { temporaryDirectory } from './server-fixture.ts';

const width = 64;
const count = 20;

/** Two products and an activation. */
function perceptron(): Uint8Array {
  const graph = createGraph({ name: 'perceptron', opset: 17 });
  graph.input('x', 'float32', ['batch', width]);
  const v = graph.initializer('v', new Tensor('float32', [width, width], gauss(width * width, 1)));
  const w = graph.initializer('w', new Tensor('float32', [width, 8], gauss(width * 8, 2)));
  const hidden = graph.node('Relu', [graph.node('MatMul', ['x', v], {}, { name: 'first' })]);
  graph.node('MatMul', [hidden, w], {}, { outputs: 'y', name: 'second' });
  graph.output('y', 'float32', ['batch', 8]);
  return encodeModel(graph.toModel());
}

let cwd: string;
beforeEach(async () => {
  cwd = await temporaryDirectory();
  await writeFile(join(cwd, 'model.onnx'), perceptron());
  const data = bytesOf(gauss(count * width, 7));
  await writeFile(join(cwd, 'x.npy'), npy({ descr: '<f4', shape: [count, width], data }));
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

const ops = async (name: string): Promise<readonly (string | undefined)[]> =>
  parseModel(new Uint8Array(await readFile(join(cwd, name)))).graph.node.map(({ opType }) => opType);

const model = ['model.onnx', '-o', 'out.onnx'] as const;

describe('inlay quantize', () => {
  it.each<[string, readonly string[], string]>([
    ['dynamic', [], 'MatMulInteger'],
    ['dynamic', ['--mode', 'tensor', '--weights', 'uint8', '--no-per-channel'], 'DynamicQuantizeLinear'],
    ['static', ['--calib', 'x.npy'], 'DequantizeLinear'],
    ['nbits', ['--bits', '8', '--block-size', '32', '--symmetric'], 'MatMulNBits'],
    ['float16', [], 'Cast'],
  ])('%s %j writes a smaller model that answers nearly the same', async (technique, flags, op) => {
    const made = await inlay('quantize', technique, ...model, ...flags);
    expect([made.code, made.err]).toEqual([0, expect.stringContaining('rewriting the model')]);
    expect(made.out).toMatch(/MatMul +2 /);
    expect(made.out).toMatch(/Wrote out\.onnx: [\d.]+ kB instead of 18\.\d kB \(0\.\d+\)$/);
    expect(await ops('out.onnx')).toContain(op);
    const compared = await inlay(
      'compare',
      'model.onnx',
      'out.onnx',
      '--inputs',
      'x.npy',
      '--runs',
      '1',
      '--min-sqnr',
      '20',
    );
    expect(compared.code).toBe(0);
  });

  it('leaves what is excluded, says why, and refuses what is quantized already', async () => {
    const { code, out } = await inlay(
      'quantize',
      'dynamic',
      ...model,
      '--no-prepare',
      '--exclude',
      '/^fir/',
      '--json',
    );
    const said = JSON.parse(out) as { changed: { node: string }[]; kept: { node: string; reason: string }[] };
    expect(code).toBe(0);
    expect(said.changed.map(({ node }) => node)).toEqual(['second']);
    expect(said.kept.find(({ node }) => node === 'first')?.reason).toContain('excluded');
    const again = await inlay('quantize', 'dynamic', 'out.onnx', '-o', 'twice.onnx');
    expect([again.code, again.err]).toEqual([1, expect.stringContaining('quantized already')]);
    expect(existsSync(join(cwd, 'twice.onnx'))).toBe(false);
  });

  it('refuses a wrong command line with code 64, since 2 says something of the model', async () => {
    for (const args of [['static'], ['nbits', '--bits', '5'], ['nbits', '--block-size', '20'], ['float8']]) {
      const [technique = '', ...flags] = args;
      expect((await inlay('quantize', technique, ...model, ...flags)).code).toBe(64);
    }
  });

  it('writes nothing where nothing changes, with code 2, unless it is forced to', async () => {
    const nothing = ['quantize', 'nbits', ...model, '--exclude', '/./'] as const;
    const { code, out } = await inlay(...nothing);
    expect([code, out]).toEqual([
      2,
      expect.stringMatching(
        /^Nothing in the model is changed\.[^]*out\.onnx was not written; --force writes it/,
      ),
    ]);
    expect(existsSync(join(cwd, 'out.onnx'))).toBe(false);
    const said = await inlay(...nothing, '--json');
    expect([said.code, Object.keys(JSON.parse(said.out) as object)]).toEqual([
      2,
      expect.not.arrayContaining(['saved']),
    ]);
    expect((await inlay(...nothing, '--force')).code).toBe(0);
    expect(await ops('out.onnx')).toEqual(['MatMul', 'Relu', 'MatMul']);
  });

  it('takes the ranges of last time if the data is the same, and never writes over what are no ranges', async () => {
    const run = ['quantize', 'static', ...model, '--calib', 'x.npy', '--calibration', 'ranges.json'] as const;
    expect((await inlay(...run)).err).toMatch(/calibrating: 16 samples/);
    const first = await readFile(join(cwd, 'ranges.json'), 'utf8');
    const again = await inlay(...run);
    expect([again.code, again.err]).toEqual([0, expect.not.stringContaining('16 samples')]);
    const other = npy({ descr: '<f4', shape: [count, width], data: bytesOf(gauss(count * width, 8)) });
    await writeFile(join(cwd, 'x.npy'), other);
    expect((await inlay(...run)).err).toMatch(/of other data.*\n[^]*calibrating: 16 samples/);
    expect(await readFile(join(cwd, 'ranges.json'), 'utf8')).not.toBe(first);
    await writeFile(join(cwd, 'ranges.json'), '{"mine":1}');
    expect(await inlay(...run)).toMatchObject({
      code: 1,
      err: expect.stringContaining('ERR_INLAY_FEED_VALUE'),
    });
    expect(await readFile(join(cwd, 'ranges.json'), 'utf8')).toBe('{"mine":1}');
  });

  it('says which file is no model', async () => {
    const { code, err } = await inlay('quantize', 'float16', 'x.npy', '-o', 'out.onnx');
    expect([code, err]).toEqual([1, expect.stringContaining('ERR_INLAY_MODEL_')]);
  });
});

describe('inlay compare', () => {
  it('shows outputs, speed and the worst layers', async () => {
    await inlay('quantize', 'dynamic', ...model, '--mode', 'tensor', '--no-prepare');
    const { code, out, err } = await inlay(
      ...[
        'compare',
        'model.onnx',
        'out.onnx',
        '--inputs',
        'x.npy',
        '--layers',
        '--batch',
        '1',
        '4',
        '--runs',
        '1',
      ],
    );
    expect([code, err]).toEqual([0, 'comparing answers …\nmeasuring speed …\ncomparing layers …']);
    expect(out).toMatch(/^samples +20\nsize .*\nspeed, batch 1 .*×.*\nspeed, batch 4 .*×/);
    expect(out).toMatch(/rows +depend on those beside them: [\d.]+ dB/);
    expect(out).toMatch(/\noutput +dtype +SQNR +cosine +max diff +agreement\ny +float32 +\d\d\.\d dB/);
    expect(out).toMatch(/\nlayer +operator +SQNR/);
  });

  it('ends with code 2 where answers are too far apart, as JSON too', async () => {
    await inlay('quantize', 'nbits', ...model);
    const flags = [
      '--inputs',
      'x.npy',
      '--runs',
      '1',
      '--min-sqnr',
      '80',
      '--min-agreement',
      '0.1',
      '--samples',
      '5',
    ];
    const { code, out, err } = await inlay('compare', 'model.onnx', 'out.onnx', ...flags, '--json');
    const said = JSON.parse(out) as { missed: string[]; samples: number; sizeRatio: number };
    expect([code, err]).toEqual([2, '']);
    expect([said.samples, said.missed]).toEqual([5, [expect.stringMatching(/dB is below 80 dB/)]]);
  });

  it('says which of two models is broken, and refuses one that takes other inputs', async () => {
    await writeFile(join(cwd, 'short.onnx'), perceptron().slice(0, 9000));
    const samples = ['--inputs', 'x.npy'] as const;
    const broken = await inlay('compare', 'model.onnx', 'short.onnx', ...samples);
    expect([broken.code, broken.err]).toEqual([1, expect.stringContaining('short.onnx: The model ends')]);
    await inlay('quantize', 'float16', ...model, '--no-keep-io');
    const other = await inlay('compare', 'model.onnx', 'out.onnx', ...samples);
    expect(other.code).toBe(1);
    expect(other.err).toMatch(/do not take the same inputs: the first takes x float32, the other x float16/);
  });

  it('finds a model equal to itself', async () => {
    const { code, out } = await inlay(
      ...['compare', 'model.onnx', 'model.onnx', '--inputs', 'x.npy', '--runs', '1', '--min-sqnr', '100'],
    );
    expect([code, out]).toEqual([0, expect.stringMatching(/y +float32 +identical/)]);
  });
});

describe('inlay prune', () => {
  const prune = ['prune', ...model, '--sparsity', '0.5'] as const;

  it('writes a model that compresses better, and says that it is no faster', async () => {
    const { code, out } = await inlay(...prune, '--inputs', 'x.npy', '--min-sqnr', '1');
    expect(code).toBe(0);
    expect(out).toContain('it runs no faster');
    expect(Number(/gzip .*\((0\.\d+)\)/.exec(out)?.[1])).toBeLessThan(0.7);
    expect(out).toMatch(/answers +\d+\.\d dB, agreement/);
    expect(existsSync(join(cwd, 'out.onnx'))).toBe(true);
  });

  it('says that the file stays as large, and of weights that are stored twice', async () => {
    const graph = createGraph({ name: 'tied', opset: 17 });
    graph.input('x', 'float32', ['batch', width]);
    const w = graph.initializer('w', new Tensor('float32', [width, width], gauss(width * width, 3)));
    const product = graph.node('MatMul', ['x', w], {}, { name: 'product' });
    graph.node('Add', [product, graph.node('ReduceSum', [w], {}, { name: 'sum' })], {}, { outputs: 'y' });
    graph.output('y', 'float32', ['batch', width]);
    await writeFile(join(cwd, 'model.onnx'), encodeModel(graph.toModel()));
    const { code, out } = await inlay(...prune, '--no-prepare');
    expect([code, out]).toEqual([0, expect.stringMatching(/as large as before, on the device/)]);
    expect(out).toContain('The weights "w" are stored twice: pruned, and as they were for node "sum".');
    expect(Number(/file +([\d.]+) kB/.exec(out)?.[1])).toBeGreaterThan(32);
  });

  it('writes nothing where there is nothing to prune, with code 2', async () => {
    const { code, out } = await inlay(...prune, '--exclude', '/./');
    expect([code, out]).toEqual([2, expect.stringMatching(/out\.onnx was not written\.$/)]);
    expect(existsSync(join(cwd, 'out.onnx'))).toBe(false);
  });

  it('writes nothing where too much is lost, with code 2', async () => {
    const { code, out } = await inlay(...prune, '--inputs', 'x.npy', '--min-sqnr', '60');
    expect([code, out]).toEqual([2, expect.stringMatching(/missed: .*\nout\.onnx was not written\.$/)]);
    expect(existsSync(join(cwd, 'out.onnx'))).toBe(false);
  });

  it('needs samples for a gate', async () => {
    const { code, err } = await inlay(...prune, '--min-sqnr', '60');
    expect([code, err]).toEqual([1, expect.stringContaining('--inputs')]);
  });
});

describe('samples for trying models out', () => {
  const signature = {
    inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', width] }],
    outputs: [],
  } as const;

  it('are one row each, again at each reading, and joined where that is asked for', async () => {
    const samples = openSamples(join(cwd, 'x.npy'), signature, { limit: 6, batchRows: 4 });
    for (const _ of ['first', 'second']) {
      const shapes: (readonly number[] | undefined)[] = [];
      for await (const { x } of samples) shapes.push(x?.shape);
      expect(shapes).toEqual([
        [4, width],
        [2, width],
      ]);
    }
    const rows = await readSamples(join(cwd, 'x.npy'), signature);
    expect([rows.length, rows[0]?.['x']?.shape]).toEqual([count, [1, width]]);
  });

  it('name the row that does not fit, and a file without any', async () => {
    await writeFile(join(cwd, 'bad.jsonl'), '{"x": [1, 2]}\n');
    await expect(readSamples(join(cwd, 'bad.jsonl'), signature)).rejects.toThrow(/^Line 1 of bad\.jsonl: /);
    await writeFile(join(cwd, 'none.jsonl'), '\n');
    await expect(readSamples(join(cwd, 'none.jsonl'), signature)).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_MISSING',
    });
  });
});
