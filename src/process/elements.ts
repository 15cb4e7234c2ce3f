import { DTYPES, type TypedArray } from '../core/dtype.ts';
import { InputError } from '../core/errors.ts';
import { fromBfloat16Bits, fromFloat16Bits } from '../core/float.ts';
import { nameOf, Tensor } from '../core/tensor.ts';

/** Numbers, without bigints. */
export type Numbers = Exclude<TypedArray, BigInt64Array | BigUint64Array>;

/**
 * Elements of a tensor as numbers; 16-bit floats are decoded, everything else is not copied.
 * @throws {@link InputError} `ERR_INLAY_FEED_DTYPE` for elements that are no plain numbers, `TypeError` for no tensor.
 */
export function numbersOf(tensor: Tensor): Numbers {
  if (!(tensor instanceof Tensor)) throw new TypeError(`A tensor is needed, got ${nameOf(tensor)}.`);
  const { dtype, data } = tensor;
  if (dtype === 'float16') return Float32Array.from(data as Uint16Array, fromFloat16Bits);
  if (dtype === 'bfloat16') return Float32Array.from(data as Uint16Array, fromBfloat16Bits);
  const { kind, bits } = DTYPES[dtype];
  const isPlain =
    kind === 'float' ? bits >= 32 : (kind === 'int' || kind === 'uint') && bits >= 8 && bits < 64;
  if (isPlain) return data as Numbers;
  throw new InputError('ERR_INLAY_FEED_DTYPE', `A tensor of plain numbers is needed, got ${dtype}.`, {
    details: { dtype },
  });
}

/** A tensor cut along one axis: element `k` of lane `(o, i)` is at `(o * length + k) * inner + i`. */
export interface Lanes {
  readonly axis: number;
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
}

/** Cuts a shape along `axis`; negative ones count from the end. @throws `RangeError` if there is no such axis. */
export function lanesOf(shape: readonly number[], axis: number): Lanes {
  const at = axis < 0 ? axis + shape.length : axis;
  const length = shape[at];
  if (length === undefined) {
    throw new RangeError(`axis must be one of the ${shape.length} axes of the tensor, got ${String(axis)}.`);
  }
  const product = (sizes: readonly number[]): number => sizes.reduce((size, one) => size * one, 1);
  return { axis: at, outer: product(shape.slice(0, at)), length, inner: product(shape.slice(at + 1)) };
}

/** Calls `visit` with the place of the first element of each lane, in C order of the other axes. */
export function eachLane(
  { outer, length, inner }: Lanes,
  visit: (first: number, lane: number) => void,
): void {
  for (let o = 0; o < outer; o += 1) {
    for (let i = 0; i < inner; i += 1) visit(o * length * inner + i, o * inner + i);
  }
}
