/** Encodes any message of the schema. */
import { toUtf8 } from '../core/bytes.ts';
import { ModelError } from '../core/errors.ts';
import type { MessageName, Messages } from './messages.ts';
import { FIELDS, type Kind } from './schema.ts';
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

/** What the measuring pass found, in the order in which the writing pass needs it. */
interface Plan {
  readonly sizes: number[];
  readonly texts: Uint8Array[];
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
  const plan: Plan = { sizes: [], texts: [] };
  const sizeBytes = measure(name, message as unknown as Loose, plan, 1);
  if (sizeBytes > MAX_SIZE_BYTES) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The model takes ${sizeBytes} bytes, but protobuf ends at 2 GiB; move its weights to external data.`,
      { details: { sizeBytes } },
    );
  }
  const sink = createSink(sizeBytes);
  write(sink, name, message as unknown as Loose, {
    sizes: plan.sizes.values(),
    texts: plan.texts.values(),
  });
  return sink.bytes;
}

function measure(name: MessageName, message: Loose, plan: Plan, depth: number): number {
  if (depth > MAX_DEPTH) {
    throw new ModelError('ERR_INLAY_MODEL_INVALID', `The model nests deeper than ${MAX_DEPTH} messages.`);
  }
  let size = 0;
  for (const field of FIELDS[name]) {
    const value = message[field.name];
    if (value === undefined) continue;
    const tagSize = varintSize(field.number * 8);
    const { kind } = field;
    if (field.mode === 'packed') {
      const values = value as ArrayLike<number | bigint>;
      if (values.length === 0) continue;
      let length = 0;
      for (let i = 0; i < values.length; i += 1) length += scalarSize(kind, values[i]);
      plan.sizes.push(length);
      size += tagSize + varintSize(length) + length;
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
        const text = toUtf8(item as string);
        plan.texts.push(text);
        ({ length } = text);
      } else if (kind === 'bytes') ({ length } = item as Uint8Array);
      else {
        const slot = plan.sizes.push(0) - 1;
        length = measure(kind as MessageName, item as Loose, plan, depth + 1);
        plan.sizes[slot] = length;
      }
      size += tagSize + varintSize(length) + length;
    }
  }
  for (const bytes of (message['unknown'] as readonly Uint8Array[] | undefined) ?? []) size += bytes.length;
  return size;
}

function scalarSize(kind: Kind, value: unknown): number {
  if (kind === 'float') return 4;
  return kind === 'double' ? 8 : varintSize(value as number | bigint);
}

interface Writing {
  readonly sizes: IterableIterator<number>;
  readonly texts: IterableIterator<Uint8Array>;
}

function write(sink: Sink, name: MessageName, message: Loose, plan: Writing): void {
  for (const field of FIELDS[name]) {
    const value = message[field.name];
    if (value === undefined) continue;
    const { kind } = field;
    if (field.mode === 'packed') {
      const values = value as ArrayLike<number | bigint>;
      if (values.length === 0) continue;
      writeVarint(sink, field.number * 8 + WIRE.bytes);
      writeVarint(sink, plan.sizes.next().value as number);
      for (let i = 0; i < values.length; i += 1) writeScalar(sink, kind, values[i]);
      continue;
    }
    const tag = field.number * 8 + field.wire;
    const items = field.isList ? (value as ArrayLike<unknown>) : [value];
    for (let i = 0; i < items.length; i += 1) {
      const item = items[i];
      writeVarint(sink, tag);
      if (field.wire !== WIRE.bytes) writeScalar(sink, kind, item);
      else if (kind === 'string' || kind === 'bytes') {
        const bytes = kind === 'string' ? (plan.texts.next().value as Uint8Array) : (item as Uint8Array);
        writeVarint(sink, bytes.length);
        writeRaw(sink, bytes);
      } else {
        writeVarint(sink, plan.sizes.next().value as number);
        write(sink, kind as MessageName, item as Loose, plan);
      }
    }
  }
  for (const bytes of (message['unknown'] as readonly Uint8Array[] | undefined) ?? []) writeRaw(sink, bytes);
}

function writeScalar(sink: Sink, kind: Kind, value: unknown): void {
  if (kind === 'float') writeFloat(sink, value as number);
  else if (kind === 'double') writeDouble(sink, value as number);
  else writeVarint(sink, value as number | bigint);
}
