/** Longest time, in milliseconds, that an answer which has arrived may wait to be read. */
const GRACE_MS = 25;

/** What a watchdog tells the time by. */
export interface WatchdogClock {
  /** Monotonic, milliseconds. */
  now(): number;
  /** @returns cancels it. */
  setTimer(task: () => void, delayMs: number): () => void;
}

const realClock: WatchdogClock = {
  now: () => performance.now(),
  setTimer: (task, delayMs) => {
    // JavaScript knows no longer timers; whoever is woken too early looks again.
    const timer: { unref?(): void } & ReturnType<typeof setTimeout> = setTimeout(
      task,
      Math.min(delayMs, 2 ** 31 - 1),
    );
    // The worker keeps the process alive while it is at a call, and nothing needs to otherwise.
    timer.unref?.();
    return () => {
      clearTimeout(timer);
    };
  },
};

/**
 * Notices that a worker has been at one call for too long. Time in which the event loop of the host itself stood still
 * does not count, since the answer may have been waiting there.
 *
 * @param onHung - hears the limit that was passed; the watchdog is off from then on until it is told of another call.
 * @returns says which limit, in milliseconds, holds for the call that the worker is at from now on; `undefined` when
 * it has none.
 */
export function createWatchdog(
  onHung: (limitMs: number) => void,
  clock: WatchdogClock = realClock,
): (limitMs: number | undefined) => void {
  let limit: number | undefined;
  let dueMs = 0;
  /** Whether the time was up at the last look. */
  let suspected = false;
  let timer: { readonly atMs: number; readonly cancel: () => void } | undefined;

  const lookIn = (delayMs: number): void => {
    timer?.cancel();
    timer = { atMs: clock.now() + delayMs, cancel: clock.setTimer(look, delayMs) };
  };
  const look = (): void => {
    const now = clock.now();
    const lateMs = now - (timer?.atMs ?? now);
    timer = undefined;
    if (limit === undefined) return;
    if (now < dueMs) lookIn(dueMs - now);
    else if (!suspected) {
      suspected = true;
      // A page that slept for hours with its worker gives it no hours more.
      lookIn(Math.max(GRACE_MS, Math.min(lateMs, limit)));
    } else {
      const passed = limit;
      limit = undefined;
      onHung(passed);
    }
  };

  return (limitMs) => {
    limit = limitMs;
    suspected = false;
    // Not cancelled between calls: to set a timer for each costs more than all the rest.
    if (limitMs === undefined) return;
    dueMs = clock.now() + limitMs;
    // One timer serves many calls: it looks again when there was another call meanwhile.
    if (timer === undefined || timer.atMs > dueMs) lookIn(limitMs);
  };
}
