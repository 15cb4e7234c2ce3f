/** Remembers predictions for a while, so that labels that come later are joined on the device and never leave it. */

import type { Prediction } from './profile-counter.ts';

/** Predictions that are remembered, and for how long: a week. */
const MOST_REMEMBERED = 4096;
const LONGEST_MS = 604_800_000;

/** A prediction that is remembered. */
export interface Remembered<Place> {
  /** What it counts for: later versions do not inherit it. */
  readonly place: Place;
  readonly prediction: Prediction | undefined;
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

/**
 * Creates an empty memory of {@link MOST_REMEMBERED} predictions of one week. They are let go a generation at a time: a map
 * from which one entry goes for each that comes is hashed anew again and again, at several times the cost of the rest.
 */
export function createPredictions<Place>(monotonicMs: () => number): Predictions<Place> {
  type Entry = Remembered<Place> & { readonly number: number; readonly atMs: number };
  let young = new Map<string, Entry>();
  let old: ReadonlyMap<string, Entry> = young;
  let count = 0;
  return {
    remember: (id, place, prediction) => {
      if (young.size === MOST_REMEMBERED) {
        old = young;
        young = new Map();
      }
      count += 1;
      young.set(id, { place, prediction, isLabelled: false, number: count, atMs: monotonicMs() });
    },
    find: (id) => {
      const found = young.get(id) ?? old.get(id);
      const isKnown =
        found !== undefined &&
        count - found.number < MOST_REMEMBERED &&
        monotonicMs() - found.atMs <= LONGEST_MS;
      return isKnown ? found : undefined;
    },
    clear: () => {
      young = new Map();
      old = young;
    },
  };
}
