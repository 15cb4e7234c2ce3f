import type { Session, Slot, TensorMap } from '../../../src/core/backend.ts';
import type { Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import type { Job } from '../../../src/schedule/job.ts';
import { createCost } from '../../../src/schedule/cost.ts';
import { createLanes, type Lane, type LanesRecord } from '../../../src/schedule/lanes.ts';
import { createMetrics, type Metrics } from '../../../src/schedule/metrics.ts';
import type { QueueOptions } from '../../../src/schedule/queue-options.ts';
import { createScheduler, type Queue, type Scheduler } from '../../../src/schedule/scheduler.ts';

/** Time that passes only when nothing else is left to do. */
export interface VirtualTime {
  monotonicMs(): number;
  setTimer(task: () => void, delayMs: number, keepAlive?: boolean): () => void;
  defer(task: () => void): void;
  /** Lets everything happen that is due until `untilMs`, and promise reactions in between. */
  run(untilMs?: number): Promise<void>;
  /** Promise reactions and deferred tasks only. */
  settle(): Promise<void>;
  /** Timers that a process would wait for. */
  keptAlive(): number;
}

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly task: () => void;
  readonly keepAlive: boolean;
  isCancelled: boolean;
}

/** Promise reactions in a row that are waited for: more than any chain in the scheduler has. */
const REACTIONS = 12;

/** @param afterStep - called when everything that a moment brought about has happened. */
export function virtualTime(afterStep: () => void = () => {}): VirtualTime {
  let now = 0;
  let order = 0;
  const heap: Timer[] = [];
  let deferred: (() => void)[] = [];
  const before = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

  const push = (timer: Timer): void => {
    let at = heap.push(timer) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && before(timer, heap[parent] as Timer); parent = (at - 1) >> 1) {
      heap[at] = heap[parent] as Timer;
      at = parent;
    }
    heap[at] = timer;
  };
  const pop = (): Timer | undefined => {
    const [first] = heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Timer, heap[child] as Timer)) child += 1;
      if (!before(heap[child] as Timer, last)) break;
      heap[at] = heap[child] as Timer;
      at = child;
    }
    heap[at] = last;
    return first;
  };
  const settle = async (): Promise<void> => {
    do {
      const due = deferred;
      deferred = [];
      for (const task of due) task();
      for (let i = 0; i < REACTIONS; i += 1) await Promise.resolve();
    } while (deferred.length > 0);
    afterStep();
  };

  return {
    monotonicMs: () => now,
    keptAlive: () => heap.filter(({ keepAlive, isCancelled }) => keepAlive && !isCancelled).length,
    setTimer: (task, delayMs, keepAlive = false) => {
      const timer = { at: now + Math.max(0, delayMs), order, task, keepAlive, isCancelled: false };
      order += 1;
      push(timer);
      return () => {
        timer.isCancelled = true;
      };
    },
    defer: (task) => {
      deferred.push(task);
    },
    settle,
    run: async (untilMs = Infinity) => {
      await settle();
      for (;;) {
        const next = heap[0];
        if (next === undefined || next.at > untilMs) break;
        pop();
        if (next.isCancelled) continue;
        now = next.at;
        next.task();
        await settle();
      }
      if (untilMs < Infinity) now = untilMs;
    },
  };
}

/** `y = x` on float32 [batch, 1]. */
const IDENTITY: Signature = {
  inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 1] }],
  outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 1] }],
};

/** A place that knows whether it is at work. */
export interface VirtualSlot extends Slot {
  isBusy: boolean;
  /** Time at which its last run ended. */
  idleSinceMs: number;
}

export function virtualSlot(name: string): VirtualSlot {
  return { name, isBusy: false, idleSinceMs: -Infinity };
}

export interface VirtualSessionOptions {
  readonly signature?: Signature;
  /** Milliseconds that a batch takes. */
  readonly costMs: (samples: number, slot: Slot) => number;
  /** What a batch gives when its time is over; may throw. Default: the identity. */
  readonly compute?: (feeds: TensorMap, slot: Slot) => TensorMap | Promise<TensorMap>;
  /** Sees each batch when it starts. */
  readonly onStart?: (feeds: TensorMap, samples: number) => void;
  readonly slots?: readonly VirtualSlot[];
  readonly grow?: () => Promise<void> | undefined;
}

/** A batch that ran. */
export interface VirtualBatch {
  readonly samples: number;
  readonly startMs: number;
  readonly slot: string;
}

/** A session that takes virtual time. It refuses a second run in a place that is busy. */
export function virtualSession(
  time: VirtualTime,
  options: VirtualSessionOptions,
): Session & { readonly batches: VirtualBatch[] } {
  const { compute = echo, grow } = options;
  const batches: VirtualBatch[] = [];
  const own = virtualSlot('');
  return {
    signature: options.signature ?? IDENTITY,
    provider: 'cpu',
    placement: 'worker',
    ...(options.slots && { slots: options.slots }),
    ...(grow && { grow }),
    batches,
    run: (feeds, { slot, transfer = false } = {}) => {
      const place = options.slots?.find((other) => other === slot) ?? own;
      if (place.isBusy) throw new Error(`The place "${place.name}" is busy.`);
      place.isBusy = true;
      const samples = Object.values(feeds)[0]?.shape[0] ?? 1;
      batches.push({ samples, startMs: time.monotonicMs(), slot: place.name });
      options.onStart?.(feeds, samples);
      const received = transfer ? transferred(feeds) : feeds;
      const free = (): void => {
        place.isBusy = false;
        place.idleSinceMs = time.monotonicMs();
      };
      return new Promise((resolve, reject) => {
        const finish = (outputs: TensorMap): void => {
          free();
          resolve(outputs);
        };
        const fail = (error: unknown): void => {
          free();
          reject(error);
        };
        time.setTimer(
          () => {
            try {
              const outputs = compute(received, place);
              if (outputs instanceof Promise) outputs.then(finish, fail);
              else finish(outputs);
            } catch (error) {
              fail(error);
            }
          },
          options.costMs(samples, place),
        );
      });
    },
    release: async () => {},
  };
}

const echo = (feeds: TensorMap): TensorMap => ({ y: copyOf(feeds['x'] as Tensor) });

export function copyOf({ dtype, shape, data }: Tensor): Tensor {
  return new Tensor(dtype, shape, (data as Float32Array).slice());
}

/** What a worker gets: the caller's buffers are gone. */
function transferred(feeds: TensorMap): TensorMap {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, { dtype, shape, data }]) => {
      const view = data as Float32Array;
      const moved = structuredClone(view, { transfer: [view.buffer] });
      return [name, new Tensor(dtype, shape, moved)];
    }),
  );
}

/** Rows of {@link IDENTITY} that all hold `value`. */
export function sample(value: number, rows = 1): TensorMap {
  return { x: new Tensor('float32', [rows, 1], new Float32Array(rows).fill(value)) };
}

/** The values of an output, row by row. */
export function valuesOf(outputs: TensorMap, name = 'y'): number[] {
  return [...(outputs[name] as Tensor<'float32'>).data];
}

/** mulberry32: small, seeded, uniform in [0, 1). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A lane of {@link IDENTITY} by itself. */
function newLane(): Lane {
  return createLanes(IDENTITY, { maxSamples: 128, maxRunMs: Infinity }).of(sample(0));
}

/** A job that nobody waits for. */
export function newJob(parts: Partial<Job> = {}): Job {
  return {
    lane: parts.lane ?? newLane(),
    feeds: sample(0),
    samples: 1,
    isSolo: false,
    sizeBytes: 4,
    outputs: undefined,
    transfer: false,
    acceptedMs: 0,
    dueMs: Infinity,
    priority: 0,
    urgency: 0,
    paddingRatio: undefined,
    span: undefined,
    facts: undefined,
    resolve: () => {},
    reject: () => {},
    detach: undefined,
    isSettled: false,
    isWaiting: false,
    order: 0,
    isRetry: false,
    isTrial: false,
    losses: 0,
    onSettled: undefined,
    level: undefined,
    older: undefined,
    newer: undefined,
    ...parts,
  };
}

/** A controller that knows how many listeners its signal has. */
export function watchedController(): { readonly controller: AbortController; listeners(): number } {
  const controller = new AbortController();
  const { signal } = controller;
  const listening = new Set<unknown>();
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (type: string, listener: EventListenerOrEventListenerObject): void => {
    listening.add(listener);
    add(type, listener, { once: true });
  };
  signal.removeEventListener = (type: string, listener: EventListenerOrEventListenerObject): void => {
    listening.delete(listener);
    remove(type, listener);
  };
  return { controller, listeners: () => listening.size };
}

/** What a queue knows that has run many batches of b samples in `perSample · b + perBatch` milliseconds. */
export function warm(cap: number, perSample = 1, perBatch = 4): LanesRecord {
  const cost = createCost();
  for (let run = 0; run < 10; run += 1) {
    for (let samples = 1; samples <= cap; samples += 1) cost.observe(samples, perSample * samples + perBatch);
  }
  return { '': { cost: cost.toRecord(), cap } };
}

/** A model that is served in virtual time. A batch of b samples takes b + 4 ms, which the queue knows. */
export function openVirtual(
  time: VirtualTime,
  parts: Partial<VirtualSessionOptions> & {
    readonly queue?: Partial<QueueOptions>;
    readonly scheduler?: Scheduler;
  } = {},
): {
  readonly queue: Queue;
  readonly session: ReturnType<typeof virtualSession>;
  readonly metrics: Metrics;
} {
  const { queue, scheduler = createScheduler({ platform: time }), ...session } = parts;
  const opened = virtualSession(time, { costMs: (samples) => samples + 4, ...session });
  const metrics = createMetrics();
  const options = { session: opened, metrics, learned: warm(32), maxBatch: 32, linger: 0, ...queue };
  return { queue: scheduler.open(options), session: opened, metrics };
}

/** Lets the first batch of several calls be compared with a solo run, as every lane does once. */
export async function verified(
  time: VirtualTime,
  model: ReturnType<typeof openVirtual>,
): Promise<typeof model> {
  for (let call = 0; call < 2; call += 1) void model.queue.run(sample(call));
  await time.run();
  model.session.batches.length = 0;
  return model;
}

/** How a call ended, and when. */
export type Outcome =
  | { readonly kind: 'answered'; readonly outputs: TensorMap; readonly atMs: number }
  | { readonly kind: 'failed'; readonly error: unknown; readonly atMs: number };

/** Notes how a call ends. */
export function watch(
  time: VirtualTime,
  call: Promise<TensorMap>,
): { readonly outcome: Outcome | undefined } {
  const watched: { outcome: Outcome | undefined } = { outcome: undefined };
  call.then(
    (outputs) => {
      watched.outcome = { kind: 'answered', outputs, atMs: time.monotonicMs() };
    },
    (error: unknown) => {
      watched.outcome = { kind: 'failed', error, atMs: time.monotonicMs() };
    },
  );
  return watched;
}
