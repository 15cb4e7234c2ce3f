import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toFloat16Bits } from '../../../src/core/float.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { judge } from '../../../src/engine/variants-compare.ts';

const floats = (...values: number[]) => ({
  y: new Tensor('float32', [values.length], Float32Array.from(values)),
});
const labels = (...values: number[]) => ({
  y: new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt)),
});
const rows = (...values: number[]) => ({
  y: new Tensor('float32', [values.length / 2, 2], Float32Array.from(values)),
});

describe('judge', () => {
  it('measures the error of an output as one vector', () => {
    expect(judge(floats(3, 4), floats(3, 4))).toEqual({ relative: 0, refusal: undefined });
    expect(judge(floats(30, 40), floats(30, 41))).toEqual({ relative: 0.02, refusal: undefined });
    expect(judge(floats(3, 4), floats(3, 5))).toEqual({
      relative: 0.2,
      refusal: 'output "y" is off by 20 %, allowed are 5 %',
    });
    expect(judge(floats(3, 4), floats(3, 5), { relative: 0.2 }).refusal).toBeUndefined();
  });

  it('does not depend on the scale of the output', () => {
    const value = fc.float({ min: -100, max: 100, noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(value, value), { minLength: 1 }),
        fc.constantFrom(2 ** -20, 2 ** 20),
        (pairs, scale) => {
          fc.pre(pairs.some(([a]) => Math.abs(a) > 1e-3));
          const error = (factor: number): number =>
            judge(floats(...pairs.map(([a]) => a * factor)), floats(...pairs.map(([, b]) => b * factor)))
              .relative;
          expect(error(scale)).toBeCloseTo(error(1), 5);
        },
      ),
    );
  });

  it('takes what is not finite for right only where it is expected', () => {
    expect(judge(floats(NaN, 1, Infinity), floats(NaN, 1, Infinity)).relative).toBe(0);
    for (const wrong of [NaN, Infinity, -Infinity]) {
      expect(judge(floats(1, 2), floats(1, wrong), { relative: 1e9 }).refusal).toMatch(/off by/);
      expect(judge(floats(1, wrong), floats(1, 2), { relative: 1e9 }).refusal).toMatch(/off by/);
    }
    expect(judge(floats(0, 0), floats(0, 1e-9)).refusal).toMatch(/off by/);
  });

  it('reads 16-bit floats', () => {
    const half = (...values: number[]) => ({
      y: new Tensor('float16', [values.length], Uint16Array.from(values, toFloat16Bits)),
    });
    expect(judge(half(3, 4), half(3, 5)).relative).toBe(0.2);
  });

  it('refuses other dtypes and shapes, and outputs that are missing', () => {
    expect(judge(floats(1, 2), labels(1, 2)).refusal).toBe(
      'output "y" is int64 [2], expected is float32 [2]',
    );
    expect(judge(floats(1, 2), rows(1, 2)).refusal).toBe(
      'output "y" is float32 [1, 2], expected is float32 [2]',
    );
    expect(judge(floats(1), {}).refusal).toBe('output "y" is missing, expected is float32 [1]');
    expect(judge({}, floats(1)).refusal).toBeUndefined();
  });

  it('wants as many decisions unchanged as it is told, all by default', () => {
    expect(judge(labels(1, 2, 3, 4), labels(1, 2, 3, 4)).refusal).toBeUndefined();
    expect(judge(labels(1, 2, 3, 4), labels(1, 2, 3, 5)).refusal).toBe(
      '25 % of the decisions in output "y" differ, allowed are 0 %',
    );
    expect(judge(labels(1, 2, 3, 4), labels(1, 2, 3, 5), { agreement: 0.75 }).refusal).toBeUndefined();
    const words = (...values: string[]) => ({ y: new Tensor('string', [values.length], values) });
    expect(judge(words('cat'), words('dog')).refusal).toMatch(/100 % of the decisions/);
    expect(judge(labels(), labels()).refusal).toBeUndefined();
  });

  it('looks at the largest element of each row of floats only when it is told', () => {
    const [before, after] = [rows(0.51, 0.49, 0, 1), rows(0.49, 0.51, 0, 1)];
    expect(judge(before, after).refusal).toBeUndefined();
    expect(judge(before, after, { agreement: 0.9 }).refusal).toMatch(/50 % of the decisions/);
    expect(judge(before, after, { agreement: 0.5 }).refusal).toBeUndefined();
  });
});
