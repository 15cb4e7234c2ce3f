/**
 * Every ONNX element type, once. Code elsewhere looks dtypes up here and never lists them again.
 * Source: `TensorProto.DataType` of onnx.proto (IR version 13).
 */

/** How the values of one dtype are held in memory. */
export interface DTypeInfo {
  /** Number of `TensorProto.DataType`. */
  readonly onnx: number;
  /** Bits of one element. 0 for strings. Below 8: elements are packed, first element in the low bits. */
  readonly bits: number;
  readonly kind: 'float' | 'int' | 'uint' | 'bool' | 'string' | 'complex';
  /** Typed array that holds the elements. 16-bit floats are held as bit patterns, complex as (re, im) pairs. */
  readonly storage: StorageConstructor;
  /** Storage elements per tensor element, where that is more than one. */
  readonly lanes: number;
}

/** Array types that back a tensor. */
export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

type StorageConstructor =
  | Float32ArrayConstructor
  | Float64ArrayConstructor
  | Int8ArrayConstructor
  | Uint8ArrayConstructor
  | Int16ArrayConstructor
  | Uint16ArrayConstructor
  | Int32ArrayConstructor
  | Uint32ArrayConstructor
  | BigInt64ArrayConstructor
  | BigUint64ArrayConstructor
  | ArrayConstructor;

/** Storage type of each dtype. */
export interface DTypeStorage {
  readonly float32: Float32Array;
  readonly uint8: Uint8Array;
  readonly int8: Int8Array;
  readonly uint16: Uint16Array;
  readonly int16: Int16Array;
  readonly int32: Int32Array;
  readonly int64: BigInt64Array;
  readonly string: readonly string[];
  readonly bool: Uint8Array;
  readonly float16: Uint16Array;
  readonly float64: Float64Array;
  readonly uint32: Uint32Array;
  readonly uint64: BigUint64Array;
  readonly complex64: Float32Array;
  readonly complex128: Float64Array;
  readonly bfloat16: Uint16Array;
  readonly float8e4m3fn: Uint8Array;
  readonly float8e4m3fnuz: Uint8Array;
  readonly float8e5m2: Uint8Array;
  readonly float8e5m2fnuz: Uint8Array;
  readonly uint4: Uint8Array;
  readonly int4: Uint8Array;
  readonly float4e2m1: Uint8Array;
  readonly float8e8m0: Uint8Array;
  readonly uint2: Uint8Array;
  readonly int2: Uint8Array;
}

/** Name of an element type, spelled as in ONNX operator schemas. */
export type DType = keyof DTypeStorage;

const info = (
  onnx: number,
  bits: number,
  kind: DTypeInfo['kind'],
  storage: StorageConstructor,
  lanes = 1,
): DTypeInfo => ({ onnx, bits, kind, storage, lanes });

/** The table: one row per dtype. */
export const DTYPES: Readonly<Record<DType, DTypeInfo>> = {
  float32: info(1, 32, 'float', Float32Array),
  uint8: info(2, 8, 'uint', Uint8Array),
  int8: info(3, 8, 'int', Int8Array),
  uint16: info(4, 16, 'uint', Uint16Array),
  int16: info(5, 16, 'int', Int16Array),
  int32: info(6, 32, 'int', Int32Array),
  int64: info(7, 64, 'int', BigInt64Array),
  string: info(8, 0, 'string', Array),
  bool: info(9, 8, 'bool', Uint8Array),
  float16: info(10, 16, 'float', Uint16Array),
  float64: info(11, 64, 'float', Float64Array),
  uint32: info(12, 32, 'uint', Uint32Array),
  uint64: info(13, 64, 'uint', BigUint64Array),
  complex64: info(14, 64, 'complex', Float32Array, 2),
  complex128: info(15, 128, 'complex', Float64Array, 2),
  bfloat16: info(16, 16, 'float', Uint16Array),
  float8e4m3fn: info(17, 8, 'float', Uint8Array),
  float8e4m3fnuz: info(18, 8, 'float', Uint8Array),
  float8e5m2: info(19, 8, 'float', Uint8Array),
  float8e5m2fnuz: info(20, 8, 'float', Uint8Array),
  uint4: info(21, 4, 'uint', Uint8Array),
  int4: info(22, 4, 'int', Uint8Array),
  float4e2m1: info(23, 4, 'float', Uint8Array),
  float8e8m0: info(24, 8, 'float', Uint8Array),
  uint2: info(25, 2, 'uint', Uint8Array),
  int2: info(26, 2, 'int', Uint8Array),
};

const byOnnx: ReadonlyMap<number, DType> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ Object.entries(DTYPES).map(([name, row]) => [row.onnx, name as DType]),
);

/** Tells whether a string names a dtype. */
export function isDType(name: string): name is DType {
  return Object.hasOwn(DTYPES, name);
}

/** Looks a dtype up by its `TensorProto.DataType` number; `undefined` if ONNX has no such type. */
export function dtypeFromOnnx(code: number): DType | undefined {
  return byOnnx.get(code);
}

/** Number of storage elements that `size` tensor elements of `dtype` take (packed types round up to a byte). */
export function storageLength(dtype: DType, size: number): number {
  const { bits, lanes } = DTYPES[dtype];
  return bits > 0 && bits < 8 ? Math.ceil((size * bits) / 8) : size * lanes;
}

/** Bytes that `size` tensor elements of `dtype` take. 0 for strings, whose size is not fixed. */
export function sizeBytesOf(dtype: DType, size: number): number {
  return Math.ceil((size * DTYPES[dtype].bits) / 8);
}
