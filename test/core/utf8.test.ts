import fc from 'fast-check';
import { expect, it } from 'vitest';
import { showUtf8 } from '../../src/core/bytes.ts';
import { decodeUtf8, encodeUtf8 } from '../../src/core/utf8.ts';

const runs = { numRuns: 300 };

it('encodes any text as TextEncoder does, halves of characters included', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(fc.integer({ min: 0, max: 0xff_ff })).map((units) => String.fromCharCode(...units)),
  );
  fc.assert(
    fc.property(text, (value) => {
      expect(encodeUtf8(value)).toEqual(new Uint8Array(new TextEncoder().encode(value)));
    }),
    runs,
  );
});

it('decodes what TextDecoder decodes, and refuses what it refuses', () => {
  const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.string({ unit: 'binary' }).map(encodeUtf8),
    // Close to valid: one byte of a text changed.
    fc.tuple(fc.string({ unit: 'binary', minLength: 1 }), fc.nat(), fc.nat(255)).map(([text, at, byte]) => {
      const encoded = encodeUtf8(text);
      encoded[at % encoded.length] = byte;
      return encoded;
    }),
  );
  fc.assert(
    fc.property(bytes, (value) => {
      let expected: string | undefined;
      try {
        expected = strict.decode(value);
      } catch {
        expected = undefined;
      }
      if (expected === undefined) expect(() => decodeUtf8(value, true)).toThrow(TypeError);
      else expect(decodeUtf8(value, true)).toBe(expected);
      expect(decodeUtf8(value, false).includes('\ufffd')).toBe(
        expected === undefined || expected.includes('\ufffd'),
      );
    }),
    { numRuns: 2000 },
  );
});

it.each([
  ['an overlong slash', [0xc0, 0xaf]],
  ['an overlong slash of three bytes', [0xe0, 0x80, 0xaf]],
  ['half of a character outside of the plane', [0xed, 0xa0, 0x80]],
  ['a code point that does not exist', [0xf4, 0x90, 0x80, 0x80]],
  ['a character that is cut off', [0xe2, 0x82]],
  ['a byte that leads nothing', [0x80]],
])('refuses %s', (_, bytes) => {
  expect(() => decodeUtf8(Uint8Array.from(bytes), true)).toThrow(TypeError);
  expect(showUtf8(Uint8Array.from([0x61, ...bytes, 0x62]))).toMatch(/^a\ufffd+b$/);
});

it('carries long text', () => {
  const text = 'añ日\u{1f600}'.repeat(20_000);
  expect(decodeUtf8(encodeUtf8(text), true)).toBe(text);
});
