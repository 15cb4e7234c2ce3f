import { describe, expect, it } from 'vitest';
import type { Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import { openVirtual, sample, virtualSlot, virtualTime, warm, type VirtualTime } from './virtual.ts';

/** One call at a time, 100 ms each, noting which value was served when. */
function openSlow(time: VirtualTime): { queue: ReturnType<typeof openVirtual>['queue']; served: number[] } {
  const served: number[] = [];
  const { queue } = openVirtual(time, {
    costMs: () => 100,
    onStart: ({ x }) => served.push((x?.data as Float32Array)[0] as number),
    queue: { maxBatch: 1, learned: warm(1, 0, 100) },
  });
  return { queue, served };
}

describe('order of service', () => {
  it('is that of arrival', async () => {
    const time = virtualTime();
    const { queue, served } = openSlow(time);
    for (let call = 0; call < 20; call += 1) void queue.run(sample(call));
    await time.run();
    expect(served).toEqual(Array.from({ length: 20 }, (_, at) => at));
  });

  it('prefers higher priority', async () => {
    const time = virtualTime();
    const { queue, served } = openSlow(time);
    void queue.run(sample(100));
    await time.settle();
    for (const priority of [0, 2, -1, 1, 2]) void queue.run(sample(priority), { priority });
    await time.run();
    expect(served).toEqual([100, 2, 2, 1, 0, -1]);
  });

  it('lets a call overtake those of one level higher that came more than a second later', async () => {
    const time = virtualTime();
    const { queue, served } = openSlow(time);
    for (let call = 0; call < 15; call += 1) void queue.run(sample(-1), { priority: 1 });
    await time.settle();
    void queue.run(sample(0));
    for (const [atMs, value] of [
      [990, 1],
      [1010, 2],
    ] as const) {
      time.setTimer(() => void queue.run(sample(value), { priority: 1 }), atMs);
    }
    await time.run();
    expect(served.filter((value) => value >= 0)).toEqual([1, 0, 2]);
  });

  it('does not stop at a lane whose place is taken or expected back: other lanes proceed', async () => {
    const time = virtualTime();
    const signature: Signature = {
      inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 'length'] }],
      outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 'length'] }],
    };
    const of = (rows: number, width: number): { x: Tensor } => ({
      x: new Tensor('float32', [rows, width], new Float32Array(rows * width)),
    });
    const widths: number[] = [];
    const { queue } = openVirtual(time, {
      signature,
      slots: [virtualSlot('a')],
      costMs: () => 10,
      onStart: ({ x }) => widths.push(x?.shape[1] as number),
      queue: { learned: { '1 /': warm(32)[''] as never, '2 /': warm(32)[''] as never }, linger: 50 },
    });
    for (let call = 0; call < 4; call += 1) void queue.run(of(1, 1));
    await time.run(5);
    void queue.run(of(1, 1));
    void queue.run(of(1, 2));
    await time.run(25);
    // The batch is verified first; then lane 1 is expected to bring four back, and lane 2 does not wait for that.
    expect(widths).toEqual([1, 1, 2]);
  });

  it('divides what waits among the places that are free', async () => {
    const time = virtualTime();
    const slots = ['a', 'b', 'c'].map(virtualSlot);
    const { queue, session } = openVirtual(time, { slots });
    for (let call = 0; call < 30; call += 1) void queue.run(sample(call));
    await time.run(1);
    expect(session.batches.map(({ samples, slot }) => [slot, samples])).toEqual([
      ['a', 10],
      ['b', 10],
      ['c', 10],
    ]);
  });

  it('opens a further place when there is more work than places for 20 ms, and uses it', async () => {
    const time = virtualTime();
    const slots = [virtualSlot('a')];
    let grown = 0;
    const { queue, session } = openVirtual(time, {
      slots,
      grow: () => {
        if (slots.length === 2) return undefined;
        grown += 1;
        return new Promise((resolve) => {
          time.setTimer(() => {
            slots.push(virtualSlot('b'));
            resolve();
          }, 15);
        });
      },
    });
    const call = (): void => {
      void queue.run(sample(1)).then(() => {
        if (time.monotonicMs() < 500) call();
      });
    };
    call();
    await time.run(100);
    expect(grown).toBe(0);
    for (let caller = 0; caller < 100; caller += 1) call();
    await time.run();
    expect(grown).toBe(1);
    expect(queue.info().slots).toEqual(['a', 'b']);
    expect(new Set(session.batches.map(({ slot }) => slot))).toEqual(new Set(['a', 'b']));
  });

  it('opens a further place also where each batch takes all that waits, if the place never rests', async () => {
    const time = virtualTime();
    const slots = [virtualSlot('a')];
    const { queue } = openVirtual(time, {
      slots,
      costMs: (samples) => samples / 64,
      grow: () => (slots.length === 1 ? Promise.resolve(void slots.push(virtualSlot('b'))) : undefined),
      queue: { learned: warm(64, 0, 1 / 64) },
    });
    const call = (): void => {
      void queue.run(sample(1)).then(() => {
        if (time.monotonicMs() < 200) call();
      });
    };
    for (let caller = 0; caller < 32; caller += 1) call();
    await time.run();
    expect(queue.info().slots).toEqual(['a', 'b']);
  });

  it('opens no further place for bursts with rests between them', async () => {
    const time = virtualTime();
    let grown = 0;
    const { queue } = openVirtual(time, {
      slots: [virtualSlot('a')],
      costMs: (samples) => samples / 4,
      grow: () => {
        grown += 1;
        return Promise.resolve();
      },
      queue: { learned: warm(64, 0, 0.25) },
    });
    for (let at = 0; at < 2000; at += 20) {
      time.setTimer(() => {
        for (let caller = 0; caller < 32; caller += 1) void queue.run(sample(caller));
      }, at);
    }
    await time.run();
    expect(grown).toBe(0);
  });

  it('goes on where a further place does not open', async () => {
    const time = virtualTime();
    let attempts = 0;
    const { queue } = openVirtual(time, {
      slots: [virtualSlot('a')],
      grow: () => {
        attempts += 1;
        return Promise.reject(new Error('There is no memory left.'));
      },
    });
    let answered = 0;
    const call = (): void => {
      void queue.run(sample(1)).then(() => {
        answered += 1;
        if (time.monotonicMs() < 25_000) call();
      });
    };
    for (let caller = 0; caller < 64; caller += 1) call();
    await time.run();
    expect(answered).toBeGreaterThan(20_000);
    // It is tried again every ten seconds.
    expect(attempts).toBe(3);
  });

  it('uses a fast place more than a slow one', async () => {
    const time = virtualTime();
    const slots = ['fast', 'slow'].map(virtualSlot);
    const { queue, session } = openVirtual(time, {
      slots,
      costMs: (samples, slot) => (samples + 4) * (slot.name === 'slow' ? 5 : 1),
    });
    const call = (): void => {
      void queue.run(sample(1)).then(() => {
        if (time.monotonicMs() < 3000) call();
      });
    };
    for (let caller = 0; caller < 64; caller += 1) call();
    await time.run();
    const samplesIn = (name: string): number =>
      session.batches.filter(({ slot }) => slot === name).reduce((sum, { samples }) => sum + samples, 0);
    expect(samplesIn('fast') / samplesIn('slow')).toBeGreaterThan(3);
  });
});

describe('models that share places', () => {
  interface Shared {
    readonly usedMs: number;
    call(): void;
  }

  /** A model that counts the time for which it has held the place, with callers that never let it be idle. */
  function openShared(
    time: VirtualTime,
    parts: Parameters<typeof openVirtual>[1] & object,
    costMs: (samples: number) => number,
    untilMs: number,
  ): Shared {
    const { queue } = openVirtual(time, {
      ...parts,
      costMs: (samples) => {
        shared.usedMs += costMs(samples);
        return costMs(samples);
      },
    });
    const call = (): void => {
      const again = (): void => {
        if (time.monotonicMs() < untilMs) call();
      };
      queue.run(sample(1)).then(again, again);
    };
    const shared = { usedMs: 0, call };
    return shared;
  }

  it.each([{ weights: [1, 3] as const }, { weights: [1, 1] as const }, { weights: [5, 2] as const }])(
    'get time by their weights $weights, up to one batch each, whatever a batch costs',
    async ({ weights }) => {
      const costs = [
        (samples: number): number => samples + 4,
        (samples: number): number => 3 * samples + 20,
      ] as const;
      const longest = 36 / weights[0] + 116 / weights[1];
      let apart = 0;
      let models: readonly Shared[] = [];
      const time = virtualTime(() => {
        const [a, b] = models;
        if (a !== undefined && b !== undefined)
          apart = Math.max(apart, Math.abs(a.usedMs / weights[0] - b.usedMs / weights[1]));
      });
      const scheduler = createScheduler({ platform: time });
      const slots = [virtualSlot('a')];
      models = costs.map((costMs, at) =>
        openShared(
          time,
          {
            scheduler,
            slots,
            queue: { weight: weights[at], learned: warm(32, at === 0 ? 1 : 3, at === 0 ? 4 : 20) },
          },
          costMs,
          20_000,
        ),
      );
      for (let caller = 0; caller < 128; caller += 1) for (const model of models) model.call();
      await time.run(20_000);
      // The longest batch of each: Goyal, Start-time Fair Queuing (1996), theorem 1.
      expect(apart).toBeLessThanOrEqual(longest);
      expect(models[0]?.usedMs).toBeGreaterThan(3000);
    },
  );

  it('get no credit for time in which they were idle', async () => {
    const time = virtualTime();
    const scheduler = createScheduler({ platform: time });
    const slots = [virtualSlot('a')];
    const [busy, idle] = [1, 2].map(() =>
      openShared(time, { scheduler, slots }, (samples) => samples + 4, 20_000),
    ) as [Shared, Shared];
    for (let caller = 0; caller < 128; caller += 1) busy.call();
    await time.run(10_000);
    for (let caller = 0; caller < 128; caller += 1) idle.call();
    const before = busy.usedMs;
    await time.run(10_500);
    expect(Math.abs(busy.usedMs - before - idle.usedMs)).toBeLessThanOrEqual(2 * 36);
    await time.run();
  });

  it('pay for runs that fail, too', async () => {
    const time = virtualTime();
    const scheduler = createScheduler({ platform: time });
    const slots = [virtualSlot('a')];
    const compute = (): never => {
      throw new Error('It never works.');
    };
    const failing = openShared(
      time,
      { scheduler, slots, compute, queue: { learned: undefined } },
      () => 50,
      5000,
    );
    const working = openShared(time, { scheduler, slots }, (samples) => samples + 4, 5000);
    for (let caller = 0; caller < 64; caller += 1) for (const model of [failing, working]) model.call();
    await time.run(5000);
    expect(working.usedMs / (working.usedMs + failing.usedMs)).toBeGreaterThan(0.45);
    await time.run();
  });

  it('do not disturb a place that runs another model', async () => {
    const time = virtualTime();
    const scheduler = createScheduler({ platform: time });
    const slots = ['a', 'b'].map(virtualSlot);
    // The sessions throw when a place is used twice at once.
    const models = [1, 2, 3].map((at) =>
      openVirtual(time, { scheduler, slots: at === 3 ? slots.slice(1) : slots }),
    );
    let answered = 0;
    for (let call = 0; call < 300; call += 1) {
      for (const { queue } of models) void queue.run(sample(call)).then(() => (answered += 1));
    }
    await time.run();
    expect(answered).toBe(900);
  });
});
