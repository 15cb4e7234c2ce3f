import { DTYPES, storageLength, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import { InputError } from '../core/errors.ts';
import { formatSpec, type Signature, type TensorSpec } from '../core/signature.ts';
import {
  isStorageOf,
  nameOf,
  sizeOf,
  Tensor,
  tensorFrom,
  writeElements,
  type NestedArray,
  type Scalar,
} from '../core/tensor.ts';
import type { TensorMap } from '../core/backend.ts';

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
export function createFeedBinder(signature: Signature): (feeds: Feeds) => TensorMap {
  const inputs = signature.inputs.map((spec) => createInput(spec));
  const single = inputs.length === 1 ? inputs[0] : undefined;

  return (feeds) => {
    if (typeof feeds !== 'object' || feeds === null) {
      throw new TypeError(`Feeds are an object with one entry per input, got ${nameOf(feeds)}.`);
    }
    if (single !== undefined) {
      // The common case, without bookkeeping: one input, whose shape says everything about itself.
      const feed = feeds[single.spec.name];
      const first = feed instanceof Tensor ? checkFixed(single, feed) : undefined;
      if (first !== undefined && Object.keys(feeds).length === 1) return feeds as TensorMap;
    }
    return bindAll(inputs, feeds);
  };
}

interface Input {
  readonly spec: TensorSpec;
  /** All dimensions are free and differently named, or sizes: no other input has a say. */
  readonly distinct: boolean;
}

function createInput(spec: TensorSpec): Input {
  const names = spec.shape?.filter((dimension) => typeof dimension === 'string') ?? [];
  return { spec, distinct: new Set(names).size === names.length };
}

function checkFixed(input: Input, tensor: Tensor): Tensor | undefined {
  const { spec, distinct } = input;
  if (!distinct || tensor.dtype !== spec.dtype) return undefined;
  const { shape } = spec;
  if (shape === null) return undefined;
  if (shape.length !== tensor.shape.length) return undefined;
  for (let axis = 0; axis < shape.length; axis += 1) {
    const want = shape[axis];
    if (typeof want === 'number' && want !== tensor.shape[axis]) return undefined;
  }
  return isDetached(tensor.data) ? undefined : tensor;
}

/** Sizes that symbolic dimensions have been given so far, and by which input. */
type Bindings = Map<string, { readonly size: number; readonly by: string }>;

function bindAll(inputs: readonly Input[], feeds: Feeds): TensorMap {
  const bindings: Bindings = new Map();
  const bound: Record<string, Tensor> = {};
  let waiting: { readonly spec: TensorSpec; readonly data: Flat }[] = [];

  for (const { spec } of inputs) {
    const feed = feeds[spec.name];
    if (feed === undefined || feed === null) throw missing(inputs, spec);
    const tensor = toTensor(spec, feed);
    if (tensor instanceof Tensor) {
      unify(spec, tensor.shape, bindings);
      bound[spec.name] = tensor;
    } else {
      waiting.push({ spec, data: tensor });
    }
  }
  refuseUnknown(inputs, feeds);

  // Flat data takes its shape from what is known; each input that is settled may settle the next one.
  while (waiting.length > 0) {
    const stuck: typeof waiting = [];
    for (const item of waiting) {
      const shape = inferShape(item.spec, item.data.size, bindings);
      if (shape === undefined) {
        stuck.push(item);
        continue;
      }
      unify(item.spec, shape, bindings);
      bound[item.spec.name] = new Tensor(item.spec.dtype, shape, item.data.storage);
    }
    if (stuck.length === waiting.length) throw ambiguous((stuck[0] as (typeof stuck)[0]).spec, bindings);
    waiting = stuck;
  }
  return bound;
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
    return toFlat(spec, feed as TypedArray | Uint8ClampedArray);
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
    const size = sizeOf(spec.shape as readonly number[]);
    if (storageLength(spec.dtype, size) === length) return size;
  }
  return (length * 8) / DTYPES[spec.dtype].bits;
}

/** Checks a shape against a spec and remembers what its symbolic dimensions are. */
function unify(spec: TensorSpec, shape: readonly number[], bindings: Bindings): void {
  if (spec.shape === null) return;
  if (shape.length !== spec.shape.length) {
    throw wrongShape(spec, shape, `rank ${shape.length} is not ${spec.shape.length}`);
  }
  spec.shape.forEach((want, axis) => {
    const size = shape[axis] as number;
    if (typeof want === 'number') {
      if (size !== want) throw wrongShape(spec, shape, `axis ${axis} is ${size}, not ${want}`);
    } else if (want !== null) {
      const earlier = bindings.get(want);
      if (earlier === undefined) bindings.set(want, { size, by: spec.name });
      else if (earlier.size !== size) {
        const where = earlier.by === spec.name ? 'an earlier axis' : `input "${earlier.by}"`;
        throw wrongShape(spec, shape, `axis ${axis}, "${want}", is ${size}, but ${earlier.size} in ${where}`);
      }
    }
  });
}

/** Shape of `size` elements, when at most one of the spec's sizes is still open. */
function inferShape(spec: TensorSpec, size: number, bindings: Bindings): number[] | undefined {
  if (spec.shape === null) return [size];
  const known = spec.shape.map((dimension) =>
    typeof dimension === 'string' ? (bindings.get(dimension)?.size ?? dimension) : dimension,
  );
  const open = new Set<string | number>();
  known.forEach((part, axis) => {
    if (typeof part !== 'number') open.add(part ?? axis);
  });
  const product = known.reduce<number>((all, part) => (typeof part === 'number' ? all * part : all), 1);
  if (open.size > 1) return undefined;
  if (open.size === 0) {
    if (product !== size) throw wrongLength(spec, size, `${product}`);
    return known as number[];
  }
  const axes = known.filter((part) => typeof part !== 'number').length;
  const side = product === 0 ? Number.NaN : Math.round((size / product) ** (1 / axes));
  if (side ** axes * product !== size) throw wrongLength(spec, size, `a multiple of ${product}`);
  return known.map((part) => (typeof part === 'number' ? part : side));
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

function named<T>(spec: TensorSpec, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(error.code, `Input "${spec.name}" (${formatSpec(spec)}): ${error.message}`, {
      cause: error,
      details: { ...error.details, input: spec.name },
    });
  }
}

function missing(inputs: readonly Input[], spec: TensorSpec): InputError {
  const all = inputs.map((input) => formatSpec(input.spec)).join('; ');
  return new InputError('ERR_INLAY_FEED_MISSING', `Input "${spec.name}" is missing; the model takes ${all}.`, {
    details: { input: spec.name },
  });
}

function refuseUnknown(inputs: readonly Input[], feeds: Feeds): void {
  const known = new Set(inputs.map((input) => input.spec.name));
  for (const name of Object.keys(feeds)) {
    if (known.has(name)) continue;
    throw new InputError(
      'ERR_INLAY_FEED_UNKNOWN',
      `The model has no input "${name}"; its inputs are ${[...known].map((n) => `"${n}"`).join(', ') || 'none'}.`,
      { details: { input: name } },
    );
  }
}

function wrongDType(spec: TensorSpec, got: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_DTYPE',
    `Input ${formatSpec(spec)} cannot take ${got}; pass ${DTYPES[spec.dtype].storage.name}, nested arrays or a ${spec.dtype} Tensor.`,
    { details: { input: spec.name, dtype: spec.dtype } },
  );
}

function wrongShape(spec: TensorSpec, shape: readonly number[], why: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `Input ${formatSpec(spec)} cannot take shape [${shape.join(', ')}]: ${why}.`,
    { details: { input: spec.name, shape: [...shape] } },
  );
}

function wrongLength(spec: TensorSpec, size: number, want: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `Input ${formatSpec(spec)} cannot take ${size} elements; it needs ${want}.`,
    { details: { input: spec.name, size } },
  );
}

function ambiguous(spec: TensorSpec, bindings: Bindings): InputError {
  const open = spec.shape?.map((part) => (typeof part === 'string' && bindings.has(part) ? bindings.get(part)?.size : (part ?? '?')));
  return new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `The shape of input ${formatSpec(spec)} cannot be told from a flat array: more than one of [${open?.join(', ')}] is open; pass a Tensor.`,
    { details: { input: spec.name } },
  );
}
