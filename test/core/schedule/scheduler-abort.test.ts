import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import {
  openVirtual,
  sample,
  valuesOf,
  verified,
  virtualTime,
  warm,
  watch,
  watchedController,
  type VirtualTime,
} from './virtual.ts';

const open = async (time: VirtualTime): Promise<ReturnType<typeof openVirtual>> =>
  verified(time, openVirtual(time));
const answerOf = ({ outcome }: ReturnType<typeof watch>): unknown =>
  outcome?.kind === 'answered' && valuesOf(outcome.outputs);

describe('an aborted call', () => {
  it('that waits leaves at once and never runs', async () => {
    const time = virtualTime();
    const { queue, session, metrics } = await open(time);
    void queue.run(sample(1));
    await time.run(time.monotonicMs() + 1);
    const { controller, listeners } = watchedController();
    const aborted = watch(time, queue.run(sample(2), { signal: controller.signal }));
    const neighbour = watch(time, queue.run(sample(3)));
    expect(queue.info().waiting).toBe(2);
    controller.abort(new Error('The user left.'));
    expect(queue.info().waiting).toBe(1);
    await time.run();
    expect(aborted.outcome).toMatchObject({ kind: 'failed', error: new Error('The user left.') });
    expect(answerOf(neighbour)).toEqual([3]);
    expect(session.batches.map(({ samples }) => samples)).toEqual([1, 1]);
    expect(metrics.read().calls).toMatchObject({ aborted: 1, answered: 4 });
    expect(listeners()).toBe(0);
  });

  it('is not sent off with a batch that was about to start', async () => {
    const time = virtualTime();
    const { queue, session } = await open(time);
    const { controller } = watchedController();
    const calls = [1, 2, 3].map((value) =>
      watch(time, queue.run(sample(value), value === 2 ? { signal: controller.signal } : {})),
    );
    controller.abort();
    await time.run();
    expect(session.batches.map(({ samples }) => samples)).toEqual([2]);
    expect(calls.map(({ outcome }) => outcome?.kind)).toEqual(['answered', 'failed', 'answered']);
  });

  it('that runs is rejected at once, and its neighbours are answered when they would have been', async () => {
    const time = virtualTime();
    const { queue, metrics } = await open(time);
    const startMs = time.monotonicMs();
    const { controller, listeners } = watchedController();
    const aborted = watch(time, queue.run(sample(1), { signal: controller.signal }));
    const neighbour = watch(time, queue.run(sample(2)));
    await time.run(startMs + 3);
    controller.abort();
    await time.settle();
    expect(aborted.outcome).toMatchObject({
      kind: 'failed',
      error: controller.signal.reason,
      atMs: startMs + 3,
    });
    await time.run();
    expect(answerOf(neighbour)).toEqual([2]);
    expect(neighbour.outcome?.atMs).toBe(startMs + 6);
    expect(metrics.read().calls).toMatchObject({ answered: 3, aborted: 1, failed: 0 });
    expect(listeners()).toBe(0);
    expect(queue.info()).toMatchObject({ waiting: 0, running: 0 });
  });

  it('that was answered stays answered', async () => {
    const time = virtualTime();
    const { queue, metrics } = await open(time);
    const { controller, listeners } = watchedController();
    const call = watch(time, queue.run(sample(1), { signal: controller.signal }));
    await time.run();
    expect(listeners()).toBe(0);
    controller.abort();
    await time.run();
    expect(answerOf(call)).toEqual([1]);
    expect(metrics.read().calls.aborted).toBe(0);
  });

  it('that was aborted before it began does not even wait', async () => {
    const time = virtualTime();
    const { queue, session } = await open(time);
    const signal = AbortSignal.abort(new Error('Too late.'));
    const call = watch(time, queue.run(sample(1), { signal }));
    expect(queue.info().waiting).toBe(0);
    await time.run();
    expect(call.outcome).toMatchObject({ kind: 'failed', error: new Error('Too late.') });
    expect(session.batches).toEqual([]);
  });

  it('leaves a place that hangs to those who wait for it, and does not wait itself', async () => {
    const time = virtualTime();
    let tell: () => void = () => {};
    const compute = ({ x }: TensorMap): Promise<TensorMap> =>
      new Promise((resolve) => {
        tell = () => resolve({ y: x as TensorMap[string] });
      });
    const { queue } = openVirtual(time, { compute });
    const { controller } = watchedController();
    const aborted = watch(time, queue.run(sample(1), { signal: controller.signal }));
    await time.run(100);
    const waiting = watch(time, queue.run(sample(2)));
    controller.abort();
    await time.run(200);
    expect(aborted.outcome).toMatchObject({ kind: 'failed', atMs: 100 });
    expect(waiting.outcome).toBeUndefined();
    tell();
    await time.run(300);
    tell();
    await time.run();
    expect(answerOf(waiting)).toEqual([2]);
  });

  it('costs no more than one step when ten thousand wait', async () => {
    const time = virtualTime();
    const { queue, session } = openVirtual(time, { queue: { learned: warm(32) } });
    void queue.run(sample(0));
    await time.settle();
    const controllers = Array.from({ length: 10_000 }, () => new AbortController());
    const calls = controllers.map(({ signal }, at) => watch(time, queue.run(sample(at), { signal })));
    for (const controller of controllers) controller.abort();
    expect(queue.info().waiting).toBe(0);
    await time.run();
    expect(calls.every(({ outcome }) => outcome?.kind === 'failed')).toBe(true);
    expect(session.batches.length).toBe(1);
  });
});

describe('a call of more samples than a batch may have', () => {
  const counted = (rows: number): TensorMap => {
    const feeds = sample(0, rows);
    (feeds['x']?.data as Float32Array).forEach((_, at, data) => (data[at] = at));
    return feeds;
  };

  it('is cut, and its rows come back in order, whichever part is done first', async () => {
    const time = virtualTime();
    let runs = 0;
    const { queue, session } = openVirtual(time, {
      slots: ['a', 'b', 'c'].map((name) => ({ name, isBusy: false, idleSinceMs: 0 })),
      costMs: () => 100 - (runs += 1) * 7,
    });
    const call = watch(time, queue.run(counted(100)));
    await time.run();
    expect(answerOf(call)).toEqual(Array.from({ length: 100 }, (_, at) => at));
    expect(session.batches.map(({ samples }) => samples)).toEqual([32, 32, 32, 4]);
    expect(new Set(session.batches.map(({ slot }) => slot)).size).toBe(3);
  });

  it('gives its caller only the outputs that it asked for', async () => {
    const time = virtualTime();
    const compute = ({ x }: TensorMap): TensorMap => ({
      y: x as TensorMap[string],
      z: x as TensorMap[string],
    });
    const { queue } = openVirtual(time, { compute });
    const call = watch(time, queue.run(counted(70), { outputs: ['z'] }));
    await time.run();
    expect(call.outcome?.kind === 'answered' && Object.keys(call.outcome.outputs)).toEqual(['z']);
  });

  it('fails with the first part that fails, and its other parts make way', async () => {
    const time = virtualTime();
    const model = openVirtual(time, {
      compute: ({ x }) => {
        if ((x?.data as Float32Array)[0] === 32) throw new Error('The second part fails.');
        return { y: x as TensorMap[string] };
      },
    });
    const call = watch(time, model.queue.run(counted(320)));
    const other = watch(time, model.queue.run(sample(7)));
    await time.run();
    expect(call.outcome).toMatchObject({
      kind: 'failed',
      error: new Error('The second part fails.'),
      atMs: 72,
    });
    expect(answerOf(other)).toEqual([7]);
    expect(model.session.batches.map(({ samples }) => samples)).toEqual([32, 32, 1]);
    expect(model.queue.info()).toMatchObject({ waiting: 0, running: 0 });
  });

  it('leaves with all its parts when it is aborted', async () => {
    const time = virtualTime();
    const { queue, session } = openVirtual(time);
    const { controller, listeners } = watchedController();
    const call = watch(time, queue.run(counted(320), { signal: controller.signal }));
    await time.run(10);
    controller.abort();
    expect(queue.info().waiting).toBe(0);
    await time.run();
    expect(call.outcome).toMatchObject({ kind: 'failed', error: controller.signal.reason, atMs: 10 });
    expect(session.batches.length).toBe(1);
    expect(listeners()).toBe(0);
  });

  it('takes no buffer from its caller, though it may', async () => {
    const time = virtualTime();
    const { queue } = openVirtual(time);
    const feeds = counted(70);
    await Promise.all([queue.run(feeds, { transfer: true }), time.run()]);
    expect(feeds['x']?.data.length).toBe(70);
  });
});
