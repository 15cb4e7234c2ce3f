import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { DTYPES, isDType, type DType } from '../../src/core/dtype.ts';
import { ModelError } from '../../src/core/errors.ts';
import { tensorFrom, Tensor, type NestedArray } from '../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../src/onnx/build.ts';
import { inspectModel } from '../../src/onnx/inspect.ts';
import type { MessageName } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { FIELDS, type Kind } from '../../src/onnx/schema.ts';
import { signatureOf } from '../../src/onnx/signature.ts';
import { fromTensorProto } from '../../src/onnx/tensors.ts';
import { allGraphs, allNodes } from '../../src/onnx/walk.ts';

const folder = new URL('../../../shared/data/', import.meta.url);
const files = existsSync(folder)
  ? ['', 'quantize/'].flatMap((under) =>
      readdirSync(new URL(under, folder))
        .filter((name) => name.endsWith('.onnx'))
        .map((name) => under + name),
    )
  : [];
if (files.length === 0) console.warn('Skipped: the models of ../shared/data are not here.');

interface Golden {
  readonly ops: readonly string[];
  readonly initializers: Readonly<
    Record<string, { readonly dtype: string; readonly shape: readonly number[]; readonly sha256: string }>
  >;
}
const index = new URL('quantize/index.json', folder);
const goldens = existsSync(index)
  ? Object.entries((JSON.parse(readFileSync(index, 'utf8')) as { models: Record<string, Golden> }).models)
  : [];

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const read = (file: string): Buffer => readFileSync(new URL(file, folder));

describe.skipIf(files.length === 0)('model files', () => {
  it.each(files)('%s is written back byte by byte', (file) => {
    const bytes = read(file);
    const written = encodeModel(parseModel(bytes));
    expect(Buffer.compare(bytes, written)).toBe(0);
  });

  it.each(files)('%s holds what protobufjs reads from it', (file) => {
    const bytes = read(file);
    const seen = openProtobufjs().lookupType('ModelProto').decode(bytes);
    expect(firstDifference('ModelProto', parseModel(bytes) as unknown as Loose, seen)).toBeUndefined();
  });

  it.each(files)('%s has the inputs and outputs that onnxruntime sees', async (file) => {
    const bytes = read(file);
    const session = await ort.InferenceSession.create(bytes);
    const { inputs, outputs } = signatureOf(parseModel(bytes));
    const seen = (metadata: readonly ort.InferenceSession.ValueMetadata[]): unknown =>
      metadata.map(
        (value) => value.isTensor && { name: value.name, dtype: value.type, shape: [...value.shape] },
      );
    const said = (specs: typeof inputs): unknown =>
      specs.map(({ name, dtype, shape }) => ({
        name,
        dtype,
        // onnxruntime spells an axis without a name ''.
        shape: shape?.map((dimension) => dimension ?? ''),
      }));
    expect(said(inputs)).toEqual(seen(session.inputMetadata));
    // It may know more about outputs than the file says: it infers shapes.
    expect(outputs.map(({ name }) => name)).toEqual(session.outputNames);
    await session.release();
  });

  it.each(files)('%s has constants that can all be read', (file) => {
    const model = parseModel(read(file));
    let elements = 0;
    for (const graph of allGraphs(model)) {
      for (const proto of graph.initializer) elements += fromTensorProto(proto).size;
    }
    for (const { opType, attribute } of allNodes(model)) {
      for (const { t } of attribute) if (opType === 'Constant' && t) elements += fromTensorProto(t).size;
    }
    expect(inspectModel(model).parameters.elements).toBe(elements);
  });

  it('reports of silero-vad.onnx and ultraface-rfb-320.onnx say what is in them', () => {
    const vad = inspectModel(parseModel(read('silero-vad.onnx')));
    expect(vad).toMatchObject({ producer: { name: 'spox' }, opsets: { 'ai.onnx': 16 }, subgraphs: 50 });
    expect(vad.operators).toMatchObject({ If: 25, LSTM: 4, Conv: 12 });
    expect(vad.inputs.map(({ name }) => name)).toEqual(['input', 'state', 'sr']);
    const faces = inspectModel(parseModel(read('ultraface-rfb-320.onnx')));
    expect(faces.inputs).toEqual([{ name: 'input', type: 'float32', shape: [1, 3, 240, 320] }]);
    expect(faces.operators).toMatchObject({ Conv: 52, Relu: 37 });
    expect(faces.parameters.elements).toBe(300_436);
  });

  it.each(goldens)('%s has the operators and constants that onnx reads from it', (name, golden) => {
    const model = parseModel(read(`quantize/${name}.onnx`));
    expect(
      Object.keys(inspectModel(model).operators)
        .map((key) => key.replace(/^.*::/, ''))
        .sort(),
    ).toEqual(golden.ops);
    for (const proto of model.graph.initializer) {
      const { dtype, shape, data } = fromTensorProto(proto);
      const said = golden.initializers[proto.name ?? ''];
      const spelled = { FLOAT: 'float32', DOUBLE: 'float64' }[said?.dtype ?? ''] ?? said?.dtype.toLowerCase();
      expect({ dtype, shape, sha256: sha256(data as Uint8Array) }).toEqual({ ...said, dtype: spelled });
    }
  });

  it('cut anywhere are refused with a typed error', () => {
    const bytes = read('quantize/cnn.onnx');
    for (let length = 0; length < bytes.length; length += 7) {
      expect(() => parseModel(bytes.subarray(0, length))).toThrow(ModelError);
    }
  });
});

type Loose = Readonly<Record<string, unknown>>;

/** The part of protobufjs that is used here. It comes with onnxruntime-web. */
interface Protobufjs {
  readonly Root: {
    fromJSON(json: object): {
      lookupType(name: string): {
        decode(bytes: Uint8Array): Loose;
        encode(message: object): { finish(): Uint8Array };
      };
    };
  };
}

function openProtobufjs(): ReturnType<Protobufjs['Root']['fromJSON']> {
  const nearby = createRequire(createRequire(import.meta.url).resolve('onnxruntime-web'));
  const { Root } = nearby('protobufjs') as Protobufjs;
  const types = Object.entries(FIELDS).map(([message, fields]) => [
    message,
    {
      fields: Object.fromEntries(
        fields.map(({ name, number, kind, mode, isList }) => [
          name,
          {
            type: kind === 'size' ? 'int64' : kind,
            id: number,
            ...(isList && { rule: 'repeated', options: { packed: mode === 'packed' } }),
          },
        ]),
      ),
    },
  ]);
  return Root.fromJSON({ nested: Object.fromEntries(types) as object });
}

describe('device configurations', () => {
  it('of IR version 14 are written back byte by byte', () => {
    const bytes = openProtobufjs()
      .lookupType('ModelProto')
      .encode({
        irVersion: 14,
        opsetImport: [{ version: 26 }],
        configuration: [{ name: 'pair', numDevices: 2, device: ['CPU:0', 'CPU:1'] }],
        graph: {
          node: [
            {
              opType: 'Relu',
              input: ['x'],
              output: ['y'],
              deviceConfigurations: [
                {
                  configurationId: 'pair',
                  pipelineStage: 1,
                  shardingSpec: [
                    {
                      tensorName: 'x',
                      device: [0, -1],
                      indexToDeviceGroupMap: [{ key: -1, value: [0, 1] }],
                      shardedDim: [{ axis: -1, simpleSharding: [{ dimParam: 'n', numShards: 2 }] }],
                    },
                  ],
                },
              ],
            },
          ],
        },
      })
      .finish();
    const model = parseModel(bytes);
    expect(model.configuration).toEqual([{ name: 'pair', numDevices: 2, device: ['CPU:0', 'CPU:1'] }]);
    expect(model.graph.node[0]?.deviceConfigurations?.[0]?.shardingSpec?.[0]?.device).toEqual(
      BigInt64Array.of(0n, -1n),
    );
    expect(Buffer.compare(encodeModel(model), bytes)).toBe(0);
  });
});

/** The path of the first value that the two do not agree about. */
function firstDifference(name: MessageName, ours: Loose, theirs: Loose): string | undefined {
  for (const { name: key, kind, isList } of FIELDS[name]) {
    const [a, b] = [ours, theirs].map((one) => {
      const value = Object.hasOwn(one, key) ? one[key] : undefined;
      return value === undefined ? [] : isList ? Array.from(value as ArrayLike<unknown>) : [value];
    });
    if (a?.length !== b?.length) return `${name}.${key} has ${a?.length} values instead of ${b?.length}`;
    for (const [i, item] of a?.entries() ?? []) {
      const difference = differenceOf(kind, item, b?.[i]);
      if (difference !== undefined) return `${name}.${key}[${i}] ${difference}`;
    }
  }
  return undefined;
}

function differenceOf(kind: Kind, ours: unknown, theirs: unknown): string | undefined {
  if (Object.hasOwn(FIELDS, kind))
    return firstDifference(kind as MessageName, ours as Loose, theirs as Loose);
  const isSame =
    kind === 'bytes'
      ? Buffer.compare(ours as Uint8Array, theirs as Uint8Array) === 0
      : // 64-bit integers are objects there.
        String(ours) === String(theirs);
  return isSame ? undefined : `is ${String(ours)} instead of ${String(theirs)}`;
}

async function run(
  graph: ModelBuilder,
  feeds: Readonly<Record<string, ort.Tensor>>,
): Promise<ort.InferenceSession.ReturnType> {
  const session = await ort.InferenceSession.create(encodeModel(graph.toModel()));
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** What onnxruntime gave, as a tensor. Where `Float16Array` exists it gives one for float16. */
function toTensor(dtype: DType, shape: readonly number[], value: ort.Tensor | undefined): Tensor {
  if (value === undefined) throw new Error('The output is missing.');
  const { data } = value;
  const isHalf = dtype === 'float16' && ArrayBuffer.isView(data);
  const stored = isHalf ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;
  return new Tensor(dtype, shape, stored);
}

describe('built models in onnxruntime', () => {
  it('run a perceptron with a symbolic batch', async () => {
    const graph = createGraph({ name: 'perceptron', opset: 17 });
    graph.input('x', 'float32', ['batch', 2]);
    graph.initializer(
      'w',
      tensorFrom('float32', [
        [1, -1, 2],
        [3, 4, -5],
      ]),
    );
    graph.initializer('b', tensorFrom('float32', [0.5, 0, 0.25]));
    graph.node('Relu', [graph.node('Add', [graph.node('MatMul', ['x', 'w']), 'b'])], {}, { outputs: 'y' });
    graph.output('y', 'float32', ['batch', 3]);
    for (const batch of [1, 3]) {
      const x = Float32Array.from({ length: 2 * batch }, (_, i) => i + 1);
      const { y } = await run(graph, { x: new ort.Tensor('float32', x, [batch, 2]) });
      const expected = Array.from({ length: batch }, (_, row) => {
        const [a, b] = [2 * row + 1, 2 * row + 2];
        return [a + 3 * b + 0.5, -a + 4 * b, 2 * a - 5 * b + 0.25].map((value) => Math.max(0, value));
      });
      expect(y?.dims).toEqual([batch, 3]);
      expect(Array.from(y?.data as Float32Array)).toEqual(expected.flat());
    }
  });

  it('take float16 and int4 constants', async () => {
    const graph = createGraph({ name: 'narrow', opset: 21 });
    graph.input('x', 'float32', [3]);
    graph.initializer('half', tensorFrom('float16', [0.5, -2, 65504]));
    graph.initializer('q', tensorFrom('int4', [-8, 7, -1]));
    graph.initializer('scale', tensorFrom('float32', 0.25));
    const half = graph.node('Cast', ['half'], { to: DTYPES.float32.onnx });
    const int4 = graph.node('DequantizeLinear', ['q', 'scale']);
    graph.node('Add', [graph.node('Add', ['x', half]), int4], {}, { outputs: 'y' });
    graph.output('y', 'float32', [3]);
    const { y } = await run(graph, { x: new ort.Tensor('float32', new Float32Array(3), [3]) });
    expect(Array.from(y?.data as Float32Array)).toEqual([0.5 - 2, -2 + 1.75, Math.fround(65504 - 0.25)]);
  });

  it('choose between bodies, which see the values around them', async () => {
    const graph = createGraph({ name: 'choice', opset: 17 });
    graph.input('x', 'float32', [2]);
    graph.input('flag', 'bool', []);
    const bodies = [2, 3].map((factor) => {
      const body = graph.subgraph(`times_${factor}`);
      const by = body.constant('by', tensorFrom('float32', factor));
      body.output(body.node('Mul', ['x', by]), 'float32', [2]);
      return body;
    });
    const [then_branch, else_branch] = bodies;
    graph.node('If', ['flag'], { then_branch, else_branch }, { outputs: 'y' });
    graph.output('y', 'float32', [2]);
    for (const flag of [true, false]) {
      const { y } = await run(graph, {
        x: new ort.Tensor('float32', [1, 2], [2]),
        flag: new ort.Tensor('bool', [flag], []),
      });
      expect(Array.from(y?.data as Float32Array)).toEqual(flag ? [2, 4] : [3, 6]);
    }
  });

  it('take every kind of attribute that onnxruntime has an operator for', async () => {
    const graph = createGraph({ name: 'attributes', opset: 17 });
    graph.input('x', 'float32', [1, 1, 4, 4]);
    const pooled = graph.node('AveragePool', ['x'], {
      kernel_shape: [2, 2],
      strides: [2, 2],
      auto_pad: 'VALID',
    });
    const sloped = graph.node('LeakyRelu', [pooled], { alpha: { float: 1 } });
    const shifted = graph.node('Add', [
      sloped,
      graph.node('Constant', [], { value_floats: { floats: [1] } }),
    ]);
    graph.node('Transpose', [shifted], { perm: [0, 1, 3, 2] }, { outputs: 'y' });
    graph.output('y', 'float32', null);
    const x = Float32Array.from({ length: 16 }, (_, i) => i);
    const { y } = await run(graph, { x: new ort.Tensor('float32', x, [1, 1, 4, 4]) });
    expect(Array.from(y?.data as Float32Array)).toEqual([3.5, 11.5, 5.5, 13.5]);
  });

  // Identity gives back what it was given, and tells whether bytes mean the same on both sides.
  const values: Partial<Record<DType, NestedArray>> = {
    float32: [1.5, -2, 0],
    float64: [0.1, -2, 1e300],
    int8: [-128, 0, 127],
    uint8: [0, 1, 255],
    int16: [-32768, 0, 32767],
    uint16: [0, 1, 65535],
    int32: [-(2 ** 31), 0, 2 ** 31 - 1],
    uint32: [0, 1, 2 ** 32 - 1],
    int64: [-(2n ** 63n), 0n, 2n ** 63n - 1n],
    uint64: [0n, 1n, 2n ** 64n - 1n],
    bool: [true, false, true],
    string: ['', 'a', 'ß'],
    float16: [1.5, -2, 6e-8],
  };
  it.each(Object.keys(values).filter(isDType))('give %s constants back as they are', async (dtype) => {
    const tensor = tensorFrom(dtype, values[dtype] as NestedArray);
    const graph = createGraph({ name: 'constant', opset: 17 });
    graph.initializer('c', tensor);
    graph.node('Identity', ['c'], {}, { outputs: 'y' });
    graph.output('y', dtype, [3]);
    const { y } = await run(graph, {});
    expect(toTensor(dtype, [3], y).toArray()).toEqual(tensor.toArray());
  });

  it('are what signatureOf and inspectModel read', async () => {
    const graph = createGraph({ name: 'g', opset: 17 });
    graph.input('x', 'float32', ['batch', null]);
    graph.output(graph.node('Relu', ['x']), 'float32', ['batch', null]);
    const session = await ort.InferenceSession.create(encodeModel(graph.toModel()));
    expect(session.inputMetadata).toMatchObject([{ name: 'x', type: 'float32', shape: ['batch', ''] }]);
    expect(signatureOf(graph.toModel()).inputs).toEqual([
      { name: 'x', dtype: 'float32', shape: ['batch', null] },
    ]);
    await session.release();
  });
});
