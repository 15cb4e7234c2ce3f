import { fromHex, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import type { Plan, PlanEntry } from './plan.ts';

/** Buckets of a rollout: one per basis point. */
export const buckets = 10_000;

/**
 * Places a device in a bucket of one rollout: `uint48be(SHA-256(salt ‖ 0x00 ‖ unitId)) mod 10000`. The salt is mixed
 * in, so the devices that are first in one rollout are not first in the next.
 * @param saltHex the plan's salt.
 * @param unitId what is placed, normally the random install identifier.
 * @returns an integer in [0, 10000).
 */
export function bucketOf(platform: Pick<Platform, 'createSha256'>, saltHex: string, unitId: string): number {
  const hash = platform.createSha256();
  hash.update(fromHex(saltHex));
  hash.update(Uint8Array.of(0));
  hash.update(toUtf8(unitId));
  const digest = new DataView(hash.digest().buffer);
  return (digest.getUint16(0) * 2 ** 32 + digest.getUint32(2)) % buckets;
}

/** Decides which release of a plan a device runs; `null` when the plan has none for it yet. */
export function decide(
  platform: Pick<Platform, 'createSha256'>,
  plan: Plan,
  unitId: string,
): PlanEntry | null {
  return bucketOf(platform, plan.salt, unitId) < plan.bp ? plan.cand : plan.base;
}
