import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex, toUtf8 } from '../../src/core/bytes.ts';
import { createSha256 } from '../../src/core/hash.ts';

// FIPS 180-4 example values (NIST CSRC, "SHA-256" examples) and the empty message.
const vectors: readonly (readonly [string, string])[] = [
  ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
  [
    'abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq',
    '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
  ],
];

describe('createSha256', () => {
  it.each(vectors)('hashes %j as FIPS 180-4 says', (text, digest) => {
    const hash = createSha256();
    hash.update(toUtf8(text));
    expect(toHex(hash.digest())).toBe(digest);
  });

  it('agrees with WebCrypto however the input is cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 8 }), async (parts) => {
        const hash = createSha256();
        for (const part of parts) hash.update(part);
        const whole = new Uint8Array(parts.flatMap((part) => [...part]));
        const expected = new Uint8Array(await crypto.subtle.digest('SHA-256', whole));
        expect(toHex(hash.digest())).toBe(toHex(expected));
      }),
    );
  });

  it('counts lengths beyond 2^32 bits in the padding', () => {
    const hash = createSha256();
    const megabyte = new Uint8Array(2 ** 20);
    for (let i = 0; i < 16; i += 1) hash.update(megabyte);
    expect(toHex(hash.digest())).toBe('080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e');
  });
});
