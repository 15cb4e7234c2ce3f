import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { openSession } from '../../../src/engine/candidates.ts';
import { createModel, type ManagedModel } from '../../../src/engine/model.ts';
import { fakeBackend, manualClock, type FakeBackendOptions } from './fakes.ts';

const x = new Float32Array([1, 2]);

async function modelOf(options: FakeBackendOptions = {}): Promise<{
  readonly managed: ManagedModel;
  readonly clock: ReturnType<typeof manualClock>;
  readonly backend: ReturnType<typeof fakeBackend>;
  open(version: string): Promise<Parameters<ManagedModel['swap']>[0]>;
}> {
  const clock = manualClock();
  const backend = fakeBackend(options);
  const open = async (version: string): Promise<Parameters<ManagedModel['swap']>[0]> => ({
    ...(await openSession(clock, [backend], { bytes: new Uint8Array() }, 'cpu')),
    version,
  });
  return { managed: createModel(clock, 'm', await open('1')), clock, backend, open };
}

/** A run that ends when the test says so. */
function held(): { readonly onRun: () => Promise<TensorMap>; readonly end: (outputs?: TensorMap) => void } {
  const waiting: ((outputs: TensorMap) => void)[] = [];
  return {
    onRun: () => new Promise((resolve) => waiting.push(resolve)),
    end: (outputs = {}) => waiting.shift()?.(outputs),
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
    expect(managed.model.stats()).toMatchObject({ runs: 1, failures: 1, inFlight: 0 });
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
    expect(managed.model.stats()).toEqual({
      runs: 100,
      failures: 0,
      inFlight: 0,
      meanMs: 50.5,
      p50Ms: 51,
      p95Ms: 96,
      p99Ms: 100,
    });
  });
});

describe('a swap', () => {
  it('lets runs end where they began and releases the old session after the last one', async () => {
    const { onRun, end } = held();
    const { managed, backend, open } = await modelOf({ onRun });
    const swaps: unknown[] = [];
    managed.model.on('swapped', (event) => swaps.push(event));
    const before = [managed.model.run({ x }), managed.model.run({ x })];
    managed.swap(await open('2'));
    expect(managed.model.version).toBe('2');
    expect(backend.open.size).toBe(2);
    end();
    await before[0];
    await Promise.resolve();
    expect(backend.open.size).toBe(2);
    end();
    await before[1];
    await new Promise((resolve) => setTimeout(resolve));
    expect(backend.open.size).toBe(1);
    expect(swaps).toEqual([{ from: '1', to: '2' }]);
    await managed.model.close();
    expect(backend.open.size).toBe(0);
  });

  it('after close releases the new session at once', async () => {
    const { managed, backend, open } = await modelOf();
    const late = await open('2');
    await managed.model.close();
    managed.swap(late);
    await Promise.resolve();
    expect(backend.open.size).toBe(0);
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
