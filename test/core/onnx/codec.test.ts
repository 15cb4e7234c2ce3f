import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { concatBytes, toUtf8 } from '../../../src/core/bytes.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { decodeMessage } from '../../../src/onnx/decode.ts';
import { encodeMessage } from '../../../src/onnx/encode.ts';
import type { GraphProto, MessageName, Messages, ModelProto } from '../../../src/onnx/messages.ts';
import { FIELDS } from '../../../src/onnx/schema.ts';
import { anyMessage } from './arbitrary.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const names = Object.keys(FIELDS) as MessageName[];

function invalid(name: MessageName, encoded: Uint8Array): unknown {
  try {
    decodeMessage(name, encoded);
  } catch (error) {
    if (error instanceof ModelError) return error.code;
    throw error;
  }
  return undefined;
}

describe('the schema', () => {
  it.each(names)('lists the fields of %s in order of number', (name) => {
    const numbers = FIELDS[name].map(({ number }) => number);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  });
});

describe('messages', () => {
  it.each(names)('%s survives writing and reading', (name) => {
    fc.assert(
      fc.property(anyMessage(name), (message) => {
        const encoded = encodeMessage(name, message as unknown as Messages[typeof name]);
        expect(decodeMessage(name, encoded)).toEqual(message);
        expect(encodeMessage(name, decodeMessage(name, encoded))).toEqual(encoded);
      }),
      { numRuns: 30 },
    );
  });

  it('give bytes fields as views into the file', () => {
    const encoded = encodeMessage('TensorProto', { dims: [3], rawData: bytes(1, 2, 3) });
    const { rawData } = decodeMessage('TensorProto', encoded);
    expect(rawData?.buffer).toBe(encoded.buffer);
  });

  it('take the last of a scalar that comes twice', () => {
    expect(decodeMessage('OperatorSetIdProto', bytes(0x10, 7, 0x10, 9)).version).toBe(9);
  });

  it('refuse a singular message that comes twice', () => {
    expect(invalid('ValueInfoProto', bytes(0x12, 0, 0x12, 0))).toBe('ERR_INLAY_MODEL_INVALID');
  });

  it('refuse two values that exclude each other', () => {
    expect(invalid('DimensionProto', bytes(0x08, 5, 0x12, 1, 0x6e))).toBe('ERR_INLAY_MODEL_INVALID');
  });

  it('refuse text that is not UTF-8', () => {
    expect(invalid('NodeProto', bytes(0x0a, 2, 0xc3, 0x28))).toBe('ERR_INLAY_MODEL_INVALID');
  });

  it('refuse a nested message that is longer than its parent as malformed, not as truncated', () => {
    // A graph of 2 bytes whose node announces 5, followed by more of the model.
    expect(invalid('ModelProto', bytes(0x3a, 2, 0x0a, 5, 0x08, 8, 0x08, 8, 0x08, 8))).toBe(
      'ERR_INLAY_MODEL_INVALID',
    );
  });
});

describe('repeated numbers', () => {
  it('are read packed, unpacked and mixed', () => {
    const unpacked = bytes(0x40, 1, 0x40, 2, 0x40, 3);
    const packed = bytes(0x42, 3, 1, 2, 3);
    const mixed = bytes(0x40, 1, 0x42, 2, 2, 3);
    for (const encoded of [unpacked, packed, mixed]) {
      expect(decodeMessage('AttributeProto', encoded).ints).toEqual(BigInt64Array.of(1n, 2n, 3n));
    }
    expect(decodeMessage('TensorProto', bytes(0x08, 4, 0x0a, 2, 5, 6)).dims).toEqual([4, 5, 6]);
  });

  it('are written packed exactly where onnx.proto says so', () => {
    expect(encodeMessage('TensorProto', { dims: [4, 5], int32Data: Int32Array.of(1, -1) })).toEqual(
      bytes(0x08, 4, 0x08, 5, 0x2a, 11, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
    );
  });

  it('refuse a packed list that ends inside an element', () => {
    expect(invalid('TensorProto', bytes(0x22, 6, 0, 0, 128, 63, 0, 0, 0x10, 1))).toBe(
      'ERR_INLAY_MODEL_INVALID',
    );
    expect(invalid('TensorProto', bytes(0x3a, 2, 1, 0x80, 0x10, 1))).toBe('ERR_INLAY_MODEL_INVALID');
  });
});

describe('unknown fields', () => {
  // Field 500 as varint, fixed64, bytes, group and fixed32.
  const unknown = bytes(
    ...[0xa0, 0x1f, 0x96, 0x01],
    ...[0xa1, 0x1f, 1, 2, 3, 4, 5, 6, 7, 8],
    ...[0xa2, 0x1f, 2, 9, 9],
    ...[0xa3, 0x1f, 0x08, 1, 0xa4, 0x1f],
    ...[0xa5, 0x1f, 1, 2, 3, 4],
  );

  it('are kept and written back byte by byte, at every level', () => {
    const version = concatBytes([bytes(0x10, 21), unknown]);
    const model = concatBytes([bytes(0x08, 8, 0x3a, 0, 0x42, version.length), version, unknown]);
    const decoded = decodeMessage('ModelProto', model);
    expect(decoded.opsetImport[0]?.unknown).toEqual([unknown]);
    expect(encodeMessage('ModelProto', decoded)).toEqual(model);
  });

  it('between known ones move to the end in their order', () => {
    const decoded = decodeMessage(
      'OperatorSetIdProto',
      bytes(0xa0, 0x1f, 1, 0x10, 21, 0xa0, 0x1f, 2, 0xa0, 0x1f, 3),
    );
    expect(encodeMessage('OperatorSetIdProto', decoded)).toEqual(
      bytes(0x10, 21, 0xa0, 0x1f, 1, 0xa0, 0x1f, 2, 0xa0, 0x1f, 3),
    );
  });

  it('include known numbers with another wire type', () => {
    const odd = bytes(0x12, 1, 0x41);
    const decoded = decodeMessage('OperatorSetIdProto', odd);
    expect(decoded.version).toBeUndefined();
    expect(encodeMessage('OperatorSetIdProto', decoded)).toEqual(odd);
  });

  it('survive a copy with other values', () => {
    const decoded = decodeMessage('OperatorSetIdProto', bytes(0x10, 21, 0xa0, 0x1f, 1));
    expect(encodeMessage('OperatorSetIdProto', { ...decoded, version: 22 })).toEqual(
      bytes(0x10, 22, 0xa0, 0x1f, 1),
    );
  });
});

describe('limits', () => {
  const leaf: GraphProto = { node: [], initializer: [], input: [], output: [], name: 'leaf' };
  const nested = (levels: number): ModelProto => {
    let graph = leaf;
    for (let level = 0; level < levels; level += 1) {
      const node = { opType: 'If', input: [], output: [], attribute: [{ name: 'then_branch', g: graph }] };
      graph = { ...leaf, node: [node] };
    }
    return { irVersion: 8, graph, opsetImport: [{ version: 17 }] };
  };

  it('let bodies nest 30 deep', () => {
    const model = nested(30);
    expect(decodeMessage('ModelProto', encodeMessage('ModelProto', model))).toEqual(model);
  });

  it('stop writing and reading of bodies that nest 200 deep', () => {
    expect(() => encodeMessage('ModelProto', nested(200))).toThrow(ModelError);
    let body = toUtf8('');
    const tags = [0x32, 0x2a, 0x0a];
    const withTag = (tag: number): Uint8Array<ArrayBuffer> => {
      const { length } = body;
      return concatBytes([bytes(tag, (length & 0x7f) | 0x80, length >> 7), body]);
    };
    for (let level = 0; level < 600; level += 1) body = withTag(tags[level % 3] as number);
    expect(invalid('ModelProto', withTag(0x3a))).toBe('ERR_INLAY_MODEL_INVALID');
  });

  it('stop a file of millions of empty messages', () => {
    const empties = new Uint8Array(2 * 4_300_000);
    for (let at = 0; at < empties.length; at += 2) empties[at] = 0x42;
    expect(invalid('ModelProto', empties)).toBe('ERR_INLAY_MODEL_INVALID');
  });
});
