/** Decodes any message of the schema. */
import { fromUtf8 } from '../core/bytes.ts';
import type { MessageName, Messages } from './messages.ts';
import { createNumberList, type NumberKind, type NumberList } from './number-list.ts';
import { FIELDS, type Field, type Kind } from './schema.ts';
import {
  createCursor,
  invalidAt,
  MAX_DEPTH,
  readBytes,
  readDouble,
  readFloat,
  readInt32,
  readInt64,
  readLength,
  readSafeInt,
  readTag,
  readUint64,
  skipField,
  WIRE,
  type Cursor,
} from './wire.ts';

/**
 * Most messages, list elements and unknown fields that one file may hold: some four times those of a model of 10⁵
 * nodes. Numbers in bulk do not count.
 */
const MAX_VALUES = 2 ** 22;

interface Reading extends Cursor {
  valuesLeft: number;
}
type Loose = Record<string, unknown>;

const none: readonly never[] = /* @__PURE__ */ Object.freeze([]);
const byNumber: ReadonlyMap<string, ReadonlyMap<number, Field>> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ Object.entries(FIELDS).map(([name, fields]) => [
    name,
    new Map(fields.map((field) => [field.number, field])),
  ]),
);

/**
 * Decodes one message. Bytes fields and unknown fields are views into `bytes`.
 *
 * A singular message that comes twice is refused, where protobuf would merge the two; no ONNX writer splits one.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_TRUNCATED` if the bytes end early, `ERR_INLAY_MODEL_INVALID` if they are
 * no such message, nest deeper than 100 or hold more than 4,194,304 of them and of
 * list elements; `details.offset` is the byte.
 */
export function decodeMessage<Name extends MessageName>(name: Name, bytes: Uint8Array): Messages[Name] {
  const reading: Reading = { ...createCursor(bytes), valuesLeft: MAX_VALUES };
  return readMessage(reading, name, 1) as unknown as Messages[Name];
}

function readMessage(cursor: Reading, name: MessageName, depth: number): Loose {
  if (depth > MAX_DEPTH) throw invalidAt(cursor.at, `messages nest deeper than ${MAX_DEPTH}`);
  countValue(cursor);
  const message: Loose = {};
  for (const field of FIELDS[name]) if (field.mode === 'many') message[field.name] = none;
  const fields = byNumber.get(name);
  let bulk: Map<Field, NumberList> | undefined;
  // Starts and ends of unknown fields; neighbours are one span.
  const unknown: number[] = [];
  let choice: Field | undefined;
  while (cursor.at < cursor.end) {
    const start = cursor.at;
    const tag = readTag(cursor);
    const wire = tag & 7;
    const field = fields?.get(tag >>> 3);
    const isPacked = field?.isList && wire === WIRE.bytes && field.wire !== WIRE.bytes;
    if (field === undefined || (wire !== field.wire && !isPacked)) {
      skipField(cursor, tag);
      if (unknown.at(-1) === start) unknown.pop();
      else {
        countValue(cursor);
        unknown.push(start);
      }
      unknown.push(cursor.at);
    } else if (!field.isList) {
      const isAgain = field.name in message && isMessage(field.kind);
      if (isAgain || (field.mode === 'oneof' && choice !== undefined && choice !== field)) {
        throw invalidAt(start, `${name}.${field.name} comes twice or beside a value that excludes it`);
      }
      if (field.mode === 'oneof') choice = field;
      message[field.name] = readValue(cursor, field.kind, depth);
    } else if (isBulk(field.kind)) {
      bulk ??= new Map();
      let list = bulk.get(field);
      if (list === undefined) bulk.set(field, (list = createNumberList(field.kind)));
      if (isPacked) withLength(cursor, list.readPacked);
      else list.readOne(cursor);
    } else {
      const before = message[field.name];
      const list = before === undefined || before === none ? [] : (before as unknown[]);
      message[field.name] = list;
      const readElement = (): void => {
        if (!isMessage(field.kind)) countValue(cursor);
        list.push(readValue(cursor, field.kind, depth));
      };
      if (!isPacked) readElement();
      else
        withLength(cursor, () => {
          while (cursor.at < cursor.end) readElement();
        });
    }
  }
  for (const [field, list] of bulk ?? []) if (list.size > 0) message[field.name] = list.finish();
  if (unknown.length > 0) message['unknown'] = viewsOf(cursor.bytes, unknown);
  return message;
}

const isBulk = (kind: Kind): kind is NumberKind =>
  kind === 'float' || kind === 'double' || kind === 'int32' || kind === 'int64' || kind === 'uint64';
const isMessage = (kind: Kind): boolean => Object.hasOwn(FIELDS, kind);

function readValue(cursor: Reading, kind: Kind, depth: number): unknown {
  switch (kind) {
    case 'int32':
      return readInt32(cursor);
    case 'int64':
      return readInt64(cursor);
    case 'uint64':
      return readUint64(cursor);
    case 'size':
      return readSafeInt(cursor);
    case 'float':
      return readFloat(cursor);
    case 'double':
      return readDouble(cursor);
    case 'string':
      return readText(cursor);
    case 'bytes':
      return readBytes(cursor);
    default:
      return withLength(cursor, () => readMessage(cursor, kind, depth + 1));
  }
}

function readText(cursor: Cursor): string {
  const start = cursor.at;
  const bytes = readBytes(cursor);
  try {
    return fromUtf8(bytes);
  } catch {
    throw invalidAt(start, 'a text is not UTF-8');
  }
}

/** Reads what a length prefix announces, with the end of the message set to its end. */
function withLength<T>(cursor: Cursor, read: (cursor: Cursor) => T): T {
  const length = readLength(cursor);
  const { end } = cursor;
  cursor.end = cursor.at + length;
  const value = read(cursor);
  cursor.end = end;
  return value;
}

function countValue(cursor: Reading): void {
  cursor.valuesLeft -= 1;
  if (cursor.valuesLeft < 0) throw invalidAt(cursor.at, `it holds more than ${MAX_VALUES} values`);
}

function viewsOf(bytes: Uint8Array, spans: readonly number[]): Uint8Array[] {
  const views: Uint8Array[] = [];
  for (let i = 0; i < spans.length; i += 2) views.push(bytes.subarray(spans[i], spans[i + 1]));
  return views;
}
