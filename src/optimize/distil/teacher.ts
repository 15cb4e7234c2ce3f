/** What the teacher answers, asked once where memory allows. */

import { assertNotAborted } from '../../core/abort.ts';
import type { TensorMap } from '../../core/backend.ts';
import { DTYPES } from '../../core/dtype.ts';
import { InputError, ModelError } from '../../core/errors.ts';
import type { Dimension } from '../../core/signature.ts';
import { sizeOf, type Tensor } from '../../core/tensor.ts';
import { floatBytesOf, toBatches, toFloats, type Rows, type RowSpec } from './rows.ts';

interface TeacherValue {
  readonly shape: readonly Dimension[] | null;
}

/** Anything that answers feeds: a model of Inlay, an open session of a runtime, a function around another library. */
export interface Teacher {
  run(feeds: TensorMap): Promise<TensorMap>;
  /** What it takes, where it says so: tells whether its batch is fixed. */
  readonly inputs?: readonly TeacherValue[];
  /** The same, as models of Inlay have it. */
  readonly signature?: { readonly inputs: readonly TeacherValue[] };
}

/** The teacher's answers by row. */
export interface Targets {
  /** Outputs that are learnt, as rows. */
  readonly specs: readonly RowSpec[];
  /** Answers for rows, one array for each output. */
  at(rows: Int32Array): Promise<readonly Float32Array[]>;
}

/** How {@link openTargets} asks. */
export interface TargetOptions {
  /** Names of the outputs. Default: all of floats that have a row for each row. */
  readonly outputs?: readonly string[] | undefined;
  readonly batchSize: number;
  /** Answers that take more than that are not kept, and asked for again each time. */
  readonly cacheBytes: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (done: number, total: number) => void;
}

/**
 * Asks the teacher about every row. One whose batch is fixed gets batches of that size.
 * @throws {@link InputError} `ERR_INLAY_OUTPUT_UNKNOWN` for an output that it does not have; {@link ModelError}
 * `ERR_INLAY_MODEL_UNSUPPORTED` if its outputs have no rows of floats, `_INVALID` if they hold NaN or infinity.
 */
export async function openTargets(
  teacher: Teacher,
  rows: Rows,
  { outputs, batchSize, cacheBytes, signal, onProgress }: TargetOptions,
): Promise<Targets> {
  const fixed = (teacher.inputs ?? teacher.signature?.inputs)?.[0]?.shape?.[0];
  const askSize = typeof fixed === 'number' && fixed > 0 ? fixed : batchSize;
  let specs: readonly RowSpec[] | undefined;

  const ask = async (batch: Int32Array): Promise<readonly Float32Array[]> => {
    const isShort = typeof fixed === 'number' && batch.length < askSize;
    const asked = isShort
      ? Int32Array.from({ length: askSize }, (_, at) => batch[at] ?? batch[0] ?? 0)
      : batch;
    const answers = await teacher.run(rows.gather(asked));
    specs ??= specsOf(answers, asked.length, outputs);
    return specs.map(({ name, shape }) => {
      const floats = toFloats(answers[name] as Tensor).subarray(0, batch.length * sizeOf(shape));
      if (!floats.every(Number.isFinite)) {
        throw new ModelError(
          'ERR_INLAY_MODEL_INVALID',
          `The teacher's output "${name}" holds NaN or infinity, which nothing can learn; mend the teacher or its feeds.`,
        );
      }
      return floats;
    });
  };
  const askAll = async (
    wanted: Int32Array,
    heed: (done: number) => void,
    first?: readonly Float32Array[],
  ): Promise<readonly Float32Array[]> => {
    const parts: (readonly Float32Array[])[] = [];
    let done = 0;
    for (const batch of toBatches(wanted, askSize)) {
      assertNotAborted(signal);
      parts.push(done === 0 && first !== undefined ? first : await ask(batch));
      done += batch.length;
      heed(done);
    }
    return (specs ?? []).map(({ shape }, at) => joined(parts, at, wanted.length * sizeOf(shape)));
  };

  const everyRow = Int32Array.from({ length: rows.count }, (_, row) => row);
  const first = await ask(everyRow.subarray(0, askSize));
  const known = specs ?? [];
  if (floatBytesOf(known) * rows.count > cacheBytes) {
    return { specs: known, at: (wanted) => askAll(wanted, () => {}) };
  }
  const all = await askAll(everyRow, (done) => onProgress(done, rows.count), first);
  return {
    specs: known,
    at: async (wanted) =>
      known.map(({ shape }, output) => {
        const size = sizeOf(shape);
        const picked = new Float32Array(wanted.length * size);
        wanted.forEach((row, at) => {
          picked.set(all[output]?.subarray(row * size, (row + 1) * size) ?? [], at * size);
        });
        return picked;
      }),
  };
}

function joined(parts: readonly (readonly Float32Array[])[], output: number, length: number): Float32Array {
  const whole = new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    const floats = part[output] ?? new Float32Array(0);
    whole.set(floats, at);
    at += floats.length;
  }
  return whole;
}

function specsOf(
  answers: TensorMap,
  count: number,
  names: readonly string[] | undefined,
): readonly RowSpec[] {
  const unknown = names?.find((name) => answers[name] === undefined);
  if (unknown !== undefined) {
    throw new InputError(
      'ERR_INLAY_OUTPUT_UNKNOWN',
      `The teacher has no output "${unknown}"; it has ${Object.keys(answers).join(', ')}.`,
    );
  }
  const specs = Object.entries(answers).flatMap(([name, { dtype, shape }]): RowSpec[] => {
    const isTaught = names === undefined || names.includes(name);
    const isFit = DTYPES[dtype].kind === 'float' && DTYPES[dtype].bits >= 16 && shape[0] === count;
    if (isTaught && !isFit && names !== undefined) {
      throw new ModelError(
        'ERR_INLAY_MODEL_UNSUPPORTED',
        `The teacher's output "${name}" is ${dtype} [${shape.join(', ')}] for ${count} rows; only floats with a row for each row can be learnt.`,
      );
    }
    return isTaught && isFit ? [{ name, dtype, shape: shape.slice(1) }] : [];
  });
  if (specs.length === 0) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The teacher has no output of floats with a row for each of ${count} rows, so there is nothing to learn.`,
    );
  }
  return names === undefined ? specs : names.flatMap((name) => specs.filter((spec) => spec.name === name));
}
