/** Rules that hold in every store: what blobs and records may be called, and what counts as a blob's content. */

import { StoreError } from '../core/errors.ts';

/** Throws a `RangeError` unless `sha256` is 64 lower-case hex digits. */
export function assertBlobName(sha256: string): void {
  if (!isBlobName(sha256))
    throw new RangeError('A blob is named by its SHA-256 as 64 lower-case hex digits.');
}

/** Throws a `RangeError` unless all are names of blobs. */
export function assertBlobNames(names: readonly string[]): void {
  for (const name of names) assertBlobName(name);
}

/** Tells whether a text is 64 lower-case hex digits. */
export function isBlobName(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** Throws a `RangeError` unless `name` is 1 to 200 of the characters `a-z`, `0-9`, `.`, `_` and `-`. */
export function assertRecordName(name: string): void {
  if (!/^[a-z0-9._-]{1,200}$/.test(name)) {
    throw new RangeError('A record is named by 1 to 200 of the characters a-z, 0-9, ".", "_" and "-".');
  }
}

/**
 * Compares the hash that a blob is named by with that of its content.
 * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH`
 */
export function assertSameHash(sha256: string, actual: string, sizeBytes: number): void {
  if (actual === sha256) return;
  throw new StoreError(
    'ERR_INLAY_STORE_MISMATCH',
    `Content for blob ${sha256} has SHA-256 ${actual} (${sizeBytes} bytes) and was not kept; fetch it again.`,
    { details: { sha256, actual, sizeBytes } },
  );
}

/** Throws a `RangeError` unless `sizeBytes` is a number of bytes. */
export function assertSize(sizeBytes: number): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw new RangeError(`A size is a whole number of bytes, not ${sizeBytes}.`);
  }
}

/** Throws a `RangeError` unless these are bytes of something that has `sizeBytes` of them. */
export function assertRange(offset: number, length: number, sizeBytes: number): void {
  assertSize(offset);
  assertSize(length);
  if (offset + length > sizeBytes) {
    throw new RangeError(`Bytes ${offset} to ${offset + length} are not within ${sizeBytes}.`);
  }
}

/** Tells whether content comes in pieces. */
export function isIterable(
  content: Uint8Array | AsyncIterable<Uint8Array>,
): content is AsyncIterable<Uint8Array> {
  return Symbol.asyncIterator in content;
}

/** Ends content that nobody reads, so that its producer can let go of a connection or a file. */
export async function skip(content: Uint8Array | AsyncIterable<Uint8Array>): Promise<void> {
  if (!isIterable(content)) return;
  try {
    await content[Symbol.asyncIterator]().return?.();
  } catch {
    // It failed at ending what is not needed.
  }
}

/**
 * Hands content out in pieces of its own, so that what callers do to their arrays meanwhile changes nothing. Whole
 * content comes in pieces of `pieceBytes`, other content as it comes.
 */
export async function forEachPiece(
  content: Uint8Array | AsyncIterable<Uint8Array>,
  pieceBytes: number,
  take: (piece: Uint8Array<ArrayBuffer>) => Promise<void>,
): Promise<void> {
  if (isIterable(content)) {
    for await (const piece of content) await take(new Uint8Array(piece));
    return;
  }
  for (let at = 0; at < content.length; at += pieceBytes) {
    await take(new Uint8Array(content.subarray(at, at + pieceBytes)));
  }
}

/** The error of a blob that is gone by the time it is read. */
export function missing(sha256: string, place: string): StoreError {
  return new StoreError(
    'ERR_INLAY_STORE_MISSING',
    `Blob ${sha256} is no longer in ${place}; fetch it again.`,
  );
}
