/** Base64 (RFC 4648 §4), in which `react-native-fs` passes bytes. */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const CODES = /* @__PURE__ */ Uint8Array.from(ALPHABET, (letter) => letter.charCodeAt(0));
const VALUES = /* @__PURE__ */ (() => {
  const values = new Uint8Array(128);
  for (let i = 0; i < 64; i += 1) values[CODES[i] as number] = i;
  return values;
})();
const PAD = 61;
/** Letters put together at a time: a call takes only so many arguments. */
const RUN = 4096;

/** Encodes bytes. */
export function toBase64(bytes: Uint8Array): string {
  const codes = new Uint8Array(4 * Math.ceil(bytes.length / 3));
  let out = 0;
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const bits = ((bytes[i] as number) << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    codes[out++] = CODES[bits >> 18] as number;
    codes[out++] = CODES[(bits >> 12) & 63] as number;
    codes[out++] = left > 1 ? (CODES[(bits >> 6) & 63] as number) : PAD;
    codes[out++] = left > 2 ? (CODES[bits & 63] as number) : PAD;
  }
  let text = '';
  for (let i = 0; i < codes.length; i += RUN) text += String.fromCharCode(...codes.subarray(i, i + RUN));
  return text;
}

/**
 * Decodes text that another encoder wrote; line breaks, which Android's puts in by default, are skipped.
 * @throws `RangeError` if it is cut off.
 */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const letters = text.includes('\n') || text.includes('\r') ? text.replace(/[\r\n]/g, '') : text;
  if (letters.length % 4 !== 0) throw new RangeError('Base64 text has a multiple of four letters.');
  const padding = letters.endsWith('==') ? 2 : Number(letters.endsWith('='));
  const bytes = new Uint8Array((letters.length / 4) * 3 - padding);
  const valueAt = (i: number): number => VALUES[letters.charCodeAt(i)] ?? 0;
  let out = 0;
  for (let i = 0; i < letters.length; i += 4) {
    const bits = (valueAt(i) << 18) | (valueAt(i + 1) << 12) | (valueAt(i + 2) << 6) | valueAt(i + 3);
    // What is beyond the end of the array is dropped: that is the padding.
    bytes[out++] = bits >> 16;
    bytes[out++] = (bits >> 8) & 255;
    bytes[out++] = bits & 255;
  }
  return bytes;
}
