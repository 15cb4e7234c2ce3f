/** What was tried on a model, with the numbers, and what was taken: all that reports tell. */

import type { Finding } from './audit.ts';
import type { Workload } from './candidates.ts';
import type { CompleteGoal } from './options.ts';
import type { TargetName } from './runtime.ts';
import type { NodeNote, Technique } from './technique.ts';

/**
 * How fast a model is at one batch. The original runs in every race; times of later races are brought to the pace of the
 * first by it, so that they can be held against each other.
 */
export interface BatchTime {
  readonly batch: number;
  readonly p10Ms: number;
  readonly p50Ms: number;
  /** Time of the original in the same rounds over this one: more is faster. */
  readonly speedup: number;
}

/** How far the answers of a model lie from those of the original. */
export interface Accuracy {
  /** Least signal-to-noise ratio of an output of floats, dB; `null`: the answers are the same. */
  readonly sqnrDb: number | null;
  readonly cosine: number;
  readonly maxAbs: number;
  /** Share of rows whose largest element stays where it was, in [0, 1]. */
  readonly agreement: number;
  /** Why answers cannot be compared at all, in words. */
  readonly mismatch?: string;
}

/** A layer of a model, compared with the same of the original. */
export interface LayerAccuracy {
  /** Name of the value. */
  readonly value: string;
  /** dB; `null`: the same. */
  readonly sqnrDb: number | null;
}

/** What became of a candidate. */
export type Outcome =
  /** Taken. */
  | 'chosen'
  /** Holds every goal, but another one is better. */
  | 'beaten'
  /** Does not hold a goal. */
  | 'rejected'
  /** Could not be made, opened or run. */
  | 'failed'
  /** Was not tried. */
  | 'dismissed';

/** Everything that is known of one candidate. What was not measured is absent. */
export interface Attempt {
  readonly name: string;
  readonly technique?: Technique;
  readonly outcome: Outcome;
  /** Why, in words: one clause or more. */
  readonly reason: string;
  readonly sizeBytes?: number;
  /** Size over that of the original. */
  readonly sizeRatio?: number;
  readonly accuracy?: Accuracy;
  /** Whether a row alone gets bit for bit what it gets in a batch; absent where the model takes no batches. */
  readonly isBatchInvariant?: boolean;
  /** The user's own measure. */
  readonly score?: number;
  readonly times?: readonly BatchTime[];
  readonly loadMs?: number;
  readonly memoryBytes?: number;
  readonly layers?: readonly LayerAccuracy[];
  readonly changed?: number;
  /** Nodes that stayed as they were, with the reasons. */
  readonly kept?: readonly NodeNote[];
  /** What the library did not fuse. */
  readonly findings?: readonly Finding[];
  readonly warnings?: readonly string[];
  /** Nodes that were left in floats for accuracy or speed. */
  readonly excluded?: readonly string[];
}

/** What was decided, and upon what. Plain data. */
export interface Decision {
  readonly target: TargetName;
  /** Library, version, processor or adapter. */
  readonly runtime: string;
  readonly batches: readonly number[];
  readonly threads: number;
  readonly goal: CompleteGoal;
  /** Least score of the user's own measure, where there is one. */
  readonly minScore?: number;
  readonly samples: { readonly count: number; readonly isMadeUp: boolean };
  readonly calibration?: { readonly method: string; readonly samples: number };
  readonly workload: Workload;
  /** The original, as the others are measured against it. */
  readonly original: Attempt;
  /** In the order in which they were tried; those that were not tried last. */
  readonly attempts: readonly Attempt[];
  /** Name of the attempt that was taken; `null`: the original was kept. */
  readonly chosen: string | null;
  /** Why, in words. */
  readonly reason: string;
  /** What the user should know, in words. */
  readonly warnings: readonly string[];
}
