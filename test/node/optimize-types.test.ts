import { afterAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../src/core/errors.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { signatureOf } from '../../src/onnx/signature.ts';
import { compareModels } from '../../src/optimize/compare-models.ts';
import { prepareModel } from '../../src/optimize/prepare.ts';
import { inferTypes } from '../../src/optimize/types.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { gauss } from './optimize-golden.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

/** Convolution, normalization, and a product whose shape follows from constants. */
function network(): ModelProto {
  const graph = createGraph({ name: 'network', opset: 17 });
  const floats = (...shape: number[]): Tensor =>
    new Tensor(
      'float32',
      shape,
      gauss(
        shape.reduce((a, b) => a * b, 1),
        shape.length,
      ),
    );
  graph.input('x', 'float32', ['batch', 3, 8, 8]);
  graph.initializer('kernel', floats(64, 3, 3, 3));
  for (const name of ['scale', 'shift', 'mean']) graph.initializer(name, floats(64));
  graph.constant('variance', new Tensor('float32', [64], new Float32Array(64).fill(0.5)));
  graph.node('Conv', ['x', 'kernel'], { strides: [2, 2] }, { outputs: 'conv' });
  graph.node('BatchNormalization', ['conv', 'scale', 'shift', 'mean', 'variance'], {}, { outputs: 'normal' });
  graph.initializer('flat', tensorFrom('int64', [-1, 576]));
  graph.node('Reshape', ['normal', 'flat'], {}, { outputs: 'rows' });
  graph.initializer('weights', floats(576, 5));
  graph.node('MatMul', ['rows', 'weights'], {}, { outputs: 'product' });
  graph.node('ArgMax', ['product'], { axis: 1, keepdims: 0 }, { outputs: 'label' });
  graph.output('product', 'float32', ['batch', 5]);
  graph.output('label', 'int64', ['batch']);
  return graph.toModel();
}

function branches(): ModelProto {
  const graph = createGraph({ name: 'branches', opset: 17 });
  graph.input('x', 'float32', ['n', 32]);
  graph.input('flag', 'bool', []);
  graph.initializer('w', new Tensor('float32', [32, 32], gauss(1024)));
  const branch = (name: string, op: string): ReturnType<typeof graph.subgraph> => {
    const body = graph.subgraph(name);
    // Folded into each of the branches.
    const transposed = body.node('Transpose', ['w']);
    body.node(op, [body.node('MatMul', ['x', transposed])], {}, { outputs: `${name}_y` });
    body.output(`${name}_y`, 'float32', ['n', 32]);
    return body;
  };
  const bodies = { then_branch: branch('then', 'Neg'), else_branch: branch('else', 'Relu') };
  graph.output(graph.node('If', ['flag'], bodies, { outputs: 'y' }), 'float32', ['n', 32]);
  return graph.toModel();
}

describe('types of values', () => {
  it('are those that the library infers, with names of free axes', async () => {
    const types = await inferTypes(network(), runtime);
    expect(types.get('conv')).toEqual({ dtype: 'float32', shape: ['batch', 64, 3, 3] });
    expect(types.get('rows')?.shape?.at(1)).toBe(576);
    expect(types.get('label')?.dtype).toBe('int64');
    expect(types.get('kernel')).toEqual({ dtype: 'float32', shape: [64, 3, 3, 3] });
  });

  it('need no weights', async () => {
    const model = network();
    const { graph } = model;
    const initializer = graph.initializer.map((constant) =>
      constant.name === 'weights'
        ? {
            name: 'weights',
            dims: constant.dims,
            dataType: 1,
            dataLocation: 1,
            externalData: [{ key: 'location', value: 'absent' }],
          }
        : constant,
    );
    const types = await inferTypes({ ...model, graph: { ...graph, initializer } }, runtime);
    expect(types.get('product')).toEqual({ dtype: 'float32', shape: [expect.anything(), 5] });
  });

  it('lack what is inside bodies', async () => {
    const types = await inferTypes(branches(), runtime);
    expect(types.get('y')).toEqual({ dtype: 'float32', shape: ['n', 32] });
    expect(types.has('then_y')).toBe(false);
  });

  it('are refused for a model that the library does not take', async () => {
    const model = network();
    const opsetImport = [{ version: 17 }, { domain: 'none', version: 1 }];
    const node = model.graph.node.map((one) => ({ ...one, domain: 'none' }));
    await expect(
      inferTypes({ ...model, opsetImport, graph: { ...model.graph, node } }, runtime),
    ).rejects.toThrow(ModelError);
  });
});

describe('preparing a model', () => {
  it('folds normalization and constants, and keeps what the public sees', async () => {
    const model = { ...network(), metadataProps: [{ key: 'owner', value: 'us' }] };
    const tidy = await prepareModel(model, runtime);
    expect(tidy.graph.node.map(({ opType }) => opType)).toEqual(['Conv', 'Reshape', 'MatMul', 'ArgMax']);
    expect(signatureOf(tidy)).toEqual(signatureOf(model));
    expect([tidy.irVersion, tidy.metadataProps, tidy.opsetImport.map(({ version }) => version)]).toEqual([
      model.irVersion,
      model.metadataProps,
      [17],
    ]);
  });

  it('changes no answer beyond rounding', async () => {
    const model = network();
    const x = new Tensor('float32', [2, 3, 8, 8], gauss(384));
    const { sqnrDb, agreement } = await compareModels(
      runtime,
      encodeModel(model),
      encodeModel(await prepareModel(model, runtime)),
      [{ x }],
      { batches: [], monotonicMs: () => 0 },
    );
    expect(sqnrDb).toBeGreaterThan(100);
    expect(agreement).toBe(1);
  });

  it('keeps one copy of a constant that branches have in common', async () => {
    const model = branches();
    const tidy = await prepareModel(model, runtime);
    expect(encodeModel(tidy).length).toBeLessThan(1.1 * encodeModel(model).length);
    const feeds = [true, false].map((flag) => ({
      x: new Tensor('float32', [2, 32], gauss(64)),
      flag: tensorFrom('bool', flag),
    }));
    const { sqnrDb } = await compareModels(runtime, encodeModel(model), encodeModel(tidy), feeds, {
      batches: [],
      monotonicMs: () => 0,
    });
    expect(sqnrDb).toBeGreaterThan(100);
  });

  it('gives the model back with a note where the runtime tells nothing', async () => {
    const { optimized: _, ...mute } = runtime;
    const notes: string[] = [];
    const model = network();
    expect(await prepareModel(model, mute, (note) => notes.push(note))).toBe(model);
    expect(notes.join()).toContain('is not prepared');
  });

  it('refuses models whose weights are elsewhere', async () => {
    const model = network();
    const [first, ...others] = model.graph.initializer;
    const initializer = [{ ...first, dims: [1], dataLocation: 1 }, ...others];
    await expect(
      prepareModel({ ...model, graph: { ...model.graph, initializer } }, runtime),
    ).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
    });
  });
});
