import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { encodeMessage } from '../../../src/onnx/encode.ts';
import { segmentsOf } from '../../../src/publish/delta/spans.ts';
import { externalSpans } from '../../../src/publish/delta/spans-onnx.ts';

function safetensors(header: unknown, dataBytes: number): Uint8Array<ArrayBuffer> {
  const text = toUtf8(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + dataBytes);
  new DataView(file.buffer).setUint32(0, text.length, true);
  file.set(text, 8);
  return file;
}

const entry = (dtype: string, shape: readonly number[], from: number, to: number) => ({
  dtype,
  shape,
  data_offsets: [from, to],
});

describe('segments', () => {
  it('are the tensors of a safetensors file, in the order of the file', () => {
    const header = {
      b: entry('F16', [4], 24, 32),
      a: entry('F32', [2, 3], 0, 24),
      __metadata__: { format: 'pt' },
    };
    const file = safetensors(header, 32);
    const start = file.length - 32;
    expect(segmentsOf(file)).toEqual([
      { name: 'a', numbers: 'float32', isUnsigned: false, shape: [2, 3], offset: start, sizeBytes: 24 },
      { name: 'b', numbers: 'float16', isUnsigned: false, shape: [4], offset: start + 24, sizeBytes: 8 },
    ]);
  });

  it('leave out what overlaps, is empty, lies outside or is not as long as its shape says', () => {
    const header = {
      a: entry('F32', [2], 0, 8),
      over: entry('F32', [2], 4, 12),
      none: entry('F32', [0], 8, 8),
      short: entry('F32', [3], 8, 16),
      out: entry('F32', [4], 16, 32),
      strange: { dtype: 'F32', shape: 'x', data_offsets: [0, -1] },
      missing: null,
    };
    expect(segmentsOf(safetensors(header, 24)).map(({ name }) => name)).toEqual(['a']);
  });

  it('are the constants of an ONNX file, also in attributes and bodies, raw or as lists of floats', () => {
    const bytes = (value: number, size: number) => new Uint8Array(size).fill(value);
    const body = {
      node: [],
      input: [],
      output: [],
      initializer: [{ name: 'in', dims: [8], dataType: 3, rawData: bytes(3, 8) }],
    };
    const value = { name: 'at', dims: [2, 2], dataType: 1, floatData: Float32Array.of(1, 2, 3, 4) };
    const file = encodeMessage('ModelProto', {
      irVersion: 8,
      opsetImport: [],
      graph: {
        node: [
          {
            input: [],
            output: ['x'],
            opType: 'Constant',
            attribute: [
              { name: 'value', type: 4, t: value },
              { name: 'body', type: 5, g: body },
            ],
          },
        ],
        initializer: [
          { name: 'w', dims: [2, 4], dataType: 10, rawData: bytes(1, 16) },
          { name: 'odd', dims: [3], dataType: 22, rawData: bytes(1, 2) },
          {
            name: 'far',
            dims: [4],
            dataType: 1,
            dataLocation: 1,
            externalData: [
              { key: 'location', value: 'model.data' },
              { key: 'offset', value: '64' },
            ],
          },
        ],
        input: [],
        output: [],
      },
    });
    const spans = segmentsOf(file);
    expect(spans.map(({ name, numbers, shape }) => [name, numbers, shape])).toEqual([
      ['at', 'float32', [2, 2]],
      ['in', 'int8', [8]],
      ['w', 'float16', [2, 4]],
    ]);
    const [at, inside] = spans;
    expect(new DataView(file.buffer).getFloat32((at?.offset ?? 0) + 8, true)).toBe(3);
    expect(file.subarray(inside?.offset, (inside?.offset ?? 0) + 8)).toEqual(bytes(3, 8));
    expect(externalSpans(file, 'model.data')).toEqual([
      { name: 'far', numbers: 'float32', isUnsigned: false, shape: [4], offset: 64, sizeBytes: 16 },
    ]);
  });

  it('are none in other files, and in damaged ones', () => {
    const file = safetensors({ a: entry('F32', [2], 0, 8) }, 8);
    expect(segmentsOf(file.subarray(0, 30))).toEqual([]);
    for (let size = 0; size < 20; size += 1) expect(segmentsOf(new Uint8Array(size).fill(255))).toEqual([]);
  });
});
