import type { TensorMap } from '../core/backend.ts';
import { DTYPES, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import { BackendError } from '../core/errors.ts';
import type { Signature, TensorSpec } from '../core/signature.ts';
import { Tensor } from '../core/tensor.ts';

/** What of a job goes into a batch. */
export interface Part {
  readonly feeds: TensorMap;
  readonly samples: number;
  readonly outputs: readonly string[] | undefined;
}

/** Why a model of this signature cannot be batched, whatever it computes; `undefined` if it may be. */
export function refuseBatching(signature: Signature): string | undefined {
  const refuse = (kind: 'input' | 'output', { name, dtype, shape }: TensorSpec): string | undefined => {
    if (shape === null) return `the rank of ${kind} "${name}" is unknown`;
    if (shape.length === 0) return `${kind} "${name}" is a scalar`;
    if (typeof shape[0] === 'number') return `the first axis of ${kind} "${name}" is fixed at ${shape[0]}`;
    const { bits } = DTYPES[dtype];
    return bits > 0 && bits < 8 ? `${kind} "${name}" is of packed ${dtype}` : undefined;
  };
  if (signature.inputs.length === 0) return 'it has no inputs';
  for (const spec of signature.inputs) {
    const reason = refuse('input', spec);
    if (reason !== undefined) return reason;
  }
  for (const spec of signature.outputs) {
    const reason = refuse('output', spec);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

/** Length of the first axis that all tensors have in common; `undefined` if they have none. */
export function samplesOf(tensors: TensorMap): number | undefined {
  let samples: number | undefined;
  for (const name in tensors) {
    const first = (tensors[name] as Tensor).shape[0];
    if (first === undefined || (samples !== undefined && first !== samples)) return undefined;
    samples = first;
  }
  return samples;
}

/** Bytes of all tensors; strings count as nothing. */
export function sizeBytesOf(tensors: TensorMap): number {
  let size = 0;
  for (const name in tensors) size += (tensors[name] as Tensor).sizeBytes;
  return size;
}

/** Memory that batches take turns in, instead of clearing new memory for each. */
export interface Scratch {
  /** Storage for `length` elements of an input; what it held before is overwritten. */
  take(name: string, dtype: DType, length: number): TypedArray;
}

/** Inputs for which memory is kept. */
const SCRATCH_KEPT = 16;

/** Creates memory that holds one batch at a time. */
export function createScratch(): Scratch {
  const kept = new Map<string, TypedArray>();
  return {
    take: (name, dtype, length) => {
      const key = `${dtype} ${name}`;
      let storage = kept.get(key);
      if (storage === undefined || storage.length < length) {
        storage = allocate(dtype, length);
        kept.delete(key);
        kept.set(key, storage);
        const oldest = kept.size > SCRATCH_KEPT ? kept.keys().next() : undefined;
        if (oldest?.done === false) kept.delete(oldest.value);
      }
      return storage.length === length ? storage : storage.subarray(0, length);
    },
  };
}

function allocate(dtype: DType, length: number): TypedArray {
  const Storage = DTYPES[dtype].storage as unknown as new (length: number) => TypedArray;
  return new Storage(length);
}

/**
 * Joins the feeds of several jobs along the first axis. The feeds are copied.
 * @param scratch - memory to copy them into. Default: new memory.
 */
export function joinFeeds(
  parts: readonly { readonly feeds: TensorMap }[],
  scratch?: Scratch,
): Record<string, Tensor> {
  const [first] = parts;
  const joined: Record<string, Tensor> = {};
  for (const name in first?.feeds) joined[name] = joinTensors(parts, name, scratch);
  return joined;
}

function joinTensors(
  parts: readonly { readonly feeds: TensorMap }[],
  name: string,
  scratch: Scratch | undefined,
): Tensor {
  const [first] = parts as readonly [{ readonly feeds: TensorMap }];
  const { dtype, shape, data } = first.feeds[name] as Tensor;
  let samples = 0;
  let length = 0;
  for (const { feeds } of parts) {
    const tensor = feeds[name] as Tensor;
    samples += tensor.shape[0] as number;
    length += tensor.data.length;
  }
  const joinedShape = [samples, ...shape.slice(1)];
  if (!ArrayBuffer.isView(data)) {
    const joined = parts.flatMap(({ feeds }) => feeds[name]?.data as readonly string[]);
    return new Tensor(dtype, joinedShape, joined);
  }
  const joined = scratch?.take(name, dtype, length) ?? allocate(dtype, length);
  let at = 0;
  for (const { feeds } of parts) {
    const { data: own } = feeds[name] as Tensor;
    joined.set(own as never, at);
    at += own.length;
  }
  return new Tensor(dtype, joinedShape, joined as DTypeStorage[DType]);
}

/** Outputs that a batch has to compute for its jobs; `undefined` for all. */
export function unionOfOutputs(parts: readonly Part[]): readonly string[] | undefined {
  if (parts.some(({ outputs }) => outputs === undefined)) return undefined;
  return [...new Set(parts.flatMap(({ outputs }) => outputs ?? []))];
}

/**
 * Gives each job its rows of the outputs, copied, so that no two callers share memory.
 * @throws {@link BackendError} `ERR_INLAY_RUN_FAILED` if an output has another number of rows than the batch.
 */
export function splitOutputs(outputs: TensorMap, parts: readonly Part[]): TensorMap[] {
  let samples = 0;
  for (const part of parts) samples += part.samples;
  const names = Object.keys(outputs);
  for (const name of names) assertRows(name, outputs[name] as Tensor, samples);
  let row = 0;
  return parts.map((part) => {
    const own: Record<string, Tensor> = {};
    for (const name of part.outputs ?? names) {
      own[name] = rowsOf(outputs[name] as Tensor, row, part.samples, samples);
    }
    row += part.samples;
    return own;
  });
}

/** Whether every output has as many rows as the batch had samples. */
export function hasRows(outputs: TensorMap, samples: number): boolean {
  return Object.values(outputs).every(({ shape }) => shape[0] === samples);
}

function assertRows(name: string, { shape }: Tensor, samples: number): void {
  if (shape[0] === samples) return;
  throw new BackendError(
    'ERR_INLAY_RUN_FAILED',
    `Output "${name}" of a batch of ${samples} has shape [${shape.join(', ')}]: its first axis is no batch axis.`,
    { details: { output: name, reason: 'batch-axis' } },
  );
}

function rowsOf({ dtype, shape, data }: Tensor, row: number, rows: number, samples: number): Tensor {
  const width = data.length / samples;
  const own = (data as Float32Array).slice(row * width, (row + rows) * width);
  const ownShape = shape.slice();
  ownShape[0] = rows;
  return new Tensor(dtype, ownShape, own as DTypeStorage[DType]);
}

/** Cuts feeds into parts of at most `rows` rows, without copying. */
export function cutFeeds(feeds: TensorMap, samples: number, rows: number): TensorMap[] {
  const parts: TensorMap[] = [];
  for (let row = 0; row < samples; row += rows) {
    const count = Math.min(rows, samples - row);
    const part: Record<string, Tensor> = {};
    for (const name in feeds) {
      const { dtype, shape, data } = feeds[name] as Tensor;
      const width = data.length / samples;
      const [start, end] = [row * width, (row + count) * width];
      const own = ArrayBuffer.isView(data)
        ? (data as Float32Array).subarray(start, end)
        : data.slice(start, end);
      part[name] = new Tensor(dtype, [count, ...shape.slice(1)], own);
    }
    parts.push(part);
  }
  return parts;
}

/** Joins the outputs of the parts of one call along the first axis. */
export function joinOutputs(parts: readonly TensorMap[]): TensorMap {
  return joinFeeds(parts.map((feeds) => ({ feeds })));
}
