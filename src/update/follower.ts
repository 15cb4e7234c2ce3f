/** What an updater and the models that it keeps up to date say to each other. */

import type { ModelSource, TensorMap } from '../core/backend.ts';
import type { Platform } from '../core/platform.ts';
import type { Anchors } from './anchors.ts';
import type { Decision } from './decide.ts';
import type { EventLog } from './events.ts';
import type { GoldenCase } from './golden.ts';
import type { GoldenTolerance } from './manifest.ts';
import type { Install, TrialRules } from './plan.ts';
import type { ShipmentParts } from './shipment.ts';
import type { UpdateObserver } from './role.ts';
import type { Slot, SlotName, SlotsState } from './slot.ts';
import type { Slots } from './slots.ts';
import type { Sync } from './sync.ts';
import type { DownloadListener } from './transfer.ts';

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
  /**
   * Sends it samples of the follower's calls, after these are answered, and never more than one at a time. Nobody gets
   * what it answers, and nobody waits for it. Ends with {@link Opened.discard}.
   * @param sampleBp - share of the calls, basis points.
   */
  mirror(sampleBp: number): void;
  /** Closes it. */
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

/** When a release that is there and verified begins to answer calls. */
export type Activation =
  /** As soon as it has proved itself beside the present one. */
  | 'now'
  /** When the model has not been called for two seconds. */
  | 'idle'
  /** With the next start of the app. */
  | 'next-start'
  /** When the app says so. */
  | 'manual';

/** What an updater says of itself. */
export interface UpdaterState extends SlotsState {
  /** What answers calls now. */
  readonly running: SlotName | undefined;
  /** What was decided last, and why. */
  readonly decision: Decision | undefined;
  /** Why the last attempt to update failed, until one does not. */
  readonly lastError: unknown;
}

/** Keeps one model up to date. */
export interface Updater {
  readonly model: string;
  /**
   * Has a follower answer calls with what this device runs; the first one starts the updater.
   * @param onDownload - hears of the first download.
   * @throws when there is nothing to run: why.
   */
  join(
    follower: Follower,
    embedded: (() => Promise<Embedded>) | undefined,
    onDownload: DownloadListener | undefined,
  ): Promise<void>;
  leave(follower: Follower): void;
  /** Begins with the release that waits, whatever the policy says. @returns whether one did. */
  activate(): Promise<boolean>;
  state(): Promise<UpdaterState>;
  /** Says that what runs was left in good order. */
  close(): Promise<void>;
}

/** What an updater works with. */
export interface UpdaterParts extends Omit<ShipmentParts, 'lend' | 'target' | 'isUnfit' | 'isUpdate'> {
  readonly model: string;
  readonly platform: Platform;
  readonly sync: Sync;
  readonly slots: Slots;
  readonly events: EventLog;
  readonly anchors: Pick<Anchors, 'hold'>;
  readonly install: () => Promise<Install>;
  readonly activation: Activation;
  /** Tries a release where it can do no harm. @throws when it does not work there. */
  readonly prove: (target: Target) => Promise<void>;
  /** Hears what runs, and as what it counts. */
  readonly observer?: UpdateObserver | undefined;
}
