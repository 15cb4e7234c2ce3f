import { digestHex, type DigestPlatform } from '../core/digest.ts';
import type { Blob, Store } from '../core/store.ts';
import type { PlanEntry } from './plan.ts';

/**
 * Looks a signed file up in the store and hashes it again: it may have been written long ago, and no inference library
 * notices a bit that has flipped in a weight. What does not have its signed length and hash is deleted.
 *
 * It costs one read of the file, its hash, and its size in memory meanwhile: some 3 ms per megabyte in Node, off the
 * calling thread.
 * @returns `undefined` when the file is absent or was damaged.
 * @throws {@link StoreError}
 */
export async function intactBlob(
  platform: DigestPlatform,
  store: Store,
  { sha256, length }: Pick<PlanEntry, 'sha256' | 'length'>,
): Promise<Blob | undefined> {
  const blob = await store.blob(sha256);
  if (!blob) return undefined;
  if (blob.sizeBytes === length && (await digestHex(platform, await blob.bytes())) === sha256) return blob;
  await store.deleteBlob(sha256);
  return undefined;
}
