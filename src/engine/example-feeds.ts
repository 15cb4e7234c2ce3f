import { DTYPES, storageLength, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import type { TensorMap } from '../core/backend.ts';
import type { Signature } from '../core/signature.ts';
import { toBfloat16Bits, toFloat16Bits } from '../core/float.ts';
import { sizeOf, Tensor } from '../core/tensor.ts';

/** Feeds made up from a signature. */
export interface ExampleFeeds {
  readonly feeds: TensorMap;
  /** A symbolic size other than the leading one had to be guessed, so a model may rightly refuse these feeds. */
  readonly guessed: boolean;
}

/**
 * Makes all-zero feeds (empty strings) for warming a session up.
 * @param known - sizes of symbolic dimensions by name. Default: 1.
 */
export function exampleFeeds(
  signature: Signature,
  known: Readonly<Record<string, number>> = {},
): ExampleFeeds {
  let guessed = false;
  const feeds: Record<string, Tensor> = {};
  for (const { name, dtype, shape } of signature.inputs) {
    guessed ||= shape === null || shape.slice(1).some((dimension) => typeof dimension !== 'number');
    const sizes = (shape ?? [1]).map((dimension) =>
      typeof dimension === 'number' ? dimension : (known[dimension ?? ''] ?? 1),
    );
    feeds[name] = new Tensor(dtype, sizes, zeros(dtype, sizeOf(sizes)));
  }
  return { feeds, guessed };
}

/** Makes feeds of one row with every symbolic size 1: floats from -1 to 1, other numbers 0 or 1. Same seed, same feeds. */
export function randomFeeds(signature: Signature, seed: number): TensorMap {
  // mulberry32: small, and good enough to tell rows apart.
  let state = seed;
  const random = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const feeds: Record<string, Tensor> = {};
  for (const [name, { dtype, shape, data }] of Object.entries(exampleFeeds(signature).feeds)) {
    if (ArrayBuffer.isView(data)) fill(dtype, data, random);
    feeds[name] = new Tensor(dtype, shape, data);
  }
  return feeds;
}

function fill(dtype: DType, data: TypedArray, random: () => number): void {
  const { kind, bits } = DTYPES[dtype];
  const float = (): number => 2 * random() - 1;
  const encode =
    dtype === 'float16' ? toFloat16Bits : dtype === 'bfloat16' ? toBfloat16Bits : (value: number) => value;
  // Packed dtypes and 8-bit floats stay zero: not all of their bits need be numbers.
  if (bits < 8 || (kind === 'float' && bits === 8)) return;
  for (let i = 0; i < data.length; i += 1) {
    if (data instanceof BigInt64Array || data instanceof BigUint64Array)
      data[i] = BigInt(Math.round(random()));
    else if (kind === 'float' || kind === 'complex') data[i] = encode(float());
    else data[i] = Math.round(random());
  }
}

function zeros(dtype: DType, size: number): DTypeStorage[DType] {
  if (dtype === 'string') return Array.from({ length: size }, () => '');
  const Storage = DTYPES[dtype].storage as new (length: number) => TypedArray;
  return new Storage(storageLength(dtype, size)) as DTypeStorage[DType];
}
