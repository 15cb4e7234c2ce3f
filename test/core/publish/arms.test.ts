import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { armsFor, assignRanges, weightOf } from '../../../src/publish/arms.ts';
import { firstMoved, MOST_RANGES, type PlanArm } from '../../../src/update/arms.ts';

const entry = { path: 'models/digits/3/m.onnx', sha256: '3'.repeat(64), length: 3, seq: 3, version: '3.0.0' };
const asArms = (ranges: ReturnType<typeof assignRanges>): readonly PlanArm[] =>
  ranges.map((arm) => ({ ...arm, entry }));
const refused = expect.objectContaining({ code: 'ERR_INLAY_REFUSED' });

describe('assignRanges', () => {
  it('shares a new rollout out by weight, and leaves the candidate the rest', () => {
    expect(assignRanges({ bp: 0, arms: [] }, 1000, { a: 5000, b: 2500 })).toEqual([
      { name: 'a', ranges: [[0, 500]] },
      { name: 'b', ranges: [[500, 750]] },
    ]);
  });

  it('gives away only the buckets that are new', () => {
    const arms = [{ name: 'a', ranges: [[0, 500] as const] }];
    expect(assignRanges({ bp: 1000, arms }, 2000, { a: 1000, b: 9000 })).toEqual([
      {
        name: 'a',
        ranges: [
          [0, 500],
          [1000, 1100],
        ],
      },
      { name: 'b', ranges: [[1100, 2000]] },
    ]);
    expect(assignRanges({ bp: 1000, arms }, 1000, { a: 0, b: 10_000 })).toEqual([
      { name: 'a', ranges: [[0, 500]] },
      { name: 'b', ranges: [] },
    ]);
  });

  it('lets arms begin side by side where a share is reached bucket by bucket', () => {
    expect(assignRanges({ bp: 0, arms: [] }, 400, { a: 5000 }, 4)).toEqual([
      {
        name: 'a',
        ranges: [
          [0, 50],
          [100, 150],
          [200, 250],
          [300, 350],
        ],
      },
    ]);
  });

  it('makes one range of two that meet', () => {
    const arms = [{ name: 'a', ranges: [[0, 1000] as const] }];
    expect(assignRanges({ bp: 1000, arms }, 2000, { a: 10_000 })).toEqual([
      { name: 'a', ranges: [[0, 2000]] },
    ]);
  });

  it('refuses more ranges than a plan may have', () => {
    const arms = [
      { name: 'a', ranges: Array.from({ length: MOST_RANGES }, (_, at) => [2 * at, 2 * at + 1] as const) },
    ];
    expect(() => assignRanges({ bp: 200, arms }, 300, { a: 5000 })).toThrow(refused);
    expect(assignRanges({ bp: 200, arms }, 300, { b: 5000 })).toHaveLength(2);
  });

  it('keeps every bucket that has an arm in it, whatever the weights are later, and every share to a bucket a block', () => {
    const weights = fc.record({ a: fc.nat(5000), b: fc.nat(5000) });
    const raise = fc.tuple(fc.integer({ min: 0, max: 2000 }), weights, fc.integer({ min: 1, max: 5 }));
    fc.assert(
      fc.property(fc.array(raise, { minLength: 1, maxLength: 5 }), (raises) => {
        let before = { bp: 0, arms: asArms([]) };
        for (const [more, given, blocks] of raises) {
          const bp = before.bp + more;
          const arms = asArms(assignRanges(before, bp, given, blocks));
          expect(firstMoved(before.arms, arms, before.bp)).toBeUndefined();
          const taken = arms
            .flatMap(({ ranges }) => ranges)
            .flatMap(([from, to]) => Array.from({ length: to - from }, (_, at) => from + at));
          expect(new Set(taken).size).toBe(taken.length);
          expect(Math.max(0, ...taken)).toBeLessThan(Math.max(1, bp));
          const widthOf = (list: readonly PlanArm[]): number =>
            (weightOf(list.find(({ name }) => name === 'a')?.ranges ?? [], 10_000) * 10_000) / 10_000;
          const won = widthOf(arms) - widthOf(before.arms);
          expect(Math.abs(won - (more * given.a) / 10_000)).toBeLessThanOrEqual(blocks);
          before = { bp, arms };
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('armsFor', () => {
  const a = { name: 'a', entry, weightBp: 4000 };

  it('goes on in the proportions that there are', () => {
    const arms = armsFor(undefined, { bp: 1000, base: null }, [a], 1);
    expect(armsFor({ bp: 1000, arms }, { bp: 2000, base: null }, undefined, 1)).toEqual([
      {
        name: 'a',
        entry,
        ranges: [
          [0, 400],
          [1000, 1400],
        ],
      },
    ]);
  });

  it('keeps an arm that is not told any more, and gives it no more buckets', () => {
    const arms = armsFor(undefined, { bp: 1000, base: null }, [a], 1);
    expect(armsFor({ bp: 1000, arms }, { bp: 2000, base: null }, [], 1)).toEqual(arms);
  });

  it.each([
    ['the name of the candidate', [{ ...a, name: 't' }]],
    ['a name that is none', [{ ...a, name: 'A b' }]],
    ['one name twice', [a, a]],
    ['more than all', [a, { ...a, name: 'b', weightBp: 6001 }]],
    ['nine arms', Array.from({ length: 9 }, (_, at) => ({ ...a, name: `a${at}`, weightBp: 1 }))],
  ])('refuses %s', (_, arms) => {
    expect(() => armsFor(undefined, { bp: 1000, base: null }, arms, 1)).toThrow(refused);
  });

  it('refuses an arm that runs what the other devices run', () => {
    expect(() => armsFor(undefined, { bp: 1000, base: entry }, [a], 1)).toThrow(refused);
  });

  it('refuses another release for an arm', () => {
    const arms = armsFor(undefined, { bp: 1000, base: null }, [a], 1);
    const other = { ...entry, sha256: '4'.repeat(64) };
    expect(() => armsFor({ bp: 1000, arms }, { bp: 2000, base: null }, [{ ...a, entry: other }], 1)).toThrow(
      refused,
    );
  });
});
