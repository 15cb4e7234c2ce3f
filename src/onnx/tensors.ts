/** Constants of a model as tensors, and back. */
import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import {
  dtypeFromOnnx,
  DTYPES,
  sizeBytesOf,
  storageLength,
  type DType,
  type TypedArray,
} from '../core/dtype.ts';
import { ModelError, type ErrorCode } from '../core/errors.ts';
import { Tensor } from '../core/tensor.ts';
import type { TensorProto } from './messages.ts';

/** Where the elements of a tensor are, if not in the model. */
export interface ExternalReference {
  /** Relative path without `..`, from the folder of the model. */
  readonly location: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/**
 * Gives the bytes that a reference stands for, exactly `lengthBytes` of them.
 * @param tensor Name of the constant, for errors.
 */
export type ExternalResolver = (reference: ExternalReference, tensor: string) => Uint8Array;

/** How {@link fromTensorProto} reads. */
export interface FromTensorOptions {
  /** Reads external data. Default: external data is refused. */
  readonly external?: ExternalResolver;
}

/** `TensorProto.DataLocation.EXTERNAL` */
const EXTERNAL = 1;

/**
 * Reads a constant. `rawData` that lies aligned in the file is not copied: the tensor is a view.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if shape, dtype and payload disagree,
 * `ERR_INLAY_MODEL_UNSUPPORTED` for an unknown dtype, a split tensor, or external data without a resolver.
 */
export function fromTensorProto(proto: TensorProto, options: FromTensorOptions = {}): Tensor {
  const dtype = dtypeOf(proto);
  const size = elementsOf(proto);
  if (proto.segment !== undefined) throw fail('UNSUPPORTED', proto, 'is split into segments');
  const data =
    dtype === 'string'
      ? textsOf(proto)
      : isExternal(proto)
        ? viewAs(dtype, readExternal(proto, options.external), proto)
        : proto.rawData !== undefined
          ? viewAs(dtype, proto.rawData, proto)
          : fromTyped(dtype, proto);
  const want = storageLength(dtype, size);
  if (data.length !== want) {
    throw fail(
      'INVALID',
      proto,
      `of shape [${proto.dims.join(', ')}] needs ${want} ${dtype} storage elements, but holds ${data.length}`,
    );
  }
  return new Tensor(dtype, proto.dims, data);
}

/**
 * Writes a constant. The elements are not copied: the message holds a view of the tensor's bytes.
 */
export function toTensorProto(name: string, tensor: Tensor): TensorProto {
  const { dtype, shape, data } = tensor;
  const head = { name, dims: shape, dataType: DTYPES[dtype].onnx };
  if (dtype === 'string')
    return { ...head, stringData: (data as readonly string[]).map((text) => toUtf8(text)) };
  const { buffer, byteOffset, byteLength } = data as TypedArray;
  return { ...head, rawData: new Uint8Array(buffer, byteOffset, byteLength) };
}

/** Tells whether the elements of a constant are in another file. */
export function isExternal(proto: TensorProto): boolean {
  return proto.dataLocation === EXTERNAL;
}

/** The fields of a constant whose elements are in another file: the inverse of {@link externalReference}. */
export function toExternalFields({
  location,
  offsetBytes,
  lengthBytes,
}: ExternalReference): Pick<TensorProto, 'externalData' | 'dataLocation'> {
  const entries = Object.entries({ location, offset: String(offsetBytes), length: String(lengthBytes) });
  return { externalData: entries.map(([key, value]) => ({ key, value })), dataLocation: EXTERNAL };
}

/**
 * Dtype of a constant.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if the number stands for none.
 */
export function dtypeOf(proto: TensorProto): DType {
  const dtype = dtypeFromOnnx(proto.dataType ?? 0);
  if (dtype === undefined)
    throw fail('UNSUPPORTED', proto, `has the unknown data type ${proto.dataType ?? 0}`);
  return dtype;
}

/**
 * Number of elements that the shape of a constant promises.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if an axis is negative or the product is beyond 2^53.
 */
export function elementsOf(proto: TensorProto): number {
  const size = proto.dims.reduce((product, length) => product * length, 1);
  if (proto.dims.some((length) => length < 0) || !Number.isSafeInteger(size)) {
    throw fail('INVALID', proto, `has the impossible shape [${proto.dims.join(', ')}]`);
  }
  return size;
}

/**
 * Where the elements of an external constant are.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if the path leaves the model's folder or a number is none.
 */
export function externalReference(proto: TensorProto): ExternalReference {
  const entries = new Map(proto.externalData?.map(({ key, value }) => [key, value ?? '']));
  const location = entries.get('location') ?? '';
  if (location === '' || /^([/\\]|[a-z]:)/i.test(location) || location.split(/[/\\]/).includes('..')) {
    throw fail(
      'INVALID',
      proto,
      `names the external file "${location}", which is not inside the model's folder`,
    );
  }
  const number = (key: string, otherwise: number): number => {
    const text = entries.get(key);
    if (text === undefined) return otherwise;
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value)) throw fail('INVALID', proto, `has the external ${key} "${text}"`);
    return value;
  };
  const expected = sizeBytesOf(dtypeOf(proto), elementsOf(proto));
  return { location, offsetBytes: number('offset', 0), lengthBytes: number('length', expected) };
}

/**
 * Where the elements of an external constant are, if that can be: as many bytes as shape and dtype ask for.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` as {@link externalReference} does, if the length is another
 * one, and for strings, which cannot be external.
 */
export function checkedReference(proto: TensorProto): ExternalReference {
  const dtype = dtypeOf(proto);
  if (dtype === 'string') throw fail('INVALID', proto, 'holds strings, which cannot be external');
  const reference = externalReference(proto);
  const expected = sizeBytesOf(dtype, elementsOf(proto));
  if (reference.lengthBytes === expected) return reference;
  throw fail(
    'INVALID',
    proto,
    `needs ${expected} bytes, but its external length is ${reference.lengthBytes}`,
  );
}

function readExternal(proto: TensorProto, resolve: ExternalResolver | undefined): Uint8Array {
  if (resolve !== undefined) return resolve(checkedReference(proto), proto.name ?? '');
  const { location } = externalReference(proto);
  throw fail(
    'UNSUPPORTED',
    proto,
    `is in the external file "${location}"; pass a resolver for external data`,
  );
}

function viewAs(dtype: DType, bytes: Uint8Array, proto: TensorProto): TypedArray {
  const storage = DTYPES[dtype].storage as Uint8ArrayConstructor;
  const { BYTES_PER_ELEMENT } = storage;
  if (bytes.length % BYTES_PER_ELEMENT !== 0) {
    throw fail('INVALID', proto, `has ${bytes.length} bytes, which are no whole number of ${dtype} elements`);
  }
  // Not slice: that of a Node Buffer is a view.
  const aligned = bytes.byteOffset % BYTES_PER_ELEMENT === 0 ? bytes : new Uint8Array(bytes);
  return new storage(aligned.buffer, aligned.byteOffset, aligned.length / BYTES_PER_ELEMENT);
}

function textsOf(proto: TensorProto): readonly string[] {
  if (isExternal(proto)) throw fail('INVALID', proto, 'holds strings, which cannot be external');
  try {
    return (proto.stringData ?? []).map((bytes) => fromUtf8(bytes));
  } catch {
    throw fail('INVALID', proto, 'holds a string that is not UTF-8');
  }
}

/** Reads the typed lists (onnx.proto, comments of `TensorProto.float_data` and the lists after it). */
function fromTyped(dtype: DType, proto: TensorProto): TypedArray {
  const storage = DTYPES[dtype].storage as Uint16ArrayConstructor;
  switch (dtype) {
    case 'float32':
    case 'complex64':
      return proto.floatData ?? new Float32Array(0);
    case 'float64':
    case 'complex128':
      return proto.doubleData ?? new Float64Array(0);
    case 'int64':
      return proto.int64Data ?? new BigInt64Array(0);
    case 'uint64':
      return proto.uint64Data ?? new BigUint64Array(0);
    case 'int32':
      return proto.int32Data ?? new Int32Array(0);
    case 'uint32':
      return Uint32Array.from(proto.uint64Data ?? [], (value) => Number(BigInt.asUintN(32, value)));
    default:
      // Narrow types take one entry per storage element: 16-bit floats as bits, two 4-bit or four 2-bit values per entry.
      return storage.from(proto.int32Data ?? []);
  }
}

function fail(code: 'INVALID' | 'UNSUPPORTED', proto: TensorProto, what: string): ModelError {
  const codes: Record<typeof code, ErrorCode<'ModelError'>> = {
    INVALID: 'ERR_INLAY_MODEL_INVALID',
    UNSUPPORTED: 'ERR_INLAY_MODEL_UNSUPPORTED',
  };
  return new ModelError(codes[code], `The constant "${proto.name ?? ''}" ${what}.`, {
    details: { tensor: proto.name ?? '' },
  });
}
