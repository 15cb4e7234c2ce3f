/**
 * Reads ZIP archives (APPNOTE 6.3.10), as far as models are packed in them: stored or deflated files, without ZIP64
 * and encryption. Nothing is unpacked before its size is known to be wanted.
 */
import { fromUtf8 } from '../core/bytes.ts';

/** One file of an archive. */
export interface ZipEntry {
  readonly name: string;
  /** Bytes that it claims to have. */
  readonly sizeBytes: number;
  /**
   * Unpacks it, into memory of its own.
   * @throws `RangeError` if it is damaged or not of its size.
   */
  read(): Promise<Uint8Array<ArrayBuffer>>;
}

const LOCAL = 0x04_03_4b_50;
const CENTRAL = 0x02_01_4b_50;
const END = 0x06_05_4b_50;
const END_BYTES = 22;
const COMMENT_CAP_BYTES = 0xff_ff;
const ZIP64 = 0xff_ff_ff_ff;

/** Tells whether bytes begin as an archive with files does. */
export function isZip(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(0, true) === LOCAL;
}

/**
 * Lists the files of an archive.
 * @throws `RangeError` if it is no archive, truncated, or of a kind that is not read.
 */
export function listZip(bytes: Uint8Array): ReadonlyMap<string, ZipEntry> {
  const view = viewOf(bytes);
  const end = findEnd(view);
  const count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true);
  const entries = new Map<string, ZipEntry>();
  for (let i = 0; i < count; i += 1) {
    if (at + 46 > end || view.getUint32(at, true) !== CENTRAL)
      throw new RangeError('its directory is damaged');
    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    const checksum = view.getUint32(at + 16, true);
    const packedBytes = view.getUint32(at + 20, true);
    const sizeBytes = view.getUint32(at + 24, true);
    const nameBytes = view.getUint16(at + 28, true);
    const local = view.getUint32(at + 42, true);
    const next = at + 46 + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (next > end) throw new RangeError('its directory is damaged');
    const name = decode(bytes.subarray(at + 46, at + 46 + nameBytes));
    if ([packedBytes, sizeBytes, local].includes(ZIP64)) throw new RangeError('it is in the ZIP64 format');
    if (entries.has(name)) throw new RangeError(`it has "${name}" twice`);
    const read = async (): Promise<Uint8Array<ArrayBuffer>> => {
      const fail = (why: string): RangeError => new RangeError(`"${name}" ${why}`);
      if ((flags & 1) !== 0) throw fail('is encrypted');
      if (local + 30 > bytes.length || view.getUint32(local, true) !== LOCAL)
        throw fail('is not where it should be');
      const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      if (start + packedBytes > bytes.length) throw fail('is truncated');
      const packed = bytes.subarray(start, start + packedBytes);
      if (method !== 0 && method !== 8) throw fail(`is compressed by method ${method}; store or deflate it`);
      const whole = method === 0 ? packed.slice() : await inflate(packed, sizeBytes);
      if (whole?.length !== sizeBytes) throw fail(`does not have its ${sizeBytes} bytes`);
      if (crc32(whole) !== checksum) throw fail('is damaged: its checksum is another one');
      return whole;
    };
    entries.set(name, { name, sizeBytes, read });
    at = next;
  }
  return entries;
}

function findEnd(view: DataView): number {
  const lowest = Math.max(0, view.byteLength - END_BYTES - COMMENT_CAP_BYTES);
  for (let at = view.byteLength - END_BYTES; at >= lowest; at -= 1) {
    if (view.getUint32(at, true) !== END) continue;
    if (at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) return at;
  }
  throw new RangeError('the end of the archive is missing');
}

function decode(name: Uint8Array): string {
  try {
    return fromUtf8(name);
  } catch {
    throw new RangeError('a name in it is no UTF-8');
  }
}

/** Inflates (RFC 1951) into exactly `sizeBytes`; `undefined` if there is more or less. */
async function inflate(packed: Uint8Array, sizeBytes: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
  // No stream is longer than this times its packed form, so that a lie about the size cannot take memory.
  if (sizeBytes > MAX_RATIO * (packed.length + 1)) return undefined;
  const whole = new Uint8Array(sizeBytes);
  const stream = new DecompressionStream('deflate-raw');
  const writer = stream.writable.getWriter();
  // What goes wrong is heard of by the reader.
  writer.write(packed.slice()).catch(() => {});
  writer.close().catch(() => {});
  const reader = (stream.readable as ReadableStream<Uint8Array>).getReader();
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return length === sizeBytes ? whole : undefined;
    if (length + value.length > sizeBytes) {
      await reader.cancel().catch(() => {});
      return undefined;
    }
    whole.set(value, length);
    length += value.length;
  }
}

/** 258 bytes by the two bits of a length and a distance of one bit each. */
const MAX_RATIO = 1032;

/** CRC-32 (APPNOTE 4.4.7): polynomial 0xedb88320, reflected. */
function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i += 1) {
    crc = (crc >>> 8) ^ (TABLE[(crc ^ (bytes[i] as number)) & 0xff] as number);
  }
  return ~crc >>> 0;
}

const TABLE = /* @__PURE__ */ Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0xed_b8_83_20;
  return crc;
});

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
