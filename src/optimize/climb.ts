/** Leaves layers near the inputs float, more and more, as long as that makes a quantized model faster. */

import { speedupOf } from './choose.ts';
import type { Trial } from './trial.ts';

/** Gain of speed below which another set of layers is none. */
const LEAST_GAIN = 1.02;

/** How {@link climb} tries models. */
export interface Climbing {
  /** Growing sets of labels of nodes, as `stemsOf` finds them. */
  readonly stems: readonly (readonly string[])[];
  /** Makes the model again, with these layers in floats as well. */
  make(name: string, stem: readonly string[]): Promise<Trial>;
  /** Times models in turns. */
  time(trials: readonly Trial[]): Promise<readonly Trial[]>;
}

/**
 * Tries one set of layers after the other against the fastest model so far, in the same race, until one is less than 2 %
 * faster or misses a goal of accuracy or size. In the end all of them run in one race.
 * @param start - a model that was timed, be it too slow for the goal.
 * @returns the models that were tried, in order, without the first.
 */
export async function climb(start: Trial, { stems, make, time }: Climbing): Promise<readonly Trial[]> {
  const climbed: Trial[] = [];
  let fastest = start;
  for (const stem of stems) {
    const made = await make(`${start.attempt.name}-stem${stem.length}`, stem);
    // One that is too slow for the goal runs as well: what counts is whether the next is faster.
    const [rival = fastest, next = made] =
      made.missed.length === 0 ? await time([{ ...fastest, missed: [] }, made]) : [];
    climbed.push(next);
    const gain = (speedupOf(next.attempt) ?? 0) / (speedupOf(rival.attempt) ?? 1);
    if (gain < LEAST_GAIN) break;
    fastest = next;
  }
  // The best of several races seems faster than it is: what is told of all comes from one more.
  return climbed.length > 1 ? time(climbed) : climbed;
}
