import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { concatBytes } from '../../../src/core/bytes.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import { encodeMessage, encodeMessagePieces } from '../../../src/onnx/encode.ts';
import type { Messages, ModelProto } from '../../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../../src/onnx/model.ts';
import { encodedSizeBytes, encodePieces } from '../../../src/onnx/pieces.ts';
import { anyMessage } from './arbitrary.ts';

const empty: ModelProto = {
  irVersion: 8,
  opsetImport: [{ version: 17 }],
  graph: { node: [], initializer: [], input: [], output: [] },
};

/** A model with these bytes as the elements of constants. */
function withWeights(...weights: readonly Uint8Array[]): ModelProto {
  const initializer = weights.map((rawData, i) => ({
    name: `w${i}`,
    dims: [rawData.length],
    dataType: 2,
    rawData,
  }));
  return { ...empty, graph: { ...empty.graph, initializer } };
}

describe('pieces', () => {
  it('joined are what one array would hold, wherever they are cut', () => {
    fc.assert(
      fc.property(anyMessage('GraphProto', 3), fc.integer({ min: 1, max: 8 }), (message, from) => {
        const graph = message as unknown as Messages['GraphProto'];
        const pieces = encodeMessagePieces('GraphProto', graph, from);
        expect(concatBytes(pieces)).toEqual(encodeMessage('GraphProto', graph));
        expect(pieces.length === 1 || pieces.every(({ length }) => length > 0)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('hold large weights as the very views of the model', () => {
    const file = new Uint8Array(10_000).fill(7);
    const weight = file.subarray(100, 9000);
    const shared = encodePieces(withWeights(weight, weight)).filter((piece) => piece === weight);
    expect(shared).toHaveLength(2);
  });

  it('hold lists of floats as views, too', () => {
    const floatData = new Float32Array(500).map((_, i) => i / 3);
    const tensor = { name: 'w', dims: [500], dataType: 1, floatData };
    const model = { ...empty, graph: { ...empty.graph, initializer: [tensor] } };
    const pieces = encodePieces(model);
    expect(pieces.some(({ buffer, byteLength }) => buffer === floatData.buffer && byteLength === 2000)).toBe(
      true,
    );
    expect(parseModel(concatBytes(pieces)).graph.initializer[0]?.floatData).toEqual(floatData);
  });

  it('hold unknown fields as views, too', () => {
    // Field 500 with 2,000 bytes.
    const unknown = concatBytes([Uint8Array.of(0xa2, 0x1f, 0xd0, 0x0f), new Uint8Array(2000).fill(1)]);
    const pieces = encodePieces({ ...empty, unknown: [unknown] });
    expect(pieces.at(-1)).toBe(unknown);
    expect(concatBytes(pieces)).toEqual(encodeModel({ ...empty, unknown: [unknown] }));
  });

  it('take new memory for the structure only', () => {
    const weights: Uint8Array[] = Array.from({ length: 50 }, () => new Uint8Array(20_000));
    const pieces = encodePieces(withWeights(...weights));
    const fresh = new Set(pieces.filter((piece) => !weights.includes(piece)).map(({ buffer }) => buffer));
    expect([...fresh].reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThan(2000);
  });

  it('of a small model are one', () => {
    const graph = createGraph({ name: 'small', opset: 17 });
    graph.initializer('c', tensorFrom('float32', [1, 2]));
    graph.output(graph.node('Identity', ['c']), 'float32', [2]);
    const pieces = encodePieces(graph.toModel());
    expect(pieces).toEqual([encodeModel(graph.toModel())]);
  });
});

describe('encodedSizeBytes', () => {
  it('is the length of the file', () => {
    const model = withWeights(new Uint8Array(5000), new Uint8Array(3));
    expect(encodedSizeBytes(model)).toBe(encodeModel(model).length);
  });

  it('counts beyond the 2 GiB that a file may have', () => {
    // Every tensor shares the same bytes.
    const weights = Array.from({ length: 2200 }, () => megabyte);
    expect(encodedSizeBytes(withWeights(...weights))).toBeGreaterThan(2200 * megabyte.length);
    const write = (): unknown => encodePieces(withWeights(...weights));
    expect(write).toThrow(ModelError);
    expect(write).toThrow('move its weights to external data');
  });
});

const megabyte = new Uint8Array(1 << 20);
