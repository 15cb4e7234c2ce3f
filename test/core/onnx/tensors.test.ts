import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { DTYPES, isDType, storageLength, type DType } from '../../../src/core/dtype.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import type { TensorProto } from '../../../src/onnx/messages.ts';
import { fromTensorProto, toTensorProto, type ExternalReference } from '../../../src/onnx/tensors.ts';

const dtypes = Object.keys(DTYPES).filter(isDType);

function errorOf(run: () => unknown): ModelError {
  try {
    run();
  } catch (error) {
    if (error instanceof ModelError) return error;
    throw error;
  }
  throw new Error('Nothing was thrown.');
}

/** A tensor of five elements with random bits. */
function anyTensor(dtype: DType): fc.Arbitrary<Tensor> {
  if (dtype === 'string') {
    const texts = fc.array(fc.string({ unit: 'grapheme' }), { minLength: 5, maxLength: 5 });
    return texts.map((values) => new Tensor('string', [5], values));
  }
  const storage = DTYPES[dtype].storage as Uint8ArrayConstructor;
  const size = storageLength(dtype, 5) * storage.BYTES_PER_ELEMENT;
  return fc
    .uint8Array({ minLength: size, maxLength: size })
    .map((bytes) => fromTensorProto({ dims: [5], dataType: DTYPES[dtype].onnx, rawData: bytes.slice() }));
}

const bits = ({ data }: Tensor): unknown =>
  ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : data;

describe('constants', () => {
  it.each(dtypes)('of %s survive as messages, bit by bit', (dtype) => {
    fc.assert(
      fc.property(anyTensor(dtype), (tensor) => {
        const proto = toTensorProto('t', tensor);
        expect(proto).toMatchObject({ name: 't', dims: [5], dataType: DTYPES[dtype].onnx });
        const again = fromTensorProto(proto);
        expect(again.dtype).toBe(dtype);
        expect(bits(again)).toEqual(bits(tensor));
      }),
      { numRuns: 20 },
    );
  });

  it('are not copied when they lie aligned, and copied once when not', () => {
    const file = new Uint8Array(24);
    const aligned = fromTensorProto({ dims: [2], dataType: 1, rawData: file.subarray(8, 16) });
    const shifted = fromTensorProto({ dims: [2], dataType: 1, rawData: file.subarray(6, 14) });
    file[8] = 1;
    expect(aligned.data[0]).not.toBe(0);
    expect(aligned.sizeBytes).toBe(8);
    expect(shifted.data).toEqual(new Float32Array(2));
  });

  it('are written as views of their tensor', () => {
    const whole = new Float32Array([1, 2, 3, 4]);
    const { rawData } = toTensorProto('t', new Tensor('float32', [2], whole.subarray(1, 3)));
    expect(rawData).toEqual(new Uint8Array(new Float32Array([2, 3]).buffer));
    expect(rawData?.buffer).toBe(whole.buffer);
  });

  it('may be scalars and may be empty', () => {
    expect(fromTensorProto({ dims: [], dataType: 1, floatData: Float32Array.of(7) }).toArray()).toBe(7);
    expect(fromTensorProto({ dims: [0, 4], dataType: 7 }).size).toBe(0);
  });
});

describe('typed lists', () => {
  const int32Data = Int32Array.from([1, -1, 255, 0x3c00, 0xbf80]);
  const of = (dtype: DType, part: Partial<TensorProto>, dims = [2]): unknown =>
    fromTensorProto({ dims, dataType: DTYPES[dtype].onnx, ...part }).toArray();

  it('hold 32- and 64-bit values as they are', () => {
    expect(of('float32', { floatData: Float32Array.of(1.5, -2) })).toEqual([1.5, -2]);
    expect(of('float64', { doubleData: Float64Array.of(0.1, 2) })).toEqual([0.1, 2]);
    expect(of('int64', { int64Data: BigInt64Array.of(-1n, 2n ** 62n) })).toEqual([-1n, 2n ** 62n]);
    expect(of('uint64', { uint64Data: BigUint64Array.of(2n ** 64n - 1n, 0n) })).toEqual([2n ** 64n - 1n, 0n]);
    expect(of('uint32', { uint64Data: BigUint64Array.of(2n ** 32n - 1n, 7n) })).toEqual([2 ** 32 - 1, 7]);
    expect(of('int32', { int32Data: int32Data.subarray(0, 2) })).toEqual([1, -1]);
    expect(fromTensorProto({ dims: [2], dataType: 14, floatData: Float32Array.of(1, 2, 3, 4) }).data).toEqual(
      Float32Array.of(1, 2, 3, 4),
    );
    expect(fromTensorProto({ dims: [1], dataType: 15, doubleData: Float64Array.of(1, 2) }).data).toEqual(
      Float64Array.of(1, 2),
    );
    expect(of('string', { stringData: [toUtf8('a'), toUtf8('ß')] })).toEqual(['a', 'ß']);
  });

  it('hold narrow values in int32_data, one per entry', () => {
    expect(of('int8', { int32Data: int32Data.subarray(0, 2) })).toEqual([1, -1]);
    expect(of('uint8', { int32Data: int32Data.subarray(1, 3) })).toEqual([255, 255]);
    expect(of('int16', { int32Data: int32Data.subarray(0, 2) })).toEqual([1, -1]);
    expect(of('uint16', { int32Data: int32Data.subarray(2, 4) })).toEqual([255, 0x3c00]);
    expect(of('bool', { int32Data: Int32Array.of(1, 0) })).toEqual([true, false]);
    expect(of('float16', { int32Data: Int32Array.of(0x3c00, 0xc000) })).toEqual([1, -2]);
    expect(of('bfloat16', { int32Data: Int32Array.of(0x3f80, 0xbf80) })).toEqual([1, -1]);
    expect(of('float8e4m3fn', { int32Data: Int32Array.of(0x38, 0xb8) })).toEqual([0x38, 0xb8]);
  });

  it('hold two 4-bit or four 2-bit values per entry, the first in the low bits', () => {
    expect(of('int4', { int32Data: Int32Array.of(0x87, 0x0f) }, [3])).toEqual([7, -8, -1]);
    expect(of('uint4', { int32Data: Int32Array.of(0x21, 0x03) }, [3])).toEqual([1, 2, 3]);
    expect(of('int2', { int32Data: Int32Array.of(0b11_10_01_00) }, [4])).toEqual([0, 1, -2, -1]);
  });
});

describe('bad constants', () => {
  it.each<[string, TensorProto]>([
    ['too few bytes', { dims: [3], dataType: 1, rawData: new Uint8Array(8) }],
    ['bytes of half an element', { dims: [3], dataType: 1, rawData: new Uint8Array(10) }],
    ['too many entries', { dims: [1], dataType: 6, int32Data: Int32Array.of(1, 2) }],
    ['no elements at all', { dims: [1], dataType: 1 }],
    ['a negative axis', { dims: [-1], dataType: 1 }],
    ['an impossible size', { dims: [2 ** 40, 2 ** 40], dataType: 1 }],
    ['a string that is not UTF-8', { dims: [1], dataType: 8, stringData: [Uint8Array.of(0xff)] }],
  ])('with %s are refused', (_, proto) => {
    const error = errorOf(() => fromTensorProto({ name: 'weight', ...proto }));
    expect(error.code).toBe('ERR_INLAY_MODEL_INVALID');
    expect(error.message).toContain('"weight"');
  });

  it('of a dtype that ONNX has not, or in segments, are refused', () => {
    const code = 'ERR_INLAY_MODEL_UNSUPPORTED';
    expect(errorOf(() => fromTensorProto({ dims: [] })).code).toBe(code);
    expect(errorOf(() => fromTensorProto({ dims: [], dataType: 99 })).code).toBe(code);
    expect(errorOf(() => fromTensorProto({ dims: [0], dataType: 1, segment: {} })).code).toBe(code);
  });
});

describe('external constants', () => {
  const external = (entries: Record<string, string>): TensorProto => ({
    name: 'weight',
    dims: [2],
    dataType: 1,
    dataLocation: 1,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
  });

  it('are refused without a resolver, naming the file', () => {
    const error = errorOf(() => fromTensorProto(external({ location: 'weights.bin' })));
    expect(error.code).toBe('ERR_INLAY_MODEL_UNSUPPORTED');
    expect(error.message).toContain('"weights.bin"');
  });

  it('are read through the resolver', () => {
    const asked: ExternalReference[] = [];
    const proto = external({ location: 'data/weights.bin', offset: '4096', length: '8' });
    const tensor = fromTensorProto(proto, {
      external: (reference) => {
        asked.push(reference);
        return new Uint8Array(Float32Array.of(1, 2).buffer);
      },
    });
    expect(asked).toEqual([{ location: 'data/weights.bin', offsetBytes: 4096, lengthBytes: 8 }]);
    expect(tensor.toArray()).toEqual([1, 2]);
  });

  it.each<Record<string, string>>([
    {},
    { location: '/etc/passwd' },
    { location: '../weights.bin' },
    { location: 'a/../../weights.bin' },
    { location: 'a\\..\\weights.bin' },
    { location: 'C:\\weights.bin' },
    { location: '\\\\server\\weights.bin' },
    { location: 'w.bin', offset: '-1' },
    { location: 'w.bin', offset: '1e3' },
    { location: 'w.bin', length: '4' },
    { location: 'w.bin', length: '99999999999999999999' },
  ])('are refused before anything is read: %o', (entries) => {
    const error = errorOf(() =>
      fromTensorProto(external(entries), {
        external: () => {
          throw new Error('The resolver was called.');
        },
      }),
    );
    expect(error.code).toBe('ERR_INLAY_MODEL_INVALID');
  });

  it('are refused if the resolver gives another length', () => {
    const proto = external({ location: 'w.bin' });
    expect(errorOf(() => fromTensorProto(proto, { external: () => new Uint8Array(4) })).code).toBe(
      'ERR_INLAY_MODEL_INVALID',
    );
  });

  it('that come unaligned are copied, not misread', () => {
    const file = new Uint8Array(9);
    file.set(new Uint8Array(Float32Array.of(1, 2).buffer), 1);
    const tensor = fromTensorProto(external({ location: 'w.bin' }), { external: () => file.subarray(1) });
    expect(tensor).toEqual(tensorFrom('float32', [1, 2]));
  });
});
