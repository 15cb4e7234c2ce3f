/** Batches of any size out of the samples that there are. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import { InputError } from '../core/errors.ts';
import type { Dimension } from '../core/signature.ts';
import { Tensor } from '../core/tensor.ts';
import type { NamedValueType } from './runtime.ts';

/**
 * Makes the feeds of one batch by repeating rows of samples in turn. The first axis without a fixed length of any input
 * counts the rows; inputs that have no axis of that name are those of the first sample. Samples whose other axes differ
 * from those of the first are left out, since they share no batch with it.
 * @param inputs - what a session says of its inputs.
 * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if the model takes no batch of that size, `ERR_INLAY_FEED_MISSING` if
 * there is no sample with all inputs.
 */
export function batchOf(
  inputs: readonly NamedValueType[],
  samples: readonly TensorMap[],
  batch: number,
): TensorMap {
  const [first] = samples;
  const missing = inputs.find(({ name }) => first?.[name] === undefined);
  if (first === undefined || missing !== undefined) {
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      first === undefined
        ? 'There is no sample to make a batch of; pass at least one.'
        : `The samples have no input "${missing?.name ?? ''}"; give one for each input of the model.`,
    );
  }
  const leader = inputs.find(({ shape }) => shape !== null && shape.length > 0 && isOpen(shape[0] ?? null));
  if (leader === undefined) {
    const fixed = inputs.length === 0 ? 1 : (first[inputs[0]?.name ?? '']?.shape[0] ?? 1);
    if (batch === fixed) return first;
    throw new InputError(
      'ERR_INLAY_FEED_SHAPE',
      `The model takes batches of ${fixed} only, not of ${batch}: no input has a first axis without a fixed length.`,
      { details: { batch } },
    );
  }
  const symbol = leader.shape?.[0] ?? null;
  const axes = new Map(inputs.map(({ name, shape }) => [name, shape?.indexOf(symbol) ?? -1]));
  const alike = samples.filter((sample) => isAlike(sample, first, axes));
  const rows = alike.flatMap((sample) =>
    Array.from({ length: sample[leader.name]?.shape[0] ?? 0 }, (_, row) => ({ sample, row })),
  );
  if (rows.length === 0) {
    throw new InputError('ERR_INLAY_FEED_SHAPE', `The samples have no row of input "${leader.name}".`);
  }
  const picks = Array.from({ length: batch }, (_, i) => rows[i % rows.length] as Pick);
  return Object.fromEntries(
    inputs.map(({ name }) => {
      const axis = axes.get(name) ?? -1;
      const tensor = first[name] as Tensor;
      return [name, axis < 0 ? tensor : gather(tensor, name, axis, picks)];
    }),
  );
}

interface Pick {
  readonly sample: TensorMap;
  readonly row: number;
}

function isOpen(dimension: Dimension): boolean {
  return typeof dimension !== 'number';
}

function isAlike(sample: TensorMap, first: TensorMap, axes: ReadonlyMap<string, number>): boolean {
  return [...axes].every(([name, batchAxis]) => {
    const [own, other] = [sample[name], first[name]];
    if (own === undefined || other === undefined || own.dtype !== other.dtype) return false;
    return (
      own.shape.length === other.shape.length &&
      own.shape.every((length, axis) => axis === batchAxis || length === other.shape[axis])
    );
  });
}

/** Puts rows of an input side by side along an axis. */
function gather({ dtype, shape }: Tensor, name: string, axis: number, picks: readonly Pick[]): Tensor {
  const { bits, lanes } = DTYPES[dtype];
  if (bits > 0 && bits < 8) {
    throw new InputError(
      'ERR_INLAY_FEED_DTYPE',
      `Rows of input "${name}" cannot be put together: ${dtype} is packed.`,
    );
  }
  const width = shape.slice(axis + 1).reduce((product, length) => product * length, lanes);
  const outer = shape.slice(0, axis).reduce((product, length) => product * length, 1);
  const own = shape.map((length, at) => (at === axis ? picks.length : length));
  const slices = Array.from({ length: outer }, (_, block) => block).flatMap((block) =>
    picks.map(({ sample, row }) => {
      const tensor = sample[name] as Tensor;
      const start = (block * (tensor.shape[axis] as number) + row) * width;
      return { tensor, start };
    }),
  );
  if (dtype === 'string') {
    const texts = slices.flatMap(({ tensor, start }) =>
      (tensor.data as readonly string[]).slice(start, start + width),
    );
    return new Tensor(dtype, own, texts);
  }
  const Storage = DTYPES[dtype].storage as unknown as new (length: number) => TypedArray;
  const data = new Storage(slices.length * width);
  for (const [i, { tensor, start }] of slices.entries()) {
    data.set((tensor.data as Float32Array).subarray(start, start + width) as never, i * width);
  }
  return new Tensor<DType>(dtype, own, data as DTypeStorage[DType]);
}
