import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { BackendError, isInlayError } from '../../../src/core/errors.ts';
import type { Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import { createScheduler, type Queue } from '../../../src/schedule/scheduler.ts';
import {
  virtualSession,
  virtualSlot,
  virtualTime,
  watch,
  watchedController,
  type VirtualSlot,
  type VirtualTime,
} from './virtual.ts';

/** `y = 2 · x + 1`, on rows of any width, which makes lanes. */
const SIGNATURE: Signature = {
  inputs: [{ name: 'x', dtype: 'float64', shape: ['batch', 'width'] }],
  outputs: [{ name: 'y', dtype: 'float64', shape: ['batch', 'width'] }],
};
/** Values are `call · ROWS + row`, so that every row tells whose it is. */
const ROWS = 1000;
/** Longest wait for callers that were just answered, when it is `auto`. */
const LINGER_MS = 1;
const NEARLY = 1e-6;

interface CallPlan {
  readonly gapMs: number;
  readonly model: number;
  readonly width: number;
  readonly rows: number;
  readonly priority: number;
  readonly deadlineMs: number | undefined;
  readonly abortAfterMs: number | undefined;
  readonly fault: 'none' | 'poison' | 'killer';
}

interface ModelPlan {
  readonly weight: number;
  readonly perSampleMs: number;
  readonly perBatchMs: number;
  readonly linger: 'auto' | number;
  readonly maxBatch: number;
  readonly maxWaiting: number;
  readonly replay: boolean;
  readonly slots: readonly number[];
  readonly grows: boolean;
}

const often = <T>(usual: T, arbitrary: fc.Arbitrary<T>, weight = 4): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary });

const callPlan: fc.Arbitrary<CallPlan> = fc.record({
  gapMs: often(0, fc.double({ min: 0, max: 20, noNaN: true }), 2),
  model: fc.nat({ max: 2 }),
  width: often(1, fc.integer({ min: 1, max: 3 }), 2),
  rows: often(1, fc.nat({ max: 40 })),
  priority: often(0, fc.integer({ min: -2, max: 2 })),
  deadlineMs: often<number | undefined>(undefined, fc.integer({ min: 1, max: 150 })),
  abortAfterMs: often<number | undefined>(undefined, fc.integer({ min: 0, max: 60 })),
  fault: often<CallPlan['fault']>('none', fc.constantFrom('poison', 'killer'), 12),
});

const modelPlan: fc.Arbitrary<ModelPlan> = fc.record({
  weight: fc.integer({ min: 1, max: 4 }),
  perSampleMs: fc.double({ min: 0.01, max: 3, noNaN: true }),
  perBatchMs: fc.double({ min: 0.01, max: 10, noNaN: true }),
  linger: often<'auto' | number>('auto', fc.constantFrom(0, 4)),
  maxBatch: fc.constantFrom(1, 3, 8, 32),
  maxWaiting: often(10_000, fc.constant(5)),
  replay: often(true, fc.constant(false)),
  slots: fc.uniqueArray(fc.nat({ max: 2 }), { minLength: 1, maxLength: 3 }),
  grows: fc.boolean(),
});

const poisoned = new BackendError('ERR_INLAY_RUN_FAILED', 'A kernel failed.');
const lost = new BackendError('ERR_INLAY_WORKER_LOST', 'The worker ended.');

interface Model {
  readonly plan: ModelPlan;
  readonly queue: Queue;
  readonly slots: readonly VirtualSlot[];
  /** Calls by lane, priority and row count in the order in which they were first sent off. */
  readonly started: number[];
}

/** Sets models up that share places, in which every batch is checked. */
function openModels(time: VirtualTime, plans: readonly ModelPlan[], calls: readonly CallPlan[]): Model[] {
  const scheduler = createScheduler({ platform: time });
  const places = ['fast', 'middle', 'slow', 'late'].map(virtualSlot);
  return plans.map((plan) => {
    const slots = plan.slots.map((at) => places[at] as VirtualSlot);
    const started: number[] = [];
    const membersOf = ({ x }: TensorMap): number[] => [
      ...new Set([...(x?.data as Float64Array)].map((value) => Math.floor(value / ROWS))),
    ];
    const session = virtualSession(time, {
      signature: SIGNATURE,
      slots,
      costMs: (samples, slot) =>
        (plan.perSampleMs * samples + plan.perBatchMs) * (1 + places.indexOf(slot as VirtualSlot)),
      onStart: (feeds, samples) => {
        const members = membersOf(feeds);
        // A call alone may be larger than what pays; together they may not.
        if (members.length > 1) expect(samples).toBeLessThanOrEqual(queue.cap(feeds).samples);
        expect(samples).toBeLessThanOrEqual(plan.maxBatch);
        for (const member of members) if (!started.includes(member)) started.push(member);
      },
      compute: (feeds) => {
        const faults = membersOf(feeds).map((member) => calls[member]?.fault);
        if (faults.includes('killer')) throw lost;
        if (faults.includes('poison')) throw poisoned;
        const { shape, data } = feeds['x'] as Tensor<'float64'>;
        return {
          y: new Tensor(
            'float64',
            shape,
            data.map((value) => 2 * value + 1),
          ),
        };
      },
      grow: () => {
        if (!plan.grows || slots.includes(places[3] as VirtualSlot)) return undefined;
        return new Promise((resolve) => {
          time.setTimer(() => {
            if (!slots.includes(places[3] as VirtualSlot)) slots.push(places[3] as VirtualSlot);
            resolve();
          }, 7);
        });
      },
    });
    const { weight, linger, maxBatch, maxWaiting, replay } = plan;
    const metrics = createMetrics();
    const queue = scheduler.open({ session, metrics, weight, linger, maxBatch, maxWaiting, replay });
    return { plan, queue, slots, started };
  });
}

function feedsOf(call: CallPlan, at: number): TensorMap {
  const data = Float64Array.from({ length: call.rows * call.width }, (_, element) => at * ROWS + element);
  return { x: new Tensor('float64', [call.rows, call.width], data) };
}

/** No place is idle while one of its models has work, but to wait for callers that were just answered. */
function assertBusy(time: VirtualTime, models: readonly Model[]): void {
  for (const { plan, queue, slots } of models) {
    if (queue.info().waiting === 0) continue;
    const lingerMs = plan.linger === 'auto' ? LINGER_MS : plan.linger;
    for (const slot of slots) {
      const idleMs = slot.isBusy ? 0 : time.monotonicMs() - slot.idleSinceMs;
      expect(idleMs).toBeLessThanOrEqual(lingerMs + NEARLY);
    }
  }
}

async function play(plans: readonly ModelPlan[], calls: readonly CallPlan[]): Promise<void> {
  let models: Model[] = [];
  let isPlaying = false;
  const time = virtualTime(() => {
    if (isPlaying) assertBusy(time, models);
  });
  models = openModels(time, plans, calls);
  const played: {
    plan: CallPlan;
    watched: ReturnType<typeof watch>;
    reason: unknown;
    listeners: () => number;
  }[] = [];
  let atMs = 0;
  for (const [at, plan] of calls.entries()) {
    atMs += plan.gapMs;
    time.setTimer(() => {
      const { controller, listeners } = watchedController();
      const { priority, deadlineMs } = plan;
      const reason = new Error(`Call ${at} is not wanted any more.`);
      const { queue } = models[plan.model % models.length] as Model;
      const running = queue.run(feedsOf(plan, at), { priority, deadlineMs, signal: controller.signal });
      played.push({ plan, watched: watch(time, running), reason, listeners });
      if (plan.abortAfterMs !== undefined) time.setTimer(() => controller.abort(reason), plan.abortAfterMs);
    }, atMs);
  }
  isPlaying = true;
  await time.run();

  expect(played.length).toBe(calls.length);
  for (const [at, { plan, watched, reason, listeners }] of played.entries()) {
    const { outcome } = watched;
    const model = models[plan.model % models.length] as Model;
    expect(listeners()).toBe(0);
    if (outcome?.kind === 'answered') {
      expect(plan.fault === 'none' || plan.rows === 0).toBe(true);
      expect(outcome.outputs['y']?.shape).toEqual([plan.rows, plan.width]);
      const values = (feedsOf(plan, at)['x']?.data as Float64Array).map((value) => 2 * value + 1);
      expect(outcome.outputs['y']?.data).toEqual(values);
      continue;
    }
    if (outcome === undefined) throw new Error(`Call ${at} never settled.`);
    const { error } = outcome;
    if (error === reason) continue;
    expect(isInlayError(error)).toBe(true);
    if (!isInlayError(error)) continue;
    if (error.code === 'ERR_INLAY_RUN_FAILED') expect(plan.fault).toBe('poison');
    else if (error.code === 'ERR_INLAY_WORKER_LOST')
      expect(plan.fault === 'killer' || !model.plan.replay).toBe(true);
    else if (error.code === 'ERR_INLAY_DEADLINE') expect(plan.deadlineMs).toBeDefined();
    else {
      expect(error.code).toBe('ERR_INLAY_OVERLOADED');
      expect(model.plan.maxWaiting).toBe(5);
    }
  }
  for (const { queue, started } of models) {
    expect(queue.info()).toMatchObject({ waiting: 0, running: 0 });
    expect(queue.info().unbatchable).toBeUndefined();
    assertInOrder(calls, started);
  }
  expect(time.keptAlive()).toBe(0);
}

/** First come, first served, within a lane and a priority, of those without a deadline. */
function assertInOrder(calls: readonly CallPlan[], started: readonly number[]): void {
  const last = new Map<string, number>();
  for (const at of started) {
    const { width, priority, deadlineMs } = calls[at] as CallPlan;
    if (deadlineMs !== undefined) continue;
    const key = `${width} ${priority}`;
    expect(at).toBeGreaterThan(last.get(key) ?? -1);
    last.set(key, at);
  }
}

describe('scheduler', () => {
  it('settles every call once, with its own right answer, and idles no place that has work', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(modelPlan, { minLength: 1, maxLength: 3 }),
        fc.array(callPlan, { minLength: 1, maxLength: 80, size: 'max' }),
        play,
      ),
      { numRuns: 150 },
    );
  });
});
