import type { Session } from '../core/backend.ts';
import type { Tolerance } from '../core/compare.ts';
import type { LanesRecord } from './lanes.ts';
import type { Metrics } from './metrics.ts';

/** What a host may say about the queue of a model. */
export interface BatchingOptions {
  /** Most samples of a batch; 1 turns batching off. Default 128. */
  readonly maxBatch?: number | undefined;
  /**
   * How far the result of a call that shared a batch may lie from its result alone. Default: what rounding explains,
   * 1e-3 relative and 1e-4 of the largest value.
   */
  readonly tolerance?: Tolerance | undefined;
  /** Share of the machine in comparison with other models, when all have work. Default 1, above 0. */
  readonly weight?: number | undefined;
  /**
   * Longest wait, in milliseconds, for callers that have just been answered, so that they share the next batch. Default
   * `auto`: 1, where it has paid lately. 0: never.
   */
  readonly linger?: 'auto' | number | undefined;
  /** Most calls that wait; more are refused with `ERR_INLAY_OVERLOADED`. Default 32,768. */
  readonly maxWaiting?: number | undefined;
  /** Most bytes of feeds that wait. Default 1 GiB. */
  readonly maxWaitingBytes?: number | undefined;
  /** Makes calls again, once, whose worker died under them. Default true: a model computes, it does not act. */
  readonly replay?: boolean | undefined;
}

/** Options of a model's queue. */
export interface QueueOptions extends BatchingOptions {
  readonly session: Session;
  /** Why calls are not batched; absent when they are. */
  readonly unbatchable?: string | undefined;
  /** Most bytes of feeds in a batch. Default 32 MiB. */
  readonly maxBatchBytes?: number | undefined;
  /** Longest batch that is aimed at, in milliseconds. Default: any. */
  readonly maxRunMs?: number | undefined;
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
