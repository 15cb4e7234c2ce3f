/** Numbers of a tensor as bit patterns, and what they are worth. */
import { fromFloat16Array } from '../../core/float.ts';
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
    const halves = new Uint8Array(2 * sizeBytes);
    for (let i = 0; i < sizeBytes; i += 1) {
      halves[2 * i] = (bytes[i] as number) & 15;
      halves[2 * i + 1] = (bytes[i] as number) >>> 4;
    }
    return halves;
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
  if (numbers === 'float16') return fromFloat16Array(words as Uint16Array);
  if (numbers === 'int8') return new Int8Array(words.buffer, words.byteOffset, words.length);
  if (numbers === 'int4') return Int8Array.from(words, (word) => (word << 28) >> 28);
  const wide = Int32Array.from(words, (word) => word << 16);
  return new Float32Array(wide.buffer);
}

/** The numbers that bit patterns of float32 stand for. */
export function toFloats({ buffer, byteOffset, length }: Words): Float32Array {
  return new Float32Array(buffer, byteOffset, length);
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
