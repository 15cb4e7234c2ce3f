import { reasonOf } from '../core/abort.ts';
import type { Slot, TensorMap } from '../core/backend.ts';
import type { Platform } from '../core/platform.ts';
import type { SignalHub } from '../core/signals.ts';
import { createArrivals } from './arrivals.ts';
import { createBacklog } from './backlog.ts';
import { cutFeeds, hasRows, joinOutputs, samplesOf, sizeBytesOf } from './batch.ts';
import { createDeadlines } from './deadlines.ts';
import { createGate, type Gate } from './gate.ts';
import { urgencyOf, type CallOptions, type Job } from './job.ts';
import { createLanes, type Lane, type Lanes } from './lanes.ts';
import type { Metrics } from './metrics.ts';
import type { QueueInfo, QueueOptions } from './queue-options.ts';
import { deadlinePassed, deadlinePredicted, queueFull, type Refusal } from './refusals.ts';

/** What the scheduler does for its queues. */
export interface QueueHost {
  readonly platform: Pick<Platform, 'monotonicMs' | 'setTimer'>;
  readonly signals: SignalHub;
  /** Looks for work soon. */
  wake(): void;
  /** Looks for work at once. */
  pump(now: number): void;
  /** Runs a job at once if nothing waits and a place is free. @returns whether it does. */
  runNow(queue: ModelQueue, job: Job, now: number): boolean;
  /** Milliseconds until a place is free that this queue may use. */
  freeInMs(queue: ModelQueue, now: number): number;
  /** Factor by which the work of other models stretches the work of this one. */
  stretch(queue: ModelQueue): number;
}

/** The calls of one model version that wait, and what was learned about running them. */
export interface ModelQueue {
  readonly options: QueueOptions;
  readonly lanes: Lanes;
  readonly gate: Gate;
  readonly metrics: Metrics;
  /** Start tag of its next batch, in milliseconds of weighted work. */
  virtualMs: number;
  /** Jobs that wait. */
  readonly waiting: number;
  running: number;
  /** Runs in a row of one call that met no other. */
  lonely: number;
  unbatchable: string | undefined;
  /** Monotonic time since which there is more work than places; `undefined` when there is not. */
  saturatedMs: number | undefined;
  /** Whether a timer will look at that. */
  isLooking: boolean;
  /** Monotonic time from which on a further place may be opened; `Infinity` while one is. */
  growFromMs: number;
  slots(): readonly Slot[];
  run(feeds: TensorMap, options: CallOptions, onSettled?: () => void): Promise<TensorMap>;
  /** The lane to serve next. @param except - a lane that is to be left alone. */
  nextLane(except?: Lane): Lane | undefined;
  /** Takes jobs for one batch out of a lane. @param places - free places that could share what waits. */
  take(lane: Lane, places: number, now: number): Job[];
  /** Puts jobs that failed together back, in the groups in which they are to be tried again. */
  retry(lane: Lane, groups: readonly Job[][]): void;
  settle(job: Job, outputs: TensorMap): void;
  fail(job: Job, error: unknown): void;
  info(): QueueInfo;
  close(): void;
}

/** Lonely runs after which a call is not held back for others of the same moment. */
const LONELY = 16;
/** Below this predicted length, in milliseconds, a batch is not divided among free places. */
const WORTH_DIVIDING_MS = 0.5;
/** A call that is predicted to run for longer than this, in milliseconds, is cut up if it is larger than a batch. */
const LONG_MS = 20;
/** Time without a run, in milliseconds, after which an idle place tries a call that is predicted to be late. */
const TRIAL_MS = 1000;
const OWN: Slot = { name: 'its own place' };

/** Creates the queue of a model version. */
export function createModelQueue(host: QueueHost, options: QueueOptions): ModelQueue {
  const { session, metrics, maxBatch = 128, maxBatchBytes = 2 ** 25 } = options;
  const { platform } = host;
  const ownSlots: readonly Slot[] = session.slots === undefined ? [{ ...OWN }] : [];
  const lanes = createLanes(session.signature, {
    maxSamples: maxBatch,
    maxRunMs: options.maxRunMs ?? Infinity,
    record: options.learned,
  });
  const backlog = createBacklog({
    maxJobs: options.maxWaiting ?? 32_768,
    maxBytes: options.maxWaitingBytes ?? 2 ** 30,
  });
  const arrivals = createArrivals();
  /** Lanes in which something waits. */
  const ready = new Set<Lane>();
  let retrying = 0;
  let hasDeadlines = false;

  const unregister = (job: Job): void => {
    job.detach?.();
    job.detach = undefined;
    job.isSettled = true;
    job.onSettled?.();
  };
  const leave = (job: Job): void => {
    const { lane } = job;
    lane.samples -= job.samples;
    backlog.remove(job);
    if (lane.line.length === 0 && lane.retries.length === 0) ready.delete(lane);
  };
  const pull = (job: Job): void => {
    job.lane.line.remove(job);
    leave(job);
  };
  const reject = (job: Job, { reason, error }: Refusal): void => {
    unregister(job);
    metrics.rejected(reason);
    job.reject(error);
  };

  /** Milliseconds until a job of this size that stands behind `ahead` others would be done. */
  const predictDone = (lane: Lane, samples: number, ahead: number, now: number): number => {
    const each = lane.line.length === 0 ? samples : lane.samples / lane.line.length;
    // As many calls as fit, and at least one.
    const together = queue.unbatchable === undefined ? Math.floor(lane.cap.samples / each) : 1;
    const cap = Math.max(1, Math.round(Math.max(1, together) * each));
    const before = Math.ceil(ahead * each);
    const full = Math.floor(before / cap);
    const places = Math.max(1, queue.slots().length);
    let others = 0;
    for (const other of ready) {
      if (other === lane || other.samples === 0) continue;
      const size = Math.min(other.cap.samples, other.samples);
      others += (other.cost.predictAtMost(size) * other.samples) / size;
    }
    const waitMs =
      host.freeInMs(queue, now) +
      ((full * lane.cost.predictAtMost(cap) + others) / places) * host.stretch(queue);
    // By then, others will have come to fill the batch.
    const last = Math.min(cap, (before % cap) + samples + arrivals.perMs(now) * waitMs);
    return waitMs + lane.cost.predictAtMost(Math.max(Math.floor(last), samples));
  };

  /** Refuses a job that cannot be answered in time, or for which there is no room. */
  const refuse = (job: Job, now: number, hasRoom: boolean): boolean => {
    const { lane, dueMs } = job;
    if (dueMs <= now) {
      reject(job, deadlinePassed());
      return true;
    }
    if (dueMs !== Infinity && !job.isTrial) {
      const neededMs = predictDone(lane, job.samples, lane.line.ahead(job.urgency), now);
      if (now + neededMs > dueMs) {
        reject(job, deadlinePredicted(neededMs, dueMs - now));
        return true;
      }
    }
    for (;;) {
      const full = hasRoom ? undefined : backlog.fullness(job);
      if (full === undefined) return false;
      const victim = backlog.lowest(job.priority);
      const drainMs = predictDone(lane, 1, lane.line.length, now);
      if (victim === undefined) {
        reject(job, queueFull(full, backlog, drainMs));
        return true;
      }
      pull(victim);
      reject(victim, queueFull('shed', backlog, drainMs));
    }
  };

  const deadlines = createDeadlines(platform, ready, (job) => {
    if (job.isWaiting) pull(job);
    reject(job, deadlinePassed());
  });

  /** Whether a call is to run although it may be late: at most one a second, for a lane that would not run otherwise. */
  const isTrial = (lane: Lane, now: number): boolean => {
    lane.takenMs ??= now;
    if (lane.line.length > 0 || now - lane.takenMs <= TRIAL_MS) return false;
    lane.takenMs = now;
    return true;
  };

  const accept = (
    feeds: TensorMap,
    samples: number | undefined,
    call: CallOptions,
    onSettled?: () => void,
    onJob?: (job: Job) => void,
  ): Promise<TensorMap> =>
    new Promise((resolve, fail) => {
      const now = platform.monotonicMs();
      const { signal, deadlineMs, priority = 0 } = call;
      if (signal?.aborted) {
        onSettled?.();
        fail(reasonOf(signal));
        return;
      }
      const dueMs = deadlineMs === undefined ? Infinity : now + deadlineMs;
      const lane = lanes.of(feeds);
      const job: Job = {
        lane,
        feeds,
        samples: samples ?? 1,
        isSolo: samples === undefined,
        sizeBytes: sizeBytesOf(feeds),
        outputs: call.outputs,
        transfer: call.transfer ?? false,
        acceptedMs: now,
        dueMs,
        priority,
        urgency: urgencyOf(now, dueMs, priority),
        paddingRatio: call.paddingRatio,
        span: call.span,
        facts: call.facts,
        resolve,
        reject: fail,
        onSettled,
        detach: undefined,
        isSettled: false,
        isWaiting: false,
        order: 0,
        isRetry: false,
        isTrial: isTrial(lane, now),
        losses: 0,
        level: undefined,
        older: undefined,
        newer: undefined,
      };
      if (dueMs !== Infinity) hasDeadlines = true;
      if (hasDeadlines) arrivals.count(job.samples, now);
      // What has a part in a larger call was let in with that.
      if (refuse(job, now, onJob !== undefined)) return;
      metrics.accepted();
      if (signal !== undefined) listen(job, signal);
      // What cannot share a batch, or has not met others lately, has no reason to wait for what else this moment brings.
      if ((queue.unbatchable !== undefined || queue.lonely >= LONELY) && host.runNow(queue, job, now)) {
        onJob?.(job);
        return;
      }
      if (queue.running > 0) queue.lonely = 0;
      lane.line.push(job);
      lane.samples += job.samples;
      backlog.add(job);
      ready.add(lane);
      if (dueMs !== Infinity) deadlines.expect(dueMs, now);
      onJob?.(job);
      if (queue.unbatchable === undefined) host.wake();
      else host.pump(now);
    });

  const listen = (job: Job, signal: AbortSignal): void => {
    const abort = (): void => {
      if (job.isSettled) return;
      if (job.isWaiting) pull(job);
      unregister(job);
      metrics.aborted();
      job.reject(reasonOf(signal));
    };
    job.detach = host.signals.listen(signal, abort);
  };

  /** Runs more samples than a batch may have, in parts that may run in several places. */
  const runInParts = async (
    feeds: TensorMap,
    samples: number,
    rows: number,
    call: CallOptions,
  ): Promise<TensorMap> => {
    const parts: Job[] = [];
    const cut = cutFeeds(feeds, samples, rows);
    // There is room for all of the call, or for none of it.
    const full = backlog.fullness({ sizeBytes: sizeBytesOf(feeds) });
    if (full !== undefined) {
      metrics.rejected(full);
      throw queueFull(full, backlog, 1).error;
    }
    try {
      const answers = await Promise.all(
        cut.map((part) =>
          accept(part, samplesOf(part), { ...call, transfer: false }, undefined, (job) => parts.push(job)),
        ),
      );
      if (answers.every((outputs, at) => hasRows(outputs, parts[at]?.samples ?? 0)))
        return joinOutputs(answers);
      queue.unbatchable = `its first axis is no batch axis: of ${rows} rows it gives another number of rows`;
      return await accept(feeds, samples, call);
    } catch (error) {
      for (const job of parts) {
        if (job.isSettled) continue;
        if (job.isWaiting) pull(job);
        unregister(job);
        metrics.failed();
        job.reject(error);
      }
      throw error;
    }
  };

  /** Most rows of one call that run at once. What is large but quick, such as one long vector, is left whole. */
  const rowsAtOnce = (feeds: TensorMap, samples: number): number => {
    if (queue.unbatchable !== undefined || samples === 1) return samples;
    if (options.maxBatch !== undefined) return options.maxBatch;
    const fitting = Math.max(1, Math.floor((maxBatchBytes * samples) / sizeBytesOf(feeds)));
    const isLong = samples > maxBatch && lanes.of(feeds).cost.predict(samples) > LONG_MS;
    return isLong ? Math.min(fitting, maxBatch) : fitting;
  };

  /** Drops the jobs that would not be done in time, so that those behind them are. */
  const dropLate = (lane: Lane, cap: number, now: number): void => {
    const isOverloaded = lane.samples > cap;
    for (;;) {
      const job = lane.line.first();
      if (job === undefined || job.dueMs === Infinity || job.isTrial) return;
      // Without a backlog a smaller batch saves the job; with one it would make all that follow later.
      const size = isOverloaded ? Math.min(cap, lane.samples) : job.samples;
      const neededMs = lane.cost.predict(Math.max(size, job.samples));
      if (now + neededMs <= job.dueMs) return;
      pull(job);
      reject(job, job.dueMs <= now ? deadlinePassed() : deadlinePredicted(neededMs, job.dueMs - now));
    }
  };

  const queue: ModelQueue = {
    options,
    lanes,
    metrics,
    gate: createGate(),
    virtualMs: 0,
    get waiting() {
      return backlog.length + retrying;
    },
    running: 0,
    lonely: 0,
    unbatchable: options.unbatchable,
    saturatedMs: undefined,
    isLooking: false,
    growFromMs: 0,
    slots: () => session.slots ?? ownSlots,

    run: (feeds, call, onSettled) => {
      // What has no rows, or not one number of them, runs by itself.
      const samples = samplesOf(feeds) || undefined;
      const rows = samples === undefined ? 1 : rowsAtOnce(feeds, samples);
      return samples !== undefined && samples > rows
        ? runInParts(feeds, samples, rows, call).finally(onSettled)
        : accept(feeds, samples, call, onSettled);
    },

    nextLane: (except) => {
      let best: Lane | undefined;
      let urgency = Infinity;
      for (const lane of ready) {
        if (lane === except) continue;
        if (lane.retries.length > 0) return lane;
        const first = lane.line.first();
        if (first !== undefined && (best === undefined || first.urgency < urgency)) {
          best = lane;
          urgency = first.urgency;
        }
      }
      return best;
    },

    take: (lane, places, now) => {
      const group = lane.retries.shift();
      if (group !== undefined) {
        retrying -= group.length;
        if (lane.line.length === 0 && lane.retries.length === 0) ready.delete(lane);
        const alive = group.filter((job) => !job.isSettled);
        for (const job of alive) {
          if (job.dueMs > now) continue;
          reject(job, deadlinePassed());
        }
        return alive.filter((job) => !job.isSettled);
      }
      const isBatched = queue.unbatchable === undefined;
      const cap = isBatched ? lane.cap.samples : 1;
      dropLate(lane, cap, now);
      let limit = cap;
      if (places > 1 && lane.cost.predict(Math.min(cap, lane.samples)) > WORTH_DIVIDING_MS) {
        limit = Math.min(cap, Math.ceil(lane.samples / places));
      }
      const jobs: Job[] = [];
      let samples = 0;
      let sizeBytes = 0;
      let dueMs = Infinity;
      for (;;) {
        const job = lane.line.first();
        if (job === undefined) break;
        if (jobs.length > 0) {
          if (!isBatched || job.isSolo || jobs[0]?.isSolo) break;
          const together = samples + job.samples;
          if (together > limit || sizeBytes + job.sizeBytes > maxBatchBytes) break;
          const due = Math.min(dueMs, job.dueMs);
          if (due !== Infinity && now + lane.cost.predict(together) > due) break;
        }
        lane.line.shift();
        leave(job);
        jobs.push(job);
        samples += job.samples;
        sizeBytes += job.sizeBytes;
        if (job.dueMs < dueMs) dueMs = job.dueMs;
      }
      return jobs;
    },

    retry: (lane, groups) => {
      for (const group of groups) {
        if (group.length === 0) continue;
        for (const job of group) job.isRetry = true;
        lane.retries.push(group);
        retrying += group.length;
        ready.add(lane);
      }
    },

    settle: (job, outputs) => {
      if (job.isSettled) return;
      unregister(job);
      job.resolve(outputs);
    },
    fail: (job, error) => {
      if (job.isSettled) return;
      unregister(job);
      metrics.failed();
      job.reject(error);
    },

    info: () => ({
      ...(queue.unbatchable !== undefined && { unbatchable: queue.unbatchable }),
      waiting: queue.waiting,
      running: queue.running,
      slots: queue.slots().map(({ name }) => name),
      lanes: [...lanes.all()].map(({ key, cap, cost }) => ({
        shapes: key,
        batchCap: queue.unbatchable === undefined ? cap.samples : 1,
        ...cost.line(),
      })),
    }),
    close: deadlines.close,
  };
  return queue;
}
