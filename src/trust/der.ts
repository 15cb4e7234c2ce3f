/**
 * The little of DER (ITU-T X.690 §10) that public keys and signatures come in. Only the one canonical encoding is read,
 * so that equal keys have equal bytes.
 */

import { concatBytes, fromHex } from '../core/bytes.ts';

/** SubjectPublicKeyInfo of an uncompressed P-256 point (RFC 5480 §2) up to the point's coordinates. */
const p256Prefix = /* @__PURE__ */ fromHex('3059301306072a8648ce3d020106082a8648ce3d03010703420004');
/** AlgorithmIdentifier `rsaEncryption` with NULL parameters (RFC 3279 §2.3.1). */
const rsaAlgorithm = /* @__PURE__ */ fromHex('300d06092a864886f70d0101010500');

const sequence = 0x30;
const integer = 0x02;
const bitString = 0x03;

/** Sizes of an RSA modulus that count, bytes: less is weak, more only costs time. */
const modulusBytes = { min: 256, max: 1024 };
const maxExponentBytes = 4;

/** An RSA public key: big-endian, without leading zeros. */
export interface RsaNumbers {
  readonly modulus: Uint8Array<ArrayBuffer>;
  readonly exponent: Uint8Array<ArrayBuffer>;
}

/**
 * Reads a P-256 public key.
 * @param spki SubjectPublicKeyInfo.
 * @returns the uncompressed point, 65 bytes from `04` on; it may still lie beside the curve. `undefined` for others.
 */
export function readP256(spki: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  const fits = spki.length === p256Prefix.length + 64 && p256Prefix.every((byte, i) => spki[i] === byte);
  return fits ? spki.slice(p256Prefix.length - 1) : undefined;
}

/**
 * Reads an RSA public key of 2048 to 8192 bits.
 * @param spki SubjectPublicKeyInfo (RFC 3279 §2.3.1).
 * @returns `undefined` for others.
 */
export function readRsa(spki: Uint8Array): RsaNumbers | undefined {
  const outer = open(spki, sequence);
  if (outer === undefined || !rsaAlgorithm.every((byte, i) => outer[i] === byte)) return undefined;
  const bits = open(outer.subarray(rsaAlgorithm.length), bitString);
  const numbers = bits?.[0] === 0 ? open(bits.subarray(1), sequence) : undefined;
  const [modulus, exponent] = numbers === undefined ? [] : readIntegers(numbers);
  if (modulus === undefined || exponent === undefined) return undefined;
  const isSound =
    modulus.length >= modulusBytes.min &&
    modulus.length <= modulusBytes.max &&
    exponent.length <= maxExponentBytes &&
    isOdd(modulus) &&
    isOdd(exponent) &&
    (exponent.length > 1 || (exponent[0] ?? 0) >= 3);
  return isSound ? { modulus, exponent } : undefined;
}

/**
 * Turns an ECDSA signature (RFC 3279 §2.2.3) into the form that WebCrypto takes: r and s, 32 bytes each.
 * @returns `undefined` if it is none over a curve of 256 bits.
 */
export function toRawEcdsa(signature: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  const body = open(signature, sequence);
  const [r, s] = body === undefined ? [] : readIntegers(body);
  if (r === undefined || s === undefined || r.length > 32 || s.length > 32) return undefined;
  return concatBytes([new Uint8Array(32 - r.length), r, new Uint8Array(32 - s.length), s]);
}

/** Reads exactly two positive integers. */
function readIntegers(body: Uint8Array): readonly Uint8Array<ArrayBuffer>[] {
  const first = header(body, integer);
  if (first === undefined) return [];
  const numbers = [body.subarray(first.start, first.end), open(body.subarray(first.end), integer)].map(
    positive,
  );
  return numbers.flatMap((number) => (number === undefined ? [] : [number]));
}

/** @returns the number without the zero that only marks it as positive. */
function positive(content: Uint8Array | undefined): Uint8Array<ArrayBuffer> | undefined {
  const [first, second = 0] = content ?? [];
  if (content === undefined || first === undefined || first >= 0x80) return undefined;
  if (first > 0) return content.slice();
  return second >= 0x80 ? content.slice(1) : undefined;
}

/** @returns the content of the one element that the bytes consist of. */
function open(bytes: Uint8Array, tag: number): Uint8Array | undefined {
  const found = header(bytes, tag);
  return found?.end === bytes.length ? bytes.subarray(found.start) : undefined;
}

function header(bytes: Uint8Array, tag: number): { start: number; end: number } | undefined {
  const first = bytes[1] ?? 0x80;
  // Lengths up to 127 stand for themselves; longer ones follow in 1 or 2 bytes, without leading zeros.
  const extra = first < 0x80 ? 0 : first - 0x80;
  if (bytes[0] !== tag || first === 0x80 || extra > 2) return undefined;
  const start = 2 + extra;
  const length = extra === 0 ? first : bytes.subarray(2, start).reduce((sum, byte) => sum * 256 + byte, 0);
  const isShortest = extra === 0 || length >= (extra === 1 ? 0x80 : 0x100);
  return isShortest && start + length <= bytes.length ? { start, end: start + length } : undefined;
}

function isOdd(number: Uint8Array): boolean {
  return (number.at(-1) ?? 0) % 2 === 1;
}

const pem = /^-----BEGIN PUBLIC KEY-----\s([A-Za-z0-9+/\s]+={0,2})\s*-----END PUBLIC KEY-----\s*$/;
const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** Decodes a public key in PEM (RFC 7468 §13). @returns `undefined` if it is none. */
export function fromPem(text: string): Uint8Array<ArrayBuffer> | undefined {
  const body = text.length > 4096 ? undefined : pem.exec(text)?.[1]?.replace(/\s/g, '');
  if (body === undefined || body.length % 4 !== 0) return undefined;
  const bytes: number[] = [];
  let bits = 0;
  let held = 0;
  for (const char of body.replace(/=+$/, '')) {
    held = (held << 6) | digits.indexOf(char);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((held >> bits) & 0xff);
    held &= (1 << bits) - 1;
  }
  // Bits that are left over are zeros (RFC 4648 §3.5).
  return held === 0 ? Uint8Array.from(bytes) : undefined;
}
