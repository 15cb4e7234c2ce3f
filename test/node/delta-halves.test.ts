import { describe, expect, it } from 'vitest';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../../src/core/float.ts';
import { halves } from '../../src/update/delta/halves.ts';

const all = new Uint16Array(2 ** 16).map((_, pattern) => pattern);

describe.each([
  ['float16', fromFloat16Bits, toFloat16Bits],
  ['bfloat16', fromBfloat16Bits, toBfloat16Bits],
] as const)('floats of 16 bits: %s', (dtype, widened, narrowed) => {
  const { widen, narrow } = halves[dtype];
  const values = widen(all);

  it('are the numbers that their patterns stand for, all of them', () => {
    expect(values.findIndex((value, pattern) => !Object.is(value, widened(pattern)))).toBe(-1);
  });

  it('are the nearest to what lies at, between and next to them, ties to even', () => {
    const word = new Int32Array(1);
    const float = new Float32Array(word.buffer);
    const near = Array.from(values).flatMap((value, pattern) => {
      const halfway = (value + (values[pattern + 1] ?? 0)) / 2;
      return [value, halfway].flatMap((middle) =>
        [-1, 0, 1].map((off) => {
          float[0] = middle;
          word[0] = (word[0] as number) + off;
          return float[0];
        }),
      );
    });
    const numbers = Float32Array.from(near).filter((value) => !Number.isNaN(value));
    const patterns = narrow(numbers);
    expect(numbers.length).toBeGreaterThan(350_000);
    expect(numbers.findIndex((value, k) => patterns[k] !== narrowed(value))).toBe(-1);
  });
});
