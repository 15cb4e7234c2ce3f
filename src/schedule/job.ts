import type { TensorMap } from '../core/backend.ts';
import type { Span } from '../core/tracing.ts';
import type { Level } from './backlog.ts';
import type { Lane } from './lanes.ts';
import type { Standing } from './line.ts';

/** What a call turns out to be on its way, for whoever counts it. */
export interface CallFacts {
  /** Milliseconds that it waited; those of the last part of a large one. */
  queueMs: number | undefined;
  /** Runs that it took. One that answers several calls is that of the first of them. */
  runs: number;
}

/** How one call is to be run. */
export interface CallOptions {
  /** Names of the outputs to compute. Default: all. */
  readonly outputs?: readonly string[] | undefined;
  /** Lets the buffers of the feeds be handed over instead of copied. */
  readonly transfer?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from now after which the answer is worth nothing. */
  readonly deadlineMs?: number | undefined;
  /** Higher goes first. Integer from -100 to 100, default 0. */
  readonly priority?: number | undefined;
  /** Share of the feeds that is padding, in [0, 1); absent where none may be. */
  readonly paddingRatio?: number | undefined;
  readonly span?: Span | undefined;
  /** Is filled in while it runs. */
  readonly facts?: CallFacts | undefined;
}

/** One call, or one part of a large one, from its acceptance until it settles. */
export interface Job extends Standing {
  readonly lane: Lane;
  readonly feeds: TensorMap;
  /** Length of the first axis; 1 where the model has no batch axis. */
  readonly samples: number;
  /** Its feeds have no common first axis, so that it cannot share a batch. */
  readonly isSolo: boolean;
  readonly sizeBytes: number;
  readonly outputs: readonly string[] | undefined;
  readonly transfer: boolean;
  /** Monotonic time, in milliseconds. */
  readonly acceptedMs: number;
  /** Monotonic time after which the answer is worth nothing; `Infinity` for none. */
  readonly dueMs: number;
  readonly priority: number;
  readonly paddingRatio: number | undefined;
  readonly span: Span | undefined;
  readonly facts: CallFacts | undefined;
  readonly resolve: (outputs: TensorMap) => void;
  readonly reject: (reason: unknown) => void;
  /** Hears that the job has settled, before its caller does. */
  readonly onSettled: (() => void) | undefined;
  /** Stops listening to the caller's signal. */
  detach: (() => void) | undefined;
  isSettled: boolean;
  /** Whether it failed together with others, or was lost, before. */
  isRetry: boolean;
  /** Runs although it is predicted to be late, so that a prediction that is wrong does not stay so. */
  readonly isTrial: boolean;
  /** Times that its worker died under it. */
  losses: number;
  /** Where it waits, with its neighbours by age. */
  level: Level | undefined;
  older: Job | undefined;
  newer: Job | undefined;
}

/**
 * Milliseconds of waiting that outweigh one level of priority. A request of priority p ages by one level in this time,
 * and comparing p + waited / AGEING_MS at any moment is comparing accepted − p · AGEING_MS once.
 */
const AGEING_MS = 1000;

/** Orders jobs: the earliest deadline first, without one as if it were one second off, and priority with ageing. */
export function urgencyOf(acceptedMs: number, dueMs: number, priority: number): number {
  const due = dueMs === Infinity ? acceptedMs + AGEING_MS : dueMs;
  return due - priority * AGEING_MS;
}
