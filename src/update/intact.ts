import { toHex } from '../core/bytes.ts';
import { createPace, digestHex, hashesFast, updateInTurns, type DigestPlatform } from '../core/digest.ts';
import type { Blob, Store } from '../core/store.ts';
import type { PlanEntry } from './plan.ts';

/** Read at a time: two of these lie in memory, one that is hashed and the next. */
const pieceBytes = 2 ** 20;

/**
 * Looks a signed file up in the store and hashes it again: it may have been written long ago, and no inference library
 * notices a bit that has flipped in a weight. What does not have its signed length and hash is deleted.
 *
 * It costs one read of the file and its hash, some 2 ms per megabyte in Node, and 2 MiB of memory where hashes that are
 * made piece by piece are native; elsewhere the size of the file, as only the whole can be hashed off the thread.
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
  if (blob.sizeBytes === length && (await hashOf(platform, blob)) === sha256) return blob;
  await store.deleteBlob(sha256);
  return undefined;
}

async function hashOf(platform: DigestPlatform, blob: Blob): Promise<string> {
  const { sizeBytes } = blob;
  const isWhole = platform.digest !== undefined && (sizeBytes <= pieceBytes || !hashesFast(platform));
  if (isWhole) return digestHex(platform, await blob.bytes());
  const hash = platform.createSha256();
  const pace = createPace(
    () => platform.monotonicMs(),
    () =>
      new Promise((resolve) => {
        platform.setTimer(resolve, 0, true);
      }),
  );
  const read = (at: number): Promise<Uint8Array> => blob.read(at, Math.min(pieceBytes, sizeBytes - at));
  for (let at = 0, next = read(0); at < sizeBytes; at += pieceBytes) {
    const piece = await next;
    if (at + pieceBytes < sizeBytes) next = read(at + pieceBytes);
    await updateInTurns(hash, piece, pace);
  }
  return toHex(hash.digest());
}
