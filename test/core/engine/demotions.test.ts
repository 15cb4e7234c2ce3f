import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ExecutionProvider, TensorMap } from '../../../src/core/backend.ts';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import type { Store } from '../../../src/core/store.ts';
import { createDemotions, type Demotions } from '../../../src/engine/demotions.ts';
import { createInlay } from '../../../src/index.ts';
import { webPlatform } from '../../../src/platform.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { fakeBackend, manualClock } from './fakes.ts';

const lost = new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'The device was lost.');
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
  function start(store = createMemoryStore()) {
    let isBroken = false;
    const times = manualClock();
    const platform = { ...webPlatform('test'), now: times.now, monotonicMs: times.monotonicMs };
    const backend = fakeBackend({
      providers,
      onRun: (feeds, provider) => {
        if (provider === 'wasm') times.advance(5);
        else if (isBroken) {
          times.advance(1000);
          throw lost;
        }
        return { y: feeds['x'] as TensorMap[string] };
      },
    });
    const inlay = createInlay({ platform, store, backends: [backend] });
    return {
      inlay,
      backend,
      breakDown: () => {
        isBroken = true;
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
