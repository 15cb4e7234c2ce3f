import { isInlayError } from '../core/errors.ts';
import { fullJitter } from '../core/retry.ts';
import type { Blob, Store } from '../core/store.ts';
import { downloadChunks } from './download-chunks.ts';
import { targetUrl, usualAttempts, wrongHash, wrongLength, type DownloadOptions } from './download-file.ts';
import { openStream } from './fetch.ts';
import { intactBlob } from './intact.ts';
import type { FileRef } from './manifest.ts';
import { waitFor } from './transfer-wait.ts';

export { targetUrl } from './download-file.ts';

/** How often a file is asked for again that the store had no room for, or broke at: it makes some, or goes elsewhere. */
const roomRetries = 2;

/**
 * Brings a signed file into the store, unless it is there and intact. It is counted and hashed while it streams; what does not
 * have the signed length and hash is not kept, and no byte beyond the signed length is read on. In pieces, it survives
 * drops, pauses and restarts; without, whoever calls tries again.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` or `ERR_INLAY_HASH`, {@link NetworkError}, {@link StoreError}.
 */
export async function downloadTarget(options: DownloadOptions): Promise<Blob> {
  const {
    platform,
    store,
    target,
    chunks,
    signal,
    attempts: { attempts, baseMs, capMs } = usualAttempts,
  } = options;
  const present = await intactBlob(platform, store, target);
  if (present) return present;
  let retries = roomRetries;
  for (let losses = 0; ;) {
    const { degraded } = store.info();
    try {
      return await (chunks === undefined ? receive(options) : downloadChunks({ ...options, chunks }));
    } catch (error) {
      const code = isInlayError(error) ? error.code : undefined;
      // Its disk broke, and from now on it serves from memory.
      const moved = code === 'ERR_INLAY_STORE_IO' && store.info().degraded !== degraded;
      if ((code === 'ERR_INLAY_STORE_FULL' || moved) && retries > 0) {
        retries -= 1;
      } else if (isTakenOver(error) && losses < attempts - 1) {
        // Another process downloads it, too, and may be done soon.
        await waitFor(platform, {
          delayMs: 4 * baseMs + fullJitter(platform, losses + 3, baseMs, capMs),
          signal,
          keepAlive: true,
        });
        losses += 1;
        const theirs = await intactBlob(platform, store, target);
        if (theirs) return theirs;
      } else {
        if (code === 'ERR_INLAY_STORE_FULL' && chunks !== undefined) await discardPart(store, target);
        throw error;
      }
    }
  }
}

function isTakenOver(error: unknown): boolean {
  return isInlayError(error) && error.details['reason'] === 'taken over';
}

/** Forgets what is there of a file; failures cost nothing but room. */
export async function discardPart(store: Store, { sha256, length }: FileRef): Promise<void> {
  try {
    await (await store.openPartial(sha256, length)).discard();
  } catch {
    // Stores forget such parts by themselves, later.
  }
}

async function receive(options: DownloadOptions): Promise<Blob> {
  const { platform, store, target } = options;
  const { sha256, length } = target;
  // A store that has just failed for want of room makes some now, or says that it cannot.
  await store.reserve(length);
  options.onStart?.();
  const stream = await openStream(platform, targetUrl(options.url, target), { ...options, capBytes: length });
  let received = 0;
  let failure: unknown;
  const next = async (): Promise<IteratorResult<Uint8Array, undefined>> => {
    try {
      const piece = await stream.read();
      received += piece?.length ?? 0;
      if (received > length || (!piece && received < length)) throw wrongLength(target, received);
      if (!piece) return { done: true, value: undefined };
      options.onBytes?.(piece.length);
      options.onLoaded?.(received);
      return { done: false, value: piece };
    } catch (error) {
      failure = error;
      throw error;
    }
  };
  try {
    return await store.putBlob(sha256, { [Symbol.asyncIterator]: () => ({ next }) });
  } catch (error) {
    // A store may wrap what the stream threw; the stream's own words are better.
    if (failure !== undefined) throw failure;
    if (isInlayError(error) && error.code === 'ERR_INLAY_STORE_MISMATCH') {
      throw wrongHash(target, undefined, error);
    }
    throw error;
  } finally {
    stream.close();
  }
}
