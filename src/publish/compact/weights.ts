/** Weights of a model file that may be rounded. */

import { dtypeFromOnnx, type DType } from '../../core/dtype.ts';
import { isInlayError } from '../../core/errors.ts';
import { allTensors } from '../../onnx/map-tensors.ts';
import { parseModel } from '../../onnx/model.ts';
import { segmentsOf, type Span } from '../delta/spans.ts';

/** Numbers that lie in a file, and what they are. */
export interface Weights extends Span {
  readonly dtype: 'float32' | 'int8' | 'uint8';
}

/**
 * Finds floats, and 8-bit integers of ONNX models. Names that a file uses more than once are left out: nobody could say
 * which one is meant.
 */
export function weightsOf(file: Uint8Array): readonly Weights[] {
  const spans = segmentsOf(file);
  const count = new Map<string, number>();
  for (const { name } of spans) count.set(name, (count.get(name) ?? 0) + 1);
  const unique = spans.filter(({ name }) => name !== '' && count.get(name) === 1);
  const integers = unique.some(({ numbers }) => numbers === 'int8') ? dtypesOf(file) : undefined;
  return unique.flatMap((span): readonly Weights[] => {
    const { name, numbers } = span;
    if (numbers === 'float32') return [{ ...span, dtype: numbers }];
    const dtype = numbers === 'int8' ? integers?.get(name) : undefined;
    return dtype === 'int8' || dtype === 'uint8' ? [{ ...span, dtype }] : [];
  });
}

/** Spans do not tell integers from other bytes. */
function dtypesOf(file: Uint8Array): ReadonlyMap<string, DType | undefined> {
  try {
    const tensors = allTensors(parseModel(file));
    return new Map(tensors.map(({ name = '', dataType = 0 }) => [name, dtypeFromOnnx(dataType)]));
  } catch (error) {
    if (isInlayError(error)) return new Map();
    throw error;
  }
}
