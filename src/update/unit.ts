/** Where a rollout places a device: a pure function of the plan's salt and an identifier that never leaves the device. */

import { fromHex, toHex, toUtf8 } from '../core/bytes.ts';
import { createSha256 } from '../core/hash.ts';

/** Buckets of a rollout: one per basis point. */
export const buckets = 10_000;

/**
 * Places a unit in a bucket of one rollout: `uint48be(SHA-256(salt ‖ 0x00 ‖ unit)) mod 10000`. The salt is mixed in, so
 * the devices that are first in one rollout are not first in the next.
 * @param saltHex the plan's salt, 16 hex digits.
 * @param unit what is placed, normally the random install identifier; hashed as UTF-8.
 * @returns an integer in [0, 10000).
 */
export function bucketOf(saltHex: string, unit: string): number {
  const digest = new DataView(digestOf(saltHex, 0, unit).buffer);
  return (digest.getUint16(0) * 2 ** 32 + digest.getUint32(2)) % buckets;
}

/**
 * Names a unit in the lists `allow` and `deny` of a plan, which everybody can read: the first 16 bytes of
 * SHA-256(salt ‖ 0x01 ‖ unit). The second byte keeps it apart from the hash that gives the bucket.
 * @param saltHex the plan's salt, 16 hex digits.
 * @returns 32 lower-case hex digits.
 */
export function unitHash(saltHex: string, unit: string): string {
  return toHex(digestOf(saltHex, 1, unit).subarray(0, 16));
}

function digestOf(saltHex: string, purpose: 0 | 1, unit: string): Uint8Array<ArrayBuffer> {
  const hash = createSha256();
  hash.update(fromHex(saltHex));
  hash.update(Uint8Array.of(purpose));
  hash.update(toUtf8(unit));
  return hash.digest();
}
