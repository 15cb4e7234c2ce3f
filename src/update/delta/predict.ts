/** What is expected of float32 numbers, from those of the base. */

import type { Pace } from '../../core/digest.ts';
import type { Layout, ThinProduct } from './layout.ts';

/**
 * Turns a stretch of the base into what is expected in its place. A sum or a product that is no number, which has many
 * patterns, leaves what is there.
 * @param first - place of its first number in the layout.
 */
export async function predict(layout: Layout, first: number, bytes: Uint8Array, pace: Pace): Promise<void> {
  const { gains, product, columns } = layout;
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const sums = product && (await multiply(product, columns.length, first, values.length, pace));
  for (let k = 0; k < values.length; k += 1) {
    const value = values[k] as number;
    const expected =
      gains === undefined
        ? value + (sums?.[k] ?? 0)
        : value * (gains[Math.floor((first + k) / columns.length)] as number);
    if (!Number.isNaN(expected)) values[k] = expected;
  }
}

/** Sums over the rank in its order, for all numbers at once: each is what it would be alone. */
async function multiply(
  { scales, factors }: ThinProduct,
  width: number,
  first: number,
  count: number,
  pace: Pace,
): Promise<Float64Array> {
  const rank = scales.length;
  const second = factors.length - rank * width;
  const sums = new Float64Array(count);
  for (let k = 0; k < rank; k += 1) {
    let row = Math.floor(first / width);
    let column = first - row * width;
    for (let at = 0; at < count; row += 1, column = 0) {
      const left = (factors[row * rank + k] as number) * (scales[k] as number);
      const right = second + k * width;
      for (; column < width && at < count; at += 1, column += 1)
        sums[at] = (sums[at] as number) + left * (factors[right + column] as number);
    }
    await pace();
  }
  return sums;
}
