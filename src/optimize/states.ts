/** What a model hands from one call to the next, where an error of 8 bits is not forgotten. */

import { dtypeFromOnnx, DTYPES } from '../core/dtype.ts';
import type { ModelProto, ValueInfoProto } from '../onnx/messages.ts';
import { feedsOf, toShape } from '../onnx/types.ts';

/** An output that looks like what an input wants the next time. */
export interface State {
  readonly input: string;
  readonly output: string;
}

/**
 * Lists the outputs of floats that have dtype and shape, of two axes or more, of an input. A model of one input is taken
 * to compute something new.
 */
export function statesOf({ graph }: ModelProto): readonly State[] {
  const inputs = feedsOf(graph);
  if (inputs.length < 2) return [];
  const taken = new Set<ValueInfoProto>();
  return graph.output.flatMap((output) => {
    const form = formOf(output);
    const input = inputs.find((one) => !taken.has(one) && form !== undefined && formOf(one) === form);
    if (input === undefined) return [];
    taken.add(input);
    return [{ input: input.name ?? '', output: output.name ?? '' }];
  });
}

function formOf({ type }: ValueInfoProto): string | undefined {
  const dtype = dtypeFromOnnx(type?.tensorType?.elemType ?? 0);
  const shape = toShape(type?.tensorType?.shape);
  if (dtype === undefined || DTYPES[dtype].kind !== 'float' || shape === null || shape.length < 2)
    return undefined;
  return JSON.stringify([dtype, shape]);
}
