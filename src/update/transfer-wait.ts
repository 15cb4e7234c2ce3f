import { reasonOf } from '../core/abort.ts';
import type { Platform } from '../core/platform.ts';

/** What {@link waitFor} takes. */
export interface WaitOptions {
  readonly delayMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Whether the process stays for it. Default false. */
  readonly keepAlive?: boolean;
  /** Subscribes to what ends it early. @returns unsubscribes. */
  readonly onWake?: ((wake: () => void) => () => void) | undefined;
}

/** Waits for some time. @throws `signal.reason` */
export function waitFor(platform: Pick<Platform, 'setTimer'>, options: WaitOptions): Promise<void> {
  const { delayMs, signal, keepAlive = false, onWake } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(reasonOf(signal));
      return;
    }
    const end = (settle: () => void): void => {
      cancel();
      unsubscribe?.();
      signal?.removeEventListener('abort', abort);
      settle();
    };
    const abort = (): void => {
      end(() => reject(reasonOf(signal)));
    };
    const cancel = platform.setTimer(() => end(resolve), delayMs, keepAlive);
    const unsubscribe = onWake?.(() => end(resolve));
    signal?.addEventListener('abort', abort, { once: true });
  });
}
