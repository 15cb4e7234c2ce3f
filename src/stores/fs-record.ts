import { createHash } from 'node:crypto';
import { concatBytes, equalBytes, toUtf8 } from '../core/bytes.ts';

/** One generation of a record. */
export interface Generation {
  /** Counts the updates of the record, from 1. */
  readonly number: number;
  readonly content: Uint8Array<ArrayBuffer>;
}

// File: magic (8 bytes), generation (u64, big-endian), content length (u64), SHA-256 of all else (32), content.
const magic = /* @__PURE__ */ toUtf8('inlayrec');
const checkedBytes = 24;
/** Bytes of a file before its content. */
export const headerBytes: number = 56;

/** Writes a generation as the bytes of its file. */
export function toRecordFile({ number, content }: Generation): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(headerBytes + content.length);
  const view = new DataView(file.buffer);
  file.set(magic);
  view.setBigUint64(8, BigInt(number));
  view.setBigUint64(16, BigInt(content.length));
  file.set(content, headerBytes);
  file.set(digest(file), checkedBytes);
  return file;
}

/** Size of a file by its first {@link headerBytes}; `undefined` where they are of something else. */
export function recordFileBytes(header: Uint8Array): number | undefined {
  if (header.length < headerBytes || !equalBytes(header.subarray(0, 8), magic)) return undefined;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  return headerBytes + Number(view.getBigUint64(16));
}

/** Reads a generation from the bytes of its file; `undefined` unless every bit is as it was written. */
export function fromRecordFile(file: Uint8Array): Generation | undefined {
  if (file.length < headerBytes || !equalBytes(file.subarray(0, 8), magic)) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (view.getBigUint64(16) !== BigInt(file.length - headerBytes)) return undefined;
  if (!equalBytes(file.subarray(checkedBytes, headerBytes), digest(file))) return undefined;
  return { number: Number(view.getBigUint64(8)), content: concatBytes([file.subarray(headerBytes)]) };
}

function digest(file: Uint8Array): Uint8Array {
  return createHash('sha256')
    .update(file.subarray(0, checkedBytes))
    .update(file.subarray(headerBytes))
    .digest();
}
