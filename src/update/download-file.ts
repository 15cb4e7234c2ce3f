/** What every download is given, where it finds its file, and how that may be wrong. */

import type { DigestPlatform } from '../core/digest.ts';
import { TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { RetryOptions } from '../core/retry.ts';
import type { Store } from '../core/store.ts';
import type { Chunks } from './chunks.ts';
import type { FileRef } from './manifest.ts';

/** How often a request is tried in a row, and how long is waited in between. */
export type Attempts = Pick<RetryOptions, 'attempts' | 'baseMs' | 'capMs'>;

/** Default of {@link Attempts}. */
export const usualAttempts: Attempts = { attempts: 5, baseMs: 500, capMs: 60_000 };

/** What {@link downloadTarget} needs. */
export interface DownloadOptions {
  readonly platform: DigestPlatform & Pick<Platform, 'defer' | 'fetch' | 'now' | 'random'>;
  readonly store: Store;
  /** Base URL of the sync server, without a slash at its end. */
  readonly url: string;
  readonly target: FileRef;
  /** How the file is cut: then it comes in pieces, and goes on where it ended. Default: it comes as a whole. */
  readonly chunks?: Chunks | undefined;
  /** Most bytes of one request for pieces, where `fetch` gives a body only when all of it is there. Default: no limit. */
  readonly rangeBytes?: number | undefined;
  /** How often a request for pieces is tried without any progress. Default: 5 times within a minute or two. */
  readonly attempts?: Attempts | undefined;
  /** Longest silence of the server, milliseconds. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told when the file, or a range of it, is asked for. */
  readonly onStart?: () => void;
  /** Told of every piece that arrives. */
  readonly onBytes?: (count: number) => void;
  /** Told how many bytes of the file are there, each time that some come, or go since they were wrong. */
  readonly onLoaded?: (loadedBytes: number) => void;
  /** Told when a request for pieces has failed, and how long is waited before the next. */
  readonly onRetry?: (failure: unknown, delayMs: number) => void;
}

/** URL of a target: TUF's consistent names put the hash before the file name (TUF 1.0 §6.2.2). */
export function targetUrl(base: string, { path, sha256 }: Pick<FileRef, 'path' | 'sha256'>): string {
  const segments = path.split('/').map(encodeURIComponent);
  const file = segments.pop() ?? '';
  return [base, 'v1', 'targets', ...segments, `${sha256}.${file}`].join('/');
}

/** The error of content that is shorter or longer than signed. */
export function wrongLength({ path, length }: FileRef, received: number): TrustError {
  return new TrustError(
    'ERR_INLAY_LENGTH',
    `The file ${path} ${received > length ? 'is longer than' : `ends after ${received} of`} its signed ${length} bytes; ` +
      'it was thrown away. Check what the server has there.',
    { details: { path, length, received } },
  );
}

/** The error of content that is not what was signed: of one piece, or as a whole. */
export function wrongHash({ path, sha256 }: FileRef, chunk?: number, cause?: unknown): TrustError {
  const what = chunk === undefined ? `The file ${path}` : `Piece ${chunk} of the file ${path}`;
  return new TrustError(
    'ERR_INLAY_HASH',
    `${what} does not have its signed SHA-256; it was thrown away. Check what the server has there.`,
    {
      details: { path, sha256, ...(chunk !== undefined && { chunk }) },
      ...(cause !== undefined && { cause }),
    },
  );
}
