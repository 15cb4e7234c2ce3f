/**
 * Reading of a model's structure alone: weights stay where they are. A constant whose elements were left there is one
 * with external data, in the file of the model itself, so that whatever can deal with external data can deal with it.
 */
import { ModelError } from '../core/errors.ts';
import { decodeMessage } from './decode.ts';
import { encodeMessage } from './encode.ts';
import { TENSOR_FIELDS } from './map-tensors.ts';
import type { MessageName, ModelProto } from './messages.ts';
import { assertComplete, explain } from './model.ts';
import { FIELDS, type Field } from './schema.ts';
import { toExternalFields } from './tensors.ts';
import {
  createCursor,
  createSink,
  invalidAt,
  MAX_DEPTH,
  readLength,
  readTag,
  skipField,
  varintSize,
  WIRE,
  writeVarint,
} from './wire.ts';

/** A file, or anything else that can be read at any position. */
export interface ByteSource {
  readonly sizeBytes: number;
  /** Reads exactly `lengthBytes` bytes, which are within the source. The reader may keep them. */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array>;
}

/** How {@link parseStructure} reads. */
export interface StructureOptions {
  /** File name that references to the source are given. */
  readonly location: string;
  /** Raw elements of so many bytes stay where they are. Default 16,384. */
  readonly leaveFromBytes?: number;
}

/** Two varints: no tag and length is longer. */
const HEAD_BYTES = 20;
const FIRST_READ_BYTES = 4096;
const LONGEST_READ_BYTES = 1 << 20;

/** Bytes of the model without what was left, and where in the file they are. */
interface Piece {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

/**
 * Reads an ONNX model but for the elements of its large constants (`rawData`; lists of numbers are read). Reads little
 * more than the structure, also from files beyond 2 GiB.
 * @returns a model whose large constants refer to `location`, as external data does: `inlineExternal` fetches them.
 * @throws {@link ModelError} as `parseModel` does; `details.offset` is the byte in the source. What `read` throws.
 */
export async function parseStructure(source: ByteSource, options: StructureOptions): Promise<ModelProto> {
  const head = await readExactly(source, 0, Math.min(HEAD_BYTES, source.sizeBytes));
  try {
    const pieces = await openScan(source, options).message('ModelProto', 0, source.sizeBytes, 1);
    const model = decodeMessage('ModelProto', join(pieces), {
      sizeBytes: source.sizeBytes,
      locate: (at) => locate(pieces, at, source.sizeBytes),
    });
    return assertComplete(model, source.sizeBytes);
  } catch (error) {
    throw explain(error, head);
  }
}

interface Scan {
  /** Pieces of a message that lies from one offset to another. */
  message(name: MessageName, from: number, end: number, depth: number): Promise<Piece[]>;
}

function openScan(source: ByteSource, { location, leaveFromBytes = 16_384 }: StructureOptions): Scan {
  let start = 0;
  let cursor = createCursor(new Uint8Array(0));
  let ahead = FIRST_READ_BYTES;

  const isLoaded = (offset: number, length: number): boolean =>
    offset >= start && offset + length <= start + cursor.bytes.length;
  /** Has `length` bytes from `offset` on at hand. Reads further ahead as long as nothing is left out. */
  const load = async (offset: number, length: number): Promise<void> => {
    const loaded = start + cursor.bytes.length;
    ahead = offset <= loaded && loaded > 0 ? Math.min(2 * ahead, LONGEST_READ_BYTES) : FIRST_READ_BYTES;
    const end = Math.min(offset + Math.max(length, ahead), source.sizeBytes);
    const bytes = await readExactly(source, offset, end - offset);
    start = offset;
    cursor = createCursor(bytes, { sizeBytes: source.sizeBytes, locate: (at) => offset + at });
  };
  /** Reading goes on at an offset, in a message up to `end`. */
  const seek = (offset: number, end: number): void => {
    cursor.at = offset - start;
    cursor.end = end - start;
  };
  const append = (pieces: Piece[], from: number, end: number): void => {
    const last = pieces.at(-1);
    const isNext = last?.bytes.buffer === cursor.bytes.buffer && last.offset + last.bytes.length === from;
    const offset = isNext ? last.offset : from;
    if (isNext) pieces.pop();
    pieces.push({ bytes: cursor.bytes.subarray(offset - start, end - start), offset });
  };

  const message = async (name: MessageName, from: number, end: number, depth: number): Promise<Piece[]> => {
    const pieces: Piece[] = [];
    let hasLeft = false;
    let at = from;
    while (at < end) {
      // No waiting where nothing has to be read: most fields are short and many.
      const headBytes = Math.min(HEAD_BYTES, end - at);
      if (!isLoaded(at, headBytes)) await load(at, headBytes);
      seek(at, end);
      if (depth > MAX_DEPTH) throw invalidAt(cursor, cursor.at, `messages nest deeper than ${MAX_DEPTH}`);
      const tag = readTag(cursor);
      const isBytes = (tag & 7) === WIRE.bytes;
      const length = isBytes ? readLength(cursor) : 0;
      if (!isBytes) {
        // A group, which nobody writes, may be of any length.
        if ((tag & 7) === WIRE.groupStart && !isLoaded(at, end - at)) {
          await load(at, end - at);
          seek(at, end);
          readTag(cursor);
        }
        skipField(cursor, tag);
      }
      const begin = start + cursor.at;
      const next = begin + length;
      const field = length < leaveFromBytes ? undefined : fieldOf(name, tag);
      if (field === undefined) {
        if (!isLoaded(at, next - at)) await load(at, next - at);
        append(pieces, at, next);
      } else if (field.kind === 'bytes') {
        if (hasLeft) throw invalidAt(cursor, at - start, `${name}.${field.name} comes twice`);
        hasLeft = true;
        const left = toExternalFields({ location, offsetBytes: begin, lengthBytes: length });
        pieces.push({ bytes: encodeMessage('TensorProto', { dims: [], ...left }), offset: at });
      } else {
        const inner = await message(field.kind as MessageName, begin, next, depth + 1);
        pieces.push({ bytes: toHead(tag, inner), offset: at });
        for (const piece of inner) pieces.push(piece);
      }
      at = next;
    }
    return pieces;
  };
  return { message };
}

const rawData: readonly Field[] = /* @__PURE__ */ FIELDS.TensorProto.filter(({ name }) => name === 'rawData');

/** The field of that tag, if it may hold what is left where it is: raw elements, or messages that lead to some. */
function fieldOf(name: MessageName, tag: number): Field | undefined {
  const fields = name === 'TensorProto' ? rawData : TENSOR_FIELDS[name];
  return fields.find(({ number }) => number === tag >>> 3);
}

function toHead(tag: number, pieces: readonly Piece[]): Uint8Array {
  const length = pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const sink = createSink(varintSize(tag) + varintSize(length));
  writeVarint(sink, tag);
  writeVarint(sink, length);
  return sink.bytes;
}

function join(pieces: readonly Piece[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, { bytes }) => sum + bytes.length, 0));
  let at = 0;
  for (const { bytes } of pieces) {
    whole.set(bytes, at);
    at += bytes.length;
  }
  return whole;
}

function locate(pieces: readonly Piece[], at: number, sizeBytes: number): number {
  let rest = at;
  for (const { bytes, offset } of pieces) {
    if (rest < bytes.length) return offset + rest;
    rest -= bytes.length;
  }
  return sizeBytes;
}

async function readExactly(source: ByteSource, offset: number, length: number): Promise<Uint8Array> {
  const bytes = await source.read(offset, length);
  if (bytes.length === length) return bytes;
  throw new ModelError(
    'ERR_INLAY_MODEL_TRUNCATED',
    `The model ends at byte ${offset + bytes.length} instead of ${source.sizeBytes}; get the file again.`,
    { details: { offset: offset + bytes.length, sizeBytes: source.sizeBytes } },
  );
}
