import { DTYPES, isDType, storageLength, type DType, type DTypeStorage, type TypedArray } from './dtype.ts';
import { InputError } from './errors.ts';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from './float.ts';

/** Any nesting of arrays of numbers, bigints, booleans or strings. */
export type NestedArray = Scalar | readonly NestedArray[];
/** One element as a host writes it. */
export type Scalar = number | bigint | boolean | string;

/**
 * An n-dimensional array in C order. It does not copy: `data` is the array that was passed in.
 *
 * 16-bit floats are held as bit patterns in a `Uint16Array`, bool as 0 or 1 in a `Uint8Array`, 4- and 2-bit
 * integers packed in a `Uint8Array` with the first element in the low bits, strings in an array.
 *
 * @example
 * const image = new Tensor('float32', [1, 28, 28, 1], new Float32Array(784));
 */
export class Tensor<D extends DType = DType> {
  readonly dtype: D;
  /** Sizes of the axes; `[]` is a scalar. */
  readonly shape: readonly number[];
  readonly data: DTypeStorage[D];

  /**
   * @param dtype - name of the element type.
   * @param shape - sizes of the axes, outermost first.
   * @param data - the elements in C order; see {@link DTypeStorage} for the array that each dtype takes.
   * @throws `RangeError` if there is no such dtype; {@link InputError} `ERR_INLAY_FEED_SHAPE` if `shape` and the length of `data` disagree,
   * `ERR_INLAY_FEED_DTYPE` if `data` is not the storage type of `dtype`.
   */
  constructor(dtype: D, shape: readonly number[], data: DTypeStorage[D]) {
    if (!isDType(dtype))
      throw new RangeError(
        `There is no dtype ${JSON.stringify(dtype)}; a tensor takes a dtype, a shape and data.`,
      );
    const size = sizeOf(shape);
    if (!isStorageOf(dtype, data)) {
      throw new InputError(
        'ERR_INLAY_FEED_DTYPE',
        `A ${dtype} tensor holds its elements in ${storageName(dtype)}, not in ${nameOf(data)}.`,
      );
    }
    if (data.length !== storageLength(dtype, size)) {
      throw new InputError(
        'ERR_INLAY_FEED_SHAPE',
        `A ${dtype} tensor of shape [${shape.join(', ')}] needs ${storageLength(dtype, size)} elements of storage, got ${data.length}.`,
      );
    }
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Bytes of storage; 0 for strings. */
  get sizeBytes(): number {
    return ArrayBuffer.isView(this.data) ? this.data.byteLength : 0;
  }

  /**
   * Copies the elements into plain numbers (64-bit integers stay bigint, bool becomes boolean), nested by shape.
   * A scalar tensor gives one value.
   */
  toArray(): NestedArray {
    const values = readElements(this.dtype, this.data, this.size);
    let level: NestedArray[] = values;
    for (let axis = this.shape.length - 1; axis > 0; axis -= 1) {
      const length = this.shape[axis] as number;
      const rows = sizeOf(this.shape.slice(0, axis));
      level = Array.from({ length: rows }, (_, row) => level.slice(row * length, (row + 1) * length));
    }
    return this.shape.length === 0 ? (values[0] as Scalar) : level;
  }
}

/**
 * Number of elements of a shape; 1 for a scalar.
 * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if a length is no non-negative integer.
 */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const length of shape) {
    if (!Number.isSafeInteger(length) || length < 0) {
      throw new InputError(
        'ERR_INLAY_FEED_SHAPE',
        `A shape is a list of non-negative integers, got [${shape.join(', ')}].`,
      );
    }
    size *= length;
  }
  return size;
}

/** Tells whether a value is of the storage type of `dtype`. */
export function isStorageOf(dtype: DType, data: unknown): boolean {
  return data instanceof DTYPES[dtype].storage;
}

/**
 * Builds a tensor from nested arrays or one scalar; the shape is read off the nesting.
 * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if the nesting is ragged, `ERR_INLAY_FEED_VALUE` if an element
 * is not representable in `dtype`.
 */
export function tensorFrom<D extends DType>(dtype: D, nested: NestedArray): Tensor<D> {
  const shape = shapeOf(nested);
  const flat: Scalar[] = [];
  flatten(nested, shape, 0, flat);
  return new Tensor(dtype, shape, writeElements(dtype, flat));
}

/** Shape that the first element of each level promises; flattening checks that the rest keeps it. */
function shapeOf(nested: NestedArray): number[] {
  const shape: number[] = [];
  let level = nested;
  while (Array.isArray(level)) {
    shape.push(level.length);
    if (level.length === 0) break;
    level = level[0] as NestedArray;
  }
  return shape;
}

function flatten(nested: NestedArray, shape: readonly number[], axis: number, into: Scalar[]): void {
  if (axis === shape.length) {
    if (Array.isArray(nested)) throw ragged(axis);
    into.push(nested as Scalar);
    return;
  }
  if (!Array.isArray(nested) || nested.length !== shape[axis]) throw ragged(axis);
  for (const part of nested) flatten(part as NestedArray, shape, axis + 1, into);
}

function ragged(axis: number): InputError {
  return new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `Nested arrays must be rectangular: lengths differ at axis ${axis}.`,
  );
}

/**
 * Packs plain elements into the storage of a dtype.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` for an element that the dtype cannot represent.
 */
export function writeElements<D extends DType>(dtype: D, elements: readonly Scalar[]): DTypeStorage[D] {
  const { kind, bits, storage } = DTYPES[dtype];
  const fail = (index: number, want: string): InputError =>
    new InputError('ERR_INLAY_FEED_VALUE', `Element ${index} is not ${want}, as ${dtype} needs.`, {
      details: { index, dtype },
    });
  if (kind === 'string') {
    elements.forEach((element, index) => {
      if (typeof element !== 'string') throw fail(index, 'a string');
    });
    return elements as unknown as DTypeStorage[D];
  }
  const Storage = storage as new (length: number) => TypedArray;
  const data = new Storage(storageLength(dtype, elements.length));
  if (kind === 'complex' || (kind === 'float' && bits < 16)) {
    throw new InputError(
      'ERR_INLAY_FEED_DTYPE',
      `${dtype} has no plain number form; pass a Tensor with its bits.`,
    );
  }
  const [low, high] = rangeOf(dtype);
  for (let index = 0; index < elements.length; index += 1) {
    const element = elements[index] as Scalar;
    if (kind === 'float') {
      if (typeof element !== 'number') throw fail(index, 'a number');
      data[index] =
        dtype === 'float16'
          ? toFloat16Bits(element)
          : dtype === 'bfloat16'
            ? toBfloat16Bits(element)
            : element;
    } else if (kind === 'bool') {
      if (element !== true && element !== false && element !== 0 && element !== 1) {
        throw fail(index, 'true or false');
      }
      data[index] = Number(element);
    } else {
      const isInteger =
        typeof element === 'bigint' || (typeof element === 'number' && Number.isSafeInteger(element));
      if (!isInteger) throw fail(index, 'a safe integer or a bigint');
      if (element < low || element > high) throw fail(index, `between ${low} and ${high}`);
      if (bits === 64) data[index] = BigInt(element);
      else if (bits >= 8) data[index] = Number(element);
      else {
        const perByte = 8 / bits;
        const at = Math.floor(index / perByte);
        const shift = (index % perByte) * bits;
        const field = (Number(element) & ((1 << bits) - 1)) << shift;
        data[at] = (data[at] as number) | field;
      }
    }
  }
  return data as unknown as DTypeStorage[D];
}

/** Unpacks storage into plain elements: the inverse of {@link writeElements}. Complex and 8-bit floats give raw storage. */
export function readElements<D extends DType>(dtype: D, data: DTypeStorage[D], size: number): Scalar[] {
  const { kind, bits } = DTYPES[dtype];
  const raw = data as ArrayLike<Scalar>;
  if (kind === 'bool') return Array.from(raw, Boolean);
  if (dtype === 'float16') return Array.from(raw, (value) => fromFloat16Bits(Number(value)));
  if (dtype === 'bfloat16') return Array.from(raw, (value) => fromBfloat16Bits(Number(value)));
  if (kind === 'string' || bits >= 8) return Array.from(raw);
  const perByte = 8 / bits;
  return Array.from({ length: size }, (_, index) => {
    const field =
      (Number(raw[Math.floor(index / perByte)]) >> ((index % perByte) * bits)) & ((1 << bits) - 1);
    return kind === 'int' && field >= 1 << (bits - 1) ? field - (1 << bits) : field;
  });
}

function rangeOf(dtype: DType): readonly [bigint, bigint] {
  const { kind, bits } = DTYPES[dtype];
  if (kind === 'uint') return [0n, (1n << BigInt(bits)) - 1n];
  if (kind === 'int') return [-(1n << BigInt(bits - 1)), (1n << BigInt(bits - 1)) - 1n];
  return [0n, 0n];
}

/** Name of the array that holds a dtype, for messages: `a Float32Array`. */
export function storageName(dtype: DType): string {
  return dtype === 'string' ? 'an array of strings' : withArticle(DTYPES[dtype].storage.name);
}

/** Name of a value's type for messages: `a Float64Array`, `an object`, `null` … */
export function nameOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value !== 'object') return withArticle(typeof value);
  return withArticle(value.constructor?.name ?? 'object');
}

function withArticle(noun: string): string {
  return `${/^[aeio]/i.test(noun) ? 'an' : 'a'} ${noun}`;
}
