/** Floats of 16 bits, which are reckoned with as float32 numbers. */

import type { NumberKind } from './head.ts';

/** Converts the bit patterns of a kind of floats. */
export interface Half {
  /** @returns the numbers, exactly, in memory of their own. */
  readonly widen: (patterns: Uint16Array) => Float32Array<ArrayBuffer>;
  /**
   * @returns the nearest of each, ties to even, in memory of their own. What overflows is infinite; what is no number gives
   * a pattern without a meaning.
   */
  readonly narrow: (values: Float32Array) => Uint16Array<ArrayBuffer>;
}

/** How floats of 16 bits are read and written; other numbers have nothing here. */
export const halves: Readonly<Partial<Record<NumberKind, Half>> & Record<'float16' | 'bfloat16', Half>> = {
  float16: /* @__PURE__ */ createHalf(13, 112),
  bfloat16: /* @__PURE__ */ createHalf(16, 0),
};

/**
 * @param lost - bits by which fractions are shorter than those of float32.
 * @param lower - what exponents are lower by.
 */
function createHalf(lost: number, lower: number): Half {
  const scale = 2 ** lower;
  const infinity = (255 - 2 * lower) << (23 - lost);
  return {
    widen: (patterns) => {
      const values = new Float32Array(patterns.length);
      const words = new Int32Array(values.buffer);
      for (let k = 0; k < words.length; k += 1) {
        const pattern = patterns[k] as number;
        const magnitude = pattern & 0x7fff;
        words[k] = (magnitude << lost) | ((pattern >> 15) << 31);
        // Denormals become normal numbers.
        values[k] = (values[k] as number) * scale;
        if (magnitude >= infinity) words[k] = (words[k] as number) | 0x7f800000;
      }
      return values;
    },
    narrow: (values) => {
      const patterns = new Uint16Array(values.length);
      const float = new Float32Array(1);
      const word = new Int32Array(float.buffer);
      for (let k = 0; k < patterns.length; k += 1) {
        float[0] = values[k] as number;
        const bits = word[0] as number;
        const magnitude = (bits & 0x7fffffff) - (lower << 23);
        // The last place of 1/2 is that of the denormals of float16.
        float[0] = Math.abs(float[0]) + 0.5;
        const rounded =
          lower > 0 && magnitude < 1 << 23
            ? (word[0] as number) - (126 << 23)
            : (magnitude + (1 << (lost - 1)) - 1 + ((magnitude >> lost) & 1)) >> lost;
        patterns[k] = ((bits >>> 16) & 0x8000) | Math.min(rounded, infinity);
      }
      return patterns;
    },
  };
}
