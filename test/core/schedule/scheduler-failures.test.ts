import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import {
  copyOf,
  openVirtual,
  sample,
  valuesOf,
  virtualSlot,
  virtualTime,
  watch,
  type VirtualTime,
} from './virtual.ts';

const POISON = 1e6;
const KILLER = 2e6;
const lost = (): BackendError => new BackendError('ERR_INLAY_WORKER_LOST', 'The worker ended.');

/** The identity, but for the values that make it fail. */
function compute({ x }: TensorMap): TensorMap {
  const values = [...(x?.data as Float32Array)];
  if (values.includes(KILLER)) throw lost();
  if (values.includes(POISON)) throw new BackendError('ERR_INLAY_RUN_FAILED', 'A kernel failed.');
  return { y: copyOf(x as TensorMap[string]) };
}

const callAll = (
  time: VirtualTime,
  { queue }: ReturnType<typeof openVirtual>,
  values: readonly number[],
): ReturnType<typeof watch>[] => values.map((value) => watch(time, queue.run(sample(value))));
const answersOf = (calls: readonly ReturnType<typeof watch>[]): unknown[] =>
  calls.map(({ outcome }) =>
    outcome?.kind === 'answered'
      ? valuesOf(outcome.outputs)[0]
      : (outcome?.error as { code?: string } | undefined)?.code,
  );
const upTo = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

describe('a batch that fails', () => {
  it.each([0, 1, 13, 30, 31])(
    'fails the one call at place %i that is to blame, and answers the other 31',
    async (place) => {
      const time = virtualTime();
      const model = openVirtual(time, { compute });
      const values = upTo(32).map((at) => (at === place ? POISON : at));
      const calls = callAll(time, model, values);
      await time.run();
      expect(answersOf(calls)).toEqual(
        values.map((value) => (value === POISON ? 'ERR_INLAY_RUN_FAILED' : value)),
      );
      expect(model.session.batches[0]?.samples).toBe(32);
      // Halving finds one in 32 in five rounds of two batches each; one batch is verified.
      expect(model.session.batches.length).toBeLessThanOrEqual(12);
      expect(model.queue.info()).toMatchObject({ waiting: 0, running: 0 });
    },
  );

  it('fails all of several that are to blame, and only them', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute });
    const values = upTo(32).map((at) => (at % 5 === 0 ? POISON : at));
    const calls = callAll(time, model, values);
    await time.run();
    expect(answersOf(calls)).toEqual(
      values.map((value) => (value === POISON ? 'ERR_INLAY_RUN_FAILED' : value)),
    );
  });

  it('does not fail the one that is left when those that are to blame are aborted', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute });
    const controller = new AbortController();
    const poisoned = watch(time, model.queue.run(sample(POISON), { signal: controller.signal }));
    const innocent = watch(time, model.queue.run(sample(7)));
    await time.run(3);
    expect(model.session.batches).toMatchObject([{ samples: 2 }]);
    controller.abort();
    await time.run();
    expect(answersOf([innocent])).toEqual([7]);
    expect(poisoned.outcome).toMatchObject({ kind: 'failed', error: controller.signal.reason });
  });

  it('does not keep other calls waiting for ever: they run after its parts', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute });
    const first = callAll(time, model, [1, POISON]);
    await time.run(1);
    const second = callAll(time, model, [2, 3]);
    await time.run();
    expect(answersOf([...first, ...second])).toEqual([1, 'ERR_INLAY_RUN_FAILED', 2, 3]);
  });

  it('fails its call where the session throws at once', async () => {
    const time = virtualTime();
    const model = openVirtual(time, {
      onStart: () => {
        throw new TypeError('It does not even start.');
      },
      slots: [virtualSlot('a')],
    });
    const [call] = callAll(time, model, [1]);
    await time.run();
    expect(call?.outcome).toMatchObject({ kind: 'failed', error: new TypeError('It does not even start.') });
    expect(model.queue.info()).toMatchObject({ waiting: 0, running: 0 });
  });
});

describe('a worker that dies', () => {
  it('fails the call that kills it after one replay, and answers the others', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute });
    const values = upTo(32).map((at) => (at === 20 ? KILLER : at));
    const calls = callAll(time, model, values);
    await time.run();
    expect(answersOf(calls)).toEqual(
      values.map((value) => (value === KILLER ? 'ERR_INLAY_WORKER_LOST' : value)),
    );
    expect(model.metrics.read()).toMatchObject({ replays: 32, calls: { answered: 31, failed: 1 } });
    // The batch, and each of its calls alone: whichever is to blame takes nobody along again.
    expect(model.session.batches.map(({ samples }) => samples)).toEqual([32, ...upTo(32).map(() => 1)]);
  });

  it('is replayed once for a call that was alone', async () => {
    const time = virtualTime();
    let deaths = 0;
    const model = openVirtual(time, {
      compute: (feeds) => {
        deaths += 1;
        if (deaths === 1) throw lost();
        return compute(feeds);
      },
    });
    const calls = callAll(time, model, [5]);
    await time.run();
    expect(answersOf(calls)).toEqual([5]);
    expect(deaths).toBe(2);
  });

  it('fails all its calls where they must not be made twice', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute, queue: { replay: false } });
    const calls = callAll(time, model, [1, KILLER, 3]);
    await time.run();
    expect(answersOf(calls)).toEqual(upTo(3).map(() => 'ERR_INLAY_WORKER_LOST'));
    expect(model.session.batches.length).toBe(1);
  });

  it('is not replayed for a call whose buffers went down with it', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute });
    const call = watch(time, model.queue.run(sample(KILLER), { transfer: true }));
    await time.run();
    expect(answersOf([call])).toEqual(['ERR_INLAY_WORKER_LOST']);
    expect(model.session.batches.length).toBe(1);
  });

  it('is replayed for calls that handed their buffers over and were copied into a batch', async () => {
    const time = virtualTime();
    const model = openVirtual(time, { compute });
    const calls = [1, KILLER, 3].map((value) =>
      watch(time, model.queue.run(sample(value), { transfer: true })),
    );
    await time.run();
    expect(answersOf(calls)).toEqual([1, 'ERR_INLAY_WORKER_LOST', 3]);
  });

  it('goes on in another place while one hangs until told', async () => {
    const time = virtualTime();
    let tell: (outputs: TensorMap) => void = () => {};
    const [a, b] = [virtualSlot('a'), virtualSlot('b')];
    const model = openVirtual(time, {
      slots: [a, b],
      compute: (feeds, slot) =>
        slot === a
          ? new Promise((resolve) => {
              tell = () => resolve(compute(feeds));
            })
          : compute(feeds),
    });
    const hanging = callAll(time, model, [1]);
    await time.run(1000);
    const others = upTo(20);
    const answered = callAll(time, model, others);
    await time.run(5000);
    expect(answersOf(answered)).toEqual(others);
    expect(hanging[0]?.outcome).toBeUndefined();
    expect(a.isBusy).toBe(true);
    tell({});
    await time.run();
    expect(answersOf(hanging)).toEqual([1]);
  });
});
