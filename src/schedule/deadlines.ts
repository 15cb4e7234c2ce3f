import type { Platform } from '../core/platform.ts';
import type { Job } from './job.ts';
import type { Lane } from './lanes.ts';

/** Sees to it that deadlines are kept also while all places are busy with long runs. */
export interface Deadlines {
  /** A job that is due then waits. */
  expect(dueMs: number, now: number): void;
  close(): void;
}

/** Shortest time, in milliseconds, between two looks. */
const PAUSE_MS = 5;

/**
 * Creates a timer for the earliest deadline.
 * @param lanes - those in which something waits.
 * @param onLate gets each waiting job whose deadline has passed.
 */
export function createDeadlines(
  platform: Pick<Platform, 'monotonicMs' | 'setTimer'>,
  lanes: Iterable<Lane>,
  onLate: (job: Job) => void,
): Deadlines {
  let cancel: (() => void) | undefined;
  let nextMs = Infinity;

  const expect = (dueMs: number, now: number): void => {
    if (dueMs >= nextMs) return;
    cancel?.();
    nextMs = dueMs;
    // Unref'd: what waits, waits for a run, and that keeps the process.
    cancel = platform.setTimer(look, Math.max(PAUSE_MS, dueMs - now));
  };
  const look = (): void => {
    const now = platform.monotonicMs();
    cancel = undefined;
    nextMs = Infinity;
    let soonestMs = Infinity;
    const late: Job[] = [];
    const visit = (job: Job): void => {
      if (job.isSettled) return;
      if (job.dueMs <= now) late.push(job);
      else soonestMs = Math.min(soonestMs, job.dueMs);
    };
    for (const { line, retries } of lanes) {
      line.each(visit);
      for (const group of retries) group.forEach(visit);
    }
    for (const job of late) onLate(job);
    expect(soonestMs, now);
  };

  return {
    expect,
    close: () => {
      cancel?.();
      nextMs = -Infinity;
    },
  };
}
