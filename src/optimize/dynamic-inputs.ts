/** Quantizing activations at each run: the nodes for it, once for each value. */

import { DTYPES } from '../core/dtype.ts';
import type { GraphProto } from '../onnx/messages.ts';
import type { Edit } from '../onnx/rewrite.ts';
import type { Scope } from '../onnx/scope.ts';
import type { Emitter } from './emitter.ts';
import { createRanks, type Ranks } from './ranks.ts';
import { addRowInput } from './row.ts';

/** Names of what a value is as integers: value = scale · (values − zeroPoint). */
export interface QuantizedInput {
  /** uint8. */
  readonly values: string;
  /** float32: a scalar, or one for each row, of the value's rank. */
  readonly scale: string;
  readonly zeroPoint: string;
  readonly isScalar: boolean;
}

/** Adds nodes, unless those before have given the same already. */
export interface DynamicInputs {
  /** The value as float32. */
  toFloat32(value: string, emitter: Emitter, scope: Scope): string;
  /** A matrix with its axes swapped. */
  transpose(value: string, emitter: Emitter, scope: Scope): string;
  /**
   * The value as integers, by one scale for all of it; if `axes` are given, by one scale for each index of the others.
   */
  quantize(value: string, axes: readonly number[] | undefined, emitter: Emitter, edit: Edit): QuantizedInput;
  /** How many axes a value of the model has, if that is known. */
  readonly rankOf: Ranks;
}

/** Starts without any nodes. `opset`: version of the standard operators, at least 11. */
export function createDynamicInputs(opset: number): DynamicInputs {
  const given = new Map<GraphProto, Map<string, unknown>>();
  // What an outer graph gave before is visible here too.
  const once = <Value>(key: string, value: string, scope: Scope, make: () => Value): Value => {
    const definer = scope.definer(value);
    const full = `${key} ${value}`;
    for (let around: Scope | undefined = scope; around !== undefined; around = around.outer) {
      const found = given.get(around.graph)?.get(full);
      if (found !== undefined) return found as Value;
      if (around === definer) break;
    }
    const made = make();
    const values = given.get(scope.graph) ?? new Map<string, unknown>();
    given.set(scope.graph, values.set(full, made));
    return made;
  };
  return {
    toFloat32: (value, { add }, scope) =>
      once('float32', value, scope, () => add('Cast', [value], { attributes: { to: DTYPES.float32.onnx } })),
    transpose: (value, { add }, scope) =>
      once('transpose', value, scope, () => add('Transpose', [value], { attributes: { perm: [1, 0] } })),
    quantize: (value, axes, emitter, edit) =>
      once(`quantize [${axes?.join(' ') ?? ''}]`, value, edit.scope, () => {
        if (axes !== undefined) return addRowInput(value, axes, emitter, edit, opset);
        const [values = '', scale = '', zeroPoint = ''] = emitter.addMany(
          'DynamicQuantizeLinear',
          [value],
          3,
        );
        return { values, scale, zeroPoint, isScalar: true };
      }),
    rankOf: createRanks(),
  };
}
