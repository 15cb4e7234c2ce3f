/** Tensors of a safetensors file (huggingface/safetensors, "Format"): a length, a JSON header, and the numbers. */
import { fromUtf8 } from '../../core/bytes.ts';
import type { NumberKind } from '../../update/delta/head.ts';
import type { Span } from './spans.ts';

/** The format's own bound of a header. */
const MAX_HEADER_BYTES = 100_000_000;

const kinds: Readonly<Record<string, NumberKind>> = {
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
  I8: 'int8',
  U8: 'int8',
  BOOL: 'int8',
  F8_E4M3: 'int8',
  F8_E5M2: 'int8',
};

/** @returns `undefined` if the file is none of the format. */
export function safetensorsSpans(file: Uint8Array): readonly Span[] | undefined {
  if (file.length < 10 || file[8] !== 0x7b) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const headerBytes = view.getUint32(0, true);
  const start = 8 + headerBytes;
  if (view.getUint32(4, true) !== 0 || headerBytes > MAX_HEADER_BYTES || start > file.length)
    return undefined;
  const entries = parseHeader(file.subarray(8, start));
  return entries?.flatMap(([name, entry]) => {
    const { dtype, shape, data_offsets: range } = (entry ?? {}) as Readonly<Record<string, unknown>>;
    const numbers = kinds[String(dtype)];
    if (numbers === undefined || !isLengths(shape) || !isLengths(range)) return [];
    const [from = 0, to = 0] = range;
    return [{ name, numbers, isUnsigned: dtype === 'U8', shape, offset: start + from, sizeBytes: to - from }];
  });
}

function parseHeader(bytes: Uint8Array): [string, unknown][] | undefined {
  try {
    const header: unknown = JSON.parse(fromUtf8(bytes));
    return typeof header === 'object' && header !== null ? Object.entries(header) : undefined;
  } catch {
    return undefined;
  }
}

function isLengths(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
