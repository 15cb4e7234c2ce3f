/** Snapped publish: weights are rounded onto a grid of their own, so that a device without any release downloads less. */

import { snapToGrid } from '../delta/snap.ts';
import { segmentsOf } from '../delta/spans.ts';
import type { Gate, Verdict } from './gate.ts';
import { weightsOf } from './weights.ts';

/** What {@link snapRelease} works with. */
export interface SnapOptions {
  /** What was trained. */
  readonly next: Uint8Array<ArrayBuffer>;
  /** Accuracy of the grid, as `snapToGrid` has it. */
  readonly bits: number;
  readonly gate: Gate;
}

/** What came of it. */
export interface SnappedRelease {
  /** What is to be published: the very bytes that were judged, or those of `next` where they are not good enough. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly isSnapped: boolean;
  /** What was judged; `next` itself where nothing was rounded. */
  readonly judged: Uint8Array<ArrayBuffer>;
  /** Absent: no tensor is large enough to be rounded. */
  readonly verdict?: Verdict;
}

/**
 * Rounds a model onto a grid of its own if the gate lets it pass. There is no drift: what was snapped before plays no part.
 * @throws `RangeError` for other bits than 1 to 20; what the gate throws.
 */
export async function snapRelease({ next, bits, gate }: SnapOptions): Promise<SnappedRelease> {
  const judged = snapWeights(next, bits);
  if (judged.every((byte, i) => byte === next[i])) return { bytes: next, isSnapped: false, judged: next };
  const verdict = await gate.judge(judged);
  const { isGood: isSnapped } = verdict;
  return { bytes: isSnapped ? judged : next, isSnapped, judged, verdict };
}

/** Constants that are no weights, such as places and masks, keep their numbers. */
function snapWeights(file: Uint8Array<ArrayBuffer>, bits: number): Uint8Array<ArrayBuffer> {
  const snapped = snapToGrid(file, bits);
  const weights = new Set(weightsOf(file).map(({ offset }) => offset));
  for (const { offset, sizeBytes } of segmentsOf(file)) {
    if (!weights.has(offset)) snapped.set(file.subarray(offset, offset + sizeBytes), offset);
  }
  return snapped;
}
