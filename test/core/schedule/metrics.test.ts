import { describe, expect, it } from 'vitest';
import { createMetrics } from '../../../src/schedule/metrics.ts';

describe('metrics of a queue', () => {
  it('are all zero before the first call', () => {
    const nothing = { count: 0, mean: 0, p50: 0, p95: 0, p99: 0, max: 0 };
    expect(createMetrics().read()).toEqual({
      calls: {
        accepted: 0,
        answered: 0,
        failed: 0,
        aborted: 0,
        rejected: {
          deadline_predicted: 0,
          deadline_passed: 0,
          queue_full: 0,
          bytes_full: 0,
          shed: 0,
          closed: 0,
        },
      },
      dispatches: { idle: 0, full: 0, cohort: 0, retry: 0, solo: 0, flush: 0 },
      batches: 0,
      samples: 0,
      replays: 0,
      verifications: 0,
      queueMs: nothing,
      formMs: nothing,
      computeMs: nothing,
      totalMs: nothing,
      batchSize: nothing,
      paddingRatio: nothing,
    });
  });

  it('count what happens to calls', () => {
    const metrics = createMetrics();
    for (let call = 0; call < 5; call += 1) metrics.accepted();
    metrics.answered(2, 4);
    metrics.answered(4, 8);
    metrics.failed();
    metrics.aborted();
    metrics.rejected('deadline_predicted');
    metrics.rejected('shed');
    metrics.rejected('shed');
    metrics.replayed(3);
    metrics.verified();
    const stats = metrics.read();
    expect(stats.calls).toMatchObject({ accepted: 5, answered: 2, failed: 1, aborted: 1 });
    expect(stats.calls.rejected).toMatchObject({ deadline_predicted: 1, shed: 2, queue_full: 0 });
    expect(stats).toMatchObject({ replays: 3, verifications: 1 });
    expect(stats.queueMs).toMatchObject({ count: 2, mean: 3, max: 4 });
    expect(stats.totalMs).toMatchObject({ count: 2, mean: 6, max: 8 });
  });

  it('count batches, and measure forming and padding only where there are any', () => {
    const metrics = createMetrics();
    metrics.dispatched('idle', 1);
    metrics.dispatched('full', 8, 0.25, 0.5);
    metrics.batchDone(16);
    const stats = metrics.read();
    expect(stats).toMatchObject({ batches: 2, samples: 9 });
    expect(stats.dispatches).toMatchObject({ idle: 1, full: 1, solo: 0 });
    expect(stats.batchSize).toMatchObject({ count: 2, mean: 4.5, max: 8 });
    expect(stats.formMs).toMatchObject({ count: 1, mean: 0.25 });
    expect(stats.paddingRatio).toMatchObject({ count: 1, max: 0.5 });
    expect(stats.computeMs).toMatchObject({ count: 1, p50: 16, p99: 16, max: 16 });
  });

  it('are plain data that later calls do not change', () => {
    const metrics = createMetrics();
    metrics.dispatched('solo', 1);
    metrics.rejected('closed');
    const [stats, snapshot] = [metrics.read(), metrics.snapshot()];
    const copies = [structuredClone(stats), structuredClone(snapshot)];
    metrics.dispatched('solo', 1);
    metrics.rejected('closed');
    expect([stats, snapshot]).toEqual(copies);
    expect(metrics.read().dispatches.solo).toBe(2);
  });

  it('give all buckets for export', () => {
    const metrics = createMetrics();
    metrics.answered(1, 2);
    metrics.answered(1, 3);
    const { queueMs, totalMs } = metrics.snapshot();
    expect(queueMs.buckets).toEqual([{ index: -1, above: 2 ** (-1 / 8), upTo: 1, count: 2 }]);
    expect(totalMs.buckets.map(({ upTo, count }) => [upTo, count])).toEqual([
      [2, 1],
      [2 * 2 ** (5 / 8), 1],
    ]);
  });
});
