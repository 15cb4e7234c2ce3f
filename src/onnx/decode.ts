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
  type Origin,
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

/** A field, with what the reader would otherwise find out again for each value. */
interface Entry extends Field {
  readonly isMessage: boolean;
  /** What its elements are gathered in, for lists of numbers. */
  readonly bulk: NumberKind | undefined;
}
interface Table {
  readonly byNumber: readonly (Entry | undefined)[];
  /** Lists that are there also when they are empty. */
  readonly lists: readonly string[];
}
const tables: ReadonlyMap<string, Table> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ Object.entries(FIELDS).map(([name, fields]) => [name, toTable(fields)]),
);

/**
 * Decodes one message. Bytes fields and unknown fields are views into `bytes`.
 *
 * A singular message that comes twice is refused, where protobuf would merge the two; no ONNX writer splits one.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_TRUNCATED` if the bytes end early, `ERR_INLAY_MODEL_INVALID` if they are
 * no such message, nest deeper than 100 or hold more than 4,194,304 of them and of
 * list elements; `details.offset` is the byte, in the file if the bytes have an origin.
 */
export function decodeMessage<Name extends MessageName>(
  name: Name,
  bytes: Uint8Array,
  origin?: Origin,
): Messages[Name] {
  const reading: Reading = { ...createCursor(bytes, origin), valuesLeft: MAX_VALUES };
  return readMessage(reading, name, 1) as unknown as Messages[Name];
}

function readMessage(cursor: Reading, name: MessageName, depth: number): Loose {
  if (depth > MAX_DEPTH) throw invalidAt(cursor, cursor.at, `messages nest deeper than ${MAX_DEPTH}`);
  countValue(cursor);
  const { byNumber, lists } = tables.get(name) as Table;
  const message: Loose = {};
  for (const list of lists) message[list] = none;
  let bulk: Map<Field, NumberList> | undefined;
  // Starts and ends of unknown fields; neighbours are one span.
  const unknown: number[] = [];
  let choice: Field | undefined;
  while (cursor.at < cursor.end) {
    const start = cursor.at;
    const tag = readTag(cursor);
    const wire = tag & 7;
    const field = byNumber[tag >>> 3];
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
      const isAgain = field.isMessage && field.name in message;
      if (isAgain || (field.mode === 'oneof' && choice !== undefined && choice !== field)) {
        throw invalidAt(
          cursor,
          start,
          `${name}.${field.name} comes twice or beside a value that excludes it`,
        );
      }
      if (field.mode === 'oneof') choice = field;
      message[field.name] = readValue(cursor, field.kind, depth);
    } else if (field.bulk !== undefined) {
      bulk ??= new Map();
      let list = bulk.get(field);
      if (list === undefined) bulk.set(field, (list = createNumberList(field.bulk)));
      if (!isPacked) list.readOne(cursor);
      else {
        const end = enter(cursor);
        list.readPacked(cursor);
        cursor.end = end;
      }
    } else {
      const before = message[field.name];
      const list = before === undefined || before === none ? [] : (before as unknown[]);
      message[field.name] = list;
      if (!isPacked) readElement(cursor, field, list, depth);
      else {
        const end = enter(cursor);
        while (cursor.at < cursor.end) readElement(cursor, field, list, depth);
        cursor.end = end;
      }
    }
  }
  if (bulk !== undefined) {
    for (const [field, list] of bulk) if (list.size > 0) message[field.name] = list.finish();
  }
  if (unknown.length > 0) message['unknown'] = viewsOf(cursor.bytes, unknown);
  return message;
}

function toTable(fields: readonly Field[]): Table {
  const byNumber: (Entry | undefined)[] = Array.from({
    length: 1 + Math.max(...fields.map(({ number }) => number)),
  });
  for (const field of fields) {
    byNumber[field.number] = {
      ...field,
      isMessage: Object.hasOwn(FIELDS, field.kind),
      bulk: isBulk(field.kind) ? field.kind : undefined,
    };
  }
  return { byNumber, lists: fields.filter(({ mode }) => mode === 'many').map(({ name }) => name) };
}

function isBulk(kind: Kind): kind is NumberKind {
  return kind === 'float' || kind === 'double' || kind === 'int32' || kind === 'int64' || kind === 'uint64';
}

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
    default: {
      const end = enter(cursor);
      const message = readMessage(cursor, kind, depth + 1);
      cursor.end = end;
      return message;
    }
  }
}

function readElement(cursor: Reading, field: Entry, list: unknown[], depth: number): void {
  if (!field.isMessage) countValue(cursor);
  list.push(readValue(cursor, field.kind, depth));
}

/** Most names are short and ASCII: the decoder would take longer to be called than they take. */
const SHORT_TEXT_BYTES = 64;

function readText(cursor: Cursor): string {
  const start = cursor.at;
  const length = readLength(cursor);
  const from = cursor.at;
  const end = from + length;
  cursor.at = end;
  if (length <= SHORT_TEXT_BYTES) {
    let text = '';
    let at = from;
    for (; at < end; at += 1) {
      const byte = cursor.bytes[at] as number;
      if (byte >= 0x80) break;
      text += String.fromCharCode(byte);
    }
    if (at === end) return text;
  }
  try {
    return fromUtf8(cursor.bytes.subarray(from, end));
  } catch {
    throw invalidAt(cursor, start, 'a text is not UTF-8');
  }
}

/** Sets the end to that of what a length prefix announces. @returns the end before. */
function enter(cursor: Cursor): number {
  const length = readLength(cursor);
  const { end } = cursor;
  cursor.end = cursor.at + length;
  return end;
}

function countValue(cursor: Reading): void {
  cursor.valuesLeft -= 1;
  if (cursor.valuesLeft < 0) throw invalidAt(cursor, cursor.at, `it holds more than ${MAX_VALUES} values`);
}

function viewsOf(bytes: Uint8Array, spans: readonly number[]): Uint8Array[] {
  const views: Uint8Array[] = [];
  for (let i = 0; i < spans.length; i += 2) views.push(bytes.subarray(spans[i], spans[i + 1]));
  return views;
}
