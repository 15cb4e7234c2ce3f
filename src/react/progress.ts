import type { LoadProgress } from '../engine/progress.ts';

/** Steps of a load whose size nobody knows. */
const STEP_BYTES = 2 ** 20;

/** Tells whether a bar would move: a render for each chunk would keep the page busy with nothing to see. */
export function isVisible(next: LoadProgress, shown: LoadProgress | undefined): boolean {
  if (shown === undefined || next.phase !== shown.phase) return true;
  return stepOf(next) !== stepOf(shown);
}

function stepOf({ loadedBytes, totalBytes = 0 }: LoadProgress): number {
  return Math.floor(totalBytes > 0 ? (loadedBytes * 100) / totalBytes : loadedBytes / STEP_BYTES);
}
