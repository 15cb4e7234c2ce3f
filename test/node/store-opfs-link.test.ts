import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createWriterWorker, type WorkerLike } from '../../src/stores/opfs-link.ts';

const silenceMs = 30_000;

describe('a writer in a worker', () => {
  let nowMs = 0;
  let port: MessagePort | undefined;
  let ended = 0;
  const worker: WorkerLike = {
    postMessage: (_, [transferred]) => {
      port = transferred as MessagePort;
    },
    addEventListener: () => {},
    terminate: () => {
      ended += 1;
    },
  };
  beforeEach(() => {
    ended = 0;
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
  });
  afterEach(() => {
    port?.close();
    vi.useRealTimers();
    vi.restoreAllMocks();
  });
  const pass = (durationMs: number): void => {
    nowMs += durationMs;
    vi.advanceTimersByTime(durationMs);
  };

  it('is given up when it is silent', async () => {
    const writer = createWriterWorker(() => worker).begin('inlay', 'a'.repeat(64));
    pass(silenceMs);
    expect(ended).toBe(0);
    pass(1_000);
    expect(ended).toBe(1);
    expect(await writer).toBeUndefined();
  });

  it('is not given up for the time in which the device slept', async () => {
    const writer = createWriterWorker(() => worker).begin('inlay', 'a'.repeat(64));
    nowMs += 3_600_000;
    pass(silenceMs);
    pass(silenceMs - 1);
    expect(ended).toBe(0);
    port?.postMessage({});
    expect(await writer).toBeDefined();
    pass(1);
    expect(ended).toBe(0);
  });
});
