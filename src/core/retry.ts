import { assertNotAborted, reasonOf } from './abort.ts';
import { NetworkError } from './errors.ts';
import type { Platform } from './platform.ts';

/** How often and how fast {@link retry} tries. */
export interface RetryOptions {
  readonly platform: Pick<Platform, 'setTimer' | 'random'>;
  /** Tries in all, at least 1. */
  readonly attempts: number;
  /** Upper bound of the first wait, milliseconds; it doubles with every try. */
  readonly baseMs: number;
  /** Upper bound of any wait, milliseconds. A server that asks for a longer one is not tried again. */
  readonly capMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs a task again after network failures that may pass, waiting a uniformly random part of a bound that doubles
 * (full jitter), or as long as the server asked (`Retry-After`). Any other failure, a {@link TrustError} above all,
 * is final at once.
 * @throws what the last try threw, or `signal.reason`.
 */
export async function retry<Result>(task: () => Promise<Result>, options: RetryOptions): Promise<Result> {
  const { platform, attempts, baseMs, capMs, signal } = options;
  for (let failures = 1; ; failures += 1) {
    assertNotAborted(signal);
    try {
      return await task();
    } catch (error) {
      const askedMs = retryAfterMs(error);
      if (failures >= attempts || !isRetryable(error) || askedMs > capMs) throw error;
      await wait(platform, askedMs + fullJitter(platform, failures - 1, baseMs, capMs - askedMs), signal);
    }
  }
}

/** Picks a wait between 0 and `baseMs` · 2^`exponent`, at most `capMs`, milliseconds. */
export function fullJitter(
  platform: Pick<Platform, 'random'>,
  exponent: number,
  baseMs: number,
  capMs: number,
): number {
  return platform.random() * Math.min(capMs, baseMs * 2 ** exponent);
}

/** Tells whether a failure may pass by itself. */
function isRetryable(error: unknown): boolean {
  return error instanceof NetworkError && error.details['retryable'] === true;
}

/** How long the server asked to be left alone, milliseconds; 0 when it did not. */
export function retryAfterMs(error: unknown): number {
  const asked = error instanceof NetworkError ? error.details['retryAfterMs'] : undefined;
  return typeof asked === 'number' ? asked : 0;
}

/**
 * Reads `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
 * @returns milliseconds; `undefined` if the server does not ask for anything.
 */
export function parseRetryAfter(value: string | null, now: number): number | undefined {
  if (value === null) return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function wait(
  platform: Pick<Platform, 'setTimer'>,
  delayMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    // It may have come during the last try, which failed of something else.
    if (signal?.aborted) {
      reject(reasonOf(signal));
      return;
    }
    const abort = (): void => {
      cancel();
      reject(reasonOf(signal));
    };
    const cancel = platform.setTimer(
      () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      },
      delayMs,
      true,
    );
    signal?.addEventListener('abort', abort, { once: true });
  });
}
