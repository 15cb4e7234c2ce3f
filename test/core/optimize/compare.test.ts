import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { tensorFrom, type NestedArray } from '../../../src/core/tensor.ts';
import { compareOutputs, type OutputComparison } from '../../../src/optimize/compare.ts';

const floats = (y: NestedArray): TensorMap => ({ y: tensorFrom('float32', y) });

function compared(a: TensorMap, b: TensorMap): OutputComparison {
  const [output] = compareOutputs([a], [b]).outputs;
  if (output === undefined) throw new RangeError('There is no output.');
  return output;
}

describe('comparing answers', () => {
  it('gives the ratio of signal to noise in decibels', () => {
    const { sqnrDb, maxAbs, isIdentical } = compared(floats([[3, 4]]), floats([[3, 3.5]]));
    expect(sqnrDb).toBeCloseTo(20, 10);
    expect(maxAbs).toBe(0.5);
    expect(isIdentical).toBe(false);
  });

  it('takes the ratio over all samples, not the mean of their ratios', () => {
    const { sqnrDb } = compareOutputs(
      [floats([30, 40]), floats([0, 0])],
      [floats([30, 40]), floats([0, 0.5])],
    );
    expect(sqnrDb).toBeCloseTo(40, 10);
  });

  it('finds equal answers identical', () => {
    const same = compareOutputs([floats([[1, NaN, Infinity]])], [floats([[1, NaN, Infinity]])]);
    expect(same.outputs[0]?.isIdentical).toBe(true);
    expect([same.sqnrDb, same.agreement, same.findings]).toEqual([Infinity, 1, []]);
  });

  it('counts rows whose largest element, the first of equal ones, is in the same place', () => {
    const a = floats([
      [1, 2],
      [5, 5],
      [3, 1],
      [0, 9],
    ]);
    const b = floats([
      [1, 3],
      [5, 6],
      [2, 1],
      [1, 0],
    ]);
    expect(compared(a, b).agreement).toBe(0.5);
  });

  it('has no agreement where rows have one element', () => {
    expect(compared(floats([[1], [2]]), floats([[1], [3]])).agreement).toBeUndefined();
  });

  it('compares integers and texts by equality', () => {
    const labels = (y: NestedArray): TensorMap => ({ y: tensorFrom('int64', y) });
    const { agreement, sqnrDb } = compared(labels([1, 2, 3, 4]), labels([1, 2, 3, 5]));
    expect([agreement, sqnrDb]).toEqual([0.75, undefined]);
    const texts = (y: NestedArray): TensorMap => ({ y: tensorFrom('string', y) });
    expect(compared(texts(['a', 'b']), texts(['a', 'b'])).isIdentical).toBe(true);
  });

  it.each<[string, TensorMap, string]>([
    ['missing', {}, 'missing'],
    ['of another shape', floats([[1, 2, 3]]), 'shape'],
    ['of another kind', { y: tensorFrom('int64', [[1, 2]]) }, 'dtype'],
    ['NaN where it was finite', floats([[1, NaN]]), 'not-finite'],
  ])('finds an output that is %s, and calls it the worst', (_, actual, kind) => {
    const { sqnrDb, findings } = compareOutputs([floats([[1, 2]])], [actual]);
    expect(sqnrDb).toBe(-Infinity);
    expect(findings.map((finding) => [finding.output, finding.kind])).toEqual([['y', kind]]);
  });

  it('compares float16 with float32, and mentions it', () => {
    const { sqnrDb, findings } = compareOutputs([floats([1, 2])], [{ y: tensorFrom('float16', [1, 2]) }]);
    expect([sqnrDb, findings.map(({ kind }) => kind)]).toEqual([Infinity, ['dtype']]);
  });

  it('is the worst of the outputs', () => {
    const both = (a: NestedArray, b: NestedArray): TensorMap => ({
      a: tensorFrom('float32', a),
      b: tensorFrom('float32', b),
    });
    expect(compareOutputs([both([3, 4], [1, 2])], [both([3, 3.5], [1, 2])]).sqnrDb).toBeCloseTo(20, 10);
  });

  it('does not depend on a common factor, nor on how samples are split', () => {
    const row = fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 2, maxLength: 2 });
    fc.assert(
      fc.property(fc.array(fc.tuple(row, row), { minLength: 1, maxLength: 6 }), (pairs) => {
        const [a, b] = [pairs.map(([one]) => one), pairs.map(([, other]) => other)];
        const whole = compareOutputs([floats(a)], [floats(b)]);
        const split = compareOutputs(
          a.map((one) => floats([one])),
          b.map((one) => floats([one])),
        );
        const scaled = compareOutputs(
          [floats(a.map((one) => one.map((x) => 4 * x)))],
          [floats(b.map((one) => one.map((x) => 4 * x)))],
        );
        expect(split.agreement).toBe(whole.agreement);
        for (const { sqnrDb } of [split, scaled]) {
          if (Number.isFinite(whole.sqnrDb)) expect(sqnrDb).toBeCloseTo(whole.sqnrDb, 6);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('refuses lists of different lengths', () => {
    expect(() => compareOutputs([floats([1])], [])).toThrow(RangeError);
  });
});
