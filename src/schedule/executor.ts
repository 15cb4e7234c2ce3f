/** Runs batches, and answers the calls that are in them. */
import type { SessionRunOptions, Slot, TensorMap } from '../core/backend.ts';
import { difference } from '../core/compare.ts';
import { isInlayError, type ErrorCode } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import type { Span, Tracing } from '../core/tracing.ts';
import { joinFeeds, splitOutputs, unionOfOutputs, type Scratch } from './batch.ts';
import type { Job } from './job.ts';
import type { Lane } from './lanes.ts';
import type { DispatchReason } from './metrics.ts';
import type { ModelQueue } from './queue.ts';

/** One place, and what it did last. */
export interface Place {
  isBusy: boolean;
  /** Monotonic time at which its run is expected to end. */
  freeMs: number;
  /** Monotonic time at which its last run ended. */
  doneMs: number;
  /** Lane of that run, with the samples that were outstanding when it ended. */
  lane: Lane | undefined;
  cohort: number;
  /** Whether it waits for that cohort, or has waited long enough. */
  hold: 'none' | 'on' | 'over';
  cancelHold: (() => void) | undefined;
  /** Memory for the batches of sessions on this thread, which are done with it when the run is. */
  readonly scratch: Scratch;
  /** Monotonic time until which other places are preferred. */
  restsUntilMs: number;
  /** Options of most runs there. */
  readonly plain: SessionRunOptions;
}

/** Jobs that run together, or one that runs alone. */
export interface Batch {
  readonly queue: ModelQueue;
  readonly lane: Lane;
  readonly slot: Slot;
  readonly place: Place;
  readonly jobs: readonly Job[];
  readonly samples: number;
  readonly predictedMs: number;
  readonly reason: DispatchReason;
  /** Monotonic time at which its run began. */
  startedMs: number;
  span: Span | undefined;
  isFinished: boolean;
}

/** What an executor needs from the scheduler. */
export interface ExecutorOptions {
  readonly platform: Pick<Platform, 'monotonicMs'>;
  readonly logger: Logger;
  readonly tracing: Tracing | undefined;
  /** The place of a batch is free again. */
  finish(batch: Batch, endedMs: number): void;
  /** There is work to do again. */
  wake(): void;
}

/** Time in milliseconds for which other places are preferred to one that has given up. */
const REST_MS = 1000;

/** Losses of the place rather than faults of the call. */
const REPLAYABLE: readonly ErrorCode[] = [
  'ERR_INLAY_WORKER_LOST',
  'ERR_INLAY_DEVICE_UNAVAILABLE',
  'ERR_INLAY_BACKEND_UNAVAILABLE',
];

/** The batch could not be compared. */
const UNKNOWN = 'unknown';

/** Creates what starts a batch in its place and sees it through. */
export function createExecutor(options: ExecutorOptions): (batch: Batch) => void {
  const { platform, logger, tracing, finish, wake } = options;

  const start = (batch: Batch): void => {
    const { queue, place, jobs } = batch;
    const { session } = queue.options;
    if (tracing !== undefined) batch.span = traceBatch(tracing, batch);
    try {
      const [first] = jobs as readonly [Job];
      if (jobs.length === 1) {
        queue.metrics.dispatched(reasonOf(batch), batch.samples, undefined, first.paddingRatio);
        session.run(first.feeds, runOptions(batch, first.outputs, first.transfer)).then(
          (outputs) => {
            succeedAlone(batch, first, outputs);
          },
          (error: unknown) => {
            fail(batch, error);
          },
        );
        return;
      }
      const feeds = joinFeeds(jobs, session.placement === 'inline' ? place.scratch : undefined);
      const formedMs = batch.startedMs;
      batch.startedMs = platform.monotonicMs();
      queue.metrics.dispatched(reasonOf(batch), batch.samples, batch.startedMs - formedMs, paddingOf(batch));
      session
        .run(feeds, runOptions(batch, unionOfOutputs(jobs), true))
        .then((outputs) => succeedTogether(batch, outputs))
        .catch((error: unknown) => {
          fail(batch, error);
        });
    } catch (error) {
      fail(batch, error);
    }
  };

  const observe = (batch: Batch, endedMs: number): void => {
    const { queue, lane, jobs, samples } = batch;
    const tookMs = endedMs - batch.startedMs;
    lane.cost.observe(samples, tookMs);
    lane.cap.review(samples);
    queue.metrics.batchDone(tookMs);
    const counted = jobs.find(({ facts, isSettled }) => facts !== undefined && !isSettled)?.facts;
    if (counted !== undefined) counted.runs += 1;
    batch.span?.end({ 'inlay.compute_ms': tookMs });
  };

  const succeedAlone = (batch: Batch, job: Job, outputs: TensorMap): void => {
    const endedMs = platform.monotonicMs();
    observe(batch, endedMs);
    finish(batch, endedMs);
    answer(batch, job, project(outputs, job), endedMs);
  };

  const succeedTogether = async (batch: Batch, outputs: TensorMap): Promise<void> => {
    const { lane, jobs } = batch;
    observe(batch, platform.monotonicMs());
    const parts = splitOutputs(outputs, jobs);
    const wrong = lane.isVerified ? undefined : await verify(batch, parts);
    const endedMs = platform.monotonicMs();
    finish(batch, endedMs);
    if (wrong === UNKNOWN) runAlone(batch);
    else if (wrong !== undefined) stopBatching(batch, wrong);
    else
      for (let i = 0; i < jobs.length; i += 1) answer(batch, jobs[i] as Job, parts[i] as TensorMap, endedMs);
  };

  const answer = ({ queue, startedMs }: Batch, job: Job, outputs: TensorMap, endedMs: number): void => {
    if (job.isSettled) return;
    const queueMs = startedMs - job.acceptedMs;
    queue.metrics.answered(queueMs, endedMs - job.acceptedMs);
    if (job.facts !== undefined) job.facts.queueMs = queueMs;
    queue.settle(job, outputs);
  };

  /** Runs one job of the first real batch once more by itself. @returns what differs. */
  const verify = async (batch: Batch, parts: readonly TensorMap[]): Promise<string | undefined> => {
    const { queue, lane, jobs } = batch;
    // The last one: an error in the stride shows there first. Feeds of a call that has settled may change.
    let at = jobs.length - 1;
    while (at > 0 && jobs[at]?.isSettled) at -= 1;
    const job = jobs[at] as Job;
    if (job.isSettled) return undefined;
    let solo: TensorMap;
    try {
      solo = await queue.options.session.run(job.feeds, runOptions(batch, job.outputs, false));
    } catch (error) {
      // Whatever it is, nobody is answered with what could not be compared.
      logger.warn(
        { err: error },
        'A batch could not be compared with a solo run; its calls are made one by one.',
      );
      return UNKNOWN;
    }
    if (job.isSettled) return undefined;
    const found = difference(solo, parts[at] as TensorMap, queue.options.tolerance);
    queue.metrics.verified();
    lane.isVerified = found === undefined;
    return found && `batched and solo results differ: ${found}`;
  };

  const stopBatching = (batch: Batch, reason: string): void => {
    batch.queue.unbatchable = reason;
    runAlone(batch);
    logger.warn({ reason }, 'Calls of a model are no longer batched.');
  };

  const runAlone = ({ queue, lane, jobs }: Batch): void => {
    queue.retry(
      lane,
      jobs.filter((job) => !job.isSettled).map((job) => [job]),
    );
    wake();
  };

  const fail = (batch: Batch, error: unknown): void => {
    const { queue, lane, jobs } = batch;
    finish(batch, platform.monotonicMs());
    batch.span?.end({}, error);
    if (isInlayError(error) && error.details['reason'] === 'batch-axis') {
      stopBatching(batch, error.message);
      return;
    }
    const alive = jobs.filter((job) => !job.isSettled);
    if (isInlayError(error) && REPLAYABLE.includes(error.code)) {
      // A place in which the session has given up fails at once, and would attract everything.
      if (error.details['losses'] !== undefined) batch.place.restsUntilMs = platform.monotonicMs() + REST_MS;
      // Whichever of them killed the worker must not do it to the others again.
      const again: Job[][] = [];
      for (const job of alive) {
        job.losses += 1;
        // Buffers that were handed over are lost with it; those of a batch were copies.
        const isGone = jobs.length === 1 && job.transfer;
        if (queue.options.replay === false || isGone || job.losses > 1) queue.fail(job, error);
        else again.push([job]);
      }
      if (again.length > 0) queue.metrics.replayed(again.length);
      queue.retry(lane, again);
    } else if (jobs.length === 1) {
      for (const job of alive) queue.fail(job, error);
    } else {
      const half = (alive.length + 1) >> 1;
      queue.metrics.replayed(alive.length);
      queue.retry(lane, [alive.slice(0, half), alive.slice(half)]);
    }
    wake();
  };

  return start;
}

function runOptions(
  { slot, place }: Batch,
  outputs: readonly string[] | undefined,
  transfer: boolean,
): SessionRunOptions {
  if (outputs !== undefined) return { slot, transfer, outputs };
  return transfer ? { slot, transfer } : place.plain;
}

function reasonOf({ queue, lane, jobs, samples, reason }: Batch): DispatchReason {
  if (queue.unbatchable !== undefined) return 'solo';
  if ((jobs[0] as Job).isRetry) return 'retry';
  return samples >= lane.cap.samples && samples > 1 ? 'full' : reason;
}

/** Share of a batch that is padding; `undefined` where nothing was padded. */
function paddingOf({ jobs, samples }: Batch): number | undefined {
  if (jobs.every(({ paddingRatio }) => paddingRatio === undefined)) return undefined;
  return jobs.reduce((sum, job) => sum + (job.paddingRatio ?? 0) * job.samples, 0) / samples;
}

function traceBatch(tracing: Tracing, { jobs, samples }: Batch): Span | undefined {
  const spans = jobs.flatMap(({ span }) => (span === undefined ? [] : [span]));
  return spans.length === 0 ? undefined : tracing.startBatch(spans, { 'inlay.batch.size': samples });
}

/** Outputs that one caller asked for, where its call ran alone. */
function project(outputs: TensorMap, { outputs: wanted }: Job): TensorMap {
  if (wanted === undefined || wanted.length === Object.keys(outputs).length) return outputs;
  return Object.fromEntries(wanted.map((name) => [name, outputs[name] as TensorMap[string]]));
}
