/** Letters of base64url (RFC 4648 §5), in order. */
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** Writes bytes as base64url (RFC 4648 §5) without padding. */
export function base64Url(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 3) {
    const [a = 0, b, c] = bytes.subarray(at, at + 3);
    const word = (a << 16) | ((b ?? 0) << 8) | (c ?? 0);
    const letters = c !== undefined ? 4 : b !== undefined ? 3 : 2;
    for (let letter = 0; letter < letters; letter += 1)
      text += LETTERS[(word >> (18 - 6 * letter)) & 63] ?? '';
  }
  return text;
}
