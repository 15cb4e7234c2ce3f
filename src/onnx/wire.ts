/**
 * The protobuf wire format (protobuf.dev/programming-guides/encoding): reading and writing of single values.
 * Messages are the business of `decode.ts` and `encode.ts`.
 */
import { ModelError } from '../core/errors.ts';

/** How the value after a tag is laid out. */
export const WIRE: {
  readonly varint: 0;
  readonly fixed64: 1;
  readonly bytes: 2;
  readonly groupStart: 3;
  readonly groupEnd: 4;
  readonly fixed32: 5;
} = { varint: 0, fixed64: 1, bytes: 2, groupStart: 3, groupEnd: 4, fixed32: 5 };

/** Deepest nesting that is read or written: the recursion limit that protobuf parsers have by default. */
export const MAX_DEPTH = 100;

/** A reading position in bytes that are never copied. */
export interface Cursor {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly origin: Origin;
  at: number;
  /** End of the message that is being read. */
  end: number;
  /** Halves of the varint that {@link readVarint} read last, as unsigned 32-bit numbers. */
  low: number;
  high: number;
}

/** Where the bytes of a cursor come from, for errors. */
export interface Origin {
  /** Length of the file that they are part of. */
  readonly sizeBytes: number;
  /** Position in that file of the byte at `at`. */
  readonly locate: (at: number) => number;
}

/** Starts reading at the first byte. Bytes without an origin are a file of their own. */
export function createCursor(bytes: Uint8Array, origin?: Origin): Cursor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const whole = { sizeBytes: bytes.length, locate: (at: number) => at };
  return { bytes, view, origin: origin ?? whole, at: 0, end: bytes.length, low: 0, high: 0 };
}

/** An `ERR_INLAY_MODEL_INVALID` that names the byte. */
export function invalidAt({ origin }: Cursor, at: number, what: string): ModelError {
  const offset = origin.locate(at);
  return new ModelError('ERR_INLAY_MODEL_INVALID', `The model is malformed at byte ${offset}: ${what}.`, {
    details: { offset },
  });
}

/**
 * Reads a varint of up to 64 bits into `cursor.low` and `cursor.high`.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_TRUNCATED`, or `ERR_INLAY_MODEL_INVALID` beyond 10 bytes.
 */
export function readVarint(cursor: Cursor): void {
  const start = cursor.at;
  const first = cursor.bytes[start];
  // Nearly all tags, lengths and axes take one byte.
  if (first !== undefined && first < 0x80 && start < cursor.end) {
    cursor.at = start + 1;
    cursor.low = first;
    cursor.high = 0;
    return;
  }
  let low = 0;
  let high = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    if (cursor.at >= cursor.end) throw pastEnd(cursor, start);
    const byte = cursor.bytes[cursor.at] as number;
    cursor.at += 1;
    const group = byte & 0x7f;
    if (shift < 28) low |= group << shift;
    else if (shift === 28) {
      low |= group << 28;
      high = group >>> 4;
    } else high |= group << (shift - 32);
    if (byte < 0x80) {
      cursor.low = low >>> 0;
      cursor.high = high >>> 0;
      return;
    }
  }
  throw invalidAt(cursor, start, 'a varint is longer than 10 bytes');
}

/** Reads a varint as a signed 64-bit integer. */
export function readInt64(cursor: Cursor): bigint {
  readVarint(cursor);
  return (BigInt(cursor.high | 0) << 32n) | BigInt(cursor.low);
}

/** Reads a varint as an unsigned 64-bit integer. */
export function readUint64(cursor: Cursor): bigint {
  readVarint(cursor);
  return (BigInt(cursor.high) << 32n) | BigInt(cursor.low);
}

/** Reads a varint as an int32: the low half, as protobuf does. */
export function readInt32(cursor: Cursor): number {
  readVarint(cursor);
  return cursor.low | 0;
}

/**
 * Reads a signed 64-bit varint whose sane values are exact in a number: a length of an axis, a version.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` beyond ±2^53.
 */
export function readSafeInt(cursor: Cursor): number {
  const start = cursor.at;
  readVarint(cursor);
  const value = (cursor.high | 0) * 2 ** 32 + cursor.low;
  if (!Number.isSafeInteger(value)) throw invalidAt(cursor, start, 'an integer is beyond ±2^53');
  return value;
}

/** Reads a field's tag: `field number << 3 | wire type`. */
export function readTag(cursor: Cursor): number {
  const start = cursor.at;
  readVarint(cursor);
  if (cursor.high !== 0 || cursor.low < 8) throw invalidAt(cursor, start, 'a tag has no valid field number');
  return cursor.low;
}

/** Reads a length prefix and checks that as many bytes follow before anyone allocates for them. */
export function readLength(cursor: Cursor): number {
  const start = cursor.at;
  readVarint(cursor);
  const length = cursor.high * 2 ** 32 + cursor.low;
  if (length > cursor.end - cursor.at) throw pastEnd(cursor, start);
  return length;
}

/** Reads length-delimited bytes as a view. */
export function readBytes(cursor: Cursor): Uint8Array {
  const length = readLength(cursor);
  cursor.at += length;
  return cursor.bytes.subarray(cursor.at - length, cursor.at);
}

/** Reads a little-endian float32. */
export function readFloat(cursor: Cursor): number {
  advance(cursor, 4);
  return cursor.view.getFloat32(cursor.at - 4, true);
}

/** Reads a little-endian float64. */
export function readDouble(cursor: Cursor): number {
  advance(cursor, 8);
  return cursor.view.getFloat64(cursor.at - 8, true);
}

/** Passes over the value that belongs to `tag`, groups included. */
export function skipField(cursor: Cursor, tag: number): void {
  const groups: number[] = [];
  for (let next = tag; ; next = readTag(cursor)) {
    const type = next & 7;
    if (type === WIRE.varint) readVarint(cursor);
    else if (type === WIRE.fixed64) advance(cursor, 8);
    else if (type === WIRE.bytes) readBytes(cursor);
    else if (type === WIRE.fixed32) advance(cursor, 4);
    else if (type === WIRE.groupStart) {
      if (groups.length >= MAX_DEPTH)
        throw invalidAt(cursor, cursor.at, `groups nest deeper than ${MAX_DEPTH}`);
      groups.push(next >>> 3);
    } else if (type !== WIRE.groupEnd || groups.pop() !== next >>> 3) {
      throw invalidAt(cursor, cursor.at, `wire type ${type} does not belong here`);
    }
    if (groups.length === 0) return;
  }
}

function advance(cursor: Cursor, length: number): void {
  if (length > cursor.end - cursor.at) throw pastEnd(cursor, cursor.at);
  cursor.at += length;
}

/** A message whose own length fits is there in full, so a value that leaves it is malformed, not truncated. */
function pastEnd(cursor: Cursor, at: number): ModelError {
  const { sizeBytes, locate } = cursor.origin;
  if (locate(cursor.end) < sizeBytes) {
    return invalidAt(cursor, at, 'a value reaches past the end of its message');
  }
  const offset = locate(at);
  return new ModelError(
    'ERR_INLAY_MODEL_TRUNCATED',
    `The model ends at byte ${sizeBytes}, but the value at byte ${offset} goes on; get the file again.`,
    { details: { offset, sizeBytes } },
  );
}

/** A writing position in bytes of exactly the right size. */
export interface Sink {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  at: number;
}

/** Allocates the bytes that a writer fills. */
export function createSink(sizeBytes: number): Sink {
  const bytes = new Uint8Array(sizeBytes);
  return { bytes, view: new DataView(bytes.buffer), at: 0 };
}

/**
 * Bytes of an integer as a varint; negative ones take 10.
 * @throws RangeError if it is no integer of 64 bits, or a number that is not exact.
 */
export function varintSize(value: number | bigint): number {
  const isInteger =
    typeof value === 'bigint' ? value >= -(2n ** 63n) && value < 2n ** 64n : Number.isSafeInteger(value);
  if (!isInteger) throw new RangeError(`An integer field of a model cannot hold ${value}.`);
  if (value < 0) return 10;
  let size = 1;
  if (typeof value === 'bigint') {
    for (let rest = value >> 7n; rest > 0n; rest >>= 7n) size += 1;
  } else {
    for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size += 1;
  }
  return size;
}

/** Writes an integer as a varint; negative ones as their 64-bit two's complement. */
export function writeVarint(sink: Sink, value: number | bigint): void {
  if (typeof value === 'bigint' || value < 0) {
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest >= 0x80n; rest >>= 7n) sink.bytes[sink.at++] = Number(rest & 0x7fn) | 0x80;
    sink.bytes[sink.at++] = Number(rest);
    return;
  }
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) sink.bytes[sink.at++] = (rest % 0x80) | 0x80;
  sink.bytes[sink.at++] = rest;
}

/** Writes bytes without a length. */
export function writeRaw(sink: Sink, bytes: Uint8Array): void {
  sink.bytes.set(bytes, sink.at);
  sink.at += bytes.length;
}

/** Writes a little-endian float32. */
export function writeFloat(sink: Sink, value: number): void {
  sink.view.setFloat32(sink.at, value, true);
  sink.at += 4;
}

/** Writes a little-endian float64. */
export function writeDouble(sink: Sink, value: number): void {
  sink.view.setFloat64(sink.at, value, true);
  sink.at += 8;
}
