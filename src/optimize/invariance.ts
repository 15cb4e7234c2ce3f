/** Whether what a row gets depends on the rows beside it. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES, type DTypeStorage, type DType } from '../core/dtype.ts';
import { isInlayError } from '../core/errors.ts';
import { fromFloat16Bits, toFloat16Bits } from '../core/float.ts';
import { Tensor } from '../core/tensor.ts';
import { compareOutputs } from './compare.ts';
import type { NamedValueType, OptimizeRuntime, RuntimeSession } from './runtime.ts';

/** What a row gets in company. */
export interface BatchInvariance {
  /** Whether it is bit for bit the same beside a row ten times as large as beside itself. */
  readonly isInvariant: boolean;
  /**
   * Whether it is bit for bit the same alone as beside that row. Libraries may add floats in another order for another
   * number of rows, so that even float models need not be.
   */
  readonly isSameAlone: boolean;
  /** What the neighbour does to it, as a signal-to-noise ratio, dB; `Infinity` where it does nothing. */
  readonly sqnrDb: number;
}

/** How many times larger the neighbour is. */
const FACTOR = 10;

/**
 * Runs a row of the samples alone, beside itself, and beside a row ten times as large; where no input is of floats, beside
 * another row of the samples.
 * @returns `undefined` where there is nothing to tell: the model takes no batches, or there is no other row.
 * @throws what the runtime throws if it does not take the model.
 */
export async function checkInvariance(
  model: Uint8Array,
  runtime: OptimizeRuntime,
  samples: readonly TensorMap[],
): Promise<BatchInvariance | undefined> {
  const session = await runtime.open(model);
  try {
    return await check(session, samples);
  } finally {
    await session.release();
  }
}

/** Whether rows are independent of those beside them, see {@link checkInvariance}. */
export async function isBatchInvariant(
  model: Uint8Array,
  runtime: OptimizeRuntime,
  samples: readonly TensorMap[],
): Promise<boolean | undefined> {
  return (await checkInvariance(model, runtime, samples))?.isInvariant;
}

async function check(
  session: RuntimeSession,
  samples: readonly TensorMap[],
): Promise<BatchInvariance | undefined> {
  const { inputs, outputs } = session;
  if (!hasBatchAxis([...inputs, ...outputs])) return undefined;
  const rows = samples.slice(0, 2).flatMap((sample) => [rowOf(inputs, sample, 0), rowOf(inputs, sample, 1)]);
  const [row, ...others] = rows.filter((one) => one !== undefined);
  if (row === undefined) return undefined;
  const neighbour = inputs.some(({ name }) => isScalable(row[name]))
    ? mapTensors(row, (tensor) => (isScalable(tensor) ? scaled(tensor) : tensor))
    : others.find((other) => isAlike(row, other) && !isEqual(row, other));
  if (neighbour === undefined) return undefined;
  try {
    const alone = await session.run(row);
    const first = async (beside: TensorMap): Promise<TensorMap> =>
      mapTensors(await session.run(beneath(row, beside)), (tensor) => sliceRow(tensor, 0));
    const besideItself = await first(row);
    const besideOther = await first(neighbour);
    const { sqnrDb } = compareOutputs([besideItself], [besideOther]);
    return {
      isInvariant: isEqual(besideItself, besideOther),
      isSameAlone: isEqual(alone, besideOther),
      sqnrDb,
    };
  } catch (error) {
    // A model that says it takes batches and does not, or whose outputs have no row for each of the inputs'.
    if (!isInlayError(error)) throw error;
    return undefined;
  }
}

/** Whether the first axes of all values are free and of the same name. */
function hasBatchAxis(values: readonly NamedValueType[]): boolean {
  const [{ shape: head } = { shape: null }] = values;
  const axis = head?.[0];
  return values.every(
    ({ shape, dtype }) =>
      shape !== null &&
      shape.length > 0 &&
      shape[0] === axis &&
      typeof axis !== 'number' &&
      DTYPES[dtype].bits >= 8,
  );
}

function rowOf(inputs: readonly NamedValueType[], sample: TensorMap, at: number): TensorMap | undefined {
  const isThere = inputs.every(({ name }) => (sample[name]?.shape[0] ?? 0) > at);
  return isThere ? mapTensors(sample, (tensor) => sliceRow(tensor, at)) : undefined;
}

function sliceRow({ dtype, shape, data }: Tensor, at: number): Tensor {
  const [count = 1, ...rest] = shape;
  const width = data.length / Math.max(count, 1);
  return new Tensor(dtype, [1, ...rest], data.slice(at * width, (at + 1) * width));
}

function isScalable(tensor: Tensor | undefined): tensor is Tensor<'float32' | 'float64' | 'float16'> {
  return tensor !== undefined && /^float(16|32|64)$/.test(tensor.dtype);
}

function scaled(tensor: Tensor<'float32' | 'float64' | 'float16'>): Tensor {
  const { dtype, shape, data } = tensor;
  const values: DTypeStorage[DType] =
    dtype === 'float16'
      ? (data as Uint16Array).map((bits) => toFloat16Bits(FACTOR * fromFloat16Bits(bits)))
      : (data as Float32Array).map((value) => FACTOR * value);
  return new Tensor<DType>(dtype, shape, values);
}

/** Two rows as one batch. */
function beneath(row: TensorMap, other: TensorMap): TensorMap {
  return mapTensors(row, ({ dtype, shape, data }, name) => {
    const below = other[name]?.data ?? data;
    if (!ArrayBuffer.isView(data)) {
      return new Tensor<DType>(dtype, [2, ...shape.slice(1)], [...data, ...(below as readonly string[])]);
    }
    const both = new (DTYPES[dtype].storage as Uint8ArrayConstructor)(2 * data.length);
    both.set(data as Uint8Array, 0);
    both.set(below as Uint8Array, data.length);
    return new Tensor<DType>(dtype, [2, ...shape.slice(1)], both as DTypeStorage[DType]);
  });
}

function mapTensors(tensors: TensorMap, map: (tensor: Tensor, name: string) => Tensor): TensorMap {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, map(tensor, name)]));
}

function isAlike(a: TensorMap, b: TensorMap): boolean {
  return Object.entries(a).every(([name, { shape }]) => b[name]?.shape.join() === shape.join());
}

function isEqual(a: TensorMap, b: TensorMap): boolean {
  return Object.entries(a).every(([name, { data }]) => {
    const other: ArrayLike<unknown> = b[name]?.data ?? [];
    const own: ArrayLike<unknown> = data;
    return own.length === other.length && Array.from(own).every((value, i) => Object.is(value, other[i]));
  });
}
