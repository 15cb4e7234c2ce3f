import { DTYPES, storageLength, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import type { TensorMap } from '../core/backend.ts';
import type { Signature } from '../core/signature.ts';
import { sizeOf, Tensor } from '../core/tensor.ts';

/** Feeds made up from a signature. */
export interface ExampleFeeds {
  readonly feeds: TensorMap;
  /** A symbolic size other than the leading one had to be guessed, so a model may rightly refuse these feeds. */
  readonly guessed: boolean;
}

/** Makes all-zero feeds (empty strings) with every symbolic size 1, for warming a session up. */
export function exampleFeeds(signature: Signature): ExampleFeeds {
  let guessed = false;
  const feeds: Record<string, Tensor> = {};
  for (const { name, dtype, shape } of signature.inputs) {
    guessed ||= shape === null || shape.slice(1).some((dimension) => typeof dimension !== 'number');
    const sizes = (shape ?? [1]).map((dimension) => (typeof dimension === 'number' ? dimension : 1));
    feeds[name] = new Tensor(dtype, sizes, zeros(dtype, sizeOf(sizes)));
  }
  return { feeds, guessed };
}

function zeros(dtype: DType, size: number): DTypeStorage[DType] {
  if (dtype === 'string') return Array.from({ length: size }, () => '');
  const Storage = DTYPES[dtype].storage as new (length: number) => TypedArray;
  return new Storage(storageLength(dtype, size)) as DTypeStorage[DType];
}
