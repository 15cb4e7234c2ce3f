import { describe, expect, it } from 'vitest';
import { NetworkError, TrustError } from '../../src/core/errors.ts';
import { retry, type RetryOptions } from '../../src/core/retry.ts';
import { testPlatform, until, type TestPlatform } from './platform.ts';

const failure = (details: Record<string, unknown> = {}): NetworkError =>
  new NetworkError('ERR_INLAY_NETWORK', 'The network is down.', { details: { retryable: true, ...details } });

/** Runs a task that fails with the given errors, then succeeds, and records the waits. */
async function run(
  errors: unknown[],
  options: Partial<RetryOptions> = {},
  platform: TestPlatform = testPlatform(),
): Promise<{ outcome: unknown; tries: number; waits: number[] }> {
  const waits: number[] = [];
  let tries = 0;
  let outcome: unknown;
  const task = async (): Promise<string> => {
    const error = errors[tries];
    tries += 1;
    if (error !== undefined) throw error;
    return 'done';
  };
  let settled = false;
  void retry(task, { platform, attempts: 5, baseMs: 100, capMs: 1000, ...options })
    .catch((error: unknown) => error)
    .then((value) => {
      outcome = value;
      settled = true;
    });
  for (;;) {
    await until(() => settled || platform.timers().length > 0);
    const [wait] = platform.timers();
    if (settled || wait === undefined) return { outcome, tries, waits };
    waits.push(wait);
    platform.advance(wait);
  }
}

describe('retry', () => {
  it('tries again until it works', async () => {
    expect(await run([failure(), failure()])).toMatchObject({ outcome: 'done', tries: 3 });
  });

  it('gives up after the last attempt with what it threw', async () => {
    const last = failure();
    expect(await run([failure(), failure(), last], { attempts: 3 })).toMatchObject({
      outcome: last,
      tries: 3,
    });
  });

  it('waits a random part of a bound that doubles up to the cap', async () => {
    const errors = Array.from({ length: 6 }, () => failure());
    const { waits } = await run(errors, { attempts: 7 }, { ...testPlatform(), random: () => 0.5 });
    expect(waits).toEqual([50, 100, 200, 400, 500, 500]);
  });

  it('spreads over the whole bound', async () => {
    const waits: number[] = [];
    for (let seed = 0; seed < 60; seed += 1)
      waits.push(...(await run([failure()], {}, testPlatform({ seed }))).waits);
    expect(Math.min(...waits)).toBeLessThan(10);
    expect(Math.max(...waits)).toBeGreaterThan(90);
  });

  it.each([
    ['a TrustError', new TrustError('ERR_INLAY_SIGNATURE', 'Forged.', { details: { retryable: true } })],
    ['a failure that does not pass', failure({ retryable: false })],
    ['an error of another kind', new Error('Bug.')],
  ])('does not repeat %s', async (_, error) => {
    expect(await run([error])).toMatchObject({ outcome: error, tries: 1, waits: [] });
  });

  it('waits at least as long as the server asks', async () => {
    const { waits } = await run([failure({ retryAfterMs: 700 })]);
    expect(waits[0]).toBeGreaterThanOrEqual(700);
    expect(waits[0]).toBeLessThanOrEqual(800);
  });

  it('gives up when the server asks for longer than the cap', async () => {
    const error = failure({ retryAfterMs: 1001 });
    expect(await run([error])).toMatchObject({ outcome: error, tries: 1 });
  });

  it('keeps the process alive while it waits, and ends at once when it is aborted', async () => {
    const platform = testPlatform();
    const controller = new AbortController();
    const running = retry(() => Promise.reject(failure()), {
      platform,
      attempts: 5,
      baseMs: 100,
      capMs: 1000,
      signal: controller.signal,
    });
    await until(() => platform.timers().length > 0);
    expect(platform.isKeptAlive()).toBe(true);
    controller.abort(new Error('stopped'));
    await expect(running).rejects.toThrow('stopped');
    expect(platform.timers()).toEqual([]);
  });

  it('does not wait when the abort came during the last try', async () => {
    const platform = testPlatform();
    const controller = new AbortController();
    const task = async (): Promise<never> => {
      controller.abort(new Error('stopped'));
      throw failure();
    };
    const { signal } = controller;
    await expect(retry(task, { platform, attempts: 5, baseMs: 100, capMs: 1000, signal })).rejects.toThrow(
      'stopped',
    );
    expect(platform.timers()).toEqual([]);
  });

  it('does not begin after an abort', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    expect(await run([], { signal })).toMatchObject({ outcome: new Error('stopped'), tries: 0 });
  });
});
