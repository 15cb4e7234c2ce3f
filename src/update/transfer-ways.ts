/** The cheapest way to a file: patches, compressed, or whole. Whatever comes out has to be what was signed. */

import { isInlayError } from '../core/errors.ts';
import type { DigestPlatform } from '../core/digest.ts';
import type { Blob, Store } from '../core/store.ts';
import { cheapestPath, requestBytes, type Edge, type Path } from './cheapest-path.ts';
import type { Chunks } from './chunks.ts';
import { discardPart } from './download.ts';
import { intactBlob } from './intact.ts';
import type { FileContent, FileRef, Way } from './manifest.ts';
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
  /** Whether the device has had another file of the model: only then a patch whose base is missing is worth a word. */
  readonly isUpdate: boolean;
  /** Gets the SHA-256 of the file that was made on the way, as long as it is there only to make the next one. */
  readonly made: Set<string>;
  /** SHA-256 of a file that stays once it was made on the way. */
  readonly kept: string | undefined;
  readonly signal: AbortSignal;
  readonly download: (target: FileRef, chunks: Chunks | undefined, span: Span) => Promise<Blob>;
  /** Makes sure that so much fits, if it must without anything but this file. @throws as `Store.reserve`. */
  readonly reserve: (sizeBytes: number, base: string | undefined) => Promise<void>;
  readonly onPhase: (phase: 'patching' | 'verifying') => void;
  readonly onFallback: (fallback: Fallback) => void;
}

/** Bytes of a path that come before a download, and after it. */
export interface Span {
  readonly before: number;
  readonly after: number;
}

/** How patches and compressed files are cut: their pieces have no hashes, but they go on where they ended. */
const wayChunks: Chunks = { size: 1_048_576 };

/** A way, as a step of a path. */
interface Step extends Edge {
  readonly way: Way;
  readonly makes: FileContent;
}

/**
 * Brings a file into the store, by the path that costs the fewest bytes, and by the next one if that fails. Of the files
 * that a path leads over, each is there until the next one is: from it, a path that was interrupted goes on. The whole
 * file is the last.
 * @throws what the download of the whole file throws, or `signal.reason`.
 */
export async function buildFile(parts: WayParts): Promise<Obtained> {
  const { platform, store, file, made, signal } = parts;
  const fallbacks: Fallback[] = [];
  let steps = stepsOf(file, parts.ways);
  let present = await basesOf(store, steps);
  const [absent] = steps
    .filter((step) => step.way.kind === 'patch' && !cheapestPath(steps, present, step.from ?? ''))
    .sort((a, b) => a.cost - b.cost);
  let isTold = !parts.isUpdate && present.size === 0;
  let before = 0;
  const fail = (fallback: Fallback): void => {
    // Of a missing base, it is told once.
    if (fallback.reason === 'patch-base-missing') {
      if (isTold) return;
      isTold = true;
    }
    fallbacks.push(fallback);
    parts.onFallback(fallback);
  };
  parts.onPhase('verifying');
  for (;;) {
    // Another process may be ahead on the same path.
    const blob = await intactBlob(platform, store, file);
    if (blob) return { blob, way: 'stored', fallbacks };
    // The whole file is a step as well, so that there is always a path.
    const { cost, steps: path } = cheapestPath(steps, present, file.sha256) as Path<Step>;
    if (absent && absent.cost < cost) fail({ way: absent.way, reason: 'patch-base-missing' });
    const [next] = path as [Step];
    const step = path.find(({ way }) => decoderOf(parts, way) === undefined) ?? next;
    const { way, to } = step;
    const result = await take(parts, step, path, before).catch(async (error: unknown): Promise<Fallback> => {
      const reason = isInlayError(error) ? reasons[error.code] : undefined;
      if (reason === undefined || way.kind === 'full' || signal.aborted) throw error;
      if (unfinished.has(reason)) await discardPart(store, way);
      return { way, reason, error };
    });
    // Each is tried once, whatever others delete meanwhile.
    steps = steps.filter((one) => one !== step);
    if ('reason' in result) {
      fail(result);
    } else {
      before += way.length;
      for (const sha256 of made) {
        if (sha256 === parts.kept) continue;
        made.delete(sha256);
        await deleteUnpinned(store, sha256);
      }
      if (to === file.sha256) return { blob: result, way: way.kind, fallbacks };
      made.add(to);
    }
    present = await basesOf(store, steps);
  }
}

/** Finds what steps can start from now. It is hashed when one does. */
async function basesOf(store: Store, steps: readonly Step[]): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  for (const { from } of steps) if (from !== undefined && (await store.blob(from))) found.add(from);
  return found;
}

function stepsOf(file: FileRef, ways: readonly Way[]): readonly Step[] {
  const whole: Way = { ...file, kind: 'full' };
  return [whole, ...ways.filter(({ kind }) => kind !== 'full')].map((way) => {
    const makes = way.kind === 'hop' ? way.to : file;
    const from = 'from' in way ? way.from : undefined;
    return { way, makes, from, to: makes.sha256, cost: way.length + requestBytes };
  });
}

/** Deletes a file that nobody else needs; failures cost nothing but room. */
export async function deleteUnpinned(store: Store, sha256: string): Promise<void> {
  try {
    const facts = (await store.describeBlobs()).find((one) => one.sha256 === sha256);
    if (facts?.pins.length === 0) await store.deleteBlob(sha256);
  } catch {
    // What is not pinned is evicted when there is no room.
  }
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

/**
 * Makes what a step makes.
 * @param path - the rest of it, from this step on.
 * @param before - bytes that have come for it.
 */
async function take(
  parts: WayParts,
  step: Step,
  path: readonly Step[],
  before: number,
): Promise<Blob | Fallback> {
  const { store } = parts;
  const { way, makes, from } = step;
  if (way.kind === 'full') return parts.download(parts.file, parts.chunks, { before, after: 0 });
  const decode = decoderOf(parts, way);
  if (decode === undefined) return { way, reason: 'codec-unknown' };
  // Each stays until the next one is there.
  const room = path.map((one, i) => one.way.length + one.makes.length + (path[i - 1]?.makes.length ?? 0));
  await parts.reserve(Math.max(...room), from);
  const base = from === undefined ? nothing : await baseOf(parts, from);
  if (base === undefined) return { way, reason: 'patch-base-missing' };
  const after = path.slice(1).reduce((sum, one) => sum + one.way.length, 0);
  const blob = await parts.download(way, wayChunks, { before, after });
  try {
    parts.onPhase('patching');
    return await write(store, step, decode(base, blob, makes.length));
  } finally {
    // Whatever a manifest calls a patch: what runs is not deleted.
    await deleteUnpinned(store, way.sha256);
  }
}

async function baseOf({ platform, store, made }: WayParts, sha256: string): Promise<Blob | undefined> {
  const found = await store.blob(sha256);
  // What was just made was verified as it was written.
  if (found === undefined || made.has(sha256)) return found;
  return intactBlob(platform, store, { sha256, length: found.sizeBytes });
}

/** Finds what makes a file out of another one and what travels; `undefined`: this device has nothing that does. */
function decoderOf({ patchers }: WayParts, way: Way): Patcher['apply'] | undefined {
  // The whole file needs none.
  if (way.kind === 'full' || (way.codec === 'gzip' && hasGunzip())) return (_, blob) => gunzip(blob);
  const patcher = patchers.find(({ codec }) => codec === way.codec);
  return patcher && ((...files) => patcher.apply(...files));
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
  store: Store,
  { way, makes }: Step,
  pieces: AsyncIterable<Uint8Array>,
): Promise<Blob | Fallback> {
  const kind = way.kind === 'compressed' ? 'decode' : 'patch';
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
          if (made <= makes.length) return { done: false, value };
        } catch (error) {
          failure = { way, reason: `${kind}-failed`, error };
          throw error;
        }
        failure = { way, reason: `${kind}-output-length` };
        await iterator.return?.();
        throw new RangeError(`Too much comes out of ${way.path}.`);
      },
      return: async () => {
        await iterator.return?.();
        return { done: true, value: undefined };
      },
    };
  };
  try {
    return await store.putBlob(makes.sha256, { [Symbol.asyncIterator]: bounded });
  } catch (error) {
    if (failure !== undefined) return failure;
    if (isInlayError(error) && error.code === 'ERR_INLAY_STORE_MISMATCH') {
      return { way, reason: `${kind}-output-hash`, error };
    }
    throw error;
  }
}
