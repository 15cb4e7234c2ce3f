/** Encodes any message of the schema. */
import { toUtf8 } from '../core/bytes.ts';
import { ModelError } from '../core/errors.ts';
import type { MessageName, Messages } from './messages.ts';
import { FIELDS, type Field, type Kind } from './schema.ts';
import {
  createSink,
  MAX_DEPTH,
  varintSize,
  WIRE,
  writeDouble,
  writeFloat,
  writeRaw,
  writeVarint,
  type Sink,
} from './wire.ts';

/** A protobuf message ends before 2 GiB; onnxruntime refuses to read a longer one. */
const MAX_SIZE_BYTES = 2 ** 31 - 1;

type Loose = Record<string, unknown>;

/** What the measuring pass finds, in the order in which the writing pass needs it. */
interface Plan {
  /** Lengths of messages, of texts, and of packed lists whose elements are varints. */
  readonly sizes: number[];
  /** Texts that are not ASCII. */
  readonly texts: Uint8Array[];
  /** Values of so many bytes are not copied. */
  readonly shareFromBytes: number;
  sharedBytes: number;
}

/**
 * Encodes one message: fields in order of number, then unknown ones. Weights are copied once, into the result.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if the message nests deeper than 100,
 * `ERR_INLAY_MODEL_UNSUPPORTED` if it would take 2 GiB or more.
 */
export function encodeMessage<Name extends MessageName>(
  name: Name,
  message: Messages[Name],
): Uint8Array<ArrayBuffer> {
  const [whole] = encodeMessagePieces(name, message, Infinity);
  return whole as Uint8Array<ArrayBuffer>;
}

/**
 * Encodes one message as pieces that make it up one after the other. Values of `shareFromBytes` and more are pieces
 * themselves, as the views that the message holds; what is between them lies in one new buffer.
 * @throws {@link ModelError} as {@link encodeMessage} does.
 */
export function encodeMessagePieces<Name extends MessageName>(
  name: Name,
  message: Messages[Name],
  shareFromBytes: number,
): readonly Uint8Array[] {
  const plan: Plan = { sizes: [], texts: [], shareFromBytes, sharedBytes: 0 };
  const sizeBytes = measure(name, message as unknown as Loose, plan, 1);
  if (sizeBytes > MAX_SIZE_BYTES) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The model takes ${sizeBytes} bytes, but protobuf ends at 2 GiB; move its weights to external data.`,
      { details: { sizeBytes } },
    );
  }
  const sink = createSink(sizeBytes - plan.sharedBytes);
  const pieces: Uint8Array[] = [];
  let from = 0;
  const cut = (): void => {
    if (sink.at > from) pieces.push(sink.bytes.subarray(from, sink.at));
    from = sink.at;
  };
  let sizeAt = 0;
  let textAt = 0;
  write(sink, name, message as unknown as Loose, {
    nextSize: () => plan.sizes[sizeAt++] as number,
    nextText: () => plan.texts[textAt++] as Uint8Array,
    put: (bytes) => {
      if (bytes.length < shareFromBytes) return writeRaw(sink, bytes);
      cut();
      pieces.push(bytes);
    },
  });
  cut();
  return pieces.length > 0 ? pieces : [sink.bytes];
}

/**
 * Bytes that {@link encodeMessage} would give, also where they are too many for it.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if the message nests deeper than 100.
 */
export function measureMessage<Name extends MessageName>(name: Name, message: Messages[Name]): number {
  const plan: Plan = { sizes: [], texts: [], shareFromBytes: Infinity, sharedBytes: 0 };
  return measure(name, message as unknown as Loose, plan, 1);
}

function measure(name: MessageName, message: Loose, plan: Plan, depth: number): number {
  if (depth > MAX_DEPTH) {
    throw new ModelError('ERR_INLAY_MODEL_INVALID', `The model nests deeper than ${MAX_DEPTH} messages.`);
  }
  let size = 0;
  const share = (length: number): void => {
    if (length >= plan.shareFromBytes) plan.sharedBytes += length;
  };
  for (const field of FIELDS[name]) {
    const value = message[field.name];
    if (value === undefined) continue;
    const tagSize = varintSize(field.number * 8);
    const { kind } = field;
    if (field.mode === 'packed') {
      const length = measurePacked(field, value, plan);
      if (length > 0) size += tagSize + varintSize(length) + length;
      if (isFixed(kind)) share(length);
      continue;
    }
    const items = field.isList ? (value as ArrayLike<unknown>) : [value];
    for (let i = 0; i < items.length; i += 1) {
      const item = items[i];
      let length: number;
      if (field.wire !== WIRE.bytes) {
        size += tagSize + scalarSize(kind, item);
        continue;
      }
      if (kind === 'string') {
        length = measureText(item as string, plan);
        plan.sizes.push(length);
      } else if (kind === 'bytes') {
        ({ length } = item as Uint8Array);
        share(length);
      } else {
        const slot = plan.sizes.push(0) - 1;
        length = measure(kind as MessageName, item as Loose, plan, depth + 1);
        plan.sizes[slot] = length;
      }
      size += tagSize + varintSize(length) + length;
    }
  }
  for (const { length } of unknownOf(message)) {
    size += length;
    share(length);
  }
  return size;
}

function measurePacked({ kind }: Field, value: unknown, plan: Plan): number {
  if (isFixed(kind)) return (value as Float32Array).byteLength;
  const values = value as ArrayLike<number | bigint>;
  if (values.length === 0) return 0;
  let length = 0;
  for (let i = 0; i < values.length; i += 1) length += scalarSize(kind, values[i]);
  plan.sizes.push(length);
  return length;
}

function measureText(text: string, plan: Plan): number {
  let at = 0;
  while (at < text.length && text.charCodeAt(at) < 0x80) at += 1;
  if (at === text.length) return at;
  const encoded = toUtf8(text);
  plan.texts.push(encoded);
  return encoded.length;
}

/** Whether packed elements lie in the file as they do in a typed array: onnxruntime has little-endian machines only. */
const isFixed = (kind: Kind): boolean => kind === 'float' || kind === 'double';

function scalarSize(kind: Kind, value: unknown): number {
  if (kind === 'float') return 4;
  return kind === 'double' ? 8 : varintSize(value as number | bigint);
}

const none: readonly never[] = /* @__PURE__ */ Object.freeze([]);
const unknownOf = (message: Loose): readonly Uint8Array[] =>
  (message['unknown'] as readonly Uint8Array[] | undefined) ?? none;

interface Writing {
  nextSize(): number;
  nextText(): Uint8Array;
  /** Writes bytes, or shares them. */
  put(bytes: Uint8Array): void;
}

function write(sink: Sink, name: MessageName, message: Loose, plan: Writing): void {
  for (const field of FIELDS[name]) {
    const value = message[field.name];
    if (value === undefined) continue;
    const { kind } = field;
    if (field.mode === 'packed') {
      writePacked(sink, field, value as Float32Array, plan);
      continue;
    }
    const tag = field.number * 8 + field.wire;
    const items = field.isList ? (value as ArrayLike<unknown>) : [value];
    for (let i = 0; i < items.length; i += 1) {
      const item = items[i];
      writeVarint(sink, tag);
      if (field.wire !== WIRE.bytes) writeScalar(sink, kind, item);
      else if (kind === 'bytes') {
        const bytes = item as Uint8Array;
        writeVarint(sink, bytes.length);
        plan.put(bytes);
      } else {
        const length = plan.nextSize();
        writeVarint(sink, length);
        if (kind === 'string') writeText(sink, item as string, length, plan);
        else write(sink, kind as MessageName, item as Loose, plan);
      }
    }
  }
  for (const bytes of unknownOf(message)) plan.put(bytes);
}

function writeText(sink: Sink, text: string, length: number, plan: Writing): void {
  // Only ASCII takes a byte for each character.
  if (length !== text.length) return writeRaw(sink, plan.nextText());
  for (let i = 0; i < length; i += 1) sink.bytes[sink.at++] = text.charCodeAt(i);
}

function writePacked(sink: Sink, { kind, number }: Field, values: Float32Array, plan: Writing): void {
  if (values.length === 0) return;
  writeVarint(sink, number * 8 + WIRE.bytes);
  if (isFixed(kind)) {
    const { buffer, byteOffset, byteLength } = values;
    writeVarint(sink, byteLength);
    plan.put(new Uint8Array(buffer, byteOffset, byteLength));
    return;
  }
  writeVarint(sink, plan.nextSize());
  for (let i = 0; i < values.length; i += 1) writeScalar(sink, kind, values[i]);
}

function writeScalar(sink: Sink, kind: Kind, value: unknown): void {
  if (kind === 'float') writeFloat(sink, value as number);
  else if (kind === 'double') writeDouble(sink, value as number);
  else writeVarint(sink, value as number | bigint);
}
