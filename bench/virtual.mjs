// The scheduler is no part of the package's interface, so that it is taken from what `tsc -b` writes.
import { createMetrics } from '../build/schedule/metrics.js';
import { createScheduler } from '../build/schedule/scheduler.js';
import { createCost } from '../build/schedule/cost.js';
import { Tensor } from '../build/core/tensor.js';

/** Promise reactions in a row that are waited for: more than any chain in the scheduler has. */
const REACTIONS = 12;

/** Time that passes only when nothing else is left to do. */
export function virtualTime() {
  let now = 0;
  let order = 0;
  let deferred = [];
  const heap = [];
  const before = (a, b) => a.at < b.at || (a.at === b.at && a.order < b.order);
  const push = (timer) => {
    let at = heap.push(timer) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && before(timer, heap[parent]); parent = (at - 1) >> 1) {
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = timer;
  };
  const pop = () => {
    const [first] = heap;
    const last = heap.pop();
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child += 1;
      if (!before(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  };
  const settle = async () => {
    do {
      const due = deferred;
      deferred = [];
      for (const task of due) task();
      for (let i = 0; i < REACTIONS; i += 1) await Promise.resolve();
    } while (deferred.length > 0);
  };
  return {
    monotonicMs: () => now,
    setTimer: (task, delayMs) => {
      const timer = { at: now + Math.max(0, delayMs), order: (order += 1), task, isCancelled: false };
      push(timer);
      return () => {
        timer.isCancelled = true;
      };
    },
    defer: (task) => {
      deferred.push(task);
    },
    run: async (untilMs = Infinity) => {
      await settle();
      while (heap.length > 0 && heap[0].at <= untilMs) {
        const timer = pop();
        if (timer.isCancelled) continue;
        now = timer.at;
        timer.task();
        await settle();
      }
    },
  };
}

const AXES = ['batch', 1];
const SIGNATURE = {
  inputs: [{ name: 'x', dtype: 'float32', shape: AXES }],
  outputs: [{ name: 'y', dtype: 'float32', shape: AXES }],
};
const FEEDS = { x: new Tensor('float32', [1, 1], new Float32Array(1)) };

/** A scheduler in virtual time. */
export function virtualScheduler(time) {
  return createScheduler({ platform: time });
}

/**
 * Opens a model whose batches of b samples take `costMs(b)`, which its queue knows from earlier runs.
 * @param {object} time of {@link virtualTime}
 * @param {(samples: number) => number} costMs
 * @param {object} [parts]
 * @param {object} [parts.slot] Place of several models.
 * @param {object} [parts.scheduler] Scheduler of several models.
 * @param {(samples: number) => void} [parts.onStart]
 * @param {object} [options] Of the queue.
 * @returns a call of one sample.
 */
export function openVirtual(
  time,
  costMs,
  { slot, scheduler = virtualScheduler(time), onStart } = {},
  options = {},
) {
  const { maxBatch = 32 } = options;
  const cost = createCost();
  for (let round = 0; round < 10; round += 1) {
    for (let samples = 1; samples <= maxBatch; samples += 1) cost.observe(samples, costMs(samples));
  }
  const session = {
    signature: SIGNATURE,
    provider: 'cpu',
    placement: 'worker',
    ...(slot && { slots: [slot] }),
    run: ({ x }) => {
      const [samples] = x.shape;
      onStart?.(samples);
      return new Promise((resolve) => {
        time.setTimer(
          () => resolve({ y: new Tensor('float32', [samples, 1], x.data.slice()) }),
          costMs(samples),
        );
      });
    },
    release: async () => {},
  };
  const learned = { '': { cost: cost.toRecord(), cap: maxBatch } };
  const queue = scheduler.open({ session, metrics: createMetrics(), learned, maxBatch, ...options });
  return (call) => queue.run(FEEDS, call);
}

/** mulberry32: small, seeded, uniform in [0, 1). */
export function seededRandom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Times in milliseconds of `count` arrivals at random, `perMs` of them in a millisecond. */
export function poisson(perMs, count, seed) {
  const random = seededRandom(seed);
  let atMs = 0;
  return Array.from({ length: count }, () => (atMs += -Math.log(1 - random()) / perMs));
}

/** Calls at the given times, whatever becomes of earlier calls. @returns what became of each, and after how long. */
export async function openLoop(time, arrivals, call) {
  const results = [];
  let next = 0;
  const arrive = () => {
    const askedMs = time.monotonicMs();
    const note = (isAnswered) => results.push({ isAnswered, afterMs: time.monotonicMs() - askedMs });
    call().then(
      () => note(true),
      () => note(false),
    );
    next += 1;
    if (next < arrivals.length) time.setTimer(arrive, arrivals[next] - askedMs);
  };
  time.setTimer(arrive, arrivals[0]);
  await time.run();
  return results;
}

/**
 * The policy itself, as a loop over arrivals: when the place is free, take all that waits, up to `limit`.
 * @returns latencies in milliseconds.
 */
export function takeAllThatWaits(arrivals, costMs, limit) {
  const latencies = [];
  let first = 0;
  let freeMs = 0;
  while (first < arrivals.length) {
    const startMs = Math.max(freeMs, arrivals[first]);
    let end = first;
    while (end < arrivals.length && end - first < limit && arrivals[end] <= startMs) end += 1;
    freeMs = startMs + costMs(end - first);
    for (let at = first; at < end; at += 1) latencies.push(freeMs - arrivals[at]);
    first = end;
  }
  return latencies;
}
