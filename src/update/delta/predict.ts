/** What is expected of floating-point numbers, from those of the base. */

import type { Pace } from '../../core/digest.ts';
import type { Half } from './halves.ts';
import type { Layout, ThinProduct } from './layout.ts';

/**
 * Turns a stretch of the base into what is expected in its place. A sum or a product that is no number, which has many
 * patterns, leaves what is there.
 * @param first - place of its first number in the layout.
 * @param half - how the numbers are read and written, where they have 16 bits.
 */
export async function predict(
  layout: Layout,
  first: number,
  { buffer, byteOffset, length }: Uint8Array,
  half: Half | undefined,
  pace: Pace,
): Promise<void> {
  const { gains, product, columns } = layout;
  const patterns = new Uint16Array(buffer, byteOffset, length / 2);
  const values = half?.widen(patterns) ?? new Float32Array(buffer, byteOffset, length / 4);
  const sums = product && (await multiply(product, columns.length, first, values.length, pace));
  for (let k = 0; k < values.length; k += 1) {
    const value = values[k] as number;
    const expected =
      gains === undefined
        ? value + (sums?.[k] ?? 0)
        : value * (gains[Math.floor((first + k) / columns.length)] as number);
    if (!Number.isNaN(expected)) values[k] = expected;
  }
  half?.narrow(values).forEach((pattern, k) => {
    if (!Number.isNaN(values[k])) patterns[k] = pattern;
  });
}

/** Products that are added to a sum at once. */
const TERMS = 4;

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
  for (let k = 0; k < rank; k += TERMS) {
    // Beyond the rank, the first row counts again, but times 0: that changes no sum.
    const below = (i: number): number => (k + i < rank ? i * width : 0);
    const [b, c, d] = [below(1), below(2), below(3)];
    const leftAt = (row: number, i: number): number =>
      k + i < rank ? (factors[row * rank + k + i] as number) * (scales[k + i] as number) : 0;
    let row = Math.floor(first / width);
    let column = first - row * width;
    for (let at = 0; at < count; row += 1, column = 0) {
      const [p, q, r, s] = [leftAt(row, 0), leftAt(row, 1), leftAt(row, 2), leftAt(row, 3)];
      const end = Math.min(count, at + width - column);
      for (let i = second + k * width + column; at < end; at += 1, i += 1)
        sums[at] =
          (sums[at] as number) +
          p * (factors[i] as number) +
          q * (factors[i + b] as number) +
          r * (factors[i + c] as number) +
          s * (factors[i + d] as number);
    }
    await pace();
  }
  return sums;
}
