/** Pads inputs of varying length to few sizes, so that calls of different lengths can share a batch. */
import type { TensorMap } from '../core/backend.ts';
import { difference, type Tolerance } from '../core/compare.ts';
import { DTYPES, storageLength, type DType, type DTypeStorage } from '../core/dtype.ts';
import { BackendError, isInlayError, type ErrorCode } from '../core/errors.ts';
import { formatSpec, type Signature, type TensorSpec } from '../core/signature.ts';
import { sizeOf, Tensor, writeElements, type Scalar } from '../core/tensor.ts';

/** What a host says about a model that may be padded. */
export interface PaddingOptions {
  /** Name of the symbolic dimension that varies, as in the signature: `sequence`. Never the first axis of an input. */
  readonly dimension: string;
  /** Value that fills each input up that has the dimension; all of them are listed. */
  readonly values: Readonly<Record<string, Scalar>>;
  /** The one of these inputs that tells padding from data. Its value is the one that masks, mostly 0. */
  readonly mask: string;
  /** Sizes to pad up to, ascending; what is longer is not padded. Default: 8, 16, 24 … 64, 80 … 128, 160 … */
  readonly sizes?: readonly number[];
}

/** Feeds of one call, padded. */
export interface PaddedFeeds {
  /** Inputs that have the dimension are copies, unless nothing had to be added. */
  readonly feeds: TensorMap;
  /** Share of the dimension that is padding, in [0, 1). */
  readonly ratio: number;
  /**
   * Cuts outputs back to the length that the feeds had. What is cut is copied.
   * @throws {@link BackendError} `ERR_INLAY_RUN_FAILED` if an output is not of the padded length where its signature
   * says so.
   */
  strip(outputs: TensorMap): TensorMap;
}

/** Padding as declared for one model. All feeds are complete and fit its signature. */
export interface Padding {
  /** Length to which feeds are padded; `undefined` for those that stay as they are. */
  sizeFor(feeds: TensorMap): number | undefined;
  /** Pads feeds. They are not changed. */
  pad(feeds: TensorMap): PaddedFeeds;
}

/** An input or output, with the axes along which it varies. */
interface Column {
  readonly spec: TensorSpec;
  readonly axes: readonly number[];
}

/** Shortest size by default, and what sizes are multiples of: kernels take eight floats at a time. */
const SMALLEST_STEP = 8;

/**
 * Prepares padding for a model.
 * @throws RangeError if `options` and the signature do not go together, or a dtype cannot be padded; TypeError if a
 * value is none of its dtype.
 */
export function createPadding(signature: Signature, options: PaddingOptions): Padding {
  const { dimension, values, mask, sizes } = options;
  const inputs = columnsOf(signature.inputs, dimension);
  const outputs = columnsOf(signature.outputs, dimension);
  assertOptions(inputs, options);
  assertDTypes(inputs, outputs);
  const fills = inputs.map(({ spec }) => fillOf(spec, values[spec.name] as Scalar));
  const maskAxis = inputs.find(({ spec }) => spec.name === mask)?.axes[0] as number;

  const lengthOf = (feeds: TensorMap): number => feeds[mask]?.shape[maskAxis] as number;
  const sizeFor = (feeds: TensorMap): number | undefined => {
    const length = lengthOf(feeds);
    // With nothing to tell from padding, a mask says nothing.
    if (length === 0) return undefined;
    const size = sizes === undefined ? roundUp(length) : sizes.find((each) => each >= length);
    return size === length ? undefined : size;
  };

  return {
    sizeFor,
    pad: (feeds) => {
      const size = sizeFor(feeds);
      if (size === undefined) return asIs(feeds);
      const length = lengthOf(feeds);
      const padded: Record<string, Tensor> = { ...feeds };
      for (const [at, { spec, axes }] of inputs.entries()) {
        padded[spec.name] = resize(feeds[spec.name] as Tensor, axes, size, fills[at]);
      }
      return {
        feeds: padded,
        ratio: 1 - length / size,
        strip: (found) => {
          const stripped: Record<string, Tensor> = { ...found };
          for (const { spec, axes } of outputs) {
            const tensor = found[spec.name];
            if (tensor === undefined) continue;
            assertPadded(spec, axes, tensor, size);
            stripped[spec.name] = resize(tensor, axes, length);
          }
          return stripped;
        },
      };
    },
  };
}

/** What a run throws where the model does not take so much, or dies of it. */
const REFUSALS: readonly ErrorCode[] = ['ERR_INLAY_RUN_FAILED', 'ERR_INLAY_WORKER_LOST'];

/** Why a model may not be padded. */
export interface PaddingFault {
  readonly reason: string;
  /** Whether it only concerns the size that was tried and those above, as where a model has a longest input. */
  readonly isOfSize: boolean;
}

/**
 * Finds out with one real sample whether padding leaves the answers of a model alone.
 * @param feeds - feeds that {@link Padding.pad} makes longer. They must not change before this settles.
 * @param tolerance - how far floats may lie apart. Default: what rounding explains.
 * @returns what is wrong; `undefined` if nothing is.
 * @throws RangeError if the feeds are not padded; what the unpadded run throws; what the padded run throws, unless the
 * model fails at it.
 */
export async function provePadding(
  session: { run(feeds: TensorMap): Promise<TensorMap> },
  padding: Padding,
  feeds: TensorMap,
  tolerance?: Tolerance,
): Promise<PaddingFault | undefined> {
  const { feeds: padded, ratio, strip } = padding.pad(feeds);
  if (ratio === 0) throw new RangeError('Feeds that are not padded prove nothing; take shorter ones.');
  const expected = await session.run(feeds);
  try {
    const found = difference(expected, strip(await session.run(padded)), tolerance);
    return found === undefined
      ? undefined
      : { reason: `padded and unpadded results differ: ${found}`, isOfSize: false };
  } catch (error) {
    if (!isInlayError(error) || !REFUSALS.includes(error.code)) throw error;
    return { reason: `it fails when padded to ${padding.sizeFor(feeds)}: ${error.message}`, isOfSize: true };
  }
}

/** Padding of which each size has to be proven by real calls. */
export interface ProvenPadding {
  /**
   * Pads feeds, where that is proven for their size. Otherwise they stay as they are, and the first of them prove it on
   * the side, with a copy.
   */
  pad(feeds: TensorMap): PaddedFeeds;
  info(): PaddingInfo;
  /** Resolves when no proof is under way. */
  settled(): Promise<void>;
}

/** How a model is padded, for `info()`. */
export interface PaddingInfo {
  /** Sizes for which it is proven, ascending. */
  readonly sizes: readonly number[];
  /** Why calls are not padded, or only up to some size. */
  readonly refusal?: string;
}

/**
 * Puts every size on probation. What differs ends all padding, what fails ends it from that size on; what fails for
 * reasons of its own proves nothing.
 * @param run - runs feeds that nobody else needs.
 */
export function createProvenPadding(
  padding: Padding,
  run: (feeds: TensorMap) => Promise<TensorMap>,
  tolerance?: Tolerance,
): ProvenPadding {
  const proofs = new Map<number, Promise<void>>();
  const proven = new Set<number>();
  /** Sizes from here on are refused. */
  let limit = Infinity;
  let refusal: string | undefined;

  const refuse = ({ reason, isOfSize }: PaddingFault, size: number): void => {
    const from = isOfSize ? size : 0;
    if (from >= limit) return;
    limit = from;
    refusal = reason;
    for (const each of proven) if (each >= limit) proven.delete(each);
  };
  const prove = async (feeds: TensorMap, size: number): Promise<void> => {
    try {
      const fault = await provePadding({ run }, padding, feeds, tolerance);
      if (fault !== undefined) refuse(fault, size);
      else if (size < limit) proven.add(size);
    } catch {
      // The next call of this size will tell.
    } finally {
      proofs.delete(size);
    }
  };

  return {
    pad: (feeds) => {
      const size = limit === 0 ? undefined : padding.sizeFor(feeds);
      if (size === undefined || size >= limit) return asIs(feeds);
      if (proven.has(size)) return padding.pad(feeds);
      if (!proofs.has(size)) proofs.set(size, prove(copyOf(feeds), size));
      return asIs(feeds);
    },
    info: () => ({
      sizes: [...proven].sort((a, b) => a - b),
      ...(refusal !== undefined && { refusal }),
    }),
    settled: async () => void (await Promise.all(proofs.values())),
  };
}

function asIs(feeds: TensorMap): PaddedFeeds {
  return { feeds, ratio: 0, strip: (outputs) => outputs };
}

function copyOf(feeds: TensorMap): TensorMap {
  const copies: Record<string, Tensor> = {};
  for (const name in feeds) {
    const { dtype, shape, data } = feeds[name] as Tensor;
    copies[name] = new Tensor(dtype, shape, (data as Float32Array).slice() as DTypeStorage[DType]);
  }
  return copies;
}

/** Rounds up to an eighth of the next power of two: few sizes, and at most a fifth of padding above 32. */
function roundUp(length: number): number {
  let step = SMALLEST_STEP;
  while (step * 8 < length) step *= 2;
  return Math.ceil(length / step) * step;
}

/** Specs that have the dimension. */
function columnsOf(specs: readonly TensorSpec[], dimension: string): Column[] {
  return specs.flatMap((spec) => {
    const axes = (spec.shape ?? []).flatMap((each, axis) => (each === dimension ? [axis] : []));
    return axes.length === 0 ? [] : [{ spec, axes }];
  });
}

function assertOptions(inputs: readonly Column[], { dimension, values, mask, sizes }: PaddingOptions): void {
  if (inputs.length === 0)
    throw new RangeError(`No input of the model has a dimension "${dimension}" to pad.`);
  const names = inputs.map(({ spec }) => spec.name);
  const list = names.map((name) => `"${name}"`).join(', ');
  for (const { spec, axes } of inputs) {
    if (axes[0] === 0) {
      throw new RangeError(
        `Input ${formatSpec(spec)} has "${dimension}" as its first axis, which is not padded.`,
      );
    }
    if (!Object.hasOwn(values, spec.name)) {
      throw new RangeError(`padding.values lacks input "${spec.name}", which has "${dimension}" too.`);
    }
  }
  const unknown = Object.keys(values).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new RangeError(
      `padding.values has "${unknown}", but only ${list} can be padded along "${dimension}".`,
    );
  }
  if (!names.includes(mask)) {
    throw new RangeError(`padding.mask is one of ${list}, which have "${dimension}", got "${mask}".`);
  }
  if (sizes === undefined) return;
  const isAscending = sizes.every((size, at) => Number.isSafeInteger(size) && size > (sizes[at - 1] ?? 0));
  if (sizes.length === 0 || !isAscending) {
    throw new RangeError(
      `padding.sizes are whole numbers above 0 in ascending order, got [${sizes.join(', ')}].`,
    );
  }
}

function assertDTypes(inputs: readonly Column[], outputs: readonly Column[]): void {
  for (const { spec } of [...inputs, ...outputs]) {
    const { bits } = DTYPES[spec.dtype];
    if (bits > 0 && bits < 8)
      throw new RangeError(`${spec.dtype} is packed and cannot be padded, as in "${spec.name}".`);
  }
  for (const { spec } of inputs) {
    const { kind, bits } = DTYPES[spec.dtype];
    if (kind === 'complex' || (kind === 'float' && bits === 8)) {
      throw new RangeError(`There is no value of ${spec.dtype} to pad input "${spec.name}" with.`);
    }
  }
}

/** The value of one padding element, as it is stored. */
function fillOf({ name, dtype }: TensorSpec, value: Scalar): Stored {
  try {
    return writeElements(dtype, [value])[0] as Stored;
  } catch (cause) {
    throw new TypeError(`padding.values.${name} is no ${dtype}, got ${typeof value} ${String(value)}.`, {
      cause,
    });
  }
}

function assertPadded({ name }: TensorSpec, axes: readonly number[], { shape }: Tensor, size: number): void {
  if (axes.every((axis) => shape[axis] === size)) return;
  throw new BackendError(
    'ERR_INLAY_RUN_FAILED',
    `Output "${name}" of feeds padded to ${size} has shape [${shape.join(', ')}], which cannot be cut back.`,
    { details: { output: name, reason: 'padded-axis' } },
  );
}

/** One element as its dtype is stored. */
type Stored = number | bigint | string;

/** Copies a tensor to another length along some axes; what is added is `fill`. */
function resize(
  { dtype, shape, data }: Tensor,
  axes: readonly number[],
  length: number,
  fill?: Stored,
): Tensor {
  const resized = shape.map((size, axis) => (axes.includes(axis) ? length : size));
  const last = axes[axes.length - 1] as number;
  const size = sizeOf(resized);
  if (!ArrayBuffer.isView(data)) {
    const texts = Array.from({ length: size }, () => String(fill ?? ''));
    eachRun(shape, resized, last, data.length, (from, to, count) => {
      for (let at = 0; at < count; at += 1) texts[to + at] = data[from + at] as string;
    });
    return new Tensor(dtype, resized, texts);
  }
  const Storage = DTYPES[dtype].storage as unknown as new (length: number) => Float32Array;
  const copy = new Storage(storageLength(dtype, size));
  // New memory is zero already.
  if (fill !== undefined && !Object.is(Number(fill), 0)) copy.fill(fill as number);
  eachRun(shape, resized, last, data.length, (from, to, count) => {
    copy.set((data as Float32Array).subarray(from, from + count), to);
  });
  return new Tensor(dtype, resized, copy);
}

/**
 * Lists the runs of elements that two shapes have in common, in C order.
 * @param last - the last axis in which they differ.
 * @param stored - elements stored under the first shape.
 */
function eachRun(
  from: readonly number[],
  to: readonly number[],
  last: number,
  stored: number,
  copy: (from: number, to: number, count: number) => void,
): void {
  if (stored === 0) return;
  const width = stored / sizeOf(from.slice(0, last + 1));
  const fromWidth = (from[last] as number) * width;
  const toWidth = (to[last] as number) * width;
  const walk = (axis: number, fromRow: number, toRow: number): void => {
    if (axis === last) {
      copy(fromRow * fromWidth, toRow * toWidth, Math.min(fromWidth, toWidth));
      return;
    }
    const [fromSize, toSize] = [from[axis] as number, to[axis] as number];
    const common = Math.min(fromSize, toSize);
    for (let at = 0; at < common; at += 1) walk(axis + 1, fromRow * fromSize + at, toRow * toSize + at);
  };
  walk(0, 0, 0);
}
