/** The cheapest way to a file: patch, compressed, or whole. Whatever comes out has to be what was signed. */

import { isInlayError } from '../core/errors.ts';
import type { DigestPlatform } from '../core/digest.ts';
import type { Blob, Store } from '../core/store.ts';
import type { Chunks } from './chunks.ts';
import { discardPart } from './download.ts';
import { intactBlob } from './intact.ts';
import type { FileRef, Way } from './manifest.ts';
import type { Patcher } from './patcher.ts';
import { gunzip, hasGunzip } from './transfer-gunzip.ts';

/** Why a way did not lead to the file. The words are part of the telemetry and never change their meaning. */
export type FallbackReason =
  | 'codec-unknown'
  | 'patch-base-missing'
  | 'patch-failed'
  | 'patch-output-length'
  | 'patch-output-hash'
  | 'decode-failed'
  | 'decode-output-length'
  | 'decode-output-hash'
  | 'network'
  | 'http-status'
  | 'http-content'
  | 'length'
  | 'hash'
  | 'no-room'
  | 'store';

/** A way that was tried in vain. */
export interface Fallback {
  readonly way: Way;
  readonly reason: FallbackReason;
  /** What was thrown, if something was. */
  readonly error?: unknown;
}

/** A file that is in the store, verified. */
export interface Obtained {
  readonly blob: Blob;
  /** How it came; `stored` if it was there. */
  readonly way: Way['kind'] | 'stored';
  /** What was tried before, in order. */
  readonly fallbacks: readonly Fallback[];
}

/** What {@link buildFile} works with. */
export interface WayParts {
  readonly platform: DigestPlatform;
  readonly store: Store;
  readonly patchers: readonly Patcher[];
  readonly file: FileRef;
  /** How the file is cut. */
  readonly chunks: Chunks | undefined;
  /** Other ways than the whole file. */
  readonly ways: readonly Way[];
  readonly signal: AbortSignal;
  readonly download: (target: FileRef, chunks: Chunks | undefined) => Promise<Blob>;
  readonly onPhase: (phase: 'patching' | 'verifying') => void;
  readonly onFallback: (fallback: Fallback) => void;
}

/** How patches and compressed files are cut: their pieces have no hashes, but they go on where they ended. */
const wayChunks: Chunks = { size: 1_048_576 };

/**
 * Brings a file into the store, by the way that costs the fewest bytes, and by the next one if that fails. The whole
 * file is the last.
 * @throws what the download of the whole file throws, or `signal.reason`.
 */
export async function buildFile(parts: WayParts): Promise<Obtained> {
  const { platform, store, file, signal } = parts;
  const fallbacks: Fallback[] = [];
  parts.onPhase('verifying');
  const present = await intactBlob(platform, store, file);
  if (present) return { blob: present, way: 'stored', fallbacks };
  const cheaper = parts.ways
    .filter((way) => way.kind !== 'full' && way.length < file.length)
    .sort((a, b) => a.length - b.length);
  for (const way of cheaper) {
    const result = await tryWay(parts, way).catch(async (error: unknown): Promise<Fallback> => {
      const reason = isInlayError(error) ? reasons[error.code] : undefined;
      if (reason === undefined || signal.aborted) throw error;
      if (unfinished.has(reason)) await discardPart(store, way);
      return { way, reason, error };
    });
    if (!('reason' in result)) return { blob: result, way: way.kind, fallbacks };
    fallbacks.push(result);
    parts.onFallback(result);
  }
  return { blob: await parts.download(file, parts.chunks), way: 'full', fallbacks };
}

const reasons: Readonly<Record<string, FallbackReason>> = {
  ERR_INLAY_NETWORK: 'network',
  ERR_INLAY_HTTP_STATUS: 'http-status',
  ERR_INLAY_HTTP_CONTENT: 'http-content',
  ERR_INLAY_LENGTH: 'length',
  ERR_INLAY_HASH: 'hash',
  ERR_INLAY_STORE_FULL: 'no-room',
  ERR_INLAY_STORE_IO: 'store',
  ERR_INLAY_STORE_READ_ONLY: 'store',
  ERR_INLAY_STORE_MISSING: 'store',
};

/** Failures of a download that would go on the next time; now there is none. */
const unfinished: ReadonlySet<FallbackReason> = /* @__PURE__ */ new Set<FallbackReason>([
  'network',
  'http-status',
  'http-content',
]);

async function tryWay(parts: WayParts, way: Way): Promise<Blob | Fallback> {
  const { store, file } = parts;
  const source = await openWay(parts, way);
  if (typeof source === 'string') return { way, reason: source };
  await store.reserve(way.length + file.length);
  const blob = await parts.download(way, wayChunks);
  try {
    parts.onPhase('patching');
    return await write(parts, way, await source(blob));
  } finally {
    await store.deleteBlob(way.sha256);
  }
}

/** @returns what makes the file out of what travels, or why nothing does. */
async function openWay(
  { platform, store, patchers, file }: WayParts,
  way: Way,
): Promise<FallbackReason | ((blob: Blob) => Promise<AsyncIterable<Uint8Array>>)> {
  if (way.kind === 'full' || way.codec === 'gzip') {
    return hasGunzip() ? async (blob) => gunzip(blob) : 'codec-unknown';
  }
  const patcher = patchers.find(({ codec }) => codec === way.codec);
  if (patcher === undefined) return 'codec-unknown';
  if (way.kind === 'compressed') return async (patch) => patcher.apply(nothing, patch, file.length);
  const found = await store.blob(way.from);
  const base = found && (await intactBlob(platform, store, { sha256: way.from, length: found.sizeBytes }));
  return base ? async (patch) => patcher.apply(base, patch, file.length) : 'patch-base-missing';
}

/** What patches start from that start from no file. */
const nothing: Blob = {
  sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  sizeBytes: 0,
  bytes: async () => new Uint8Array(0),
  read: async () => new Uint8Array(0),
};

/** Keeps what comes out, if it is the file. */
async function write(
  { store, file }: WayParts,
  way: Way,
  pieces: AsyncIterable<Uint8Array>,
): Promise<Blob | Fallback> {
  const kind = way.kind === 'patch' ? 'patch' : 'decode';
  let made = 0;
  let failure: Fallback | undefined;
  const bounded = (): AsyncIterator<Uint8Array, undefined> => {
    const iterator = pieces[Symbol.asyncIterator]();
    return {
      next: async () => {
        try {
          const { done, value } = await iterator.next();
          if (done === true) return { done, value: undefined };
          made += value.length;
          if (made <= file.length) return { done: false, value };
        } catch (error) {
          failure = { way, reason: `${kind}-failed`, error };
          throw error;
        }
        failure = { way, reason: `${kind}-output-length` };
        await iterator.return?.();
        throw new RangeError(`More than the ${file.length} bytes of ${file.path} come out of ${way.path}.`);
      },
      return: async () => {
        await iterator.return?.();
        return { done: true, value: undefined };
      },
    };
  };
  try {
    return await store.putBlob(file.sha256, { [Symbol.asyncIterator]: bounded });
  } catch (error) {
    if (failure !== undefined) return failure;
    if (isInlayError(error) && error.code === 'ERR_INLAY_STORE_MISMATCH') {
      return { way, reason: `${kind}-output-hash`, error };
    }
    throw error;
  }
}
