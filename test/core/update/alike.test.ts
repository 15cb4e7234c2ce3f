import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { isAlike, USUAL_TOLERANCE } from '../../../src/update/alike.ts';

const floats = (shape: readonly number[], ...values: number[]): Tensor =>
  new Tensor('float32', shape, Float32Array.from(values));
const alike = (a: Tensor, b: Tensor): boolean => isAlike({ y: a }, { y: b }, USUAL_TOLERANCE);

describe('two answers', () => {
  it.each([
    ['scores with the same class', floats([1, 3], 0.1, 0.7, 0.2), floats([1, 3], 0.3, 0.4, 0.3), true],
    ['scores with another class', floats([1, 3], 0.1, 0.7, 0.2), floats([1, 3], 0.4, 0.3, 0.3), false],
    ['scores of one axis', floats([2], 5, -1), floats([2], 900, 3), true],
    [
      'a batch in which one row has another class',
      floats([2, 2], 1, 0, 0, 1),
      floats([2, 2], 1, 0, 1, 0),
      false,
    ],
    ['scores with NaN', floats([1, 2], 1, NaN), floats([1, 2], 1, 0), false],
    ['scores with infinity', floats([1, 2], Infinity, 0), floats([1, 2], 1, 0), false],
    ['one number that is near', floats([1, 1], 100), floats([1, 1], 104), true],
    ['one number that is not', floats([1, 1], 100), floats([1, 1], 120), false],
    ['maps that are near', floats([1, 2, 2], 1, 2, 3, 4), floats([1, 2, 2], 1.01, 2.02, 3, 4), true],
    ['maps of which one element is not', floats([1, 2, 2], 1, 2, 3, 4), floats([1, 2, 2], 1, 2, 3, 5), false],
    ['another shape', floats([2], 1, 2), floats([1, 2], 1, 2), false],
    ['another dtype', floats([2], 1, 2), new Tensor('float64', [2], Float64Array.from([1, 2])), false],
    [
      'integers that are equal',
      new Tensor('int64', [2], BigInt64Array.from([1n, 2n])),
      new Tensor('int64', [2], BigInt64Array.from([1n, 2n])),
      true,
    ],
    [
      'integers that are not',
      new Tensor('int64', [2], BigInt64Array.from([1n, 2n])),
      new Tensor('int64', [2], BigInt64Array.from([1n, 3n])),
      false,
    ],
    ['texts', new Tensor('string', [1], ['cat']), new Tensor('string', [1], ['dog']), false],
    [
      'half floats with the same class',
      new Tensor('float16', [2], Uint16Array.from([0x3c00, 0xbc00])),
      new Tensor('float16', [2], Uint16Array.from([0x4000, 0xc000])),
      true,
    ],
  ])('are compared: %s', (_, a, b, expected) => {
    expect(alike(a, b)).toBe(expected);
    expect(alike(b, a)).toBe(expected);
  });

  it('lack nothing that the other has, and may have more', () => {
    const y = floats([2], 1, 2);
    expect(isAlike({}, { y }, USUAL_TOLERANCE)).toBe(false);
    expect(isAlike({ y, z: y }, { y }, USUAL_TOLERANCE)).toBe(true);
  });
});
