import { Tensor } from '../core/tensor.ts';
import { checkInteger } from './arguments.ts';
import { eachLane, lanesOf, numbersOf } from './elements.ts';
import type { AxisOptions } from './softmax.ts';

/** One entry of {@link topK}. */
export interface Ranked {
  /** Place along the last axis. */
  readonly index: number;
  readonly score: number;
  /** Present if labels were given. */
  readonly label?: string;
}

/** Options of {@link topK}. */
export interface TopKOptions {
  /** One name per place along the last axis. */
  readonly labels?: readonly string[];
}

/**
 * Finds the place of the largest element along an axis. Of equal ones it takes the first; NaN comes after everything else,
 * so that a lane of nothing but NaN gives 0.
 * @param tensor floats of 16, 32 or 64 bits or integers of up to 32 bits.
 * @returns int32 places, in the shape without the axis; int32 because an `int64` tensor would hold bigints.
 * @throws `RangeError` for an axis that there is not, or has no elements; {@link InputError} `ERR_INLAY_FEED_DTYPE` for
 * elements that are no plain numbers.
 * @example
 * import { argmax } from 'inlay/process';
 * const { logits } = await model.run({ image: pixels });
 * const digit = argmax(logits).data[0];
 */
export function argmax(tensor: Tensor, { axis = -1 }: AxisOptions = {}): Tensor<'int32'> {
  const values = numbersOf(tensor);
  const lanes = lanesOf(tensor.shape, axis);
  const { length, inner } = lanes;
  if (length === 0) throw new RangeError(`axis ${axis} has no elements to choose from.`);
  const places = new Int32Array(lanes.outer * inner);
  eachLane(lanes, (first, lane) => {
    let best = 0;
    for (let place = 1; place < length; place += 1) {
      const [value, most] = [values[first + place * inner] as number, values[first + best * inner] as number];
      if (value > most || (Number.isNaN(most) && !Number.isNaN(value))) best = place;
    }
    places[lane] = best;
  });
  const shape = tensor.shape.filter((_, at) => at !== lanes.axis);
  return new Tensor('int32', shape, places);
}

/**
 * Finds the `k` largest elements of each row, the largest first. Of equal ones the first comes first; NaN comes after
 * everything else.
 * @param tensor floats of 16, 32 or 64 bits or integers of up to 32 bits; a row is what lies along the last axis.
 * @param k at least 1; rows that are shorter are given whole.
 * @returns one list per row, in C order of the other axes.
 * @throws `RangeError` for a `k` out of range, a scalar, or labels that are not as many as a row is long;
 * {@link InputError} `ERR_INLAY_FEED_DTYPE` for elements that are no plain numbers.
 * @example
 * import { softmax, topK } from 'inlay/process';
 * const logits = new Tensor('float32', [1, 3], new Float32Array([1, 3, 2]));
 * const [best] = topK(softmax(logits), 2, { labels: ['cat', 'dog', 'wolf'] });
 * console.log(best[0].label, best[0].score); // dog 0.665
 */
export function topK(tensor: Tensor, k: number, { labels }: TopKOptions = {}): Ranked[][] {
  checkInteger('k', k);
  const values = numbersOf(tensor);
  const lanes = lanesOf(tensor.shape, -1);
  const { outer, length } = lanes;
  if (labels !== undefined && labels.length !== length) {
    throw new RangeError(`There must be one label for each of ${length} places, got ${labels.length}.`);
  }
  return Array.from({ length: outer }, (_, row) => {
    const scores = values.subarray(row * length, (row + 1) * length);
    return bestOf(scores, k).map((index) => ({
      index,
      score: scores[index] as number,
      ...(labels !== undefined && { label: labels[index] as string }),
    }));
  });
}

/** Order of places by score: the largest first, NaN last, equal ones in their own order. */
export function byScore(scores: ArrayLike<number>): (a: number, b: number) => number {
  return (a, b) => {
    const [x, y] = [scores[a] as number, scores[b] as number];
    return y - x || Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || a - b;
  };
}

/** Places of the `k` best scores in order. Sorts 2k at a time and keeps the better half: O(n log k). */
function bestOf(scores: ArrayLike<number>, k: number): number[] {
  const order = byScore(scores);
  const kept: number[] = [];
  let worst = -1;
  for (let place = 0; place < scores.length; place += 1) {
    if (worst >= 0 && order(place, worst) > 0) continue;
    kept.push(place);
    if (kept.length >= 2 * k) {
      kept.sort(order).length = k;
      worst = kept[k - 1] as number;
    }
  }
  return kept.sort(order).slice(0, k);
}
