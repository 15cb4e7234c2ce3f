/** Downloads that go on where they ended: single ranges of one file, each piece verified (RFC 9110 §14). */

import { isInlayError, NetworkError } from '../core/errors.ts';
import { fullJitter, retryAfterMs } from '../core/retry.ts';
import type { Blob } from '../core/store.ts';
import { parseContentRange, strongTag, type Chunks } from './chunks.ts';
import { targetUrl, usualAttempts, wrongHash, wrongLength, type DownloadOptions } from './download-file.ts';
import { openAssembly, type Assembly, type Gap } from './download-part.ts';
import { openStream, type FetchedStream } from './fetch.ts';
import { waitFor } from './transfer-wait.ts';

/** A line that brings so many bytes before it drops works well enough to go on. */
const PROGRESS_BYTES = 65_536;

/** A download in pieces. */
export type ChunkedOptions = DownloadOptions & { readonly chunks: Chunks };

/**
 * Brings a file into the store that is not there, and begins with what an earlier download has left.
 * @throws as {@link downloadTarget}; what was verified stays for the next time, unless it is the content that is wrong.
 */
export async function downloadChunks(options: ChunkedOptions): Promise<Blob> {
  // What was there may have been damaged since; without it, there is no second reason.
  return (await downloadOnce(options)) ?? (await downloadOnce(options)) ?? fail(options);
}

function fail({ target }: ChunkedOptions): never {
  throw wrongHash(target);
}

/** @returns `undefined` if what was there before turned out to be damaged; it is gone now. */
async function downloadOnce(options: ChunkedOptions): Promise<Blob | undefined> {
  const { platform, store, target, chunks } = options;
  // It asks for room by itself, unless the part is there, which has it.
  const part = await store.openPartial(target.sha256, target.length);
  const assembly = openAssembly(platform, part, target, chunks);
  try {
    options.onLoaded?.(assembly.loadedBytes());
    await fill(options, assembly);
    return await assembly.finish();
  } catch (error) {
    const code = isInlayError(error) ? error.code : undefined;
    if (code === 'ERR_INLAY_STORE_MISMATCH') {
      if (assembly.isResumed) return undefined;
      throw wrongHash(target, undefined, error);
    }
    if (code === 'ERR_INLAY_HASH' || code === 'ERR_INLAY_LENGTH') await part.discard().catch(ignore);
    else await assembly.save().catch(ignore);
    throw error;
  } finally {
    await part.close().catch(ignore);
  }
}

async function fill(options: ChunkedOptions, assembly: Assembly): Promise<void> {
  const { platform, target, signal, attempts: { attempts, baseMs, capMs } = usualAttempts } = options;
  const askedAgain = new Set<unknown>();
  let isWhole = false;
  let failures = 0;
  let progress = assembly.loadedBytes();
  for (;;) {
    const gap = assembly.gap();
    if (gap === undefined) return;
    let failure: unknown;
    try {
      const outcome = await request(options, assembly, gap, isWhole);
      if (outcome === 'complete') continue;
      if (outcome === 'refused') {
        if (isWhole) throw wrongRange(target.path);
        isWhole = true;
        assembly.clear();
        continue;
      }
      failure = wrongLength(target, assembly.loadedBytes());
    } catch (error) {
      const chunk = isInlayError(error) ? error.details['chunk'] : undefined;
      if (chunk !== undefined && !askedAgain.has(chunk)) {
        askedAgain.add(chunk);
        continue;
      }
      if (!(error instanceof NetworkError && error.details['retryable'] === true)) throw error;
      failure = error;
    }
    const loaded = assembly.loadedBytes();
    if (loaded - progress >= PROGRESS_BYTES) failures = 0;
    // What was thrown away since counts as progress when it is there again.
    progress = failures === 0 ? loaded : Math.min(progress, loaded);
    failures += 1;
    const askedMs = retryAfterMs(failure);
    if (failures >= attempts || askedMs > capMs) throw failure;
    const delayMs = askedMs + fullJitter(platform, failures - 1, baseMs, capMs - askedMs);
    options.onRetry?.(failure, delayMs);
    await waitFor(platform, { delayMs, signal, keepAlive: true });
  }
}

/**
 * Asks once, and takes what comes.
 * @returns `short` if it ended early, `refused` if the server has other ranges than were asked for.
 */
async function request(
  options: ChunkedOptions,
  assembly: Assembly,
  gap: Gap,
  isWhole: boolean,
): Promise<'complete' | 'short' | 'refused'> {
  const { platform, url, target, timeoutMs, signal, rangeBytes = Infinity } = options;
  const { from } = gap;
  const to = Math.min(gap.to, from + rangeBytes);
  const headers = {
    range: `bytes=${from}-${to - 1}`,
    ...(assembly.etag !== undefined && { 'if-range': assembly.etag }),
  };
  const hasRange = !isWhole && (from > 0 || to < target.length);
  options.onStart?.();
  let stream: FetchedStream;
  try {
    stream = await openStream(platform, targetUrl(url, target), {
      capBytes: target.length,
      timeoutMs,
      signal,
      ...(hasRange && { headers }),
    });
  } catch (error) {
    if (hasRange && isInlayError(error) && error.details['status'] === 416) return 'refused';
    throw error;
  }
  try {
    const span = spanOf(stream, target, { from, to });
    if (span === undefined) return 'refused';
    assembly.etag = strongTag(stream.headers.get('etag'));
    if (stream.status !== 206) assembly.dropBeginning();
    const end = Math.min(span.to, assembly.end());
    for (let at = span.from; at < end;) {
      const piece = await stream.read();
      if (piece === undefined) return 'short';
      options.onBytes?.(piece.length);
      await assembly.take(at, piece.subarray(0, end - at));
      at += piece.length;
      options.onLoaded?.(assembly.loadedBytes());
    }
    return 'complete';
  } finally {
    stream.close();
    await assembly.settle();
  }
}

/**
 * Which bytes of the file an answer has.
 * @returns `undefined` for others than were asked for.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` for a whole file of another length.
 */
function spanOf(
  { status, headers }: FetchedStream,
  target: ChunkedOptions['target'],
  asked: Gap,
): Gap | undefined {
  const { length } = target;
  const isEncoded = headers.has('content-encoding');
  if (status !== 206) {
    const told = headers.get('content-length');
    if (told !== null && !isEncoded && Number(told) !== length) throw wrongLength(target, Number(told));
    return { from: 0, to: length };
  }
  const range = parseContentRange(headers.get('content-range'));
  // Ranges of a coded body are not ranges of the file (RFC 9110 §14.2).
  if (isEncoded || range?.first !== asked.from || (range.total ?? length) !== length) return undefined;
  const to = range.last + 1;
  // Some proxies give less than was asked for.
  const isEnough = to === asked.to || to - asked.from >= PROGRESS_BYTES;
  return to <= asked.to && isEnough ? { from: asked.from, to } : undefined;
}

function wrongRange(path: string): NetworkError {
  return new NetworkError(
    'ERR_INLAY_HTTP_CONTENT',
    `The server answers with another part of the file ${path} than was asked for; check it and the proxies before it.`,
    { details: { path, retryable: false } },
  );
}

function ignore(): void {}
