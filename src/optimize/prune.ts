/** Pruning by magnitude: models that compress better, and run as before. */

import { ModelError } from '../core/errors.ts';
import { Tensor } from '../core/tensor.ts';
import type { ModelProto, NodeProto, TensorProto } from '../onnx/messages.ts';
import { rewriteModel, type Edit } from '../onnx/rewrite.ts';
import { labelOf } from '../onnx/scope.ts';
import { fromTensorProto } from '../onnx/tensors.ts';
import { sqnrOf } from './compare-floats.ts';
import {
  isExcluded,
  type MagnitudePruning,
  type NodeNote,
  type Rewritten,
  type TechniqueOptions,
} from './technique.ts';
import { keptConstants } from './weight-rewrite.ts';
import { readWeights, weightDTypeOf, type WeightDType } from './weights.ts';

/** Inputs that are weights, by operator. */
const WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  ...of([0, 1], ['MatMul', 'Gemm', 'FusedMatMul']),
  ...of([1], ['Conv', 'ConvTranspose', 'FusedConv', 'FusedGemm', 'Attention']),
  ...of([0], ['Gather']),
  ...of([1, 2], ['LSTM', 'GRU', 'RNN']),
};

function of(
  inputs: readonly number[],
  operators: readonly string[],
): Readonly<Record<string, readonly number[]>> {
  return Object.fromEntries(operators.map((operator) => [operator, inputs]));
}

/**
 * Sets the elements of the smallest magnitude in each weight of two or more axes to zero: `round(sparsity · elements)` of
 * them, those that were zero before included, the first of equal ones first.
 *
 * The model is smaller only when it is compressed. It is not faster: onnxruntime multiplies zeros as it does other
 * numbers. Without training afterwards answers are much worse.
 * @throws `RangeError` if the share is not in [0, 1); {@link ModelError} `ERR_INLAY_MODEL_INVALID` for weights that are NaN.
 */
export function pruneModel(
  model: ModelProto,
  { sparsity }: MagnitudePruning,
  options: TechniqueOptions = {},
): Rewritten {
  if (!(sparsity >= 0 && sparsity < 1)) {
    throw new RangeError(`The share of weights that become zero is in [0, 1), got ${sparsity}.`);
  }
  const changed: NodeNote[] = [];
  const kept: NodeNote[] = [];
  const replaced = new Set<string>();
  const pruned = rewriteModel(model, (node, edit) => {
    const weights = weightsOf(node, edit);
    if (weights.length === 0) return undefined;
    const note = { node: labelOf(node), op: node.opType ?? '' };
    if (isExcluded(node, options)) {
      kept.push({ ...note, reason: 'it is excluded' });
      return undefined;
    }
    const names = new Map<string, string>();
    for (const { value, constant } of weights) {
      const { name, reason, isPruned } = edit.derive(`prune ${value}`, () =>
        prune(value, constant, sparsity, edit),
      );
      (isPruned ? changed : kept).push({ ...note, reason });
      if (isPruned) replaced.add(value);
      names.set(value, name);
    }
    const input = node.input.map((value) => names.get(value) ?? value);
    return input.every((value, index) => value === node.input[index]) ? undefined : [{ ...node, input }];
  });
  const twice = Array.from(
    keptConstants(pruned, replaced),
    ([name, reader]) => `The weights "${name}" are stored twice: pruned, and as they were for ${reader}.`,
  );
  const warnings = changed.length === 0 ? [] : [costs, ...twice];
  return { model: pruned, changed, kept, warnings };
}

const costs =
  'The model is as large as before, on the device and in memory: zeros are saved only where it travels compressed; it runs no faster.';

interface Weight {
  readonly value: string;
  readonly constant: TensorProto;
}

function weightsOf(node: NodeProto, { scope }: Edit): readonly Weight[] {
  const inputs = WEIGHTS[node.opType ?? ''] ?? [];
  return inputs.flatMap((index) => {
    const value = node.input[index] ?? '';
    const constant = value === '' ? undefined : scope.constant(value);
    // Biases and scales are few, and each of them counts.
    return constant === undefined || constant.dims.length < 2 ? [] : [{ value, constant }];
  });
}

interface Pruned {
  /** Name of the constant afterwards. */
  readonly name: string;
  readonly reason: string;
  readonly isPruned: boolean;
}

function prune(value: string, constant: TensorProto, sparsity: number, edit: Edit): Pruned {
  if (weightDTypeOf(constant) === undefined)
    return { name: value, reason: 'its weight is no float', isPruned: false };
  const { dtype, shape, data } = readWeights(constant, value);
  const count = Math.round(sparsity * data.length);
  if (count === 0) return { name: value, reason: 'its weight has too few elements', isPruned: false };
  // The bits of a float without its sign are in the order of magnitudes.
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const { threshold, ties } = thresholdOf(bits, count, value);
  const values = (fromTensorProto(constant).data as Float32Array | Uint16Array).slice();
  let left = ties;
  let signal = 0;
  let noise = 0;
  for (let i = 0; i < bits.length; i += 1) {
    const magnitude = (bits[i] as number) & MAGNITUDE;
    const square = (data[i] as number) ** 2;
    signal += square;
    if (magnitude > threshold || (magnitude === threshold && left === 0)) continue;
    if (magnitude === threshold) left -= 1;
    values[i] = 0;
    noise += square;
  }
  const share = ((100 * count) / data.length).toFixed(1);
  return {
    name: edit.constant(`${value}_pruned`, new Tensor<WeightDType>(dtype, shape, values)),
    reason: `${share} % of ${data.length} weights are zero, which leaves ${sqnrOf(signal, noise).toFixed(1)} dB`,
    isPruned: true,
  };
}

const MAGNITUDE = 0x7fff_ffff;
const INFINITE = 0x7f80_0000;

/** Weights up to this size are sorted: counting takes bins, which are more than they have elements. */
const SORTED = 2 ** 14;

/**
 * Finds the magnitude of the `count`-th smallest float, and how many of that magnitude are among the smallest. Large
 * weights take two passes: over the upper bits, and over the lower ones of those that share them.
 */
function thresholdOf(
  bits: Uint32Array,
  count: number,
  weight: string,
): { readonly threshold: number; readonly ties: number } {
  if (bits.length <= SORTED) {
    const sorted = bits.map((one) => one & MAGNITUDE).sort();
    if ((sorted.at(-1) ?? 0) > INFINITE) throw notANumber(weight);
    const threshold = sorted[count - 1] ?? 0;
    return { threshold, ties: count - sorted.indexOf(threshold) };
  }
  const upper = new Uint32Array(2 ** 15);
  const lower = new Uint32Array(2 ** 16);
  const step = (bins: Uint32Array, at: number): void => void (bins[at] = (bins[at] as number) + 1);
  for (let i = 0; i < bits.length; i += 1) {
    const magnitude = (bits[i] as number) & MAGNITUDE;
    if (magnitude > INFINITE) throw notANumber(weight);
    step(upper, magnitude >>> 16);
  }
  const high = find(upper, count);
  for (let i = 0; i < bits.length; i += 1) {
    const magnitude = (bits[i] as number) & MAGNITUDE;
    if (magnitude >>> 16 === high.at) step(lower, magnitude & 0xffff);
  }
  const low = find(lower, high.rest);
  return { threshold: high.at * 2 ** 16 + low.at, ties: low.rest };
}

function notANumber(weight: string): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_INVALID',
    `The weight "${weight}" has elements that are NaN; mend the model before it is pruned.`,
    { details: { tensor: weight } },
  );
}

/** Finds the bin in which the `count`-th element is, and the how-manieth of the bin it is. */
function find(bins: Uint32Array, count: number): { readonly at: number; readonly rest: number } {
  let rest = count;
  let at = 0;
  while (rest > (bins[at] as number)) {
    rest -= bins[at] as number;
    at += 1;
  }
  return { at, rest };
}
