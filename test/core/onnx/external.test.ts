import { describe, expect, it } from 'vitest';
import { concatBytes, equalBytes, toUtf8 } from '../../../src/core/bytes.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import { inlineExternal, moveExternal, sourceResolver } from '../../../src/onnx/external.ts';
import { allTensors, mapTensors } from '../../../src/onnx/map-tensors.ts';
import type { ModelProto, TensorProto } from '../../../src/onnx/messages.ts';
import { encodeModel } from '../../../src/onnx/model.ts';
import { externalReference, fromTensorProto, isExternal, toTensorProto } from '../../../src/onnx/tensors.ts';
import { sampleModel } from './sample.ts';

function sample(): ModelProto {
  const graph = createGraph({ name: 'sample', opset: 17 });
  graph.initializer('small', new Tensor('uint8', [3], Uint8Array.of(1, 2, 3)));
  graph.initializer('middle', new Tensor('float32', [501], new Float32Array(501).fill(2)));
  graph.initializer('large', new Tensor('uint8', [1 << 20], new Uint8Array(1 << 20).fill(3)));
  graph.initializer('texts', tensorFrom('string', ['x'.repeat(5000)]));
  graph.output(graph.constant('inside', new Tensor('uint8', [4000], new Uint8Array(4000))), 'uint8', [4000]);
  return graph.toModel();
}

/** The model with one initializer in place of its own. */
function withTensor(tensor: TensorProto): ModelProto {
  const model = sample();
  return { ...model, graph: { ...model.graph, initializer: [tensor] } };
}

async function errorOf(work: Promise<unknown>): Promise<ModelError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof ModelError) return error;
  throw new Error('No ModelError was thrown.', { cause: error });
}

const sourceOf = (bytes: Uint8Array): Parameters<typeof sourceResolver>[0] => ({
  sizeBytes: bytes.length,
  read: async (offset, length) => bytes.slice(offset, offset + length),
});

describe('moveExternal', () => {
  it('takes large initializers out, and leaves small ones, texts and attributes in', () => {
    const moved = moveExternal(sample()).toModel('m.data');
    expect(
      allTensors(moved)
        .filter(isExternal)
        .map(({ name }) => name),
    ).toEqual(['middle', 'large']);
  });

  it('lays large ones out on pages, and small ones one after the other', () => {
    const { toModel, sizeBytes, pieces } = moveExternal(sample());
    const references = allTensors(toModel('m.data')).filter(isExternal).map(externalReference);
    expect(references).toEqual([
      { location: 'm.data', offsetBytes: 0, lengthBytes: 2004 },
      { location: 'm.data', offsetBytes: 4096, lengthBytes: 1 << 20 },
    ]);
    expect(sizeBytes).toBe(4096 + (1 << 20));
    expect(concatBytes(pieces)).toHaveLength(sizeBytes);
  });

  it('is undone by inlineExternal', async () => {
    const { pieces, toModel } = moveExternal(sample(), { fromBytes: 1 });
    const again = await inlineExternal(toModel('m.data'), sourceResolver(sourceOf(concatBytes(pieces))));
    expect(equalBytes(encodeModel(again), encodeModel(sample()))).toBe(true);
  });

  it('shares the elements with the model', () => {
    const model = sample();
    expect(moveExternal(model).pieces[0]).toBe(model.graph.initializer[1]?.rawData);
  });

  it('writes lists of numbers as raw elements', () => {
    const int64Data = new BigInt64Array(200).map((_, i) => BigInt(-i));
    const model = withTensor({ name: 'n', dims: [200], dataType: 7, int64Data });
    const { pieces, toModel } = moveExternal(model);
    expect(pieces).toEqual([new Uint8Array(int64Data.buffer)]);
    expect(toModel('m.data').graph.initializer[0]).not.toHaveProperty('int64Data');
  });

  it('leaves a model alone that has nothing to move', () => {
    const moved = moveExternal(sampleModel());
    expect(moved).toMatchObject({ pieces: [], sizeBytes: 0 });
  });

  it('moves the initializers of bodies', () => {
    const graph = createGraph({ name: 'g', opset: 17 });
    graph.input('flag', 'bool', []);
    const bodies = ['a', 'b'].map((name) => {
      const body = graph.subgraph(name);
      body.initializer(`w_${name}`, new Tensor('uint8', [2000], new Uint8Array(2000)));
      body.output(body.node('Identity', [`w_${name}`]), 'uint8', [2000]);
      return body;
    });
    const [then_branch, else_branch] = bodies;
    graph.output(graph.node('If', ['flag'], { then_branch, else_branch }), 'uint8', [2000]);
    expect(moveExternal(graph.toModel()).sizeBytes).toBe(4000);
  });
});

describe('inlineExternal', () => {
  const external = (part: Partial<TensorProto>, entries: Record<string, string>): ModelProto =>
    withTensor({
      name: 'weight',
      dims: [2],
      dataType: 1,
      dataLocation: 1,
      externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
      ...part,
    });
  const never = (): never => {
    throw new Error('The resolver was called.');
  };

  it('gives back a model without external data as it is', async () => {
    const model = sample();
    expect(await inlineExternal(model, never)).toBe(model);
  });

  it('tells the resolver which constant it is for', async () => {
    const model = external({}, { location: 'd/w.bin', offset: '8', length: '8' });
    const read = await inlineExternal(model, (reference, tensor) => {
      expect({ ...reference, tensor }).toEqual({
        location: 'd/w.bin',
        offsetBytes: 8,
        lengthBytes: 8,
        tensor: 'weight',
      });
      return new Uint8Array(Float32Array.of(1, 2).buffer);
    });
    expect(read.graph.initializer[0]).toEqual(toTensorProto('weight', tensorFrom('float32', [1, 2])));
  });

  it.each<[string, Partial<TensorProto>, Record<string, string>, string]>([
    ['leaves the folder', {}, { location: '../w.bin' }, 'ERR_INLAY_MODEL_INVALID'],
    ['has another length than its shape', {}, { location: 'w', length: '12' }, 'ERR_INLAY_MODEL_INVALID'],
    ['holds strings', { dataType: 8 }, { location: 'w' }, 'ERR_INLAY_MODEL_INVALID'],
    ['has an unknown dtype', { dataType: 99 }, { location: 'w' }, 'ERR_INLAY_MODEL_UNSUPPORTED'],
  ])('refuses a constant that %s before anything is read, by name', async (_, part, entries, code) => {
    const error = await errorOf(inlineExternal(external(part, entries), never));
    expect(error.code).toBe(code);
    expect(error.message).toContain('"weight"');
  });

  it('refuses what is not inside the source, by name', async () => {
    const model = external({}, { location: 'w.bin', offset: '4' });
    const error = await errorOf(inlineExternal(model, sourceResolver(sourceOf(new Uint8Array(8)))));
    expect(error.code).toBe('ERR_INLAY_MODEL_TRUNCATED');
    expect(error.message).toContain('"weight"');
    expect(error.message).toContain('byte 12 of "w.bin"');
  });

  it('refuses another number of bytes than it asked for, by name', async () => {
    const error = await errorOf(inlineExternal(external({}, { location: 'w' }), () => new Uint8Array(4)));
    expect(error.code).toBe('ERR_INLAY_MODEL_INVALID');
    expect(error.message).toContain('"weight" needs 8 bytes');
  });
});

describe('mapTensors', () => {
  it('visits every constant, wherever it is', () => {
    const tensor = (name: string): TensorProto => ({ name, dims: [0], dataType: 1 });
    const graph = { node: [], initializer: [], input: [], output: [] };
    const node = (attribute: object): ModelProto['graph']['node'][number] => ({
      input: [],
      output: [],
      attribute: [{ name: 'a', ...attribute }],
    });
    const sparse = (name: string): object => ({
      dims: [0],
      values: tensor(`${name}v`),
      indices: tensor(`${name}i`),
    });
    const model: ModelProto = {
      opsetImport: [],
      graph: {
        ...graph,
        initializer: [tensor('a')],
        node: [
          node({ t: tensor('b'), tensors: [tensor('c')] }),
          node({ g: { ...graph, initializer: [tensor('d')] }, sparseTensor: sparse('e') }),
        ],
        sparseInitializer: [{ dims: [0], values: tensor('f') }],
      },
      functions: [{ input: [], output: [], opsetImport: [], node: [node({ t: tensor('g') })] }],
      trainingInfo: [{ algorithm: { ...graph, initializer: [tensor('h')] } }],
    };
    const names = (one: ModelProto): string =>
      [...allTensors(one)]
        .map(({ name }) => name)
        .sort((a = '', b = '') => a.localeCompare(b))
        .join(' ');
    expect(names(model)).toBe('a b c d ei ev f g h');
    const renamed = mapTensors(model, (one) => ({ ...one, name: `${one.name ?? ''}!` }));
    expect(names(renamed)).toBe('a! b! c! d! ei! ev! f! g! h!');
    expect(mapTensors(model, (one) => one)).toBe(model);
  });

  it('shares what does not change', () => {
    const model = sample();
    const mapped = mapTensors(model, (one) => (one.name === 'small' ? { ...one, docString: 'new' } : one));
    expect(mapped.graph.node).toBe(model.graph.node);
    expect(mapped.graph.initializer[1]).toBe(model.graph.initializer[1]);
    expect(fromTensorProto(mapped.graph.initializer[0] ?? { dims: [] }).data).toEqual(Uint8Array.of(1, 2, 3));
    expect(toUtf8(mapped.graph.initializer[0]?.docString ?? '')).toHaveLength(3);
  });
});
