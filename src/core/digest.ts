/** SHA-256 of a lot of bytes on a thread that others need, too. */

import { toHex } from './bytes.ts';
import type { Hasher } from './hash.ts';
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
