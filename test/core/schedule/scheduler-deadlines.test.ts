import { describe, expect, it } from 'vitest';
import type { ScheduleError } from '../../../src/core/errors.ts';
import { openVirtual, sample, valuesOf, verified, virtualTime, warm, watch } from './virtual.ts';

const rejection = (reason: string, details: object = {}): object => ({
  kind: 'failed',
  error: expect.objectContaining({
    name: 'ScheduleError',
    code: 'ERR_INLAY_DEADLINE',
    details: expect.objectContaining({ reason, ...details }),
  }),
});

describe('a deadline', () => {
  it('that cannot be kept is refused at once, with the time after which it is worth trying again', async () => {
    const time = virtualTime();
    const { queue, metrics } = await verified(time, openVirtual(time));
    const startMs = time.monotonicMs();
    for (let call = 0; call < 32; call += 1) void queue.run(sample(call));
    await time.run(startMs + 1);
    const refused = watch(time, queue.run(sample(0), { deadlineMs: 20 }));
    const kept = watch(time, queue.run(sample(0), { deadlineMs: 60 }));
    await time.settle();
    expect(refused.outcome).toMatchObject({ ...rejection('deadline_predicted'), atMs: startMs + 1 });
    const { retryAfterMs } = (refused.outcome as { error: ScheduleError }).error.details;
    expect(Math.abs((retryAfterMs as number) - 40)).toBeLessThanOrEqual(1);
    await time.run();
    expect(kept.outcome).toMatchObject({ kind: 'answered', atMs: startMs + 41 });
    expect(metrics.read().calls.rejected).toMatchObject({ deadline_predicted: 1 });
  });

  it('that a run longer than predicted has made impossible is given up when its turn comes', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { costMs: (samples) => (samples === 32 ? 60 : samples + 4) });
    const { queue, session } = await verified(time, model);
    const startMs = time.monotonicMs();
    for (let call = 0; call < 32; call += 1) void queue.run(sample(call));
    await time.run(startMs + 1);
    const late = watch(time, queue.run(sample(0), { deadlineMs: 63 }));
    await time.run();
    expect(late.outcome).toMatchObject({ ...rejection('deadline_predicted'), atMs: startMs + 60 });
    expect(session.batches.length).toBe(1);
  });

  it('passes also while all places are busy', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time, { costMs: () => 1000, queue: { learned: warm(1, 1, 4) } });
    const long = watch(time, queue.run(sample(1)));
    await time.run(1);
    const waiting = [50, 30, 200].map((deadlineMs) => watch(time, queue.run(sample(2), { deadlineMs })));
    await time.run(999);
    for (const [at, { outcome }] of waiting.entries()) {
      const dueMs = 1 + ([50, 30, 200][at] as number);
      expect(outcome).toMatchObject(rejection('deadline_passed'));
      expect(outcome?.atMs).toBeGreaterThanOrEqual(dueMs);
      expect(outcome?.atMs).toBeLessThanOrEqual(dueMs + 5);
    }
    expect(queue.info()).toMatchObject({ waiting: 0, running: 1 });
    await time.run();
    expect(long.outcome?.kind).toBe('answered');
  });

  it.each([0, -5])('of %i ms has passed already', async (deadlineMs) => {
    const time = virtualTime();
    const { queue, session } = openVirtual(time);
    const call = watch(time, queue.run(sample(1), { deadlineMs }));
    await time.run();
    expect(call.outcome).toMatchObject(rejection('deadline_passed'));
    expect(session.batches).toEqual([]);
  });

  it('makes a batch smaller rather than being missed', async () => {
    const time = virtualTime();
    const { queue, session } = openVirtual(time);
    const urgent = watch(time, queue.run(sample(1), { deadlineMs: 10 }));
    for (let call = 0; call < 20; call += 1) void queue.run(sample(call));
    await time.run();
    expect(session.batches[0]?.samples).toBe(6);
    expect(urgent.outcome?.kind).toBe('answered');
  });

  it('that comes first goes first', async () => {
    const time = virtualTime();
    const served: number[] = [];
    const { queue } = openVirtual(time, {
      onStart: ({ x }) => served.push((x?.data as Float32Array)[0] as number),
      queue: { maxBatch: 1 },
    });
    const deadlines = [900, 300, 600, 500, 800, 400, 700];
    void queue.run(sample(0));
    await time.settle();
    for (const deadlineMs of deadlines) void queue.run(sample(deadlineMs), { deadlineMs });
    await time.run();
    expect(served).toEqual([0, ...deadlines.sort((a, b) => a - b)]);
  });

  it('is rejected in words and data that name no values of the caller', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time);
    const call = watch(time, queue.run(sample(123456), { deadlineMs: 2 }));
    await time.run();
    const { error } = call.outcome as { error: Error };
    expect(error.message).toBe(
      'The answer would take 5.00 ms, and the deadline is in 2.00 ms; the call was not made.',
    );
  });

  it('is tried once a second where every prediction is too long, since predictions may be wrong', async () => {
    const time = virtualTime();
    let slow = true;
    const { queue, session } = openVirtual(time, { costMs: () => (slow ? 100 : 1) });
    for (let i = 0; i < 10; i += 1) {
      void queue.run(sample(i));
      await time.run(time.monotonicMs() + 200);
    }
    slow = false;
    const ran = session.batches.length;
    const ask = async (): Promise<string | undefined> => {
      const call = watch(time, queue.run(sample(1), { deadlineMs: 20 }));
      await time.run(time.monotonicMs() + 50);
      return call.outcome?.kind;
    };
    expect(await ask()).toBe('failed');
    expect(session.batches).toHaveLength(ran);
    const outcomes = [];
    for (let i = 0; i < 400; i += 1) outcomes.push(await ask());
    expect(outcomes.slice(-20)).toEqual(Array.from({ length: 20 }, () => 'answered'));
  });

  it('keeps no process waiting once the call has settled', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time);
    const calls = [1, 2, 3].map((value) => watch(time, queue.run(sample(value), { deadlineMs: 60_000 })));
    await time.run(100);
    expect(calls.map(({ outcome }) => outcome?.kind === 'answered' && valuesOf(outcome.outputs)[0])).toEqual([
      1, 2, 3,
    ]);
    expect(time.keptAlive()).toBe(0);
  });

  it.each([1.1, 1.5, 3])(
    'is kept for nearly all calls that can be answered at all, at %d times the capacity',
    async (load) => {
      const time = virtualTime();
      const { queue } = openVirtual(time);
      const [calls, perMs] = [4000, 32 / 36];
      let onTime = 0;
      let late = 0;
      let rejectedMs = 0;
      let sent = 0;
      const send = (): void => {
        const askedMs = time.monotonicMs();
        queue.run(sample(1), { deadlineMs: 100 }).then(
          () => {
            if (time.monotonicMs() - askedMs <= 100) onTime += 1;
            else late += 1;
          },
          () => {
            rejectedMs += time.monotonicMs() - askedMs;
          },
        );
        sent += 1;
        if (sent < calls) time.setTimer(send, 1 / (load * perMs));
      };
      send();
      await time.run();
      const achievable = calls / load;
      expect(onTime / achievable).toBeGreaterThan(0.95);
      expect(late).toBe(0);
      expect(rejectedMs / (calls - onTime)).toBeLessThan(20);
    },
  );
});
