import type { Session } from '../core/backend.ts';
import type { Tolerance } from '../core/compare.ts';
import type { LanesRecord } from './lanes.ts';
import type { Metrics } from './metrics.ts';

/** Options of a model's queue. */
export interface QueueOptions {
  readonly session: Session;
  /** Why calls are not batched; absent when they are. */
  readonly unbatchable?: string | undefined;
  /** Most samples of a batch. Default 128. */
  readonly maxBatch?: number | undefined;
  /** Most bytes of feeds in a batch. Default 32 MiB. */
  readonly maxBatchBytes?: number | undefined;
  /** Longest batch that is aimed at, in milliseconds. Default: any. */
  readonly maxRunMs?: number | undefined;
  /** How far results of a batch may lie from results of solo runs. */
  readonly tolerance?: Tolerance | undefined;
  /** Share of the machine in comparison with other models. Default 1. */
  readonly weight?: number | undefined;
  /** Longest wait, in milliseconds, for callers that have just been answered. Default `auto`: 1, where that pays. */
  readonly linger?: 'auto' | number | undefined;
  /** Most calls that wait. Default 32,768. */
  readonly maxWaiting?: number | undefined;
  /** Most bytes of feeds that wait. Default 1 GiB. */
  readonly maxWaitingBytes?: number | undefined;
  /** Whether calls that were lost with their worker are made again. Default true: a model computes, it does not act. */
  readonly replay?: boolean | undefined;
  /** What an earlier queue of this model has learned. */
  readonly learned?: LanesRecord | undefined;
  readonly metrics: Metrics;
}

/** What a queue knows about itself, for `info()`. */
export interface QueueInfo {
  /** Why calls are not batched; absent when they are. */
  readonly unbatchable?: string;
  readonly waiting: number;
  readonly running: number;
  /** Names of the places in which it runs. */
  readonly slots: readonly string[];
  readonly lanes: readonly {
    /** Shapes of the feeds without the first axis; '' where the model fixes them. */
    readonly shapes: string;
    readonly batchCap: number;
    readonly perSampleMs: number;
    readonly perBatchMs: number;
  }[];
}
