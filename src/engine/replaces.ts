import { ModelError } from '../core/errors.ts';
import { formatSpec, type Dimension, type Signature, type TensorSpec } from '../core/signature.ts';

/**
 * Checks that code written for one version of a model can go on with another: every feed that fitted still fits, and
 * every output that was there still comes, in the same dtype and rank.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED`
 */
export function assertReplaces(model: string, present: Signature, version: string, next: Signature): void {
  const refuse = (difference: string): never => {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `Version ${version} of model "${model}" cannot stand in for the present one: ${difference}; ` +
        'publish it under another name, or on a channel for the apps that are made for it.',
      { details: { model, version, reason: 'signature' } },
    );
  };
  for (const before of present.inputs) {
    const after = named(next.inputs, before);
    if (after === undefined) refuse(`its input ${formatSpec(before)} is gone`);
    else if (!takesAll(before, after))
      refuse(`its input ${formatSpec(before)} has become ${formatSpec(after)}`);
  }
  const added = next.inputs.find((after) => named(present.inputs, after) === undefined);
  if (added !== undefined) refuse(`it has a new input ${formatSpec(added)}`);
  for (const before of present.outputs) {
    const after = named(next.outputs, before);
    if (after === undefined) refuse(`its output ${formatSpec(before)} is gone`);
    else if (!isSameKind(before, after))
      refuse(`its output ${formatSpec(before)} has become ${formatSpec(after)}`);
  }
}

function named(specs: readonly TensorSpec[], { name }: TensorSpec): TensorSpec | undefined {
  return specs.find((spec) => spec.name === name);
}

function isSameKind(before: TensorSpec, after: TensorSpec): boolean {
  const ranks = [before.shape?.length, after.shape?.length];
  return before.dtype === after.dtype && (ranks.includes(undefined) || ranks[0] === ranks[1]);
}

function takesAll(before: TensorSpec, after: TensorSpec): boolean {
  if (!isSameKind(before, after)) return false;
  // A shape that a model does not tell promises nothing, and whether it fits shows in the runs.
  if (before.shape === null || after.shape === null) return true;
  return (
    after.shape.every((size, axis) => isOpen(size) || size === before.shape?.[axis]) &&
    // Of flat feeds, one size can be worked out from their length.
    openAxes(after.shape) <= Math.max(1, openAxes(before.shape))
  );
}

function openAxes(shape: readonly Dimension[]): number {
  return shape.filter(isOpen).length;
}

function isOpen(dimension: Dimension): boolean {
  return typeof dimension !== 'number';
}
