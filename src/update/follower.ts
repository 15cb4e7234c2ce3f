/** What an updater and the models that it keeps up to date say to each other. */

import type { ModelSource, TensorMap } from '../core/backend.ts';
import type { GoldenCase } from './golden.ts';
import type { GoldenTolerance } from './manifest.ts';
import type { TrialRules } from './plan.ts';
import type { Slot, SlotName } from './slot.ts';

/** Inputs with the outputs that a release must give. */
export interface Golden {
  readonly cases: readonly GoldenCase[];
  readonly tolerance: GoldenTolerance;
}

/** A release that is to answer calls. */
export interface Target {
  readonly slot: SlotName;
  /** `undefined` for a version that came with the app and does not say. */
  readonly version: string | undefined;
  readonly variant: string | undefined;
  readonly source: ModelSource;
  readonly golden: Golden | undefined;
  readonly rules: TrialRules;
  /** Whether it has never answered here: it is tried where it can do no harm first. */
  readonly isNew: boolean;
  /** Hears of the calls that it answers. */
  readonly watch: CallWatch;
}

/** Hears how calls end. */
export interface CallWatch {
  answered(ms: number, outputs: TensorMap): void;
  failed(error: unknown): void;
}

/** A release that a follower has opened beside its present one. */
export interface Opened {
  /** Sends calls to it from now on. */
  enter(): void;
  /** Closes it unused. */
  discard(): Promise<void>;
}

/** Something that answers calls with what the updater says: a loaded model. */
export interface Follower {
  /**
   * Opens a release and has it answer once.
   * @throws when it does not work; `TypeError` and `RangeError` are faults of the host, and say nothing of the release.
   */
  open(target: Target): Promise<Opened>;
  /** Milliseconds since its last call settled; 0 while one is under way. */
  idleMs(): number;
  /** A release could not be taken. */
  failed(error: unknown): void;
}

/** What came with the app. */
export interface Embedded {
  readonly slot: Slot;
  source(): Promise<ModelSource>;
  /** Reads it, to have it in the store. */
  bytes(): Promise<Uint8Array>;
}
