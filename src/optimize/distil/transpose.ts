/** Order of the axes of weights. */
import type { WeightArray } from './library.ts';

/** Copies a weight with its axes in another order: axis `i` of the result is axis `order[i]` of the source. */
export function transposed(
  data: Float32Array,
  shape: readonly number[],
  order: readonly number[],
): WeightArray {
  const strides = shape.map((_, axis) =>
    shape.slice(axis + 1).reduce((product, length) => product * length, 1),
  );
  const target = order.map((axis) => shape[axis] ?? 1);
  const steps = order.map((axis) => strides[axis] ?? 1);
  const place = target.map(() => 0);
  const result = new Float32Array(data.length);
  let from = 0;
  for (let at = 0; at < result.length; at += 1) {
    result[at] = data[from] ?? 0;
    for (let axis = target.length - 1; axis >= 0; axis -= 1) {
      const next = (place[axis] ?? 0) + 1;
      from += steps[axis] ?? 0;
      if (next < (target[axis] ?? 0)) {
        place[axis] = next;
        break;
      }
      place[axis] = 0;
      from -= next * (steps[axis] ?? 0);
    }
  }
  return { shape: target, data: result };
}
