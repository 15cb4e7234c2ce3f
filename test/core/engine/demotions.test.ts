import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ExecutionProvider, TensorMap } from '../../../src/core/backend.ts';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { BackendError, ModelError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import type { Store } from '../../../src/core/store.ts';
import { createDemotions, type Demotions } from '../../../src/engine/demotions.ts';
import { createMemory } from '../../../src/engine/memory.ts';
import { openServing } from '../../../src/engine/serving.ts';
import { createInlay } from '../../../src/index.ts';
import { webPlatform } from '../../../src/platform.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { fakeBackend, manualClock, noDemotions } from './fakes.ts';

const lost = new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'The device was lost.', {
  details: { reason: 'unknown' },
});
const workerLost = (details: Readonly<Record<string, unknown>>): BackendError =>
  new BackendError('ERR_INLAY_WORKER_LOST', 'The worker was lost.', { details });
const WEEK_MS = 7 * 86_400_000;

async function open(store: Store, clock = manualClock()): Promise<Demotions> {
  const demotions = createDemotions({ platform: clock, store, logger: silentLogger });
  await demotions.read();
  return demotions;
}

describe('createDemotions', () => {
  it('demotes a provider that breaks down three times in ten minutes, for a week', async () => {
    const clock = manualClock();
    const demotions = await open(createMemoryStore(), clock);
    const reasons = [0, 1000, 1000].map((pauseMs) => {
      clock.advance(pauseMs);
      return demotions.count('ort', 'webgpu', lost);
    });
    const reason = 'it broke down 3 times in ten minutes, lastly: The device was lost.';
    expect(reasons).toEqual([undefined, undefined, reason]);
    expect(demotions.refusal('ort', 'webgpu')).toBe(reason);
    expect(demotions.refusal('ort', 'wasm')).toBeUndefined();
    expect(demotions.refusal('tfjs', 'webgpu')).toBeUndefined();
    clock.advance(WEEK_MS);
    expect(demotions.refusal('ort', 'webgpu')).toBeUndefined();
  });

  it('takes what several sessions notice at once for one breakdown, and forgets old ones', async () => {
    const clock = manualClock();
    const demotions = await open(createMemoryStore(), clock);
    for (let session = 0; session < 10; session += 1) demotions.count('ort', 'webgpu', lost);
    for (let i = 0; i < 10; i += 1) {
      clock.advance(400_000);
      expect(demotions.count('ort', 'webgpu', lost)).toBeUndefined();
    }
  });

  it('remembers it for the next start on the same device only', async () => {
    const store = createMemoryStore();
    const clock = manualClock();
    const demotions = await open(store, clock);
    for (let i = 0; i < 3; i += 1) {
      clock.advance(1000);
      demotions.count('ort', 'webgpu', lost);
    }
    await expect.poll(() => store.readRecord('demotions')).toBeDefined();
    expect((await open(store, clock)).refusal('ort', 'webgpu')).toContain('3 times');
    const other = Object.assign(manualClock(), { hardware: 'another' });
    expect((await open(store, other)).refusal('ort', 'webgpu')).toBeUndefined();
  });

  it.each([
    ['a lost device', lost],
    ['a worker that ended', workerLost({ reason: 'exit' })],
    ['a worker that hung', workerLost({ reason: 'hung' })],
  ])('takes %s for the fault of the device', async (_, error) => {
    const clock = manualClock();
    const demotions = await open(createMemoryStore(), clock);
    for (let i = 0; i < 3; i += 1) {
      clock.advance(1000);
      demotions.count('ort', 'webgpu', error);
    }
    expect(demotions.refusal('ort', 'webgpu')).toContain('3 times');
  });

  it.each([
    ['a library that is not there', new BackendError('ERR_INLAY_BACKEND_UNAVAILABLE', 'Offline.')],
    ['a device that does not open', new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'There is none.')],
    ['a worker that was killed', workerLost({ reason: 'killed' })],
    ['a worker that took too much memory', workerLost({ reason: 'memory' })],
    ['a session that has given up', workerLost({ reason: 'exit', losses: 3 })],
  ])('sends a session elsewhere for %s, which demotes nothing', async (_, error) => {
    const clock = manualClock();
    const store = createMemoryStore();
    const demotions = await open(store, clock);
    const reasons = [0, 1000, 1000, 1000].map((pauseMs) => {
      clock.advance(pauseMs);
      return demotions.count('ort', 'webgpu', error);
    });
    expect(reasons).toEqual([undefined, undefined, expect.stringContaining('3 times'), undefined]);
    expect(demotions.refusal('ort', 'webgpu')).toBeUndefined();
    expect(await store.readRecord('demotions')).toBeUndefined();
  });

  it('forgets a record that is damaged', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (text) => {
        const store = createMemoryStore();
        await store.updateRecord('demotions', () => toUtf8(text));
        expect((await open(store)).refusal('ort', 'webgpu')).toBeUndefined();
      }),
    );
  });

  it('does without a store', async () => {
    const fail = (): Promise<never> => Promise.reject(new Error('No store.'));
    const demotions = await open({ ...createMemoryStore(), readRecord: fail, updateRecord: fail });
    expect(demotions.refusal('ort', 'webgpu')).toBeUndefined();
  });
});

describe('a model whose GPU breaks down', () => {
  const providers: readonly ExecutionProvider[] = [
    { name: 'webgpu', device: 'gpu' },
    { name: 'wasm', device: 'cpu' },
  ];

  /** A clock on which nothing takes time but the WASM's runs, and each breakdown a second. */
  function start(store = createMemoryStore(), breakdown: Error = lost) {
    let isBroken = false;
    const tried: string[] = [];
    const times = manualClock();
    const { now, monotonicMs } = times;
    // Nothing is remembered of a machine that is not named.
    const platform = { ...webPlatform('test'), hardware: 'test', now, monotonicMs };
    const backend = fakeBackend({
      providers,
      onCreate: (provider) => {
        tried.push(provider);
        if (isBroken && provider === 'webgpu') throw breakdown;
      },
      onRun: (feeds, provider) => {
        if (provider === 'wasm') times.advance(5);
        else if (isBroken) {
          times.advance(1000);
          throw breakdown;
        }
        return { y: feeds['x'] as TensorMap[string] };
      },
    });
    const inlay = createInlay({ platform, store, backends: [backend] });
    return {
      inlay,
      backend,
      tried,
      breakDown: (broken = true) => {
        isBroken = broken;
      },
    };
  }
  const x = new Float32Array([1, 2]);

  it('goes on on the CPU, and says so', async () => {
    const { inlay, backend, breakDown } = start();
    const model = await inlay.load(new Uint8Array(1));
    expect(inlay.info().models[0]?.provider).toBe('webgpu');
    const degraded: unknown[] = [];
    model.on('degraded', (event) => degraded.push(event));
    breakDown();
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => model.run({ x })));
    const later = await Promise.allSettled(Array.from({ length: 8 }, () => model.run({ x })));
    expect([...outcomes, ...later].filter(({ status }) => status === 'rejected').length).toBeLessThan(3);
    expect(later.map(({ status }) => status)).not.toContain('rejected');
    expect(degraded).toMatchObject([{ from: 'webgpu', to: 'wasm' }]);
    const [info] = inlay.info().models;
    expect(info?.provider).toBe('wasm');
    expect(info?.attempts).toContainEqual(
      expect.objectContaining({ provider: 'webgpu', outcome: 'refused' }),
    );
    expect([...backend.open].map(({ provider }) => provider)).toEqual(['wasm']);
    await inlay.close();
    expect(backend.open.size).toBe(0);
  });

  it('is not tried on it again by the next start', async () => {
    const store = createMemoryStore();
    const first = start(store);
    const model = await first.inlay.load(new Uint8Array(1));
    first.breakDown();
    await Promise.allSettled(Array.from({ length: 16 }, () => model.run({ x })));
    await first.inlay.close();
    const { inlay } = start(store);
    await inlay.load(new Uint8Array(1));
    const [info] = inlay.info().models;
    expect(info?.provider).toBe('wasm');
    expect(info?.attempts[0]?.reason).toContain('broke down 3 times');
    await inlay.close();
  });

  it('is left on it where nothing else was allowed', async () => {
    const { inlay, breakDown } = start();
    const model = await inlay.load(new Uint8Array(1), { device: 'gpu' });
    breakDown();
    const outcomes = await Promise.allSettled(Array.from({ length: 16 }, () => model.run({ x })));
    expect(outcomes.map(({ status }) => status)).not.toContain('fulfilled');
    expect(inlay.info().models[0]?.provider).toBe('webgpu');
    await inlay.close();
  });

  it('is opened on it where nothing else is allowed, whatever happened before', async () => {
    const store = createMemoryStore();
    const first = start(store);
    const model = await first.inlay.load(new Uint8Array(1));
    first.breakDown();
    await Promise.allSettled(Array.from({ length: 16 }, () => model.run({ x })));
    await first.inlay.close();
    for (const device of ['gpu', ['webgpu']] as const) {
      const { inlay } = start(store);
      await inlay.load(new Uint8Array(1), { device });
      expect(inlay.info().models[0]?.provider).toBe('webgpu');
      await inlay.close();
    }
    const { inlay } = start(store);
    await inlay.load(new Uint8Array(1), { device: ['webgpu', 'wasm'] });
    expect(inlay.info().models[0]?.provider).toBe('wasm');
    await inlay.close();
  });

  it('starts on it again where its breakdowns were no fault of the device', async () => {
    const store = createMemoryStore();
    const first = start(store, new BackendError('ERR_INLAY_BACKEND_UNAVAILABLE', 'Offline.'));
    const model = await first.inlay.load(new Uint8Array(1));
    first.breakDown();
    await Promise.allSettled(Array.from({ length: 16 }, () => model.run({ x })));
    expect(first.inlay.info().models[0]?.provider).toBe('wasm');
    await first.inlay.close();
    const { inlay, tried } = start(store);
    await inlay.load(new Uint8Array(1));
    expect(tried).toEqual(['webgpu']);
    await inlay.close();
  });

  it('tries it again at the next start when it could not be tried', async () => {
    const store = createMemoryStore();
    const first = start(store);
    first.breakDown();
    await first.inlay.load(new Uint8Array(1));
    expect(first.inlay.info().models[0]?.provider).toBe('wasm');
    await first.inlay.close();
    const second = start(store);
    await second.inlay.load(new Uint8Array(1));
    expect(second.inlay.info().models[0]?.provider).toBe('webgpu');
    await second.inlay.close();
    expect(second.backend.open.size).toBe(0);
    // Now it is known.
    const third = start(store);
    await third.inlay.load(new Uint8Array(1));
    expect(third.tried).toEqual(['webgpu']);
    await third.inlay.close();
  });

  it('is not tried again for what the model is', async () => {
    const store = createMemoryStore();
    const unsupported = new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', 'It has no such operator.');
    const first = start(store, unsupported);
    first.breakDown();
    await first.inlay.load(new Uint8Array(1));
    await first.inlay.close();
    const { inlay, tried } = start(store);
    await inlay.load(new Uint8Array(1));
    expect(tried).toEqual(['wasm']);
    await inlay.close();
  });

  it('says that it went on elsewhere also if that was before anybody asked', async () => {
    let isBroken = false;
    const platform = manualClock();
    const serving = await openServing(
      {
        platform,
        store: createMemoryStore(),
        backends: [
          fakeBackend({
            providers,
            onRun: (feeds, provider) => {
              if (provider === 'wasm') platform.advance(5);
              else if (isBroken) throw lost;
              return { y: feeds['x'] as TensorMap[string] };
            },
          }),
        ],
        scheduler: createScheduler({ platform }),
        memory: createMemory(undefined, () => {}),
        demotions: { ...noDemotions, count: () => 'it broke down' },
        logger: silentLogger,
      },
      { bytes: new Uint8Array(1) },
      {
        device: 'auto',
        placement: 'auto',
        metrics: createMetrics(),
        onProgress: ({ phase }) => {
          isBroken = phase === 'warm-up';
        },
      },
    );
    const told: unknown[] = [];
    serving.onDegraded((degraded) => told.push(degraded));
    expect(told).toEqual([{ from: 'webgpu', to: 'wasm', reason: 'it broke down' }]);
    serving.onDegraded((degraded) => told.push(degraded));
    expect(told).toHaveLength(1);
    await serving.close();
  });

  it('is opened where it was the fastest before, without a comparison', async () => {
    const store = createMemoryStore();
    const platformed = start(store);
    await platformed.inlay.load(new Uint8Array(1));
    await platformed.inlay.close();
    const again = start(store);
    await again.inlay.load(new Uint8Array(1));
    const [info] = again.inlay.info().models;
    expect(info?.provider).toBe('webgpu');
    await again.inlay.close();
  });
});
