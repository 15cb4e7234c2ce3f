/** SHA-256 of a lot of bytes on a thread that others need, too. */

import { toHex } from './bytes.ts';
import { createSha256, type Hasher } from './hash.ts';
import type { Platform } from './platform.ts';

/** Bytes hashed at a stretch, at first: some 2 ms where JavaScript is interpreted, as in Hermes. */
const STRETCH_BYTES = 2 ** 12;
/** Stretches below this, in milliseconds, are made longer: each costs a call and a turn of promises. */
const SHORT_MS = 0.25;
/** Work goes on for so long before others get their turn, in milliseconds. */
const TURN_MS = 3;

/**
 * Lets others have the thread if work has gone on for long enough. To be awaited after each bit of work.
 * @returns milliseconds since it was awaited last.
 */
export type Pace = () => Promise<number>;

/**
 * Creates the pace of some work.
 * @param now - a clock in milliseconds.
 * @param pause - resolves when others had their turn.
 */
export function createPace(now: () => number, pause: () => Promise<void>): Pace {
  let since = now();
  let last = since;
  return async () => {
    const at = now();
    const tookMs = at - last;
    last = at;
    if (at - since >= TURN_MS) {
      await pause();
      last = now();
      since = last;
    }
    return tookMs;
  };
}

/** Adds bytes to a hash, a few milliseconds at a time. They must not change meanwhile. */
export async function updateInTurns(hash: Hasher, bytes: Uint8Array, pace: Pace): Promise<void> {
  let stretch = STRETCH_BYTES;
  for (let at = 0; at < bytes.length;) {
    hash.update(bytes.subarray(at, at + stretch));
    at += stretch;
    if ((await pace()) < SHORT_MS) stretch *= 2;
  }
}

/** Hashed to find out how fast that is, in several goes as one may be held up: native code takes 0.04 ms at most. */
const PROBE = { goes: 4, bytes: 2 ** 14, ms: 0.1 };

/** Tells whether hashing piece by piece runs natively: JavaScript is ten to thirty times slower. */
export function hashesFast(platform: Pick<Platform, 'createSha256' | 'monotonicMs'>): boolean {
  // Clocks of pages may be too coarse to show it.
  if (platform.createSha256 === createSha256) return false;
  const hash = platform.createSha256();
  const bytes = new Uint8Array(PROBE.bytes);
  let bestMs = Infinity;
  for (let go = 0; go < PROBE.goes; go += 1) {
    const began = platform.monotonicMs();
    hash.update(bytes);
    bestMs = Math.min(bestMs, platform.monotonicMs() - began);
  }
  return bestMs < PROBE.ms;
}

/** What {@link digestHex} needs. */
export type DigestPlatform = Pick<Platform, 'createSha256' | 'digest' | 'monotonicMs' | 'setTimer'>;

/**
 * SHA-256 of bytes in lower-case hex, off this thread or in native code where there is such, and otherwise a few
 * milliseconds at a time.
 */
export async function digestHex(platform: DigestPlatform, bytes: Uint8Array): Promise<string> {
  if (platform.digest !== undefined) return toHex(await platform.digest(bytes));
  const hash = platform.createSha256();
  const pause = (): Promise<void> =>
    new Promise((resolve) => {
      platform.setTimer(resolve, 0, true);
    });
  const now = (): number => platform.monotonicMs();
  await updateInTurns(hash, bytes, createPace(now, pause));
  return toHex(hash.digest());
}
