import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import {
  nonMaximumSuppression,
  type SuppressionInput,
  type SuppressionOptions,
} from '../../../src/process/index.ts';

const keep = (
  boxes: readonly (readonly number[])[],
  scores: readonly number[],
  options: SuppressionOptions & Pick<SuppressionInput, 'classes'> = {},
): number[] =>
  nonMaximumSuppression(
    { boxes: boxes.flat(), scores, ...(options.classes !== undefined && { classes: options.classes }) },
    options,
  );

/** Looks at every pair, over and over: take the best that is left, cross out what overlaps with it. */
function bruteForce(
  boxes: readonly (readonly [number, number, number, number])[],
  scores: readonly number[],
  classes: readonly number[],
  iouThreshold: number,
  scoreThreshold: number,
): number[] {
  const overlap = (a: number, b: number): number => {
    const cells = (box: readonly number[] = []): Set<string> => {
      const set = new Set<string>();
      for (let x = box[0] as number; x < (box[2] as number); x += 1) {
        for (let y = box[1] as number; y < (box[3] as number); y += 1) set.add(`${x},${y}`);
      }
      return set;
    };
    const [first, second] = [cells(boxes[a]), cells(boxes[b])];
    const shared = [...first].filter((cell) => second.has(cell)).length;
    const union = first.size + second.size - shared;
    return union === 0 ? 0 : shared / union;
  };
  let left = scores.flatMap((score, index) => (score >= scoreThreshold ? [index] : []));
  const kept: number[] = [];
  while (left.length > 0) {
    const best = left.reduce((a, b) => ((scores[b] as number) > (scores[a] as number) ? b : a));
    kept.push(best);
    left = left.filter(
      (index) => index !== best && (classes[index] !== classes[best] || overlap(index, best) <= iouThreshold),
    );
  }
  return kept;
}

describe('non-maximum suppression', () => {
  it('keeps the surest of boxes that overlap, and every box that stands alone', () => {
    const boxes = [
      [50, 50, 60, 60],
      [1, 1, 11, 11],
      [0, 0, 10, 10],
    ];
    expect(keep(boxes, [0.7, 0.8, 0.9])).toEqual([2, 0]);
  });

  it('lets only boxes that were kept drop others', () => {
    const boxes = [
      [0, 0, 10, 10],
      [4, 0, 14, 10],
      [8, 0, 18, 10],
    ];
    expect(keep(boxes, [0.9, 0.8, 0.7], { iouThreshold: 0.3 })).toEqual([0, 2]);
  });

  it('takes the first of equal scores', () => {
    const box = [0, 0, 1, 1];
    expect(keep([box, box, box], [0.5, 0.5, 0.5])).toEqual([0]);
  });

  it('lets boxes overlap by just the threshold', () => {
    const boxes = [
      [0, 0, 10, 10],
      [0, 0, 5, 10],
    ];
    expect(keep(boxes, [0.9, 0.8], { iouThreshold: 0.5 })).toEqual([0, 1]);
    expect(keep(boxes, [0.9, 0.8], { iouThreshold: 0.49 })).toEqual([0]);
  });

  it('takes scores that just reach the threshold, and none that are NaN', () => {
    const boxes = [0, 10, 20].map((at) => [at, 0, at + 1, 1]);
    expect(keep(boxes, [0.5, 0.4, Number.NaN], { scoreThreshold: 0.5 })).toEqual([0]);
    expect(keep(boxes, [0.5, -4, Number.NaN])).toEqual([0, 1]);
  });

  it('keeps as many as it is told to, over all classes', () => {
    const boxes = [0, 10, 20].map((at) => [at, 0, at + 1, 1]);
    expect(keep(boxes, [1, 2, 3], { maxDetections: 2, classes: [0, 1, 2] })).toEqual([2, 1]);
    expect(keep(boxes, [1, 2, 3], { maxDetections: 0 })).toEqual([]);
  });

  it('leaves boxes of different classes alone', () => {
    const box = [0, 0, 1, 1];
    expect(keep([box, box, box], [0.3, 0.4, 0.5], { classes: [1, 2, 1] })).toEqual([2, 1]);
  });

  it('reads every format of the same boxes alike', () => {
    const boxes = fc.array(fc.tuple(...Array.from({ length: 4 }, () => fc.integer({ min: 0, max: 20 }))), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(boxes, (list) => {
        const corners = list.map(([x = 0, y = 0, w = 0, h = 0]) => [x, y, x + 2 * w, y + 2 * h]);
        const scores = list.map((_, index) => index % 5);
        const expected = keep(corners, scores);
        const sized = list.map(([x = 0, y = 0, w = 0, h = 0]) => [x, y, 2 * w, 2 * h]);
        const centred = list.map(([x = 0, y = 0, w = 0, h = 0]) => [x + w, y + h, 2 * w, 2 * h]);
        const flipped = corners.map(([a = 0, b = 0, c = 0, d = 0]) => [c, b, a, d]);
        expect(keep(sized, scores, { format: 'xywh' })).toEqual(expected);
        expect(keep(centred, scores, { format: 'cxcywh' })).toEqual(expected);
        expect(keep(flipped, scores)).toEqual(expected);
      }),
    );
  });

  it('keeps what looking at every pair of cells keeps', () => {
    const side = fc.integer({ min: 0, max: 8 });
    const candidate = fc.record({
      box: fc.tuple(side, side, side, side).map(([x, y, w, h]) => [x, y, x + w, y + h] as const),
      score: fc.integer({ min: 0, max: 6 }),
      kind: fc.integer({ min: 0, max: 1 }),
    });
    fc.assert(
      fc.property(
        fc.array(candidate, { maxLength: 15 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (list, iouThreshold) => {
          const boxes = list.map(({ box }) => [...box] as [number, number, number, number]);
          const scores = list.map(({ score }) => score);
          const classes = list.map(({ kind }) => kind);
          const got = keep(boxes, scores, { classes, iouThreshold, scoreThreshold: 1 });
          expect(got).toEqual(bruteForce(boxes, scores, classes, iouThreshold, 1));
        },
      ),
    );
  });

  it('takes tensors as models give them', () => {
    const boxes = new Tensor('float32', [1, 2, 4], new Float32Array([0, 0, 1, 1, 0, 0, 1, 1]));
    const scores = new Tensor('float32', [1, 2], new Float32Array([0.1, 0.2]));
    expect(nonMaximumSuppression({ boxes, scores })).toEqual([1]);
    expect(nonMaximumSuppression({ boxes: [], scores: [] })).toEqual([]);
  });

  it('refuses numbers that do not match, and options out of range', () => {
    const mismatch = { code: 'ERR_INLAY_FEED_SHAPE', details: { name: 'boxes', expected: 8, actual: 4 } };
    expect(() => keep([[0, 0, 1, 1]], [1, 2])).toThrow(expect.objectContaining(mismatch));
    expect(() => keep([[0, 0, 1, 1]], [1], { classes: [] })).toThrow(/ask for 1 numbers in classes, got 0/);
    expect(() => keep([], [], { iouThreshold: 1.5 })).toThrow(
      /iouThreshold must be between 0 and 1, got 1\.5/,
    );
    expect(() => keep([], [], { scoreThreshold: Number.NaN })).toThrow(RangeError);
    expect(() => keep([], [], { maxDetections: 1.5 })).toThrow(/maxDetections must be an integer/);
    expect(() => keep([], [], { format: 'yxyx' as 'xyxy' })).toThrow(/format must be .* got "yxyx"/);
  });
});
