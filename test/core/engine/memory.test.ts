import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Backend, Session, TensorMap } from '../../../src/core/backend.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createMemory, type Memory, type MemoryEntry } from '../../../src/engine/memory.ts';
import { openServing, type Serving, type ServingParts } from '../../../src/engine/serving.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { until } from '../platform.ts';
import { manualClock, noDemotions } from './fakes.ts';

interface FakeEntry extends MemoryEntry {
  isIdle: boolean;
  sizeBytes: number;
}

/** Entries whose state the test sets; what leaves is listed. */
function entriesOf(budget: number | undefined, sizes: readonly number[]) {
  const left: number[] = [];
  const memory = createMemory(budget, () => {});
  const entries = sizes.map((sizeBytes, at): FakeEntry => {
    const entry: FakeEntry = {
      isPinned: false,
      isIdle: true,
      sizeBytes,
      putAway: async () => {
        left.push(at);
        entry.sizeBytes = 0;
      },
    };
    return entry;
  });
  return { memory, entries, left };
}

describe('createMemory', () => {
  it('lets everything stay without a budget', () => {
    const { memory, entries, left } = entriesOf(undefined, [100, 100]);
    for (const entry of entries) memory.add(entry);
    memory.settle();
    expect([memory.isLimited, memory.usedBytes, left]).toEqual([false, 200, []]);
  });

  it('lets the least recently used leave first, and no more than has to', async () => {
    const { memory, entries, left } = entriesOf(100, [30, 30, 30, 30, 50]);
    const [a, b, c, d, e] = entries as [FakeEntry, FakeEntry, FakeEntry, FakeEntry, FakeEntry];
    for (const entry of [a, b, c]) memory.add(entry);
    memory.used(a);
    memory.add(d);
    expect(left).toEqual([1]);
    memory.add(e);
    expect(left).toEqual([1, 2, 0]);
    expect(memory.usedBytes).toBe(80);
    await Promise.resolve();
  });

  it('stays within the budget as far as models are neither busy nor pinned, and chooses by last use', async () => {
    const step = fc.record({
      kind: fc.constantFrom('use', 'end', 'pin', 'unpin', 'remove'),
      at: fc.nat(5),
    });
    const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 6, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(
        sizes,
        fc.integer({ min: 0, max: 150 }),
        fc.array(step, { maxLength: 40 }),
        async (full, budget, steps) => {
          const { memory, entries, left } = entriesOf(budget, full);
          const lastUse = entries.map((_, at) => at);
          const present = new Set<FakeEntry>();
          for (const [at, entry] of entries.entries()) {
            present.add(entry);
            memory.add(entry);
            check(at);
            await Promise.resolve();
          }
          function check(kept?: number): void {
            const over = entries.reduce(
              (sum, { sizeBytes }, at) => (present.has(entries[at] as FakeEntry) ? sum + sizeBytes : sum),
              0,
            );
            expect(memory.usedBytes).toBe(over);
            const mayLeave = entries.some(
              (entry, at) =>
                present.has(entry) && at !== kept && entry.isIdle && !entry.isPinned && entry.sizeBytes > 0,
            );
            if (over > budget) expect(mayLeave).toBe(false);
          }
          let time = entries.length;
          for (const { kind, at } of steps) {
            const entry = entries[at] as FakeEntry;
            if (!present.has(entry)) continue;
            const before = entries.map(
              ({ sizeBytes, isIdle, isPinned }) => sizeBytes > 0 && isIdle && !isPinned,
            );
            left.length = 0;
            if (kind === 'use') {
              time += 1;
              lastUse[at] = time;
              entry.isIdle = false;
              memory.used(entry);
              entry.sizeBytes = full[at] as number;
              memory.grown(entry);
              check(at);
            } else if (kind === 'remove') {
              memory.remove(entry);
              present.delete(entry);
            } else {
              if (kind === 'end') entry.isIdle = true;
              else entry.isPinned = kind === 'pin';
              before[at] = entry.sizeBytes > 0 && entry.isIdle && !entry.isPinned;
              memory.settle();
              check();
            }
            const uses = left.map((gone) => lastUse[gone] as number);
            expect(uses).toEqual([...uses].sort((a, b) => a - b));
            for (const [other, mayLeave] of before.entries()) {
              const isOlder = (lastUse[other] as number) < Math.max(-1, ...uses);
              if (mayLeave && isOlder && present.has(entries[other] as FakeEntry) && other !== at)
                expect(left).toContain(other);
            }
            await Promise.resolve();
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('hears of what fails to leave, and goes on', async () => {
    const errors: unknown[] = [];
    const memory = createMemory(10, (error) => errors.push(error));
    const { entries } = entriesOf(10, [10, 10]);
    const [a, b] = entries as [FakeEntry, FakeEntry];
    const broken: FakeEntry = { ...a, putAway: () => Promise.reject(new Error('It clings.')) };
    memory.add(broken);
    broken.sizeBytes = 0;
    memory.add(b);
    broken.sizeBytes = 10;
    memory.settle();
    await until(() => errors.length > 0);
    expect(errors).toEqual([new Error('It clings.')]);
  });
});

/** What happens to the sessions of a model. */
interface Fate {
  onCreate?: () => void | Promise<void>;
  onRelease?: () => void | Promise<void>;
}

/** Models `y = x · k` of some sizes, with a budget. */
function house(budget: number | undefined, fates: Record<number, Fate> = {}) {
  const clock = manualClock();
  const created: number[] = [];
  const open = new Set<Session>();
  const errors: unknown[] = [];
  const backend: Backend = {
    name: 'fake',
    providers: async () => [{ name: 'cpu', device: 'cpu' }],
    createSession: async ({ bytes }) => {
      const factor = bytes?.[0] ?? 0;
      created.push(factor);
      await fates[factor]?.onCreate?.();
      const session: Session = {
        signature: {
          inputs: [{ name: 'x', dtype: 'float32', shape: ['n'] }],
          outputs: [{ name: 'y', dtype: 'float32', shape: ['n'] }],
        },
        provider: 'cpu',
        placement: 'worker',
        run: async (feeds) => {
          if (!open.has(session)) throw new Error('It was released.');
          const { shape, data } = feeds['x'] as Tensor<'float32'>;
          clock.advance(1);
          return {
            y: new Tensor(
              'float32',
              shape,
              data.map((value) => value * factor),
            ),
          };
        },
        release: async () => {
          open.delete(session);
          await fates[factor]?.onRelease?.();
        },
      };
      open.add(session);
      return session;
    },
    close: async () => {},
  };
  const memory: Memory = createMemory(budget, (error) => errors.push(error));
  const parts: ServingParts = {
    platform: clock,
    store: createMemoryStore(),
    backends: [backend],
    scheduler: createScheduler({ platform: clock }),
    memory,
    demotions: noDemotions,
    logger: silentLogger,
  };
  return {
    memory,
    created,
    open,
    errors,
    load: (factor: number, sizeBytes: number): Promise<Serving> =>
      openServing(
        parts,
        { bytes: new Uint8Array(sizeBytes).fill(factor) },
        { device: 'cpu', placement: 'auto', metrics: createMetrics() },
      ),
  };
}

const feeds = (value: number): TensorMap => ({ x: new Tensor('float32', [1], new Float32Array([value])) });
const ask = async (serving: Serving, value = 1): Promise<number | undefined> =>
  (await serving.run(feeds(value), {}, () => {}))['y']?.data[0] as number | undefined;
const isLoaded = (serving: Serving): boolean => serving.info().isLoaded;

describe('models under a memory budget', () => {
  it('leave when others need the room, and come back with their next call', async () => {
    const { load, created, open, memory } = house(20);
    const models = [await load(1, 10), await load(2, 10), await load(3, 10)] as const;
    expect(models.map(isLoaded)).toEqual([false, true, true]);
    expect(models.map((model) => model.info().sizeBytes)).toEqual([0, 10, 10]);
    created.length = 0;
    expect(await ask(models[0], 7)).toBe(7);
    expect(models.map(isLoaded)).toEqual([true, false, true]);
    expect(created).toEqual([1]);
    expect(await ask(models[2], 7)).toBe(21);
    expect(created).toEqual([1]);
    expect([memory.usedBytes, open.size]).toEqual([20, 2]);
  });

  it('answer rightly, within the budget, in whatever order they are called', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 0, max: 70 }),
        fc.array(fc.array(fc.nat(4), { minLength: 1, maxLength: 6 }), { maxLength: 8 }),
        async (sizes, budget, waves) => {
          const { load, memory, open } = house(budget);
          const models: Serving[] = [];
          for (const [at, size] of sizes.entries()) models.push(await load(at + 1, size));
          for (const wave of waves) {
            const called = wave.map((at) => at % models.length);
            const answers = await Promise.all(called.map((at, value) => ask(models[at] as Serving, value)));
            expect(answers).toEqual(called.map((at, value) => value * (at + 1)));
            expect(memory.usedBytes).toBeLessThanOrEqual(budget);
          }
          await Promise.all(models.map((model) => model.close()));
          expect([memory.usedBytes, open.size]).toEqual([0, 0]);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('come back once for all calls that wait', async () => {
    const { load, created } = house(10);
    const one = await load(1, 10);
    await load(2, 10);
    created.length = 0;
    const answers = await Promise.all([1, 2, 3, 4].map((value) => ask(one, value)));
    expect(answers).toEqual([1, 2, 3, 4]);
    expect(created).toEqual([1]);
  });

  it('reject the calls that wait when they cannot come back, and try again with the next', async () => {
    const fate: Fate = {};
    const { load, created, memory } = house(10, { 1: fate });
    const one = await load(1, 10);
    await load(2, 10);
    fate.onCreate = () => {
      throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', 'The file is gone.');
    };
    created.length = 0;
    const calls = await Promise.allSettled([ask(one), ask(one), ask(one)]);
    for (const call of calls) expect(call).toMatchObject({ reason: { code: 'ERR_INLAY_MODEL_NOT_FOUND' } });
    expect(created).toEqual([1]);
    expect(isLoaded(one)).toBe(false);
    delete fate.onCreate;
    expect(await ask(one, 5)).toBe(5);
    expect(memory.usedBytes).toBe(10);
  });

  it('stay while they are pinned, and leave when they are let go', async () => {
    const { load } = house(10);
    const one = await load(1, 10);
    one.pin(true);
    const two = await load(2, 10);
    await ask(two);
    expect([one, two].map(isLoaded)).toEqual([true, false]);
    await ask(two);
    one.pin(false);
    await ask(two);
    expect([one, two].map(isLoaded)).toEqual([false, true]);
  });

  it('stay while a call runs, also over the budget', async () => {
    const { load, memory } = house(10);
    const one = await load(1, 10);
    const two = await load(2, 10);
    const both = Promise.all([ask(one, 3), ask(two, 3)]);
    expect(await both).toEqual([3, 6]);
    expect(memory.usedBytes).toBe(10);
  });

  it('can be closed while they are away or come back', async () => {
    let comeBack = (): void => {};
    const fate: Fate = {};
    const { load, open, created } = house(10, { 1: fate });
    const one = await load(1, 10);
    const two = await load(2, 10);
    fate.onCreate = () => new Promise((resolve) => (comeBack = resolve));
    const call = ask(one);
    call.catch(() => {});
    await until(() => created.length === 3);
    const closing = one.close();
    comeBack();
    await closing;
    await expect(ask(one)).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    const three = await load(3, 10);
    expect(isLoaded(two)).toBe(false);
    await two.close();
    await two.close();
    await three.close();
    expect(open.size).toBe(0);
  });

  it('do not suffer from one that cannot be released', async () => {
    const { load, errors, memory } = house(10, {
      1: {
        onRelease: () => {
          throw new Error('It clings.');
        },
      },
    });
    const one = await load(1, 10);
    const two = await load(2, 10);
    expect([await ask(two), await ask(one), await ask(two)]).toEqual([2, 1, 2]);
    await until(() => errors.length === 2);
    expect(errors).toEqual([new Error('It clings.'), new Error('It clings.')]);
    expect(memory.usedBytes).toBe(10);
  });

  it('are within the budget again when a slow release ends after its model has come back', async () => {
    let released = (): void => {};
    const { load, memory } = house(10, {
      1: { onRelease: () => new Promise((resolve) => (released = resolve)) },
    });
    const one = await load(1, 10);
    const two = await load(2, 10);
    two.pin(true);
    expect(await ask(one, 4)).toBe(4);
    released();
    await until(() => !isLoaded(one));
    expect(memory.usedBytes).toBe(10);
    expect([one, two].map(isLoaded)).toEqual([false, true]);
  });
});
