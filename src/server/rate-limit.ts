/** How often somebody may ask. */

import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';

/** A rate, and how much of it may come at once. */
export interface Rate {
  readonly perS: number;
  readonly burst: number;
}

/** Token buckets by name (RFC 2697 has their arithmetic). They are in memory: each replica counts for itself. */
export interface RateLimit {
  /** Takes one. @throws {@link ServerError} `ERR_INLAY_RATE_LIMITED` with `retryAfterS` in its details, if none is left. */
  take(name: string): void;
}

/** Names that are remembered; the one that asked longest ago is forgotten first. */
const mostNames = 10_000;

/** Creates buckets that are full. */
export function createRateLimit(
  { perS, burst }: Rate,
  { monotonicMs }: Pick<Platform, 'monotonicMs'>,
): RateLimit {
  const buckets = new Map<string, { readonly left: number; readonly atMs: number }>();

  return {
    take: (name) => {
      const atMs = monotonicMs();
      const bucket = buckets.get(name);
      const left = bucket ? Math.min(burst, bucket.left + ((atMs - bucket.atMs) / 1000) * perS) : burst;
      if (left < 1) {
        const retryAfterS = Math.max(1, Math.ceil((1 - left) / perS));
        throw new ServerError(
          'ERR_INLAY_RATE_LIMITED',
          `Too many requests; ask again in ${retryAfterS} s, and ${perS} times a second at most.`,
          { details: { retryAfterS } },
        );
      }
      // What was put in last is at the end of a map.
      buckets.delete(name);
      buckets.set(name, { left: left - 1, atMs });
      if (buckets.size <= mostNames) return;
      const oldest = buckets.keys().next();
      if (oldest.done !== true) buckets.delete(oldest.value);
    },
  };
}
