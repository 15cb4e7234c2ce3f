import type * as NodeFs from 'node:fs/promises';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import type { Result } from './cli-user.ts';
import { gauss } from './optimize-golden.ts';
import { temporaryDirectory } from './server-fixture.ts';

const disk = vi.hoisted(
  (): { fault: string | undefined; step: 'open' | 'writev' | 'rename'; name: string } => ({
    fault: undefined,
    step: 'writev',
    name: '',
  }),
);

// A disk that fails at one step of writing files of one name.
vi.mock('node:fs/promises', async (importOriginal) => {
  const real = await importOriginal<typeof NodeFs>();
  const fail = (step: typeof disk.step, path: string): void => {
    if (disk.fault === undefined || disk.step !== step || !path.includes(disk.name)) return;
    throw Object.assign(new Error(`${disk.fault}: injected`), { code: disk.fault });
  };
  return {
    ...real,
    open: async (...args: Parameters<typeof real.open>) => {
      const path = String(args[0]);
      if (args[1] === 'wx') fail('open', path);
      const file = await real.open(...args);
      if (args[1] !== 'wx') return file;
      const { writev } = file;
      return Object.assign(file, {
        writev: async (...given: Parameters<typeof writev>) => {
          fail('writev', path);
          return await writev.apply(file, given);
        },
      });
    },
    rename: async (from: string, to: string) => {
      fail('rename', to);
      await real.rename(from, to);
    },
  };
});
vi.mock('../../src/optimize-node/target.ts', () => import('./optimize-fixture.ts'));

const width = 64;
let cwd = '';
const outputs = ['out.onnx', 'r.md', 'r.html', 'r.json', 'golden.json'] as const;

beforeEach(async () => {
  Object.assign(disk, { fault: undefined });
  cwd = await temporaryDirectory();
  const graph = createGraph({ name: 'product', opset: 17 });
  graph.input('x', 'float32', ['n', width]);
  graph.initializer('w', new Tensor('float32', [width, width], gauss(width * width)));
  graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n', width]);
  await writeFile(join(cwd, 'model.onnx'), encodeModel(graph.toModel()));
  for (const name of outputs) await writeFile(join(cwd, name), `the old ${name}`);
});

async function inlay(...args: readonly string[]): Promise<Result> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await runCommand(args, {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: {},
    cwd,
    interrupted: () => Promise.resolve(),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

const commands: Readonly<Record<string, readonly string[]>> = {
  optimize: [
    ...[
      'optimize',
      'model.onnx',
      '-o',
      'out.onnx',
      '--technique',
      'int8-row',
      '--runs',
      '1',
      '--samples',
      '2',
    ],
    ...['--min-speedup', '0', '--max-size', '1', '--min-sqnr', '1'],
    ...['--report', 'r.md', '--report', 'r.html', '--report', 'r.json', '--golden-out', 'golden.json'],
  ],
  'quantize dynamic': ['quantize', 'dynamic', 'model.onnx', '-o', 'out.onnx', '--no-prepare'],
  'quantize with external data': [
    ...['quantize', 'nbits', 'model.onnx', '-o', 'out.onnx', '--external', 'always', '--no-prepare'],
  ],
  prune: ['prune', 'model.onnx', '-o', 'out.onnx', '--sparsity', '0.5', '--no-prepare'],
};

const expectOld = async (name: string): Promise<void> => {
  expect(await readFile(join(cwd, name), 'utf8')).toBe(`the old ${name}`);
  expect((await readdir(cwd)).sort()).toEqual(['model.onnx', ...outputs].sort());
};

describe('a disk that fails', () => {
  it.each(
    Object.keys(commands).flatMap((command) =>
      (['open', 'writev', 'rename'] as const).map((step) => [command, step] as const),
    ),
  )('under inlay %s at %s leaves the old model and no litter', async (command, step) => {
    Object.assign(disk, { fault: 'ENOSPC', step, name: 'out.onnx' });
    const { code, err } = await inlay(...(commands[command] as readonly string[]));
    expect([code, err]).toEqual([1, expect.stringContaining('ERR_INLAY_STORE_FULL')]);
    await expectOld('out.onnx');
  });

  it.each([
    ['r.md', 'ENOSPC', 'ERR_INLAY_STORE_FULL'],
    ['r.html', 'EACCES', 'ERR_INLAY_STORE_READ_ONLY'],
    ['r.json', 'EIO', 'ERR_INLAY_STORE_IO'],
    ['golden.json', 'ENOSPC', 'ERR_INLAY_STORE_FULL'],
  ])(
    'under inlay optimize while %s is written (%s) leaves the old one and the old model',
    async (name, fault, code) => {
      Object.assign(disk, { fault, step: 'writev', name });
      const result = await inlay(...(commands['optimize'] as readonly string[]));
      expect([result.code, result.err]).toEqual([1, expect.stringContaining(code)]);
      await expectOld(name);
      await expectOld('out.onnx');
    },
  );
});

describe('a folder in the place of an output', () => {
  it.each([
    ['out.onnx', 'quantize dynamic'],
    ['out.onnx', 'optimize'],
    ['golden.json', 'optimize'],
    ['r.md', 'optimize'],
  ])('%s of inlay %s is an error, and stays with what is in it', async (name, command) => {
    await rm(join(cwd, name));
    await mkdir(join(cwd, name));
    await writeFile(join(cwd, name, 'mine'), 'mine');
    const { code, err } = await inlay(...(commands[command] as readonly string[]));
    expect([code, err]).toEqual([1, expect.stringContaining('ERR_INLAY_STORE_IO')]);
    expect(await readdir(join(cwd, name))).toEqual(['mine']);
    expect((await readdir(cwd)).sort()).toEqual(['model.onnx', ...outputs].sort());
  });
});

describe('a folder that is not there', () => {
  it('is not made, and nothing is written', async () => {
    const { code, err } = await inlay(
      'quantize',
      'dynamic',
      'model.onnx',
      '-o',
      'none/out.onnx',
      '--no-prepare',
    );
    expect([code, err]).toEqual([1, expect.stringContaining('its folder is not there')]);
    await expectOld('out.onnx');
  });
});
