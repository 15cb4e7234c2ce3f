import { afterEach, describe, expect, it, vi } from 'vitest';
import { abortWith, assertNotAborted, orAbort, reasonOf } from '../../src/core/abort.ts';
import { retry } from '../../src/core/retry.ts';
import { createSharedSignals } from '../../src/core/signals.ts';
import type { Tensor } from '../../src/core/tensor.ts';
import { assembleInlay, type Inlay } from '../../src/engine/inlay.ts';
import { webPlatform } from '../../src/platform.ts';
import { createStateful } from '../../src/process/stateful.ts';
import { createPredictions } from '../../src/schedule/predictions.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { openStream } from '../../src/update/fetch.ts';
import { abortedBare, BareController } from './bare-signal.ts';
import { fakeBackend } from './engine/fakes.ts';
import { testPlatform } from './platform.ts';

const never = new Promise<never>(() => {});
const abortError = expect.objectContaining({ name: 'AbortError', message: 'This operation was aborted.' });
const feeds = { x: [1, 2] };

afterEach(() => {
  vi.unstubAllGlobals();
});

function startInlay(isStuck: () => boolean): Inlay {
  return assembleInlay({
    platform: webPlatform('test'),
    store: createMemoryStore(),
    backends: [fakeBackend({ onRun: ({ x }) => (isStuck() ? never : { y: x as Tensor }) })],
    remote: () => import('../../src/update/remote.ts'),
    engine: () => import('../../src/engine/machine.ts'),
    pipelines: () => import('../../src/engine/pipeline.ts'),
    owned: [],
  });
}

describe('reasonOf', () => {
  it.each([new Error('stopped'), null, 0])('gives the reason of the signal: %s', (reason) => {
    expect(reasonOf(AbortSignal.abort(reason))).toBe(reason);
  });

  it('gives the AbortError of a signal that was given no reason', () => {
    const signal = AbortSignal.abort();
    expect(reasonOf(signal)).toBe(signal.reason);
  });

  it('makes an AbortError where signals have no reasons', () => {
    expect(reasonOf(abortedBare())).toEqual(abortError);
    expect(reasonOf(abortedBare())).toBeInstanceOf(Error);
  });
});

describe('assertNotAborted', () => {
  it('throws the reason, and nothing while there is none', () => {
    expect(() => assertNotAborted(undefined)).not.toThrow();
    expect(() => assertNotAborted(new AbortController().signal)).not.toThrow();
    expect(() => assertNotAborted(new BareController().signal)).not.toThrow();
    expect(() => assertNotAborted(AbortSignal.abort(new Error('stopped')))).toThrow('stopped');
    expect(() => assertNotAborted(abortedBare())).toThrow(abortError);
  });
});

describe.each([
  ['the standard', AbortController],
  ['React Native', BareController],
])('abortWith on a controller of %s', (_, Controller) => {
  it('tells the listeners, which know the reason', () => {
    const controller = new Controller();
    const reasons: unknown[] = [];
    controller.signal.addEventListener('abort', () => reasons.push(reasonOf(controller.signal)));
    abortWith(controller, 'why');
    abortWith(controller, 'again');
    expect(controller.signal.aborted).toBe(true);
    expect(reasons).toEqual(['why']);
    expect(reasonOf(controller.signal)).toBe('why');
  });
});

describe('a signal of React Native', () => {
  it('ends what waits', async () => {
    const controller = new BareController();
    const waiting = orAbort(never, controller.signal);
    controller.abort();
    await expect(waiting).rejects.toEqual(abortError);
    await expect(orAbort(never, abortedBare())).rejects.toEqual(abortError);
    const retried = retry(() => never, {
      platform: testPlatform(),
      attempts: 2,
      baseMs: 1,
      capMs: 1,
      signal: abortedBare(),
    });
    await expect(retried).rejects.toEqual(abortError);
    await expect(openStream(testPlatform(), 'https://a.test', { signal: abortedBare() })).rejects.toEqual(
      abortError,
    );
  });

  it('ends a request', async () => {
    const controller = new BareController();
    const platform = testPlatform({ fetch: () => never });
    const opening = openStream(platform, 'https://a.test', { signal: controller.signal });
    controller.abort();
    await expect(opening).rejects.toEqual(abortError);
  });

  it('gives up loads, also those that were given up before', async () => {
    const inlay = startInlay(() => true);
    const controller = new BareController();
    const bytes = new Uint8Array(1);
    const loading = inlay.load(bytes, { signal: controller.signal });
    controller.abort();
    await expect(loading).rejects.toEqual(abortError);
    await expect(inlay.load(bytes, { signal: abortedBare() })).rejects.toEqual(abortError);
    const variants = inlay.load({ variants: { fp32: bytes } }, { signal: abortedBare() });
    await expect(variants).rejects.toEqual(abortError);
  });

  it('lets calls run, and gives them up', async () => {
    let isStuck = false;
    const inlay = startInlay(() => isStuck);
    const model = await inlay.load(new Uint8Array(1));
    const cached = await inlay.load(new Uint8Array(1), { predictions: true });
    const { y } = await model.run(feeds, { signal: new BareController().signal });
    expect([...(y?.data ?? [])]).toEqual([1, 2]);

    const pipeline = await inlay.pipeline({
      inputs: ['x'],
      steps: { echo: { model } },
      outputs: ['y'],
    });
    const stateful = createStateful(model, { state: { y: 'x' } });
    isStuck = true;
    const controller = new BareController();
    const { signal } = controller;
    const calls = [
      model.run(feeds, { signal }),
      cached.run(feeds, { signal }),
      pipeline.run(feeds, { signal }),
      model.runAll([feeds], { concurrency: 1, signal }).next(),
    ];
    const settled = Promise.allSettled(calls);
    controller.abort();
    expect(await settled).toEqual(calls.map(() => ({ status: 'rejected', reason: abortError })));

    const aborted = { signal: abortedBare() };
    const late = await Promise.allSettled([
      model.run(feeds, aborted),
      cached.run(feeds, aborted),
      pipeline.run(feeds, aborted),
      model.runAll([feeds], { concurrency: 1, ...aborted }).next(),
      stateful.run({}, aborted),
    ]);
    expect(late).toEqual(late.map(() => ({ status: 'rejected', reason: abortError })));
  });
});

describe('a controller of React Native', () => {
  it('aborts shared signals with the reason that it was given', () => {
    vi.stubGlobal('AbortController', BareController);
    const signals = createSharedSignals();
    const { signal } = signals.take();
    signals.abort(new Error('stopped'));
    expect(() => assertNotAborted(signal)).toThrow('stopped');
    expect(() => assertNotAborted(signals.take().signal)).toThrow('stopped');
  });

  it('tells the computation of an answer why nobody waits for it', async () => {
    vi.stubGlobal('AbortController', BareController);
    const predictions = createPredictions(testPlatform());
    const caller = new AbortController();
    let inner: AbortSignal | undefined;
    const asked = predictions.run({}, {}, { signal: caller.signal }, (signal) => {
      inner = signal;
      return never;
    });
    caller.abort();
    await expect(asked).rejects.toEqual(abortError);
    expect(inner?.aborted).toBe(true);
    expect(reasonOf(inner)).toEqual(abortError);
  });
});
