/** Remembers predictions for a while, so that labels that come later are joined on the device and never leave it. */

import type { Prediction } from './profile-counter.ts';

/** Predictions that are remembered, and for how long: a week. */
const MOST_REMEMBERED = 4096;
const LONGEST_MS = 604_800_000;

/** A prediction that is remembered. */
export interface Remembered<Place> {
  /** What it counts for: later versions do not inherit it. */
  readonly place: Place;
  readonly prediction?: Prediction | undefined;
  /** Whether its label has come: one counts, the first. */
  isLabelled: boolean;
}

/** Predictions by the caller's names. */
export interface Predictions<Place> {
  /** Remembers one, and forgets the oldest beyond the limit. A name that is used again stands for the later one. */
  remember(id: string, place: Place, prediction: Prediction | undefined): void;
  find(id: string): Remembered<Place> | undefined;
  /** Forgets all. */
  clear(): void;
}

/** Creates an empty memory of {@link MOST_REMEMBERED} predictions of one week. */
export function createPredictions<Place>(monotonicMs: () => number): Predictions<Place> {
  const remembered = new Map<string, Remembered<Place> & { readonly atMs: number }>();
  return {
    remember: (id, place, prediction) => {
      remembered.delete(id);
      remembered.set(id, { place, prediction, isLabelled: false, atMs: monotonicMs() });
      const [oldest] = remembered.keys();
      if (remembered.size > MOST_REMEMBERED && oldest !== undefined) remembered.delete(oldest);
    },
    find: (id) => {
      const found = remembered.get(id);
      if (found === undefined || monotonicMs() - found.atMs <= LONGEST_MS) return found;
      remembered.delete(id);
      return undefined;
    },
    clear: () => {
      remembered.clear();
    },
  };
}
