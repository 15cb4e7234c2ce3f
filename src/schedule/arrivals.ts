/** How fast calls come in. */
export interface Arrivals {
  count(samples: number, now: number): void;
  /** Samples per millisecond, lately. */
  perMs(now: number): number;
}

/** Time constant of the memory, in milliseconds. */
const LATELY_MS = 100;

/** Creates a counter that forgets exponentially. */
export function createArrivals(): Arrivals {
  let decayed = 0;
  let countedMs = 0;
  const fade = (now: number): number => {
    if (now > countedMs) {
      decayed *= Math.exp((countedMs - now) / LATELY_MS);
      countedMs = now;
    }
    return decayed;
  };
  return {
    count: (samples, now) => {
      decayed = fade(now) + samples;
    },
    perMs: (now) => fade(now) / LATELY_MS,
  };
}
