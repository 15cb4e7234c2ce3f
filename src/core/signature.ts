import type { DType } from './dtype.ts';
import { InputError } from './errors.ts';

/** A dimension: a size, the name of a symbolic size, or `null` when the model says nothing. */
export type Dimension = number | string | null;

/** What a model says about one input or output. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  /** One entry per axis, outermost first. Equal names stand for equal sizes. `null`: rank unknown. */
  readonly shape: readonly Dimension[] | null;
}

/** What a model takes and gives. */
export interface Signature {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

/** Writes a spec as people read it: `image: float32 [batch, 28, 28, 1]`. */
export function formatSpec(spec: TensorSpec): string {
  return `${spec.name}: ${spec.dtype} ${formatShape(spec.shape)}`;
}

/** Writes a shape as people read it: `[batch, 3, ?]`. */
function formatShape(shape: readonly Dimension[] | null): string {
  return shape === null ? '[…]' : `[${shape.map((dimension) => dimension ?? '?').join(', ')}]`;
}

/**
 * Makes a value for an input.
 * @throws the {@link InputError} that making it throws, with the input's name.
 */
export function named<Value>(spec: TensorSpec, make: () => Value): Value {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(error.code, `Input ${formatSpec(spec)}: ${error.message}`, {
      cause: error,
      details: { ...error.details, input: spec.name },
    });
  }
}
