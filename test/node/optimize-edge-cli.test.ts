import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { openModelFile, saveModelFile } from '../../src/optimize-node/model-file.ts';
import type { Result } from './cli-user.ts';
import { floats, opsOf, runOnce, sqnrDb } from './optimize-golden.ts';
import { temporaryDirectory } from './server-fixture.ts';
import { float32, model, product, sizeOf } from './optimize-edge-fixture.ts';

async function inlay(cwd: string, ...args: readonly string[]): Promise<Result> {
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

async function folderWith(float: ModelProto | Uint8Array): Promise<string> {
  const cwd = await temporaryDirectory();
  await writeFile(join(cwd, 'm.onnx'), float instanceof Uint8Array ? float : encodeModel(float));
  return cwd;
}

const quantize = ['quantize', 'dynamic', 'm.onnx', '-o', 'out.onnx'] as const;

describe('inlay quantize', () => {
  it('says of a file that ends early where it ends', async () => {
    const bytes = encodeModel(product());
    const { code, err } = await inlay(await folderWith(bytes.subarray(0, bytes.length - 200)), ...quantize);
    expect([code, err]).toEqual([1, expect.stringContaining('ERR_INLAY_MODEL_TRUNCATED')]);
    expect(err).toMatch(/byte \d/);
  });

  it.each([
    ['opset', { opsetImport: [{ domain: '', version: 27 }] }, /opset|operator set/],
    ['IR version', { irVersion: 14 }, /IR version/],
  ])('says of a model of a newer %s what is supported', async (_case, change, words) => {
    const cwd = await folderWith({ ...product(), ...change });
    const { out, err } = await inlay(cwd, ...quantize);
    expect(`${out}\n${err}`).toMatch(words);
    const checked = await inlay(cwd, 'validate', 'm.onnx');
    expect([checked.code, checked.out]).toEqual([1, expect.stringMatching(/takes \d+ to \d+/)]);
  });

  it('carries a model of opset 9 over, and refuses it where that is not asked for', async () => {
    const cwd = await folderWith({ ...product(), opsetImport: [{ domain: '', version: 9 }] });
    expect((await inlay(cwd, ...quantize)).code).toBe(0);
    const { code, err } = await inlay(cwd, ...quantize, '--no-prepare');
    expect([code, err]).toEqual([1, expect.stringMatching(/opset 9, and quantization needs 11 or later/)]);
  });

  it('puts the nodes of local functions into the graph, and refuses them where it may not', async () => {
    const float = product();
    const called: ModelProto = {
      ...float,
      irVersion: 8,
      opsetImport: [...float.opsetImport, { domain: 'local', version: 1 }],
      graph: {
        ...float.graph,
        node: [
          {
            input: ['x', 'w'],
            output: ['y'],
            name: 'call',
            opType: 'Multiply',
            domain: 'local',
            attribute: [],
          },
        ],
      },
      functions: [
        {
          name: 'Multiply',
          domain: 'local',
          input: ['a', 'b'],
          output: ['c'],
          attribute: [],
          attributeProto: [],
          node: [{ input: ['a', 'b'], output: ['c'], opType: 'MatMul', attribute: [] }],
          opsetImport: float.opsetImport,
        },
      ],
    };
    const cwd = await folderWith(called);
    expect((await inlay(cwd, ...quantize)).code).toBe(0);
    expect(opsOf((await openModelFile(join(cwd, 'out.onnx'))).model)).toContain('MatMulInteger');
    const { code, err } = await inlay(cwd, ...quantize, '--no-prepare');
    expect([code, err]).toEqual([1, expect.stringContaining('the function "Multiply"')]);
  });

  it('rewrites around an operator that onnxruntime does not know, and says that nothing was tried', async () => {
    const cwd = await folderWith(
      model(
        (graph) => {
          graph.input('x', 'float32', ['n', 32]);
          graph.initializer('w', float32([32, 24]));
          graph.node(
            'Mystery',
            [graph.node('MatMul', ['x', 'w'])],
            {},
            { outputs: 'y', domain: 'org.example' },
          );
          graph.output('y', 'float32');
        },
        { '': 17, 'org.example': 1 },
      ),
    );
    const { code, out } = await inlay(cwd, ...quantize);
    expect([code, out]).toEqual([0, expect.stringContaining('Going by what the file says')]);
    const { model: small } = await openModelFile(join(cwd, 'out.onnx'));
    expect(opsOf(small)).toEqual(expect.arrayContaining(['MatMulInteger', 'Mystery']));
  });

  it('writes a model with external data elsewhere so that it runs without the original', async () => {
    const cwd = await temporaryDirectory();
    await mkdir(join(cwd, 'a'));
    await mkdir(join(cwd, 'b'));
    const float = product();
    await saveModelFile(join(cwd, 'a/m.onnx'), float, { external: 'always' });
    for (const external of ['never', 'always']) {
      const made = await inlay(
        cwd,
        'quantize',
        'dynamic',
        'a/m.onnx',
        '-o',
        'b/out.onnx',
        '--external',
        external,
      );
      expect(made.code).toBe(0);
    }
    await rename(join(cwd, 'a'), join(cwd, 'gone'));
    const { model: small } = await openModelFile(join(cwd, 'b/out.onnx'));
    const feeds = { x: floats([3, 32]) };
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(25);
  });
});

const varint = (value: number): number[] =>
  value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];

describe('a model of 2.5 GB', () => {
  it('is inspected without reading its weights', async (context) => {
    const cwd = await temporaryDirectory();
    const dims = [1000, 625_000];
    const bytesOfWeights = 4 * sizeOf(dims);
    // A graph of one constant, whose elements are a hole at the end of the file.
    const tensor = [...dims.flatMap((length) => [0x08, ...varint(length)]), 0x10, 1, 0x42, 1, 0x77, 0x4a];
    const tensorHead = [...tensor, ...varint(bytesOfWeights)];
    const graph = [0x2a, ...varint(tensorHead.length + bytesOfWeights), ...tensorHead];
    const opset = [0x42, 2, 0x10, 17];
    const head = Uint8Array.of(0x08, 8, ...opset, 0x3a, ...varint(graph.length + bytesOfWeights), ...graph);
    const file = await open(join(cwd, 'm.onnx'), 'w');
    await file.write(head);
    await file.truncate(head.length + bytesOfWeights);
    const { blocks } = await file.stat();
    await file.close();
    context.skip(blocks * 512 > 1e6, 'this disk has no sparse files');

    const { model: structure, sizeBytes } = await openModelFile(join(cwd, 'm.onnx'), { weights: 'leave' });
    expect([sizeBytes, structure.graph.initializer[0]?.dims]).toEqual([head.length + bytesOfWeights, dims]);
    const { code, out } = await inlay(cwd, 'inspect', 'm.onnx', '--json');
    expect([code, JSON.parse(out)]).toEqual([
      0,
      expect.objectContaining({
        sizeBytes,
        parameters: { tensors: 1, elements: sizeOf(dims), sizeBytes: bytesOfWeights },
        externalFiles: [],
      }),
    ]);
  });
});
