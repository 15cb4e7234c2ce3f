/** Weights of a model file that may be rounded. */

import { dtypeFromOnnx } from '../../core/dtype.ts';
import { isInlayError } from '../../core/errors.ts';
import { allTensors } from '../../onnx/map-tensors.ts';
import { parseModel } from '../../onnx/model.ts';
import { segmentsOf, type Span } from '../delta/spans.ts';
import { findWeights, type WeightKind } from './operands.ts';

/** Floats of 16 bits. */
export type HalfDType = 'float16' | 'bfloat16';

/** Numbers that lie in a file, and what they are. */
export interface Weights extends Span {
  readonly dtype: 'float32' | HalfDType | 'int8' | 'uint8';
}

/** What is known of a constant besides where it lies. */
interface Facts {
  readonly dtype: string | undefined;
  readonly kind: WeightKind | undefined;
}

/**
 * Finds the weights of ONNX models, as {@link findWeights} has them: floats, and integers of 8 bits. Files of other
 * formats have no graph that would tell weights from other constants: all floats count. Names that a file uses more than
 * once are left out: nobody could say which one is meant.
 */
export function weightsOf(file: Uint8Array): readonly Weights[] {
  const spans = segmentsOf(file);
  const count = new Map<string, number>();
  for (const { name } of spans) count.set(name, (count.get(name) ?? 0) + 1);
  const unique = spans.filter(({ name }) => name !== '' && count.get(name) === 1);
  const facts = factsOf(file);
  return unique.flatMap((span): readonly Weights[] => {
    const { name, numbers } = span;
    const { dtype, kind } = facts === undefined ? { dtype: numbers, kind: 'float' } : (facts.get(name) ?? {});
    if (kind === undefined) return [];
    if (isHalf(numbers) || numbers === 'float32') return [{ ...span, dtype: numbers }];
    // Spans do not tell integers from other bytes.
    const isInteger = numbers === 'int8' && kind === 'any' && (dtype === 'int8' || dtype === 'uint8');
    return isInteger ? [{ ...span, dtype }] : [];
  });
}

/** Tells floats of 16 bits. */
export function isHalf(numbers: string): numbers is HalfDType {
  return numbers === 'float16' || numbers === 'bfloat16';
}

/** @returns `undefined` if the file is no ONNX model. */
function factsOf(file: Uint8Array): ReadonlyMap<string, Facts> | undefined {
  try {
    const model = parseModel(file);
    const kinds = findWeights(model);
    return new Map(
      allTensors(model).map(({ name = '', dataType = 0 }) => [
        name,
        { dtype: dtypeFromOnnx(dataType), kind: kinds.get(name) },
      ]),
    );
  } catch (error) {
    if (isInlayError(error)) return undefined;
    throw error;
  }
}
