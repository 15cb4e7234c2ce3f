/**
 * Decides which calls run where, when, and together. The policy: never wait while a place is idle; when one becomes
 * free, take everything that waits, up to what pays.
 */
import type { Slot, TensorMap } from '../core/backend.ts';
import { silentLogger, type Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import { createSignalHub } from '../core/signals.ts';
import type { Tracing } from '../core/tracing.ts';
import { createScratch } from './batch.ts';
import { createExecutor, type Batch, type Place } from './executor.ts';
import type { CallOptions, Job } from './job.ts';
import type { BatchCap } from './batch-cap.ts';
import type { Lane, LanesRecord } from './lanes.ts';
import type { DispatchReason } from './metrics.ts';
import type { QueueInfo, QueueOptions } from './queue-options.ts';
import { createModelQueue, type ModelQueue } from './queue.ts';

/** Options of {@link createScheduler}. */
export interface SchedulerOptions {
  readonly platform: Pick<Platform, 'monotonicMs' | 'setTimer' | 'defer'>;
  readonly logger?: Logger | undefined;
  readonly tracing?: Tracing | undefined;
}

/** The calls of one model version. */
export interface Queue {
  /**
   * Runs feeds that are complete and fit the signature, alone or together with others. They must not change before the
   * call settles.
   * @param onSettled - hears that the call has settled, before its caller does.
   * @returns the outputs, owned by the caller.
   * @throws {@link ScheduleError}; what the session throws; `signal.reason` when aborted.
   */
  run(feeds: TensorMap, options?: CallOptions, onSettled?: () => void): Promise<TensorMap>;
  info(): QueueInfo;
  /** How many samples of feeds like these a batch may have. */
  cap(feeds: TensorMap): BatchCap;
  /** Takes a measured time for batches of this size for certain, until real ones tell otherwise. */
  learn(feeds: TensorMap, samples: number, milliseconds: number): void;
  /** What was learned, for {@link QueueOptions.learned} of a later queue. */
  learned(): LanesRecord;
  /** Forgets the queue. To be called when all its calls have settled. */
  close(): void;
}

/** Plans the runs of all models of one Inlay. */
export interface Scheduler {
  open(options: QueueOptions): Queue;
}

interface Choice {
  readonly queue: ModelQueue;
  readonly lane: Lane;
  readonly slot: Slot;
  readonly place: Place;
  /** Free places that the queue may use. */
  readonly places: number;
  readonly reason: DispatchReason;
}

/** Longest wait, in milliseconds, for callers that have just been answered. */
const LINGER_MS = 1;
/** Share of a cohort that makes waiting for it worthwhile; there are always stragglers. */
const RETURNED = 0.75;
/** Observations after which every part of the planning goes by them. */
const CERTAIN = 8;
/** Time in milliseconds with more work than places, after which a further place is opened. */
const GROW_AFTER_MS = 20;
/** A place that rests for less than this between two batches, in milliseconds, had no rest. */
const REST_MS = 1;
/** Time in milliseconds after which that is tried again where it has failed. */
const GROW_AGAIN_MS = 10_000;

/** Creates a scheduler without work. */
export function createScheduler(options: SchedulerOptions): Scheduler {
  const { platform, logger = silentLogger, tracing } = options;
  const places = new Map<Slot, Place>();
  const queues = new Set<ModelQueue>();
  /** Start tag of the batch that was dispatched last. */
  let virtualMs = 0;
  let isAwake = false;

  const placeOf = (slot: Slot): Place => {
    let place = places.get(slot);
    if (place === undefined) {
      place = {
        isBusy: false,
        freeMs: 0,
        doneMs: -Infinity,
        lane: undefined,
        cohort: 0,
        hold: 'none',
        cancelHold: undefined,
        scratch: createScratch(),
        restsUntilMs: 0,
        plain: { slot, transfer: false },
      };
      places.set(slot, place);
    }
    return place;
  };

  const wake = (): void => {
    if (isAwake) return;
    isAwake = true;
    platform.defer(pumpDeferred);
  };

  /** Whoever is answered wakes the scheduler by calling again. */
  const wakeForWaiting = (): void => {
    for (const queue of queues) {
      if (queue.waiting === 0) continue;
      wake();
      return;
    }
  };

  const release = (place: Place): void => {
    place.cancelHold?.();
    place.cancelHold = undefined;
    place.hold = 'none';
  };

  /** Decides whether a place stays free for the callers that it has just answered, and begins or ends its wait for them. */
  const keepsFree = (queue: ModelQueue, lane: Lane, place: Place, now: number): boolean => {
    if (place.lane !== lane || lane.retries.length > 0) return false;
    const { linger = 'auto' } = queue.options;
    const lingerMs = linger === 'auto' ? LINGER_MS : linger;
    const sinceDone = now - place.doneMs;
    const wanted = Math.min(lane.cap.samples, place.cohort);
    if (lane.samples >= wanted || sinceDone >= lingerMs || place.hold === 'over') {
      if (place.hold !== 'none') {
        queue.gate.learn(lane.samples >= wanted * RETURNED);
        release(place);
      }
      place.lane = undefined;
      return false;
    }
    const first = lane.line.first();
    const slackMs = (first?.dueMs ?? Infinity) - now;
    const isUrgent = slackMs <= lingerMs + lane.cost.predict(lane.samples + 1);
    if (place.hold === 'on') {
      if (!isUrgent) return true;
      release(place);
      place.lane = undefined;
      return false;
    }
    if (queue.unbatchable !== undefined) return false;
    // Waiting can save one fixed cost at most, and timers are no finer than a millisecond.
    const isWorth = linger !== 'auto' || (lane.cost.predict(wanted) >= lingerMs && queue.gate.open());
    if (!isWorth || isUrgent) {
      place.lane = undefined;
      return false;
    }
    place.hold = 'on';
    const giveUp = (): void => {
      place.hold = 'over';
      wake();
    };
    place.cancelHold = platform.setTimer(giveUp, lingerMs - sinceDone, true);
    return true;
  };

  const choose = (now: number): Choice | undefined => {
    let best: Choice | undefined;
    for (const queue of queues) {
      if (queue.waiting === 0 || (best !== undefined && queue.virtualMs >= best.queue.virtualMs)) continue;
      const choice = chooseIn(queue, now);
      if (choice !== undefined) best = choice;
    }
    return best;
  };

  const chooseIn = (queue: ModelQueue, now: number): Choice | undefined => {
    let lane = queue.nextLane();
    let free = 0;
    let found: Slot | undefined;
    let reason: DispatchReason = 'idle';
    let isHolding = false;
    const slots = queue.slots();
    // Where a session is being opened, a run would wait for that; elsewhere it need not.
    const isFit = (slot: Slot): boolean => !slot.isOccupied && placeOf(slot).restsUntilMs <= now;
    const isPicky = slots.length > 1 && slots.some(isFit);
    for (const slot of slots) {
      const place = placeOf(slot);
      if (place.isBusy || lane === undefined || (isPicky && !isFit(slot))) continue;
      const wasHeld = place.hold !== 'none';
      if (keepsFree(queue, lane, place, now)) {
        isHolding = true;
        continue;
      }
      free += 1;
      if (found === undefined) {
        found = slot;
        if (wasHeld) reason = 'cohort';
      }
    }
    if (found === undefined && isHolding) {
      // Only the lane whose callers are expected back waits for them.
      const other = queue.nextLane(lane);
      lane = other;
      found = other && slots.find((slot) => !placeOf(slot).isBusy);
      free = 1;
    }
    if (lane === undefined || found === undefined) return undefined;
    return { queue, lane, slot: found, place: placeOf(found), places: free, reason };
  };

  const pumpDeferred = (): void => {
    isAwake = false;
    pump(platform.monotonicMs());
  };
  const pump = (now: number): void => {
    for (;;) {
      const choice = choose(now);
      if (choice === undefined) break;
      const jobs = choice.queue.take(choice.lane, choice.places, now);
      if (jobs.length > 0) {
        dispatch(choice.queue, choice.lane, choice.slot, choice.place, choice.reason, jobs, now);
      }
    }
    for (const queue of queues) {
      if (queue.waiting > 0) saturate(queue, now);
      if (queue.saturatedMs !== undefined) growWhenSaturated(queue, queue.saturatedMs, now);
    }
  };

  /**
   * Notes that there is more work than places, since when it is so. Whoever takes all that waits leaves nothing behind,
   * however busy it is: that its calls had to wait for it, or share it without a rest, is what tells.
   */
  const saturate = (queue: ModelQueue, now: number): void => {
    if (queue.saturatedMs !== undefined || queue.options.session.grow === undefined) return;
    queue.saturatedMs = now;
    if (queue.isLooking) return;
    // While a long run keeps the only place, nothing else would look.
    queue.isLooking = true;
    platform.setTimer(() => {
      queue.isLooking = false;
      wake();
    }, GROW_AFTER_MS + 1);
  };
  const noteLoad = (queue: ModelQueue, place: Place, jobs: readonly Job[], now: number): void => {
    const [first] = jobs;
    const hasWaited = first !== undefined && first.acceptedMs < place.doneMs;
    if (hasWaited || (jobs.length > 1 && now - place.doneMs < REST_MS)) saturate(queue, now);
    else queue.saturatedMs = undefined;
  };

  const growWhenSaturated = (queue: ModelQueue, sinceMs: number, now: number): void => {
    if (now < queue.growFromMs || now - sinceMs < GROW_AFTER_MS || queue.running === 0) return;
    const growing = queue.options.session.grow?.();
    if (growing === undefined) return;
    queue.saturatedMs = undefined;
    queue.growFromMs = Infinity;
    growing.then(
      () => {
        queue.growFromMs = 0;
        wake();
      },
      (error: unknown) => {
        queue.growFromMs = platform.monotonicMs() + GROW_AGAIN_MS;
        logger.warn({ err: error }, 'A model could not be opened in a further worker.');
      },
    );
  };

  const dispatch = (
    queue: ModelQueue,
    lane: Lane,
    slot: Slot,
    place: Place,
    reason: DispatchReason,
    jobs: readonly Job[],
    now: number,
  ): void => {
    let samples = 0;
    for (const job of jobs) samples += job.samples;
    const predictedMs = lane.cost.predict(samples);
    lane.takenMs = now;
    noteLoad(queue, place, jobs, now);
    queue.lonely = jobs.length === 1 && queue.waiting === 0 ? queue.lonely + 1 : 0;
    release(place);
    place.isBusy = true;
    place.freeMs = now + predictedMs;
    queue.running += jobs.length;
    // Start-time fair queueing: the queue with the least weighted work so far goes first, and one that was idle starts
    // where the others are.
    virtualMs = Math.max(virtualMs, queue.virtualMs);
    queue.virtualMs = virtualMs + predictedMs / (queue.options.weight ?? 1);
    execute({
      queue,
      lane,
      slot,
      place,
      jobs,
      samples,
      predictedMs,
      reason,
      startedMs: now,
      span: undefined,
      isFinished: false,
    });
  };

  const finish = (batch: Batch, endedMs: number): void => {
    if (batch.isFinished) return;
    batch.isFinished = true;
    const { queue, lane, place, jobs, samples, startedMs, predictedMs } = batch;
    queue.virtualMs += (endedMs - startedMs - predictedMs) / (queue.options.weight ?? 1);
    place.isBusy = false;
    place.doneMs = endedMs;
    place.lane = lane;
    place.cohort = samples + lane.samples;
    queue.running -= jobs.length;
    wakeForWaiting();
  };

  const execute = createExecutor({ platform, logger, tracing, finish, wake });

  const host = {
    platform,
    signals: createSignalHub(),
    wake,
    pump,
    runNow: (queue: ModelQueue, job: Job, now: number): boolean => {
      for (const other of queues) if (other.waiting > 0) return false;
      for (const slot of queue.slots()) {
        const place = placeOf(slot);
        if (place.isBusy || slot.isOccupied || place.restsUntilMs > now) continue;
        dispatch(queue, job.lane, slot, place, 'idle', [job], now);
        return true;
      }
      return false;
    },
    freeInMs: (queue: ModelQueue, now: number): number => {
      let soonest = Infinity;
      for (const slot of queue.slots()) {
        const place = placeOf(slot);
        soonest = Math.min(soonest, place.isBusy ? Math.max(0, place.freeMs - now) : 0);
      }
      return soonest;
    },
    stretch: (queue: ModelQueue): number => {
      const { weight = 1 } = queue.options;
      let all = weight;
      for (const other of queues) if (other !== queue && other.waiting > 0) all += other.options.weight ?? 1;
      return all / weight;
    },
  };

  return {
    open: (queueOptions) => {
      const queue = createModelQueue(host, queueOptions);
      queues.add(queue);
      return {
        run: (feeds, call = {}, onSettled) => {
          // One that was idle has no claim on the time that others used meanwhile.
          if (queue.waiting === 0 && queue.running === 0)
            queue.virtualMs = Math.max(queue.virtualMs, virtualMs);
          return queue.run(feeds, call, onSettled);
        },
        info: () => queue.info(),
        cap: (feeds) => queue.lanes.of(feeds).cap,
        learn: (feeds, samples, milliseconds) => {
          const { cost, cap } = queue.lanes.of(feeds);
          const before = cap.samples;
          for (let i = 0; i < CERTAIN && cap.samples === before && !cap.isSettled; i += 1) {
            cost.observe(samples, milliseconds);
            cap.review(samples);
          }
        },
        learned: () => queue.lanes.toRecord(),
        close: () => {
          queue.close();
          queues.delete(queue);
          for (const slot of queue.slots()) {
            const isUsed = [...queues].some((other) => other.slots().includes(slot));
            const place = places.get(slot);
            if (place?.lane !== undefined) place.lane = undefined;
            // A run that nobody waits for any more still keeps its place.
            if (!isUsed && !place?.isBusy) places.delete(slot);
          }
        },
      };
    },
  };
}
