import type { DigestPlatform } from '../core/digest.ts';
import { TrustError, isInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Blob, Store } from '../core/store.ts';
import { openStream } from './fetch.ts';
import { intactBlob } from './intact.ts';
import type { PlanEntry } from './plan.ts';

/** What {@link downloadTarget} needs. */
export interface DownloadOptions {
  readonly platform: DigestPlatform & Pick<Platform, 'fetch' | 'now'>;
  readonly store: Store;
  /** Base URL of the sync server, without a slash at its end. */
  readonly url: string;
  readonly target: Pick<PlanEntry, 'path' | 'sha256' | 'length'>;
  /** Longest silence of the server, milliseconds. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Told when the file is asked for, again if the store had no room for it. */
  readonly onStart?: () => void;
  /** Told of every piece that arrives. */
  readonly onBytes?: (count: number) => void;
}

/** How often a file is asked for again that the store had no room for, or broke at: it makes some, or goes elsewhere. */
const roomRetries = 2;

/**
 * Brings a signed file into the store, unless it is there and intact. It is counted and hashed while it streams; what does not
 * have the signed length and hash is not kept, and no byte beyond the signed length is read on.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` or `ERR_INLAY_HASH`, {@link NetworkError}, {@link StoreError}.
 */
export async function downloadTarget(options: DownloadOptions): Promise<Blob> {
  const { platform, store, target } = options;
  const present = await intactBlob(platform, store, target);
  if (present) return present;
  for (let retries = roomRetries; ; retries -= 1) {
    // A store that has just failed for want of room makes some now, or says that it cannot.
    await store.reserve(target.length);
    const { degraded } = store.info();
    try {
      return await receive(options);
    } catch (error) {
      const code = isInlayError(error) ? error.code : undefined;
      // Its disk broke, and from now on it serves from memory.
      const moved = code === 'ERR_INLAY_STORE_IO' && store.info().degraded !== degraded;
      if ((code !== 'ERR_INLAY_STORE_FULL' && !moved) || retries === 0) throw error;
    }
  }
}

async function receive(options: DownloadOptions): Promise<Blob> {
  const { platform, store, target, onBytes } = options;
  const { path, sha256, length } = target;
  options.onStart?.();
  const stream = await openStream(platform, targetUrl(options.url, target), { ...options, capBytes: length });
  let received = 0;
  let failure: unknown;
  const next = async (): Promise<IteratorResult<Uint8Array, undefined>> => {
    try {
      const piece = await stream.read();
      received += piece?.length ?? 0;
      if (received > length || (!piece && received < length)) throw wrongLength(path, received, length);
      if (!piece) return { done: true, value: undefined };
      onBytes?.(piece.length);
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
      throw new TrustError(
        'ERR_INLAY_HASH',
        `The file ${path} does not have its signed SHA-256; it was thrown away. Check what the server has there.`,
        { details: { path, sha256 }, cause: error },
      );
    }
    throw error;
  } finally {
    stream.close();
  }
}

/** URL of a target: TUF's consistent names put the hash before the file name (TUF 1.0 §6.2.2). */
export function targetUrl(base: string, { path, sha256 }: Pick<PlanEntry, 'path' | 'sha256'>): string {
  const segments = path.split('/').map(encodeURIComponent);
  const file = segments.pop() ?? '';
  return [base, 'v1', 'targets', ...segments, `${sha256}.${file}`].join('/');
}

function wrongLength(path: string, received: number, length: number): TrustError {
  return new TrustError(
    'ERR_INLAY_LENGTH',
    `The file ${path} ${received > length ? 'is longer than' : `ends after ${received} of`} its signed ${length} bytes; ` +
      'it was thrown away. Check what the server has there.',
    { details: { path, length, received } },
  );
}
