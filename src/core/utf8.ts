/** UTF-8 (RFC 3629) for engines that come without the Encoding API, as Hermes does. */

/** Encodes text; a surrogate without its partner becomes U+FFFD, as in `TextEncoder`. */
export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(3 * text.length);
  let length = 0;
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    const code = point >= 0xd8_00 && point < 0xe0_00 ? REPLACEMENT : point;
    if (code < 0x80) bytes[length++] = code;
    else {
      const trailing = code < 0x8_00 ? 1 : code < 0x1_00_00 ? 2 : 3;
      bytes[length++] = (LEADS[trailing] as number) | (code >> (6 * trailing));
      for (let i = trailing - 1; i >= 0; i -= 1) bytes[length++] = 0x80 | ((code >> (6 * i)) & 0x3f);
    }
  }
  return bytes.slice(0, length);
}

/**
 * Decodes bytes, with a byte order mark where there is one.
 * @param isStrict whether malformed bytes throw a `TypeError`; otherwise each becomes U+FFFD.
 */
export function decodeUtf8(bytes: Uint8Array, isStrict: boolean): string {
  let text = '';
  let units: number[] = [];
  for (let at = 0; at < bytes.length;) {
    const lead = bytes[at] as number;
    const trailing =
      lead < 0x80 ? 0 : lead < 0xc2 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : -1;
    let code = trailing < 1 ? lead : lead & (0x3f >> trailing);
    for (let i = 1; i <= trailing; i += 1) {
      const byte = bytes[at + i] ?? 0;
      code = (byte & 0xc0) === 0x80 && code >= 0 ? (code << 6) | (byte & 0x3f) : -1;
    }
    const isValid =
      trailing >= 0 &&
      code >= (SMALLEST[trailing] as number) &&
      code <= 0x10_ff_ff &&
      (code < 0xd8_00 || code > 0xdf_ff);
    if (!isValid && isStrict) throw new TypeError('The bytes are no UTF-8.');
    at += isValid ? trailing + 1 : 1;
    const point = isValid ? code : REPLACEMENT;
    if (point > 0xff_ff) units.push(0xd7_c0 + (point >> 10), 0xdc_00 | (point & 0x3_ff));
    else units.push(point);
    // A call takes only so many arguments.
    if (units.length > 4000 || at >= bytes.length) {
      text += String.fromCharCode(...units);
      units = [];
    }
  }
  return text;
}

const REPLACEMENT = 0xff_fd;
/** First byte by the number of bytes that follow, and the smallest code point that needs so many. */
const LEADS = [0, 0xc0, 0xe0, 0xf0];
const SMALLEST = [0, 0x80, 0x8_00, 0x1_00_00];
