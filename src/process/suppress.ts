import { InputError } from '../core/errors.ts';
import { Tensor } from '../core/tensor.ts';
import { checkChoice, checkInteger, checkRange } from './arguments.ts';
import { numbersOf } from './elements.ts';
import { byScore } from './rank.ts';

/**
 * What the four numbers of a box are.
 * - `xyxy`: two opposite corners, in any order.
 * - `xywh`: left, top, width, height.
 * - `cxcywh`: the centre, width, height.
 */
export type BoxFormat = 'xyxy' | 'xywh' | 'cxcywh';

/** What {@link nonMaximumSuppression} chooses among. */
export interface SuppressionInput {
  /** Four numbers per box, box after box, in any unit: a tensor `[boxes, 4]` or `[1, boxes, 4]`, or a flat array. */
  readonly boxes: Tensor | ArrayLike<number>;
  /** One number per box. */
  readonly scores: Tensor | ArrayLike<number>;
  /** One number per box; boxes of different classes leave each other alone. Default: all of one class. */
  readonly classes?: Tensor | ArrayLike<number>;
}

/** Options of {@link nonMaximumSuppression}. */
export interface SuppressionOptions {
  /** Boxes that share more than this part of their union show the same thing; in [0, 1]. Default 0.5. */
  readonly iouThreshold?: number;
  /** Boxes with a lower score are not looked at. Default: none is too low. */
  readonly scoreThreshold?: number;
  /** Boxes to keep at most, over all classes. Default: no limit. */
  readonly maxDetections?: number;
  /** Default `xyxy`. */
  readonly format?: BoxFormat;
}

/**
 * Keeps the surest of boxes that overlap: greedy non-maximum suppression, as ONNX NonMaxSuppression and torchvision do it.
 *
 * Of equal scores the first comes first. Boxes with a score of NaN are never kept; boxes without area, or with NaN, overlap
 * with nothing. Sorting aside, it compares each box with those kept before it.
 * @returns places of the boxes that are kept, the surest first.
 * @throws `RangeError` for an option out of range; {@link InputError} `ERR_INLAY_FEED_SHAPE` if boxes, scores and classes
 * do not match in number, `ERR_INLAY_FEED_DTYPE` for elements that are no plain numbers.
 * @example
 * import { nonMaximumSuppression } from 'inlay/process';
 * const boxes = [0, 0, 10, 10, 1, 0, 11, 10, 50, 50, 60, 60];
 * const kept = nonMaximumSuppression({ boxes, scores: [0.8, 0.9, 0.7] }, { scoreThreshold: 0.5 }); // [1, 2]
 */
export function nonMaximumSuppression(input: SuppressionInput, options: SuppressionOptions = {}): number[] {
  const iouThreshold = checkRange('iouThreshold', options.iouThreshold ?? 0.5, 0, 1);
  const scoreThreshold = checkRange(
    'scoreThreshold',
    options.scoreThreshold ?? -Infinity,
    -Infinity,
    Infinity,
  );
  const maxDetections = options.maxDetections ?? Infinity;
  if (maxDetections !== Infinity) checkInteger('maxDetections', maxDetections, 0);
  const format = checkChoice('format', options.format ?? 'xyxy', ['xyxy', 'xywh', 'cxcywh']);

  const scores = toNumbers(input.scores);
  const boxes = toNumbers(input.boxes);
  const classes = input.classes === undefined ? undefined : toNumbers(input.classes);
  expectLength('boxes', boxes, 4 * scores.length);
  if (classes !== undefined) expectLength('classes', classes, scores.length);

  const candidates: number[] = [];
  for (let place = 0; place < scores.length; place += 1) {
    if ((scores[place] as number) >= scoreThreshold) candidates.push(place);
  }
  candidates.sort(byScore(scores));

  const kept: Box[] = [];
  for (const place of candidates) {
    if (kept.length >= maxDetections) break;
    const box = boxAt(boxes, place, format, classes?.[place] ?? 0);
    const clashes = (other: Box): boolean => box.kind === other.kind && overlap(box, other) > iouThreshold;
    if (!kept.some(clashes)) kept.push(box);
  }
  return kept.map(({ place }) => place);
}

interface Box {
  readonly place: number;
  readonly kind: number;
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
  readonly area: number;
}

function boxAt(boxes: ArrayLike<number>, place: number, format: BoxFormat, kind: number): Box {
  const [a, b, c, d] = [0, 1, 2, 3].map((index) => boxes[4 * place + index]) as [
    number,
    number,
    number,
    number,
  ];
  const x = format === 'cxcywh' ? a - c / 2 : a;
  const y = format === 'cxcywh' ? b - d / 2 : b;
  const farX = format === 'xyxy' ? c : x + c;
  const farY = format === 'xyxy' ? d : y + d;
  const [left, right] = [Math.min(x, farX), Math.max(x, farX)];
  const [top, bottom] = [Math.min(y, farY), Math.max(y, farY)];
  return { place, kind, left, top, right, bottom, area: (right - left) * (bottom - top) };
}

/** Intersection over union. */
function overlap(a: Box, b: Box): number {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (!(width > 0 && height > 0)) return 0;
  const shared = width * height;
  return shared / (a.area + b.area - shared);
}

function toNumbers(values: Tensor | ArrayLike<number>): ArrayLike<number> {
  return values instanceof Tensor ? numbersOf(values) : values;
}

function expectLength(name: string, values: ArrayLike<number>, length: number): void {
  if (values.length === length) return;
  throw new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `The scores ask for ${length} numbers in ${name}, got ${values.length}.`,
    {
      details: { name, expected: length, actual: values.length },
    },
  );
}
