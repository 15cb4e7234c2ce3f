/** Small byte work that every floor needs. */

import { decodeUtf8, encodeUtf8 } from './utf8.ts';

const encoder = /* @__PURE__ */ (() =>
  typeof TextEncoder === 'undefined' ? { encode: encodeUtf8 } : new TextEncoder())();
const strictDecoder = /* @__PURE__ */ openDecoder();

/** Encodes text as UTF-8. */
export function toUtf8(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text);
}

/** Decodes UTF-8; throws a `TypeError` on malformed input. */
export function fromUtf8(bytes: Uint8Array): string {
  return strictDecoder.decode(bytes);
}

/** Decodes what is meant for people: malformed UTF-8 shows as U+FFFD. */
export function showUtf8(bytes: Uint8Array): string {
  return decodeUtf8(bytes, false);
}

function openDecoder(): { decode(bytes: Uint8Array): string } {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  } catch {
    // Hermes has none, and some that apps add know no `fatal`.
    return { decode: (bytes) => decodeUtf8(bytes, true) };
  }
}

/** Writes bytes as lower-case hex. */
export function toHex(bytes: Uint8Array): string {
  let hex = '';
  for (const byte of bytes) hex += byte.toString(16).padStart(2, '0');
  return hex;
}

/** Reads hex of even length; throws a `RangeError` on anything else. */
export function fromHex(hex: string): Uint8Array<ArrayBuffer> {
  if (hex.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(hex)) {
    throw new RangeError('Hex text has an even number of digits 0-9 and a-f.');
  }
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Joins byte arrays into one new array. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Compares two byte arrays. Not for secrets: it stops at the first difference. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
