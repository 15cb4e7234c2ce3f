import { describe, expect, it } from 'vitest';
import { openVirtual, sample, seededRandom, verified, virtualTime, watch } from './virtual.ts';

/** Calls per second of callers that call again 0.2 ms, on average, after they were answered. */
async function closedLoop(
  callers: number,
  linger: 'auto' | number,
  costMs = (samples: number): number => samples + 4,
): Promise<number> {
  const time = virtualTime();
  const random = seededRandom(callers);
  const { queue } = openVirtual(time, { costMs, queue: { linger, learned: undefined, maxBatch: 64 } });
  let answered = 0;
  const call = (): void => {
    void queue.run(sample(1)).then(() => {
      answered += 1;
      if (time.monotonicMs() < 8000) time.setTimer(call, -Math.log(1 - random()) * 0.2);
    });
  };
  for (let caller = 0; caller < callers; caller += 1) call();
  await time.run(8000);
  const result = answered / 8;
  await time.run();
  return result;
}

describe('lingering', () => {
  it.each([
    { callers: 2, gain: 0.58 },
    { callers: 4, gain: 0.42 },
    { callers: 8, gain: 0.27 },
    { callers: 16, gain: 0.16 },
    { callers: 32, gain: 0.09 },
  ])('gives $callers callers in a closed loop $gain more', async ({ callers, gain }) => {
    const measured = (await closedLoop(callers, 'auto')) / (await closedLoop(callers, 0)) - 1;
    expect(measured).toBeGreaterThan(gain * 0.6);
  });

  it('costs next to nothing where it does not pay', async () => {
    const costMs = (samples: number): number => 2 * samples + 0.5;
    for (const callers of [1, 2, 8, 32]) {
      expect(await closedLoop(callers, 'auto', costMs)).toBeGreaterThan(
        0.97 * (await closedLoop(callers, 0, costMs)),
      );
    }
  });

  it.each([{ linger: 'auto' as const }, { linger: 20 }])(
    'never delays a model that was idle: $linger',
    async ({ linger }) => {
      const time = virtualTime();
      const { queue, session } = await verified(time, openVirtual(time, { queue: { linger } }));
      for (let call = 0; call < 40; call += 1) {
        const startMs = time.monotonicMs() + (linger === 'auto' ? 1.001 : 20.001);
        await time.run(startMs);
        void queue.run(sample(call));
        await time.settle();
        expect(session.batches.at(-1)?.startMs).toBe(startMs);
        await time.run();
      }
    },
  );

  it('of 0 starts the next batch as soon as there is a call', async () => {
    const time = virtualTime();
    const { queue, session } = await verified(time, openVirtual(time, { queue: { linger: 0 } }));
    const startMs = time.monotonicMs();
    for (let call = 0; call < 4; call += 1) void queue.run(sample(call)).then(() => queue.run(sample(9)));
    void time.setTimer(() => void queue.run(sample(9)), 2);
    await time.run(startMs + 8);
    // The one that waited goes with the four that came back in the same moment.
    expect(session.batches).toMatchObject([
      { samples: 4, startMs },
      { samples: 5, startMs: startMs + 8 },
    ]);
    await time.run();
  });

  it('of a number of milliseconds waits that long for the cohort, and no longer', async () => {
    const time = virtualTime();
    const { queue, session } = await verified(time, openVirtual(time, { queue: { linger: 3 } }));
    const startMs = time.monotonicMs();
    for (let call = 0; call < 4; call += 1) void queue.run(sample(call));
    await time.run(startMs + 9);
    void queue.run(sample(9));
    await time.run();
    expect(session.batches[1]).toMatchObject({ samples: 1, startMs: startMs + 11 });
  });

  it('ends when the cohort is back', async () => {
    const time = virtualTime();
    const { queue, session, metrics } = await verified(time, openVirtual(time, { queue: { linger: 3 } }));
    const startMs = time.monotonicMs();
    for (let call = 0; call < 4; call += 1)
      void queue.run(sample(call)).then(() => time.setTimer(() => void queue.run(sample(9)), call / 2));
    await time.run();
    expect(session.batches[1]).toMatchObject({ samples: 4, startMs: startMs + 9.5 });
    expect(metrics.read().dispatches.cohort).toBe(1);
  });

  it('does not make a call miss its deadline', async () => {
    const time = virtualTime();
    const { queue } = await verified(time, openVirtual(time, { queue: { linger: 50 } }));
    const startMs = time.monotonicMs();
    for (let call = 0; call < 4; call += 1) void queue.run(sample(call));
    await time.run(startMs + 8);
    const urgent = watch(time, queue.run(sample(9), { deadlineMs: 20 }));
    await time.run();
    expect(urgent.outcome).toMatchObject({ kind: 'answered', atMs: startMs + 13 });
  });

  it('leaves no timer behind', async () => {
    const time = virtualTime();
    const { queue } = await verified(time, openVirtual(time, { queue: { linger: 1000 } }));
    for (let call = 0; call < 4; call += 1) void queue.run(sample(call));
    await time.run(time.monotonicMs() + 9);
    for (let call = 0; call < 4; call += 1) void queue.run(sample(call));
    await time.run(time.monotonicMs() + 9);
    expect(queue.info()).toMatchObject({ waiting: 0, running: 0 });
    expect(time.keptAlive()).toBe(0);
  });
});
