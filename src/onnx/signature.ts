/** The signature of a model, read from its file. */
import { dtypeFromOnnx } from '../core/dtype.ts';
import { ModelError } from '../core/errors.ts';
import type { Signature, TensorSpec } from '../core/signature.ts';
import type { ModelProto, ValueInfoProto } from './messages.ts';
import { feedsOf, formatType, toShape } from './types.ts';

/**
 * Reads what a model takes and gives: graph inputs that are not initializers, and outputs. Symbolic axes are names,
 * unstated ones `null`.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if one of them is no tensor.
 */
export function signatureOf(model: ModelProto): Signature {
  return { inputs: feedsOf(model.graph).map(toSpec), outputs: model.graph.output.map(toSpec) };
}

function toSpec({ name = '', type }: ValueInfoProto): TensorSpec {
  const dtype = dtypeFromOnnx(type?.tensorType?.elemType ?? 0);
  if (dtype === undefined) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The value "${name}" is of type ${formatType(type)}, but inputs and outputs must be tensors of a known dtype.`,
      { details: { value: name } },
    );
  }
  return { name, dtype, shape: toShape(type?.tensorType?.shape) };
}
