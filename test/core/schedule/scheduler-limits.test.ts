import { describe, expect, it } from 'vitest';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import {
  openVirtual,
  sample,
  virtualSession,
  virtualTime,
  warm,
  watch,
  type VirtualTime,
} from './virtual.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';

const rejected = (reason: string): object => ({
  kind: 'failed',
  error: expect.objectContaining({
    name: 'ScheduleError',
    code: 'ERR_INLAY_OVERLOADED',
    details: expect.objectContaining({ reason }),
  }),
});

/** Fills the place, so that what comes next waits. */
async function occupy(time: VirtualTime, model: ReturnType<typeof openVirtual>): Promise<void> {
  void model.queue.run(sample(0));
  await time.settle();
}

describe('a queue', () => {
  it('that is full of calls refuses further ones', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { queue: { maxWaiting: 3 } });
    await occupy(time, model);
    const calls = [1, 2, 3, 4].map((value) => watch(time, model.queue.run(sample(value))));
    await time.run();
    expect(calls.map(({ outcome }) => outcome?.kind)).toEqual(['answered', 'answered', 'answered', 'failed']);
    expect(calls[3]?.outcome).toMatchObject({ ...rejected('queue_full'), atMs: 0 });
    expect(model.metrics.read().calls.rejected.queue_full).toBe(1);
  });

  it('that is full of bytes refuses further ones, but takes a call that is larger than the limit when none waits', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { queue: { maxWaitingBytes: 40 } });
    await occupy(time, model);
    const first = watch(time, model.queue.run(sample(1, 20)));
    const second = watch(time, model.queue.run(sample(2)));
    await time.run();
    expect(first.outcome?.kind).toBe('answered');
    expect(second.outcome).toMatchObject(rejected('bytes_full'));
  });

  it('that is full lets the newest call of the lowest priority go for one of higher priority', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { queue: { maxWaiting: 4 } });
    await occupy(time, model);
    const call = (value: number, priority: number): ReturnType<typeof watch> =>
      watch(time, model.queue.run(sample(value), { priority }));
    const [high, low, newestLow, middle] = [call(1, 2), call(2, 0), call(3, 0), call(4, 1)];
    const pushesIn = call(5, 1);
    const hasNoClaim = call(6, 0);
    await time.settle();
    expect(newestLow.outcome).toMatchObject({ ...rejected('shed'), atMs: 0 });
    expect(hasNoClaim.outcome).toMatchObject(rejected('queue_full'));
    await time.run();
    expect([high, low, middle, pushesIn].map(({ outcome }) => outcome?.kind)).toEqual(
      Array.from({ length: 4 }, () => 'answered'),
    );
  });

  it('limits the bytes of a batch', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { queue: { maxBatchBytes: 40 } });
    for (let call = 0; call < 8; call += 1) void model.queue.run(sample(call, 3));
    await time.run();
    expect(model.session.batches.every(({ samples }) => samples <= 9)).toBe(true);
  });

  it('answers 32,768 of 100,000 calls at once, and refuses the others with a reason', async () => {
    const time = virtualTime();
    const { queue, session, metrics } = openVirtual(time);
    const reasons = new Map<unknown, number>();
    let answered = 0;
    for (let call = 0; call < 100_000; call += 1) {
      queue.run(sample(call)).then(
        () => (answered += 1),
        (error: { details: { reason: string } }) => {
          reasons.set(error.details.reason, (reasons.get(error.details.reason) ?? 0) + 1);
        },
      );
    }
    expect(queue.info().waiting).toBe(32_768);
    await time.run();
    expect(answered).toBe(32_768);
    expect([...reasons]).toEqual([['queue_full', 100_000 - 32_768]]);
    expect(metrics.read().calls.accepted).toBe(32_768);
    expect(session.batches.reduce((sum, { samples }) => sum + samples, 0)).toBe(32_768 + 1);
  });

  it.each([
    { what: 'without deadlines', options: () => ({}) },
    { what: 'of many priorities', options: (at: number) => ({ priority: (at % 201) - 100 }) },
    { what: 'with deadlines', options: (at: number) => ({ deadlineMs: 1e6 + ((at * 7919) % 10_000) }) },
  ])('does as much for each of 100,000 calls as for each of 10,000: $what', async ({ options }) => {
    /** Looks at clock, places and feeds that one call costs. */
    const stepsPerCall = async (calls: number): Promise<number> => {
      let steps = 0;
      const time = virtualTime();
      const counting = {
        ...time,
        monotonicMs: (): number => {
          steps += 1;
          return time.monotonicMs();
        },
      };
      const slot = { name: 'a', isBusy: false, idleSinceMs: 0 };
      const inner = virtualSession(time, { costMs: (samples) => samples / 100, slots: [slot] });
      const session = Object.defineProperty({ ...inner }, 'slots', {
        get: () => {
          steps += 1;
          return [slot];
        },
      });
      const metrics = createMetrics();
      const queue = createScheduler({ platform: counting }).open({
        session,
        metrics,
        learned: warm(32, 0.01, 0),
        maxBatch: 32,
        maxWaiting: Infinity,
        linger: 0,
      });
      const feeds = sample(1);
      const counted = {
        get x() {
          steps += 1;
          return feeds['x'] as never;
        },
      };
      let answered = 0;
      for (let call = 0; call < calls; call += 1)
        void queue.run(counted, options(call)).then(() => (answered += 1));
      await time.run();
      expect(answered).toBe(calls);
      return steps / calls;
    };
    expect(await stepsPerCall(100_000)).toBeLessThan((await stepsPerCall(10_000)) * 1.2);
  });
});
