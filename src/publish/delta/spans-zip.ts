/** Files of a ZIP archive that lie in it as they are (PKWARE APPNOTE.TXT 6.3.10 §4.3), not compressed and not encrypted. */
import { showUtf8 } from '../../core/bytes.ts';

/** A file whose bytes are those of the archive. */
export interface StoredFile {
  readonly offset: number;
  readonly sizeBytes: number;
  /** Where the archive has its CRC-32, little endian. */
  readonly checksumsAt: readonly number[];
}

const LOCAL = 0x04_03_4b_50;
const CENTRAL = 0x02_01_4b_50;
const END = 0x06_05_4b_50;
const DESCRIPTOR = 0x08_07_4b_50;
const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
const DESCRIPTOR_BYTES = 16;
const COMMENT_CAP_BYTES = 0xff_ff;

/** Flags (§4.4.4): encrypted, in three ways; and sizes that follow the file. */
const ENCRYPTED = 0x20_41;
const IS_DESCRIBED_AFTER = 8;

/** Tells whether bytes begin as an archive with files does. */
export function isZip(bytes: Uint8Array): boolean {
  return bytes.length >= END_BYTES && viewOf(bytes).getUint32(0, true) === LOCAL;
}

/** Lists stored files by name. An archive that contradicts itself has none; those of ZIP64 are not found. */
export function storedFiles(archive: Uint8Array): ReadonlyMap<string, StoredFile> {
  const view = viewOf(archive);
  const end = findEnd(view);
  const files = new Map<string, StoredFile>();
  if (end === undefined) return files;
  const names = new Set<string>();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
    if (at + CENTRAL_BYTES > end || view.getUint32(at, true) !== CENTRAL) return new Map();
    const nameEnd = at + CENTRAL_BYTES + view.getUint16(at + 28, true);
    const next = nameEnd + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (next > end) return new Map();
    const name = showUtf8(archive.subarray(at + CENTRAL_BYTES, nameEnd));
    if (names.has(name)) return new Map();
    names.add(name);
    const file = storedFile(view, at);
    if (file) files.set(name, file);
    at = next;
  }
  return files;
}

/** @param at - its entry in the directory. */
function storedFile(view: DataView, at: number): StoredFile | undefined {
  const flags = view.getUint16(at + 8, true);
  const method = view.getUint16(at + 10, true);
  const sizeBytes = view.getUint32(at + 24, true);
  const local = view.getUint32(at + 42, true);
  if (method !== 0 || (flags & ENCRYPTED) !== 0 || view.getUint32(at + 20, true) !== sizeBytes)
    return undefined;
  if (local + LOCAL_BYTES > view.byteLength || view.getUint32(local, true) !== LOCAL) return undefined;
  const offset = local + LOCAL_BYTES + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
  const end = offset + sizeBytes;
  if (end > view.byteLength) return undefined;
  if ((flags & IS_DESCRIBED_AFTER) === 0) return { offset, sizeBytes, checksumsAt: [at + 16, local + 14] };
  if (end + DESCRIPTOR_BYTES > view.byteLength) return undefined;
  // Its signature is optional (§4.3.9.3).
  const after = view.getUint32(end, true) === DESCRIPTOR ? end + 4 : end;
  return { offset, sizeBytes, checksumsAt: [at + 16, after] };
}

function findEnd(view: DataView): number | undefined {
  const last = view.byteLength - END_BYTES;
  for (let at = last; at >= Math.max(0, last - COMMENT_CAP_BYTES); at -= 1) {
    const isEnd = view.getUint32(at, true) === END;
    if (isEnd && at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) return at;
  }
  return undefined;
}

/** Makes the checksums of an archive right again, in place, after numbers in its stored files changed; other files have none. */
export function mendChecksums(file: Uint8Array): void {
  if (!isZip(file)) return;
  const view = viewOf(file);
  for (const { offset, sizeBytes, checksumsAt } of storedFiles(file).values()) {
    const sum = crc32(file.subarray(offset, offset + sizeBytes));
    for (const at of checksumsAt) view.setUint32(at, sum, true);
  }
}

/** CRC-32 (§4.4.7): polynomial 0xedb88320, reflected. */
function crc32(bytes: Uint8Array): number {
  const table = Int32Array.from({ length: 256 }, (_, byte) => {
    let sum = byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0xed_b8_83_20 : 0);
    return sum;
  });
  let sum = -1;
  for (const byte of bytes) sum = (sum >>> 8) ^ (table[(sum ^ byte) & 0xff] as number);
  return ~sum >>> 0;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
