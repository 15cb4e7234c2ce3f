/** Numbers of a tensor as bit patterns, and what they are worth. */
import { halves } from '../../update/delta/halves.ts';
import type { NumberKind } from '../../update/delta/head.ts';

/** Numbers of a tensor from which on it is worth scales of rows and columns, and rounding: weights, not biases and norms. */
export const FEWEST_WEIGHTS = 4096;

/** Bit patterns: int32 for float32, one byte for each 8-bit and each 4-bit number. */
export type Words = Int32Array | Uint16Array | Uint8Array;

/** Reads the numbers of a run of bytes. Only what lies unaligned, and 4-bit numbers, are copied. */
export function wordsOf(file: Uint8Array, numbers: NumberKind, offset: number, sizeBytes: number): Words {
  const bytes = file.subarray(offset, offset + sizeBytes);
  if (numbers === 'int8') return bytes;
  if (numbers === 'int4') {
    const nibbles = new Uint8Array(2 * sizeBytes);
    for (let i = 0; i < sizeBytes; i += 1) {
      nibbles[2 * i] = (bytes[i] as number) & 15;
      nibbles[2 * i + 1] = (bytes[i] as number) >>> 4;
    }
    return nibbles;
  }
  const each = numbers === 'float32' ? 4 : 2;
  const { buffer, byteOffset } = bytes.byteOffset % each === 0 ? bytes : new Uint8Array(bytes);
  return each === 4
    ? new Int32Array(buffer, byteOffset, sizeBytes / each)
    : new Uint16Array(buffer, byteOffset, sizeBytes / each);
}

/** Values of bit patterns. Integers are two's complements, or unsigned about their middle. */
export function valuesOf(words: Words, numbers: NumberKind, isUnsigned = false): Float32Array | Int8Array {
  if (!isFloat(numbers) && isUnsigned) {
    const middle = numbers === 'int8' ? 128 : 8;
    return Int8Array.from(words, (word) => word - middle);
  }
  if (numbers === 'float32') return toFloats(words);
  if (numbers === 'int8') return new Int8Array(words.buffer, words.byteOffset, words.length);
  if (numbers === 'int4') return Int8Array.from(words, (word) => (word << 28) >> 28);
  return halves[numbers].widen(words as Uint16Array);
}

/** Bit patterns of the floats of a kind that are nearest to numbers. */
export function patternsOf(values: Float32Array, numbers: NumberKind): Int32Array | Uint16Array {
  const { buffer, byteOffset, length } = values;
  return halves[numbers]?.narrow(values) ?? new Int32Array(buffer, byteOffset, length);
}

/** The numbers that bit patterns of float32 stand for. */
function toFloats({ buffer, byteOffset, length }: Words): Float32Array {
  return new Float32Array(buffer, byteOffset, length);
}

/** @returns exponent fields of float32 numbers whose last places are worth as much as those of floats of a kind. */
export function exponentsOf(words: Words, numbers: NumberKind): Uint8ClampedArray {
  // Infinity and what is no number may have no such.
  const exponents = new Uint8ClampedArray(words.length);
  const [shift, most, more] =
    numbers === 'float32' ? [23, 255, 0] : numbers === 'float16' ? [10, 31, 125] : [7, 255, 16];
  for (let k = 0; k < exponents.length; k += 1)
    exponents[k] = Math.max(1, ((words[k] as number) >>> shift) & most) + more;
  return exponents;
}

/** What the last place of a float32 is worth, by its exponent field. */
export function lastPlace(exponent: number): number {
  return 2 ** (Math.max(1, exponent) - 150);
}

/** Tells whether two runs hold the same bit patterns. */
export function equalWords(a: Words, b: Words): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return false;
  return true;
}

/** Tells kinds of floating-point numbers. */
export function isFloat(numbers: NumberKind): boolean {
  return numbers !== 'int8' && numbers !== 'int4';
}
