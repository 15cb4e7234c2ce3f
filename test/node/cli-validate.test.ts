import { readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import type { ModelProto, NodeProto, TensorProto } from '../../src/onnx/messages.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { validateModel, type Problem } from '../../src/onnx/validate.ts';
import { temporaryDirectory } from './server-fixture.ts';

interface Validated {
  readonly errors: number;
  readonly warnings: number;
  readonly problems: readonly Problem[];
}

async function validate(
  cwd: string,
  ...args: readonly string[]
): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCommand(['validate', ...args], {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: {},
    cwd,
    interrupted: () => Promise.resolve(),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

function reluModel(): ModelProto {
  const graph = createGraph({ name: 'g', opset: 17 });
  graph.input('x', 'float32', [2]);
  graph.node('Relu', ['x'], {}, { outputs: 'y', name: 'relu' });
  graph.output('y', 'float32', [2]);
  return graph.toModel();
}

const change = (edit: (graph: ModelProto['graph']) => ModelProto['graph']): Uint8Array => {
  const model = reluModel();
  return encodeModel({ ...model, graph: edit(model.graph) });
};
const external = (location: string): Uint8Array => {
  const w: TensorProto = {
    name: 'w',
    dims: [2],
    dataType: 1,
    dataLocation: 1,
    externalData: [{ key: 'location', value: location }],
  };
  return change((graph) => ({ ...graph, initializer: [...graph.initializer, w] }));
};

describe('inlay validate', () => {
  it('finds nothing in a model that is well formed', async () => {
    const cwd = await temporaryDirectory();
    await writeFile(join(cwd, 'a.onnx'), encodeModel(reluModel()));
    expect(await validate(cwd, 'a.onnx')).toEqual({ code: 0, out: 'a.onnx is well formed', err: '' });
  });

  it('lists everything that is wrong, and ends with 1', async () => {
    const cwd = await temporaryDirectory();
    const stray: NodeProto = { opType: '', input: ['nothing'], output: ['z'], attribute: [] };
    await writeFile(
      join(cwd, 'a.onnx'),
      change((graph) => ({ ...graph, node: [...graph.node, stray] })),
    );
    const { code, out } = await validate(cwd, 'a.onnx');
    expect(code).toBe(1);
    expect(out).toContain('reads "nothing", which nothing defines');
    expect(out).toContain('a.onnx has 2 errors and 1 warning');
    const json = JSON.parse((await validate(cwd, 'a.onnx', '--json')).out) as Validated;
    expect([json.errors, json.warnings]).toEqual([2, 1]);
    expect(json.problems.map(({ code: kind }) => kind)).toEqual([
      'operator-missing',
      'value-unknown',
      'node-unnamed',
    ]);
  });

  it('ends with 0 where there are only warnings', async () => {
    const cwd = await temporaryDirectory();
    await writeFile(
      join(cwd, 'a.onnx'),
      change((graph) => ({ ...graph, node: graph.node.map((node) => ({ ...node, name: '' })) })),
    );
    expect((await validate(cwd, 'a.onnx')).code).toBe(0);
  });

  it('looks for external data beside the model, and into it', async () => {
    const cwd = await temporaryDirectory();
    await writeFile(join(cwd, 'a.onnx'), external('w.bin'));
    const codes = async (): Promise<string[]> => {
      const { problems } = JSON.parse((await validate(cwd, 'a.onnx', '--json')).out) as Validated;
      return problems.map(({ code }) => code);
    };
    expect(await codes()).toEqual(['external-missing']);
    await writeFile(join(cwd, 'w.bin'), new Uint8Array(7));
    expect(await codes()).toEqual(['external-missing']);
    await writeFile(join(cwd, 'w.bin'), new Uint8Array(Float32Array.of(1, Number.NaN).buffer));
    expect(await codes()).toEqual(['tensor-not-finite']);
    await writeFile(join(cwd, 'w.bin'), new Uint8Array(8));
    expect(await codes()).toEqual([]);
  });

  it.each(['../outside.bin', 'link.bin'])(
    'does not follow %s out of the folder of the model',
    async (location) => {
      const cwd = await temporaryDirectory();
      const outside = join(await temporaryDirectory(), 'outside.bin');
      await writeFile(outside, new Uint8Array(8));
      await symlink(outside, join(cwd, 'link.bin'));
      await writeFile(join(cwd, 'a.onnx'), external(location));
      expect((await validate(cwd, 'a.onnx')).code).toBe(1);
    },
  );

  it('says of a file that is no model what it is', async () => {
    const cwd = await temporaryDirectory();
    await writeFile(join(cwd, 'a.onnx'), 'version https://git-lfs.github.com/spec/v1');
    const { code, err } = await validate(cwd, 'a.onnx');
    expect(code).toBe(1);
    expect(err).toContain('ERR_INLAY_MODEL_INVALID');
    expect((await validate(cwd, 'b.onnx')).err).toContain('ERR_INLAY_MODEL_NOT_FOUND');
  });
});

describe('validateModel', () => {
  const small = reluModel();
  const { graph } = small;
  const last = graph.node.at(-1) as NodeProto;
  const withNode = (node: Partial<NodeProto>): ModelProto => ({
    ...small,
    graph: { ...graph, node: [...graph.node, { ...last, output: ['more'], name: 'more', ...node }] },
  });
  it.each<[string, ModelProto]>([
    ['the model itself', small],
    ['two nodes of one name', withNode({ name: last.name ?? '' })],
    ['a value that is defined twice', withNode({ output: last.output })],
    ['a value that nothing defines', withNode({ input: last.input.map(() => 'nothing') })],
    ['a node without an operator', withNode({ opType: '' })],
    [
      'an output that nothing defines',
      { ...small, graph: { ...graph, output: [...graph.output, { name: 'nothing' }] } },
    ],
    [
      'nodes out of order',
      {
        ...small,
        graph: {
          ...graph,
          node: [{ ...last, input: last.output, output: ['more'], name: 'more' }, ...graph.node],
        },
      },
    ],
    ['nodes in a circle', withNode({ input: last.input.map(() => 'more') })],
    ['an IR version that is too new', { ...small, irVersion: 14 }],
    ['an operator set that is too new', { ...small, opsetImport: [{ version: 27 }] }],
    ['the newest operator set', { ...small, opsetImport: [{ version: 26 }], irVersion: 13 }],
  ])('agrees with onnxruntime about %s', async (_, model) => {
    const isValid = validateModel(model).every(({ severity }) => severity === 'warning');
    const isOpened = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 4 }).then(
      async (session) => {
        await session.release();
        return true;
      },
      () => false,
    );
    expect(isValid).toBe(isOpened);
  });

  it('takes a model of this package, which apps open', async () => {
    const digits = new URL('../../examples/digits/digits-1.1.0.onnx', import.meta.url);
    expect(
      validateModel(parseModel(await readFile(digits))).filter(({ severity }) => severity === 'error'),
    ).toEqual([]);
  });

  it('follows calls of functions that are longer than any stack', () => {
    const call = (callee: number): NodeProto => ({
      opType: `F${callee}`,
      domain: 'l',
      name: 'call',
      input: ['a'],
      output: ['b'],
      attribute: [],
    });
    const opsetImport = [{ version: 17 }, { domain: 'l', version: 1 }];
    const functions = Array.from({ length: 12_000 }, (_, i) => ({
      name: `F${i}`,
      domain: 'l',
      input: ['a'],
      output: ['b'],
      node: [call((i + 1) % 12_000)],
      opsetImport,
    }));
    expect(validateModel({ ...small, functions, opsetImport }).map(({ code, path }) => [code, path])).toEqual(
      [['function-recursive', 'functions[0]']],
    );
  });
});
