/** A platform whose time only passes when it is told to, and whose random numbers come from a seed. */

import type { Platform } from '../../core/platform.ts';
import { nodePlatform } from '../../platform-node.ts';
import { createDraws } from './draws.ts';

/** Virtual time. */
export interface VirtualTime {
  readonly platform: Platform;
  /** Goes on to a time, milliseconds since 1970, and runs what is due by then. It never goes back. */
  advance(to: number): void;
}

/** Creates virtual time. @param startMs - milliseconds since 1970. */
export function createVirtualTime(startMs: number, seed: number): VirtualTime {
  const { uniform } = createDraws(seed);
  const timers = new Set<{ readonly at: number; readonly task: () => void }>();
  let now = startMs;
  return {
    platform: {
      ...nodePlatform(),
      now: () => now,
      monotonicMs: () => now - startMs,
      random: uniform,
      randomBytes: (length) => Uint8Array.from({ length }, () => Math.floor(256 * uniform())),
      setTimer: (task, delayMs) => {
        const timer = { at: now + delayMs, task };
        timers.add(timer);
        return () => {
          timers.delete(timer);
        };
      },
    },
    advance: (to) => {
      now = Math.max(now, to);
      for (const timer of timers) {
        if (timer.at > now) continue;
        timers.delete(timer);
        timer.task();
      }
    },
  };
}
