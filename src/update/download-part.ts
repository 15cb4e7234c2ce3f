/** A file that comes together in a store, piece by piece: hashed, written and noted while the next piece comes in. */

import { toHex } from '../core/bytes.ts';
import type { Hasher } from '../core/hash.ts';
import { createPace, digestHex, hashesFast, updateInTurns, type DigestPlatform } from '../core/digest.ts';
import type { Platform } from '../core/platform.ts';
import type { Blob, PartialBlob } from '../core/store.ts';
import { decodeNote, encodeNote, type Chunks } from './chunks.ts';
import { wrongHash } from './download-file.ts';
import type { FileRef } from './manifest.ts';

/** What is lost at most when the process is killed: so many bytes, or so many milliseconds. */
const saveEvery = { bytes: 2 ** 23, ms: 2000 };

/** Bytes of a file, the last one excluded. */
export interface Gap {
  readonly from: number;
  readonly to: number;
}

/** A file in the making. Of its content, two pieces lie in memory. */
export interface Assembly {
  /** Validator of what the pieces came from, to be set whenever the server says it. */
  etag: string | undefined;
  /** Whether some of it was there already, which only {@link Assembly.finish} verifies. */
  readonly isResumed: boolean;
  loadedBytes(): number;
  /** The first bytes that are missing, up to those that are there; `undefined` when none are. */
  gap(): Gap | undefined;
  /** Where the last bytes that are missing end. */
  end(): number;
  /**
   * Takes bytes that follow the last ones, or that begin where a gap or the file does. Those that are there are skipped.
   * @throws {@link TrustError} `ERR_INLAY_HASH` with `details.chunk` for an earlier piece that is not what was signed.
   */
  take(at: number, bytes: Uint8Array): Promise<void>;
  /** Waits for what was taken. @throws as {@link Assembly.take} */
  settle(): Promise<void>;
  /** Drops the beginning of a piece. */
  dropBeginning(): void;
  /** Drops everything. */
  clear(): void;
  /** Notes what is there, so that it survives. */
  save(): Promise<void>;
  finish(): Promise<Blob>;
}

/** Goes on with a part of a store. */
export function openAssembly(
  platform: DigestPlatform & Pick<Platform, 'defer'>,
  part: PartialBlob,
  file: FileRef,
  chunks: Chunks,
): Assembly {
  const { size, sha256: hashes } = chunks;
  const { length } = file;
  const count = Math.ceil(length / size);
  const { etag, done } = decodeNote(chunks, count, part.note);
  const bytesOf = (index: number): number => Math.min(size, length - index * size);
  const now = (): number => platform.monotonicMs();
  const pace = createPace(now, () => new Promise((resolve) => platform.defer(resolve)));

  let loaded = 0;
  for (let index = done.present(0); index < count; index = done.present(index + 1)) loaded += bytesOf(index);
  const isResumed = loaded > 0;
  // Where hashes are JavaScript, the store, which may be in a worker, or the platform does all of it better in the end.
  const mayHash = platform.digest === undefined || hashesFast(platform);
  const startHash = (): Hasher | undefined => (mayHash ? platform.createSha256() : undefined);
  /** Of all pieces from the first one on, as long as they come in order. */
  let hash = isResumed ? undefined : startHash();
  let hashed = 0;
  let buffer = new Uint8Array(Math.min(size, length));
  let spare: Uint8Array<ArrayBuffer> | undefined;
  /** The piece in the buffer, and how much of it is there. */
  let current = -1;
  let filled = 0;
  let keeping: Promise<void> = Promise.resolve();
  let unsaved = 0;
  let savedAt = now();

  const hashInOrder = async (index: number, bytes: Uint8Array): Promise<void> => {
    if (hash === undefined || index !== hashed) return;
    await updateInTurns(hash, bytes, pace);
    hashed += 1;
  };

  const isRight = async (index: number, bytes: Uint8Array): Promise<boolean> =>
    hashes === undefined || (await digestHex(platform, bytes)) === hashes.slice(64 * index, 64 * (index + 1));

  const keep = async (index: number, bytes: Uint8Array): Promise<void> => {
    // All at once, for each takes a while elsewhere. What is not noted does not count, right or not.
    const [isSigned] = await Promise.all([
      isRight(index, bytes),
      part.write(index * size, bytes),
      hashInOrder(index, bytes),
    ]);
    if (!isSigned) {
      hash = undefined;
      loaded -= bytes.length;
      throw wrongHash(file, index);
    }
    done.add(index);
    unsaved += bytes.length;
    if (unsaved >= saveEvery.bytes || now() - savedAt >= saveEvery.ms) await assembly.save();
  };

  const settle = async (): Promise<void> => {
    const last = keeping;
    keeping = Promise.resolve();
    await last;
  };

  const dropBeginning = (): void => {
    loaded -= filled;
    current = -1;
    filled = 0;
  };

  const assembly: Assembly = {
    etag,
    isResumed,
    loadedBytes: () => loaded,
    gap: () => {
      const first = done.missing(0);
      if (first === count) return undefined;
      if (first !== current) dropBeginning();
      return { from: first * size + filled, to: Math.min(done.present(first) * size, length) };
    },
    end: () => {
      let last = count - 1;
      while (last >= 0 && done.has(last)) last -= 1;
      return Math.min((last + 1) * size, length);
    },
    take: async (at, bytes) => {
      for (let from = 0; from < bytes.length;) {
        const index = Math.floor((at + from) / size);
        const offset = at + from - index * size;
        const piece = bytes.subarray(from, from + bytesOf(index) - offset);
        from += piece.length;
        if (done.has(index)) continue;
        buffer.set(piece, offset);
        current = index;
        filled = offset + piece.length;
        loaded += piece.length;
        if (filled < bytesOf(index)) continue;
        await settle();
        const whole = buffer;
        keeping = keep(index, whole.subarray(0, filled));
        // Whoever takes or settles next hears of it.
        keeping.catch(() => {});
        buffer = spare ?? new Uint8Array(whole.length);
        spare = whole;
        current = -1;
        filled = 0;
      }
    },
    settle,
    dropBeginning,
    clear: () => {
      done.clear();
      loaded = 0;
      current = -1;
      filled = 0;
      hash = startHash();
      hashed = 0;
    },
    save: async () => {
      if (unsaved === 0) return;
      unsaved = 0;
      savedAt = now();
      await part.save(encodeNote(chunks, { etag: assembly.etag, done }));
    },
    finish: () => part.finish(hash !== undefined && hashed === count ? toHex(hash.digest()) : undefined),
  };
  return assembly;
}
