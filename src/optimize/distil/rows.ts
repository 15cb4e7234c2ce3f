/** The user's data, as rows that can be drawn in any order. */

import type { TensorMap } from '../../core/backend.ts';
import { DTYPES, sizeBytesOf, type DType } from '../../core/dtype.ts';
import { InputError } from '../../core/errors.ts';
import { readElements, sizeOf, Tensor } from '../../core/tensor.ts';

/** One value of every row. */
export interface RowSpec {
  readonly name: string;
  readonly dtype: DType;
  /** Without the batch axis. */
  readonly shape: readonly number[];
}

/** Rows of feeds. The tensors that were given are not copied. */
export interface Rows {
  readonly count: number;
  /** What each row consists of, in the order of the first sample. */
  readonly specs: readonly RowSpec[];
  /** Copies rows together as feeds, in that order. */
  gather(rows: ArrayLike<number>): TensorMap;
}

/**
 * Collects samples. Each holds the same inputs, with one row or more along the first axis.
 * @throws {@link InputError} `ERR_INLAY_FEED_MISSING`, `_UNKNOWN`, `_DTYPE` or `_SHAPE` if samples do not fit together.
 */
export async function collectRows(samples: AsyncIterable<TensorMap> | Iterable<TensorMap>): Promise<Rows> {
  const chunks: TensorMap[] = [];
  /** Chunk and place in it of every row. */
  const places: (readonly [number, number])[] = [];
  let specs: readonly RowSpec[] | undefined;
  for await (const sample of samples) {
    specs ??= Object.entries(sample).map(([name, tensor]) => specOf(name, tensor));
    const count = countRows(sample, specs, chunks.length);
    for (let row = 0; row < count; row += 1) places.push([chunks.length, row]);
    chunks.push(sample);
  }
  const known = specs ?? [];
  return {
    count: places.length,
    specs: known,
    gather: (rows) =>
      Object.fromEntries(
        known.map(({ name, dtype, shape }) => {
          const size = sizeOf(shape);
          const data = new (DTYPES[dtype].storage as Float32ArrayConstructor)(rows.length * size);
          for (let at = 0; at < rows.length; at += 1) {
            const [chunk, row] = places[rows[at] ?? -1] ?? [-1, -1];
            const from = chunks[chunk]?.[name]?.data as Float32Array;
            data.set(from.subarray(row * size, (row + 1) * size), at * size);
          }
          return [name, new Tensor(dtype, [rows.length, ...shape], data)];
        }),
      ),
  };
}

function specOf(name: string, { dtype, shape }: Tensor): RowSpec {
  const { bits } = DTYPES[dtype];
  if (dtype === 'string' || bits < 8) {
    throw new InputError(
      'ERR_INLAY_FEED_DTYPE',
      `Input "${name}" is ${dtype}, which a student cannot take; leave it out of the data.`,
    );
  }
  return { name, dtype, shape: shape.slice(1) };
}

function countRows(sample: TensorMap, specs: readonly RowSpec[], index: number): number {
  const unknown = Object.keys(sample).find((name) => !specs.some((spec) => spec.name === name));
  if (unknown !== undefined) {
    throw new InputError(
      'ERR_INLAY_FEED_UNKNOWN',
      `Sample ${index} has an input "${unknown}", which the first sample has not.`,
    );
  }
  const counts = specs.map(({ name, dtype, shape }) => {
    const tensor = sample[name];
    if (tensor === undefined) {
      throw new InputError('ERR_INLAY_FEED_MISSING', `Sample ${index} lacks the input "${name}".`);
    }
    const [count = 0, ...rest] = tensor.shape;
    if (tensor.dtype !== dtype || rest.join() !== shape.join() || tensor.shape.length === 0) {
      throw new InputError(
        'ERR_INLAY_FEED_SHAPE',
        `Input "${name}" of sample ${index} is ${tensor.dtype} [${tensor.shape.join(', ')}], but rows are ${dtype} [${shape.join(', ')}].`,
      );
    }
    return count;
  });
  const [count = 0] = counts;
  if (counts.some((other) => other !== count)) {
    throw new InputError(
      'ERR_INLAY_FEED_SHAPE',
      `The inputs of sample ${index} have ${counts.join(', ')} rows; each needs the same number.`,
    );
  }
  return count;
}

/** The elements of a tensor as floats; a view where they are float32 already. */
export function toFloats({ dtype, data, size }: Tensor): Float32Array {
  return data instanceof Float32Array ? data : Float32Array.from(readElements(dtype, data, size), Number);
}

/** Bytes of a row as float32. */
export function floatBytesOf(specs: readonly RowSpec[]): number {
  return specs.reduce((sum, { shape }) => sum + sizeBytesOf('float32', sizeOf(shape)), 0);
}

/** Cuts rows into batches in the order given, the last one smaller. */
export function toBatches(rows: Int32Array, batchSize: number): Int32Array[] {
  return Array.from({ length: Math.ceil(rows.length / batchSize) }, (_, at) =>
    rows.subarray(at * batchSize, (at + 1) * batchSize),
  );
}

/** Shuffles in place, every order as likely (Durstenfeld 1964). */
export function shuffle(rows: Int32Array, random: () => number): void {
  for (let last = rows.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [rows[last], rows[other]] = [rows[other] ?? 0, rows[last] ?? 0];
  }
}
