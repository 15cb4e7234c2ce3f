/** Samples joined along the first axis into one run, and its outputs taken apart again. */
import { DTYPES, type TypedArray } from '../../core/dtype.ts';
import { concatBytes } from '../../core/bytes.ts';
import { InputError } from '../../core/errors.ts';
import { formatSpec, type Dimension, type Signature } from '../../core/signature.ts';
import type { TensorMap } from '../../core/backend.ts';
import { sizeOf, Tensor } from '../../core/tensor.ts';
import type { Feeds } from '../../engine/feeds.ts';

/**
 * Refuses models whose samples cannot be joined.
 * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if the first axis of an input or output is not free.
 */
export function assertJoinable({ inputs, outputs }: Signature): void {
  const isFree = ([first]: readonly Dimension[]): boolean => first === null || typeof first === 'string';
  const fixed = [...inputs, ...outputs].find(
    ({ shape, dtype }) => shape === null || !isFree(shape) || DTYPES[dtype].bits < 8,
  );
  if (fixed === undefined) return;
  throw new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `--batch-rows needs a model whose inputs and outputs have a free first axis, unlike ${formatSpec(fixed)}; leave it out.`,
  );
}

/** Joins samples; `undefined` where their shapes differ. */
export function joinFeeds(samples: readonly Feeds[]): Feeds | undefined {
  const [first] = samples as readonly [Feeds];
  const joined: Record<string, Tensor> = {};
  for (const name of Object.keys(first)) {
    const tensors = samples.map((sample) => sample[name]).filter((feed) => feed instanceof Tensor);
    const [head] = tensors;
    if (head === undefined || tensors.length < samples.length) return undefined;
    if (tensors.some(({ shape }) => shape[0] !== 1 || shape.join() !== head.shape.join())) return undefined;
    const bytes = concatBytes(tensors.map(({ data }) => toBytes(data as TypedArray)));
    const Storage = DTYPES[head.dtype].storage as new (buffer: ArrayBuffer) => TypedArray;
    const data = new Storage(bytes.buffer) as Tensor['data'];
    joined[name] = new Tensor(head.dtype, [samples.length, ...head.shape.slice(1)], data);
  }
  return joined;
}

function toBytes({ buffer, byteOffset, byteLength }: TypedArray): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Takes outputs apart, each with a first axis of 1; `undefined` where an output has another number of rows. */
export function splitOutputs(outputs: TensorMap, count: number): readonly TensorMap[] | undefined {
  const all = Object.entries(outputs);
  if (all.some(([, { shape }]) => shape[0] !== count)) return undefined;
  return Array.from({ length: count }, (_, row) =>
    Object.fromEntries(
      all.map(([name, { dtype, shape, data }]) => {
        const rowShape = [1, ...shape.slice(1)];
        const size = sizeOf(rowShape) * DTYPES[dtype].lanes;
        return [name, new Tensor(dtype, rowShape, data.slice(row * size, (row + 1) * size))];
      }),
    ),
  );
}
