import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import { createMemory } from '../../../src/engine/memory.ts';
import { createModel, type ManagedModel } from '../../../src/engine/model.ts';
import { openServing, type ServingOptions } from '../../../src/engine/serving.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { until } from '../platform.ts';
import { fakeBackend, manualClock, type FakeBackendOptions, noDemotions } from './fakes.ts';

const x = new Float32Array([1, 2]);

async function modelOf(
  options: FakeBackendOptions = {},
  serving: Partial<ServingOptions> = {},
): Promise<{
  readonly managed: ManagedModel;
  readonly clock: ReturnType<typeof manualClock>;
  readonly backend: ReturnType<typeof fakeBackend>;
  open(version: string): Promise<Parameters<ManagedModel['swap']>[0]>;
}> {
  const clock = manualClock();
  let isOpening = false;
  const backend = fakeBackend({
    ...options,
    ...(options.onRun && {
      onRun: (feeds, provider) =>
        isOpening ? { y: feeds['x'] as TensorMap[string] } : (options.onRun?.(feeds, provider) ?? {}),
    }),
  });
  const metrics = createMetrics();
  const parts = {
    platform: clock,
    store: createMemoryStore(),
    backends: [backend],
    scheduler: createScheduler({ platform: clock }),
    memory: createMemory(undefined, () => {}),
    demotions: noDemotions,
    logger: silentLogger,
  };
  const open = async (version: string): Promise<Parameters<ManagedModel['swap']>[0]> => {
    isOpening = true;
    const opened = await openServing(
      parts,
      { bytes: new Uint8Array() },
      { device: 'cpu', placement: 'auto', maxBatch: 1, version, metrics, ...serving },
    );
    isOpening = false;
    return opened;
  };
  return { managed: createModel({ name: 'm', metrics }, await open('1')), clock, backend, open };
}

/** A run that ends when the test says so. */
function held(): {
  readonly onRun: () => Promise<TensorMap>;
  readonly end: (outputs?: TensorMap) => void;
  /** Resolves when a run waits for its end. */
  readonly begun: () => Promise<void>;
} {
  const waiting: ((outputs: TensorMap) => void)[] = [];
  return {
    onRun: () => new Promise((resolve) => waiting.push(resolve)),
    end: (outputs = {}) => waiting.shift()?.(outputs),
    begun: () => until(() => waiting.length > 0),
  };
}

describe('Model.run', () => {
  it('rejects, not throws, for feeds that do not fit', async () => {
    const { managed } = await modelOf();
    await expect(managed.model.run({})).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_MISSING' });
  });

  it('refuses outputs that the model does not have', async () => {
    const { managed } = await modelOf();
    await expect(managed.model.run({ x }, { outputs: ['z'] })).rejects.toMatchObject({
      code: 'ERR_INLAY_OUTPUT_UNKNOWN',
    });
  });

  it('rejects with the reason of an aborted signal, before and during the run', async () => {
    const { onRun, end } = held();
    const { managed } = await modelOf({ onRun });
    const reason = new Error('user left');
    await expect(managed.model.run({ x }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const abort = new AbortController();
    const run = managed.model.run({ x }, { signal: abort.signal });
    abort.abort(reason);
    await expect(run).rejects.toBe(reason);
    end();
  });

  it('passes a backend error on and stays usable', async () => {
    let fail = true;
    const { managed } = await modelOf({
      onRun: (feeds) => {
        if (fail) throw new BackendError('ERR_INLAY_RUN_FAILED', 'Boom.');
        return { y: feeds['x'] as TensorMap[string] };
      },
    });
    await expect(managed.model.run({ x })).rejects.toMatchObject({ code: 'ERR_INLAY_RUN_FAILED' });
    fail = false;
    expect((await managed.model.run({ x }))['y']?.data).toBe(x);
    expect(managed.model.stats()).toMatchObject({
      inFlight: 0,
      calls: { accepted: 2, answered: 1, failed: 1 },
    });
  });
});

describe('Model.stats', () => {
  it('gives quantiles of run durations', async () => {
    const { onRun, end } = held();
    const { managed, clock } = await modelOf({ onRun });
    for (let ms = 1; ms <= 100; ms += 1) {
      const run = managed.model.run({ x });
      expect(managed.model.stats().inFlight).toBe(1);
      clock.advance(ms);
      end();
      await run;
    }
    const { calls, inFlight, computeMs, totalMs } = managed.model.stats();
    expect({ inFlight, answered: calls.answered }).toEqual({ inFlight: 0, answered: 100 });
    for (const measured of [computeMs, totalMs]) {
      expect(measured).toMatchObject({ count: 100, mean: 50.5, max: 100 });
      expect(Math.abs(measured.p50 / 50 - 1)).toBeLessThan(0.06);
      expect(Math.abs(measured.p99 / 99 - 1)).toBeLessThan(0.06);
    }
  });
});

describe('a swap', () => {
  it('lets runs end where they began and releases the old session after the last one', async () => {
    const { onRun, end, begun } = held();
    const { managed, backend, open } = await modelOf({ onRun });
    const swaps: unknown[] = [];
    managed.model.on('swapped', (event) => swaps.push(event));
    const before = [managed.model.run({ x }), managed.model.run({ x })];
    managed.swap(await open('2'));
    expect(managed.model.version).toBe('2');
    expect(backend.open.size).toBe(2);
    await begun();
    end();
    await before[0];
    await begun();
    expect(backend.open.size).toBe(2);
    end();
    await before[1];
    await until(() => backend.open.size === 1);
    expect(swaps).toEqual([{ from: '1', to: '2' }]);
    await managed.model.close();
    expect(backend.open.size).toBe(0);
  });

  it('after close releases the new session at once', async () => {
    const { managed, backend, open } = await modelOf();
    const late = await open('2');
    await managed.model.close();
    managed.swap(late);
    await until(() => backend.open.size === 0);
  });
});

describe('Model.close', () => {
  it('waits for runs in flight, refuses later ones, and may be called twice', async () => {
    const { onRun, end } = held();
    const { managed, backend } = await modelOf({ onRun });
    const run = managed.model.run({ x });
    const closing = managed.model.close();
    await expect(managed.model.run({ x })).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    expect(backend.open.size).toBe(1);
    end();
    await run;
    await closing;
    await managed.model.close();
    expect(backend.open.size).toBe(0);
  });

  it('happens at the end of an `await using` block', async () => {
    const { managed, backend } = await modelOf();
    await managed.model[Symbol.asyncDispose]();
    expect(backend.open.size).toBe(0);
  });
});
