/** Base64 (RFC 4648 §4) in its one canonical form: padded, without white space, with zeros in the bits that are left over. */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const VALUES: ReadonlyMap<number, number> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ Array.from(ALPHABET, (letter, value) => [letter.charCodeAt(0), value]),
);

/** Encodes bytes. */
export function encodeBase64(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const bits = ((bytes[i] as number) << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    text += ALPHABET.charAt(bits >> 18) + ALPHABET.charAt((bits >> 12) & 63);
    text += left > 1 ? ALPHABET.charAt((bits >> 6) & 63) : '=';
    text += left > 2 ? ALPHABET.charAt(bits & 63) : '=';
  }
  return text;
}

/** Decodes text; `undefined` unless it is what {@link encodeBase64} gives for some bytes. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith('==') ? 2 : Number(text.endsWith('='));
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  const letters = text.length - padding;
  let bits = 0;
  let out = 0;
  for (let i = 0; i < text.length; i += 1) {
    const value = i < letters ? VALUES.get(text.charCodeAt(i)) : 0;
    if (value === undefined) return undefined;
    bits = (bits << 6) | value;
    if (i % 4 < 3) continue;
    for (const shift of [16, 8, 0]) {
      const byte = (bits >> shift) & 255;
      if (out < bytes.length) bytes[out++] = byte;
      else if (byte !== 0) return undefined;
    }
    bits = 0;
  }
  return bytes;
}
