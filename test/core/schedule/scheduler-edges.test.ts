import { describe, expect, it } from 'vitest';
import { BackendError } from '../../../src/core/errors.ts';
import type { Tensor } from '../../../src/core/tensor.ts';
import { openVirtual, sample, valuesOf, virtualSlot, virtualTime, watch } from './virtual.ts';

describe('the first batch', () => {
  it('is not compared with feeds that their caller, having aborted, has changed', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time);
    const controller = new AbortController();
    const feeds = sample(2);
    const kept = watch(time, queue.run(sample(1)));
    const aborted = watch(time, queue.run(feeds, { signal: controller.signal }));
    await time.run(1);
    controller.abort();
    ((feeds['x'] as Tensor).data as Float32Array).fill(99);
    await time.run();
    expect(kept.outcome?.kind).toBe('answered');
    expect(aborted.outcome?.kind).toBe('failed');
    expect(queue.info().unbatchable).toBeUndefined();
  });

  it('answers nobody when it cannot be compared, and its calls are made one by one', async () => {
    const time = virtualTime();
    let runs = 0;
    const { queue } = openVirtual(time, {
      compute: (feeds) => {
        runs += 1;
        if (runs === 2) throw new BackendError('ERR_INLAY_RUN_FAILED', 'Not now.');
        return { y: feeds['x'] as Tensor };
      },
    });
    const calls = [1, 2].map((value) => watch(time, queue.run(sample(value))));
    await time.run();
    expect(calls.map(({ outcome }) => outcome?.kind === 'answered' && valuesOf(outcome.outputs)[0])).toEqual([
      1, 2,
    ]);
    expect(runs).toBe(4);
  });
});

describe('a place that waits for its callers', () => {
  it('does not make a call miss its deadline', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time, { queue: { linger: 500 } });
    const crowd = Array.from({ length: 8 }, (_, value) => queue.run(sample(value)));
    await time.run(100);
    await Promise.all(crowd);
    void queue.run(sample(1));
    await time.run(110);
    const urgent = watch(time, queue.run(sample(2), { deadlineMs: 50 }));
    await time.run(200);
    expect(urgent.outcome?.kind).toBe('answered');
  });
});

describe('a large call', () => {
  it('that is cut up is let in as a whole, however few calls may wait', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time, { queue: { maxBatch: 4, maxWaiting: 8 } });
    const call = watch(time, queue.run(sample(5, 100)));
    await time.run();
    expect(call.outcome?.kind === 'answered' && valuesOf(call.outcome.outputs)).toEqual(
      Array.from({ length: 100 }, () => 5),
    );
  });
});

describe('a place that has given up', () => {
  it('attracts no calls while another one works', async () => {
    const time = virtualTime();
    const [broken, sound] = [virtualSlot('broken'), virtualSlot('sound')];
    const { queue } = openVirtual(time, {
      slots: [broken, sound],
      costMs: () => 1,
      compute: (feeds, slot) => {
        if (slot !== broken) return { y: feeds['x'] as Tensor };
        throw new BackendError('ERR_INLAY_WORKER_LOST', 'It gives up.', { details: { losses: 3 } });
      },
    });
    const kinds = [];
    for (let i = 0; i < 20; i += 1) {
      const call = watch(time, queue.run(sample(i)));
      await time.run(time.monotonicMs() + 10);
      kinds.push(call.outcome?.kind);
    }
    expect(kinds).toEqual(Array.from({ length: 20 }, () => 'answered'));
  });
});
