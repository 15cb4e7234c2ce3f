/** A cheap look at what a release answers. */

import type { TensorMap } from '../core/backend.ts';
import type { DType } from '../core/dtype.ts';
import { Tensor } from '../core/tensor.ts';
import { isFields } from '../trust/parse.ts';

/** Elements of one output that are looked at in one call. */
const samples = 64;

/** What an answer is like; `missing` has no tensors, `empty` has some, but no element. */
export type AnswerKind = 'good' | 'non-finite' | 'missing' | 'empty';

/**
 * Looks for floats that are no numbers, and for answers without content. Of outputs with more than 64 elements it looks at
 * the first, the last and 62 between them, others in every call.
 * @param turn - number of the call.
 * @returns `undefined` for what is no table of tensors, such as the result of a pipeline.
 */
export function kindOfAnswer(outputs: unknown, turn: number): AnswerKind | undefined {
  if (!isFields(outputs)) return undefined;
  const tensors = Object.values(outputs);
  if (!tensors.every((one) => one instanceof Tensor)) return undefined;
  if (tensors.length === 0) return 'missing';
  if (tensors.some((tensor) => isNonFinite(tensor, turn))) return 'non-finite';
  return tensors.every(({ data }) => data.length === 0) ? 'empty' : 'good';
}

function isNonFinite({ dtype, data }: Tensor, turn: number): boolean {
  const isBad = NON_FINITE[dtype];
  if (isBad === undefined) return false;
  const { length } = data;
  const at = (i: number): boolean => isBad(data[i] as number);
  if (length <= samples) {
    for (let i = 0; i < length; i += 1) if (at(i)) return true;
    return false;
  }
  if (at(0) || at(length - 1)) return true;
  const step = Math.ceil(length / (samples - 2));
  for (let i = turn % step; i < length; i += step) if (at(i)) return true;
  return false;
}

/** Tells whether any float among outputs is no finite number. */
export function hasNonFinite(outputs: TensorMap): boolean {
  return Object.values(outputs).some(({ dtype, data }) => {
    const isBad = NON_FINITE[dtype];
    if (isBad === undefined) return false;
    for (let i = 0; i < data.length; i += 1) if (isBad(data[i] as number)) return true;
    return false;
  });
}

const isNoNumber = (value: number): boolean => !Number.isFinite(value);
/** All bits of the exponent set: infinity or NaN (IEEE 754 §3.4). */
const NON_FINITE: Readonly<Partial<Record<DType, (stored: number) => boolean>>> = {
  float32: isNoNumber,
  float64: isNoNumber,
  complex64: isNoNumber,
  complex128: isNoNumber,
  float16: (bits) => (bits & 0x7c00) === 0x7c00,
  bfloat16: (bits) => (bits & 0x7f80) === 0x7f80,
};
