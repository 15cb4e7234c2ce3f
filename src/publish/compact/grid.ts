/** Rounding the update of a whole model file onto a grid around its base. */

import { halves } from '../../update/delta/halves.ts';
import { mendChecksums } from '../delta/spans-zip.ts';
import type { UpdateStep, UpdateSteps } from '../delta/steps.ts';
import { roundFloats, roundIntegers, type RoundedFloats, type Rounding } from './round.ts';
import { isHalf, weightsOf, type Weights } from './weights.ts';

/** What became of a tensor that changed. */
export interface RoundedTensor {
  readonly name: string;
  readonly elements: number;
  readonly isRounded: boolean;
  /** Of floats. */
  readonly step?: number;
  readonly hasGains?: boolean;
  /** Of integers, which are rounded to whole multiples. */
  readonly unit?: number;
}

/** A model file whose update was rounded. */
export interface RoundedModel {
  /** The file of the new model, but for the weights that were rounded. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly steps: UpdateSteps;
  /** Tensors that both files have, with other content. */
  readonly tensors: readonly RoundedTensor[];
}

/** Smaller tensors are left as they are, and so are those of one axis: biases and norms break models when they move. */
const fewestElements = 4096;

/**
 * Rounds the update from `base` to `next`. Constants that are no weights, biases, norms and other tensors of one axis, tensors of fewer than 4,096
 * elements, and those that only one of the files has stay exact.
 * @throws {@link ModelError} if a file is not understood; `RangeError` for a step that rounding to the nearest would shrink
 * updates at (above half of their root mean square), or that unbiased rounding is not for (below one). Between the two
 * neither is any good: to the nearest most updates of a number vanish, and chance alone adds more than it saves.
 */
export function roundOntoGrid(
  base: Uint8Array<ArrayBuffer>,
  next: Uint8Array<ArrayBuffer>,
  rounding: Rounding,
): RoundedModel {
  const { f, isStochastic, seed } = rounding;
  if (!(isStochastic ? f >= 1 && f <= 64 : f > 0 && f <= 0.5)) {
    throw new RangeError(
      `A step of ${f} is none: it is at most 0.5 to the nearest, and from 1 to 64 where rounding is unbiased.`,
    );
  }
  const bytes = next.slice();
  const steps = new Map<string, UpdateStep>();
  const tensors: RoundedTensor[] = [];
  const before = new Map(weightsOf(base).map((weights) => [weights.name, weights]));
  for (const weights of weightsOf(next)) {
    const { name, dtype, shape, offset } = weights;
    const old = before.get(name);
    if (old?.dtype !== dtype || old.shape.join() !== shape.join()) continue;
    const [a, b] = [contentOf(base, old), contentOf(next, weights)];
    if (a.every((byte, i) => byte === b[i])) continue;
    const elements = shape.reduce((product, length) => product * length, 1);
    const rounded =
      shape.length < 2 || elements < fewestElements
        ? undefined
        : roundContent(a, b, dtype, shape[0] ?? 1, { ...rounding, seed: seedOf(name, seed) });
    const { values, update, ...facts } = rounded ?? {};
    if (values) bytes.set(new Uint8Array(values.buffer), offset);
    if (update) steps.set(name, update);
    tensors.push({ name, elements, isRounded: rounded !== undefined, ...facts });
  }
  mendChecksums(bytes);
  return { bytes, steps, tensors };
}

/** What became of the numbers of a tensor. */
interface RoundedContent extends Pick<RoundedTensor, 'step' | 'hasGains' | 'unit'> {
  readonly values: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Int8Array | Uint8Array;
  /** Of floats, which patches hold as multiples of a step. */
  readonly update?: UpdateStep;
}

function roundContent(
  a: Uint8Array<ArrayBuffer>,
  b: Uint8Array<ArrayBuffer>,
  dtype: Weights['dtype'],
  rows: number,
  rounding: Rounding,
): RoundedContent | undefined {
  if (dtype === 'float32') {
    const rounded = roundFloats(new Float32Array(a.buffer), new Float32Array(b.buffer), rows, rounding);
    return rounded && contentFrom(rounded, (values) => values);
  }
  if (isHalf(dtype)) {
    const { widen, narrow } = halves[dtype];
    const [from, to] = [widen(new Uint16Array(a.buffer)), widen(new Uint16Array(b.buffer))];
    const rounded = roundFloats(from, to, rows, rounding, (values) => widen(narrow(values)));
    return rounded && contentFrom(rounded, narrow);
  }
  return dtype === 'int8'
    ? roundIntegers(new Int8Array(a.buffer), new Int8Array(b.buffer), rows, rounding)
    : roundIntegers(a, b, rows, rounding);
}

function contentFrom(
  { values, ...update }: RoundedFloats,
  write: (values: RoundedFloats['values']) => RoundedContent['values'],
): RoundedContent {
  return { values: write(values), update, step: update.step, hasGains: update.gain !== undefined };
}

/** A copy, at an address that numbers can be read from. */
function contentOf(file: Uint8Array, { offset, sizeBytes }: Weights): Uint8Array<ArrayBuffer> {
  return new Uint8Array(file.subarray(offset, offset + sizeBytes));
}

/** A seed for each tensor, so that none depends on which others there are (FNV-1a over its name). */
function seedOf(name: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < name.length; i += 1) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash;
}
