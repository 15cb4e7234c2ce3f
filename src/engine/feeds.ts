import { DTYPES, storageLength, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import { InputError } from '../core/errors.ts';
import { formatSpec, named, type Signature, type TensorSpec } from '../core/signature.ts';
import {
  isStorageOf,
  nameOf,
  sizeOf,
  storageName,
  Tensor,
  tensorFrom,
  writeElements,
  type NestedArray,
  type Scalar,
} from '../core/tensor.ts';
import type { TensorMap } from '../core/backend.ts';
import { createDimensions, type Dimensions } from './dimensions.ts';

/**
 * What a host may give for one input.
 * - A {@link Tensor} says its own shape.
 * - A typed array, or a flat array, takes its shape from the signature and its own length.
 * - Nested arrays say their shape by nesting; numbers are converted to the input's dtype and checked.
 * - A scalar fits inputs of one element.
 */
export type Feed = Tensor | TypedArray | Uint8ClampedArray | NestedArray;

/** One {@link Feed} per input, by name. */
export type Feeds = Readonly<Record<string, Feed>>;

/**
 * Prepares the check and conversion of feeds for one signature.
 * @returns a function that gives complete tensors and throws {@link InputError} for anything that does not fit.
 * Tensors and typed arrays are not copied.
 */
export function createFeedBinder({ inputs }: Signature): (feeds: Feeds) => TensorMap {
  const dimensions = createDimensions(inputs);

  return (feeds) => {
    if (typeof feeds !== 'object' || feeds === null) {
      throw new TypeError(`Feeds are an object with one entry per input, got ${nameOf(feeds)}.`);
    }
    dimensions.reset();
    const bound: Record<string, Tensor> = {};
    let waiting: Waiting[] | undefined;
    for (let index = 0; index < inputs.length; index += 1) {
      const spec = inputs[index] as TensorSpec;
      const feed = feeds[spec.name];
      if (feed === undefined || feed === null) throw missing(inputs, spec, feeds);
      const tensor = toTensor(spec, feed);
      if (tensor instanceof Tensor) {
        dimensions.unify(index, tensor.shape);
        bound[spec.name] = tensor;
      } else {
        (waiting ??= []).push({ index, ...tensor });
      }
    }
    refuseUnknown(inputs, feeds);
    if (waiting !== undefined) settle(inputs, dimensions, waiting, bound);
    return bound;
  };
}

interface Waiting extends Flat {
  readonly index: number;
}

/** Gives flat data its shapes from what is known; each input that is settled may settle the next one. */
function settle(
  inputs: readonly TensorSpec[],
  dimensions: Dimensions,
  waiting: readonly Waiting[],
  bound: Record<string, Tensor>,
): void {
  const stuck: Waiting[] = [];
  for (const item of waiting) {
    const { name, dtype } = inputs[item.index] as TensorSpec;
    const shape = dimensions.infer(item.index, item.size);
    if (shape === undefined) stuck.push(item);
    else {
      dimensions.unify(item.index, shape);
      bound[name] = new Tensor(dtype, shape, item.storage);
    }
  }
  if (stuck.length === 0) return;
  if (stuck.length === waiting.length) throw ambiguous(inputs[(stuck[0] as Waiting).index] as TensorSpec);
  settle(inputs, dimensions, stuck, bound);
}

/** Elements without a shape of their own. */
interface Flat {
  readonly storage: DTypeStorage[DType];
  readonly size: number;
}

function toTensor(spec: TensorSpec, feed: Feed): Tensor | Flat {
  if (isTensorLike(feed)) {
    // A tensor of another copy of this package is as good as ours once its parts were checked.
    const tensor = feed instanceof Tensor ? feed : tensorOf(feed);
    if (tensor.dtype !== spec.dtype) throw wrongDType(spec, `a ${tensor.dtype} tensor`);
    assertAttached(spec, tensor.data);
    return tensor;
  }
  if (ArrayBuffer.isView(feed)) {
    if (feed instanceof DataView) throw wrongDType(spec, 'a DataView');
    assertAttached(spec, feed);
    return toFlat(spec, feed);
  }
  if (!Array.isArray(feed)) {
    if (typeof feed === 'object') throw wrongDType(spec, nameOf(feed));
    const tensor = named(spec, () => tensorFrom(spec.dtype, feed));
    const rank = spec.shape?.length ?? 0;
    const fits = spec.shape?.every((dimension) => typeof dimension !== 'number' || dimension === 1) ?? true;
    return rank > 0 && fits
      ? new Tensor(
          spec.dtype,
          Array.from({ length: rank }, () => 1),
          tensor.data,
        )
      : tensor;
  }
  const isFlat = spec.shape !== null && spec.shape.length !== 1 && !feed.some((part) => Array.isArray(part));
  if (isFlat) {
    const storage = named(spec, () => writeElements(spec.dtype, feed as readonly Scalar[]));
    return { storage, size: feed.length };
  }
  return named(spec, () => tensorFrom(spec.dtype, feed));
}

type TensorLike = Pick<Tensor, 'dtype' | 'shape' | 'data'>;

function isTensorLike(feed: object | Scalar): feed is TensorLike {
  return (
    feed instanceof Tensor ||
    (typeof feed === 'object' && 'dtype' in feed && 'shape' in feed && 'data' in feed)
  );
}

function tensorOf({ dtype, shape, data }: TensorLike): Tensor {
  return new Tensor(dtype, shape, data);
}

function toFlat(spec: TensorSpec, array: TypedArray | Uint8ClampedArray): Flat {
  const { bits, lanes, storage } = DTYPES[spec.dtype];
  let data: unknown = array;
  if (array instanceof Uint8ClampedArray && storage === Uint8Array) {
    data = new Uint8Array(array.buffer, array.byteOffset, array.length);
  } else if (spec.dtype === 'float16' && array.constructor.name === 'Float16Array') {
    data = new Uint16Array(array.buffer, array.byteOffset, array.length);
  } else if (!isStorageOf(spec.dtype, array)) {
    throw wrongDType(spec, nameOf(array));
  }
  const packed = bits > 0 && bits < 8;
  const size = packed ? packedSize(spec, array.length) : array.length / lanes;
  return { storage: data as DTypeStorage[DType], size };
}

/** Packed data does not say how many elements fill its last byte; a fixed shape does. */
function packedSize(spec: TensorSpec, length: number): number {
  const fixed = spec.shape?.every((dimension) => typeof dimension === 'number');
  if (fixed) {
    const size = sizeOf(spec.shape);
    if (storageLength(spec.dtype, size) === length) return size;
  }
  return (length * 8) / DTYPES[spec.dtype].bits;
}

function assertAttached(spec: TensorSpec, data: unknown): void {
  if (!isDetached(data)) return;
  throw new InputError(
    'ERR_INLAY_FEED_DETACHED',
    `Input "${spec.name}" is a view of a buffer that was transferred away; pass a fresh array.`,
    { details: { input: spec.name } },
  );
}

function isDetached(data: unknown): boolean {
  if (!ArrayBuffer.isView(data) || data.byteLength > 0) return false;
  try {
    // A detached buffer refuses new views; an empty one does not.
    return new Uint8Array(data.buffer).length !== 0 && data.byteOffset > data.buffer.byteLength;
  } catch {
    return true;
  }
}

function missing(inputs: readonly TensorSpec[], spec: TensorSpec, feeds: Feeds): InputError {
  const all = inputs.map((input) => formatSpec(input)).join('; ');
  const unknown = unknownName(inputs, feeds);
  const given = unknown === undefined ? '' : `, and "${unknown}" is none of its inputs`;
  return new InputError(
    'ERR_INLAY_FEED_MISSING',
    `Input "${spec.name}" is missing; the model takes ${all}${given}.`,
    {
      details: { input: spec.name },
    },
  );
}

/** Every input was found, so that as many keys as inputs means that no other key is there. */
function refuseUnknown(inputs: readonly TensorSpec[], feeds: Feeds): void {
  if (Object.keys(feeds).length === inputs.length) return;
  const unknown = unknownName(inputs, feeds);
  const known = inputs.map((input) => `"${input.name}"`).join(', ') || 'none';
  throw new InputError(
    'ERR_INLAY_FEED_UNKNOWN',
    `The model has no input "${unknown}"; its inputs are ${known}.`,
    { details: { input: unknown } },
  );
}

function unknownName(inputs: readonly TensorSpec[], feeds: Feeds): string | undefined {
  return Object.keys(feeds).find((name) => inputs.every((input) => input.name !== name));
}

function wrongDType(spec: TensorSpec, got: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_DTYPE',
    `Input ${formatSpec(spec)} cannot take ${got}; pass ${storageName(spec.dtype)}, nested arrays or a ${spec.dtype} Tensor.`,
    { details: { input: spec.name, dtype: spec.dtype } },
  );
}

function ambiguous(spec: TensorSpec): InputError {
  return new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `The shape of input ${formatSpec(spec)} cannot be told from a flat array, since more than one of its sizes is open; pass a Tensor.`,
    { details: { input: spec.name } },
  );
}
