/** SHA-256 of a lot of bytes on a thread that others need, too. */

import { toHex } from './bytes.ts';
import type { Hasher } from './hash.ts';
import type { Platform } from './platform.ts';

/** Bytes hashed at a stretch: some 2 ms where JavaScript is interpreted, as in Hermes. */
const STRETCH_BYTES = 2 ** 12;
/** Work goes on for so long before others get their turn, in milliseconds. */
const TURN_MS = 3;

/** Lets others have the thread if work has gone on for long enough. To be awaited after each bit of work. */
export type Pace = () => Promise<void>;

/**
 * Creates the pace of some work.
 * @param now - a clock in milliseconds.
 * @param pause - resolves when others had their turn.
 */
export function createPace(now: () => number, pause: () => Promise<void>): Pace {
  let since = now();
  return async () => {
    if (now() - since < TURN_MS) return;
    await pause();
    since = now();
  };
}

/** Adds bytes to a hash, a few milliseconds at a time. They must not change meanwhile. */
export async function updateInTurns(hash: Hasher, bytes: Uint8Array, pace: Pace): Promise<void> {
  for (let at = 0; at < bytes.length; at += STRETCH_BYTES) {
    hash.update(bytes.subarray(at, at + STRETCH_BYTES));
    await pace();
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
