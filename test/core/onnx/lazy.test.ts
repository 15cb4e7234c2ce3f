import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { concatBytes, toUtf8 } from '../../../src/core/bytes.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import { inlineExternal, sourceResolver } from '../../../src/onnx/external.ts';
import { inspectModel } from '../../../src/onnx/inspect.ts';
import { parseStructure, type ByteSource } from '../../../src/onnx/lazy.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../../src/onnx/model.ts';
import { fromTensorProto } from '../../../src/onnx/tensors.ts';
import { sampleModel } from './sample.ts';

interface CountedSource extends ByteSource {
  readonly readBytes: number;
}

function sourceOf(bytes: Uint8Array): CountedSource {
  let readBytes = 0;
  return {
    sizeBytes: bytes.length,
    get readBytes() {
      return readBytes;
    },
    read: async (offset, length) => {
      if (offset < 0 || length < 0 || offset + length > bytes.length) throw new Error('Read outside.');
      readBytes += length;
      return bytes.slice(offset, offset + length);
    },
  };
}

async function errorOf(work: Promise<unknown>): Promise<ModelError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof ModelError) return error;
    throw error;
  }
  throw new Error('Nothing was thrown.');
}

/** Weights of 4 · 300 bytes: as initializer, inside of a body, and as an attribute of a node. */
function weighty(): ModelProto {
  const weight = (by: number): Tensor => new Tensor('float32', [300], new Float32Array(300).fill(by));
  const graph = createGraph({ name: 'weighty', opset: 17 });
  graph.input('flag', 'bool', []);
  graph.initializer('outer', weight(1));
  const bodies = [2, 3].map((by) => {
    const body = graph.subgraph(`body_${by}`);
    body.initializer(`inner_${by}`, weight(by));
    body.output(body.node('Add', ['outer', `inner_${by}`]), 'float32', [300]);
    return body;
  });
  const [then_branch, else_branch] = bodies;
  const chosen = graph.node('If', ['flag'], { then_branch, else_branch });
  const four = graph.constant('four', weight(4));
  graph.output(graph.node('Add', [chosen, four]), 'float32', [300]);
  return graph.toModel();
}

const bytes = encodeModel(weighty());
const options = { location: 'model.onnx', leaveFromBytes: 1000 };

describe('parseStructure', () => {
  it('leaves large elements where they are, in initializers, bodies and attributes', async () => {
    const model = await parseStructure(sourceOf(bytes), options);
    const [outer] = model.graph.initializer;
    expect(outer?.rawData).toBeUndefined();
    expect(outer).toMatchObject({ name: 'outer', dims: [300], dataLocation: 1 });
    expect(encodeModel(model).length).toBeLessThan(1500);
    expect(inspectModel(model)).toEqual({
      ...inspectModel(parseModel(bytes)),
      externalFiles: ['model.onnx'],
    });
  });

  it('gives with the elements fetched what parseModel gives', async () => {
    const source = sourceOf(bytes);
    const model = await inlineExternal(await parseStructure(source, options), sourceResolver(source));
    expect(encodeModel(model)).toEqual(bytes);
  });

  it('gives constants that can be read one by one', async () => {
    const model = await parseStructure(sourceOf(bytes), options);
    const tensor = fromTensorProto(model.graph.initializer[0] ?? { dims: [] }, {
      external: ({ offsetBytes, lengthBytes }) => bytes.subarray(offsetBytes, offsetBytes + lengthBytes),
    });
    expect(tensor.data).toEqual(new Float32Array(300).fill(1));
  });

  it('reads small models whole, unknown fields included', async () => {
    const unknown = Uint8Array.of(0xa3, 0x1f, 0x08, 1, 0xa4, 0x1f, 0xa5, 0x1f, 1, 2, 3, 4);
    const small = concatBytes([encodeModel(sampleModel()), unknown]);
    const model = await parseStructure(sourceOf(small), { location: 'm.onnx' });
    expect(model).toEqual(parseModel(small));
  });

  it('reads hardly more than the structure', async () => {
    const graph = createGraph({ name: 'wide', opset: 17 });
    for (let i = 0; i < 20; i += 1) {
      graph.initializer(`w${i}`, new Tensor('uint8', [100_000], new Uint8Array(100_000)));
    }
    const source = sourceOf(encodeModel(graph.toModel()));
    const model = await parseStructure(source, { location: 'm.onnx' });
    expect(model.graph.initializer).toHaveLength(20);
    expect(source.readBytes).toBeLessThan(source.sizeBytes / 10);
  });

  it('reads files beyond 4 GiB', async () => {
    const length = 5 * 2 ** 30;
    const varint = (value: number): number[] =>
      value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
    const tensorHead = [0x08, ...varint(length), 0x10, 2, 0x42, 1, 0x77, 0x4a, ...varint(length)];
    const tensor = [0x2a, ...varint(tensorHead.length + length), ...tensorHead];
    const head = Uint8Array.of(
      0x08,
      8,
      0x42,
      2,
      0x10,
      17,
      0x3a,
      ...varint(tensor.length + length),
      ...tensor,
    );
    const tail = Uint8Array.of(0x12, 1, 0x69);
    const source: ByteSource = {
      sizeBytes: head.length + length + tail.length,
      read: async (offset, count) =>
        Uint8Array.from({ length: count }, (_, i) =>
          offset + i < head.length ? (head[offset + i] ?? 0) : (tail[offset + i - head.length - length] ?? 0),
        ),
    };
    const model = await parseStructure(source, { location: 'm.onnx' });
    expect(model.producerName).toBe('i');
    expect(inspectModel(model).parameters).toEqual({ tensors: 1, elements: length, sizeBytes: length });
    expect(model.graph.initializer[0]?.externalData?.[1]).toEqual({
      key: 'offset',
      value: String(head.length),
    });
  });
});

describe('parseStructure refuses', () => {
  it('every prefix of a model with the error that parseModel has', async () => {
    for (let length = 0; length < bytes.length; length += 41) {
      const cut = bytes.subarray(0, length);
      const error = await errorOf(parseStructure(sourceOf(cut), options));
      const eager = await errorOf(Promise.resolve().then(() => parseModel(cut)));
      expect(error.code, `prefix of ${length}`).toBe(eager.code);
      expect(error.details['offset']).toBe(eager.details['offset']);
    }
  });

  it('damage between elements that were left by its place in the file', async () => {
    const damaged = bytes.slice();
    const [a, d] = toUtf8('Ad');
    // The name of the last operator, behind the bodies, is no UTF-8.
    const at = Array.from(damaged).reduce(
      (last, byte, i) => (byte === a && damaged[i + 1] === d ? i : last),
      -1,
    );
    damaged[at] = 0xff;
    const error = await errorOf(parseStructure(sourceOf(damaged), options));
    expect(error.details['offset']).toBe(at - 1);
    expect(at).toBeGreaterThan(2400);
  });

  it('what is no model, however large', async () => {
    const page = toUtf8(`<!DOCTYPE html>${'x'.repeat(50_000)}`);
    const error = await errorOf(parseStructure(sourceOf(page), options));
    expect(error.message).toContain('starts with the bytes 3c 21 44 4f 43 54 59 50');
    expect((await errorOf(parseStructure(sourceOf(new Uint8Array(0)), options))).message).toBe(
      'The model file is empty.',
    );
  });

  it('elements that come twice', async () => {
    const raw = concatBytes([Uint8Array.of(0x4a, 0xe8, 0x07), new Uint8Array(1000)]);
    const tensor = concatBytes([raw, raw]);
    const nested = (tag: number, inner: Uint8Array): Uint8Array =>
      concatBytes([Uint8Array.of(tag, (inner.length & 0x7f) | 0x80, inner.length >> 7), inner]);
    const model = concatBytes([nested(0x3a, nested(0x2a, tensor)), Uint8Array.of(0x08, 2)]);
    expect((await errorOf(parseStructure(sourceOf(model), options))).message).toContain('comes twice');
  });

  it('a source that ends before its size', async () => {
    const source: ByteSource = { sizeBytes: 5000, read: async () => bytes.subarray(0, 20) };
    expect((await errorOf(parseStructure(source, options))).code).toBe('ERR_INLAY_MODEL_TRUNCATED');
  });

  it('bodies that nest too deep', async () => {
    let body: Uint8Array = new Uint8Array(2000);
    const tags = [0x32, 0x2a, 0x0a];
    for (let level = 0; level < 150; level += 1) {
      body = concatBytes([
        Uint8Array.of(tags[level % 3] ?? 0, (body.length & 0x7f) | 0x80, body.length >> 7),
        body,
      ]);
    }
    const model = concatBytes([Uint8Array.of(0x3a, (body.length & 0x7f) | 0x80, body.length >> 7), body]);
    expect((await errorOf(parseStructure(sourceOf(model), options))).message).toContain('deeper than 100');
  });

  it('any corrupt byte with a typed error, or reads a model', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: bytes.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        async (at, flip) => {
          const corrupt = bytes.slice();
          corrupt[at] = (corrupt[at] ?? 0) ^ flip;
          await parseStructure(sourceOf(corrupt), options).catch((error: unknown) => {
            if (!(error instanceof ModelError)) throw error;
          });
        },
      ),
      { numRuns: 300 },
    );
  });
});
