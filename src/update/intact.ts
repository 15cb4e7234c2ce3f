import { toHex } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import type { Blob, Store } from '../core/store.ts';
import type { PlanEntry } from './plan.ts';

/** Bytes hashed at a stretch, a few milliseconds of native hashing; in between, the event loop gets its turn. */
const stretchBytes = 2 ** 20;

/**
 * Looks a signed file up in the store and hashes it again: it may have been written long ago, and no inference library
 * notices a bit that has flipped in a weight. What does not have its signed length and hash is deleted.
 *
 * It costs one read of the file, its hash, and its size in memory meanwhile: some 3 ms per megabyte in Node.
 * @returns `undefined` when the file is absent or was damaged.
 * @throws {@link StoreError}
 */
export async function intactBlob(
  platform: Pick<Platform, 'createSha256' | 'setTimer'>,
  store: Store,
  { sha256, length }: Pick<PlanEntry, 'sha256' | 'length'>,
): Promise<Blob | undefined> {
  const blob = await store.blob(sha256);
  if (!blob) return undefined;
  if (blob.sizeBytes === length && (await hashOf(platform, await blob.bytes())) === sha256) return blob;
  await store.deleteBlob(sha256);
  return undefined;
}

async function hashOf(
  platform: Pick<Platform, 'createSha256' | 'setTimer'>,
  bytes: Uint8Array,
): Promise<string> {
  const hash = platform.createSha256();
  for (let at = 0; at < bytes.length; at += stretchBytes) {
    if (at > 0) {
      await new Promise<void>((resolve) => {
        platform.setTimer(resolve, 0, true);
      });
    }
    hash.update(bytes.subarray(at, at + stretchBytes));
  }
  return toHex(hash.digest());
}
