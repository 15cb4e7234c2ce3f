import { describe, expect, it } from 'vitest';
import { fromHex } from '../../src/core/bytes.ts';
import { createEd25519, type SubtleVerifier } from '../../src/ed25519.ts';

/** RFC 8032 §7.1, tests 1 to 3. */
const vectors = [
  [
    'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    '',
    'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  ],
  [
    '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
    '72',
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
  ],
  [
    'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
    'af82',
    '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
  ],
] as const;

const native = globalThis.crypto.subtle as SubtleVerifier;
const importKey: SubtleVerifier['importKey'] = (...given) => native.importKey(...given);

/** Engines as they are. */
const engines: readonly [string, SubtleVerifier | undefined][] = [
  ['that has it', native],
  ['without WebCrypto', undefined],
  [
    'whose WebCrypto has no Ed25519',
    {
      importKey: () => Promise.reject(new DOMException('Algorithm: Unrecognized name', 'NotSupportedError')),
      verify: () => Promise.reject(new Error('never')),
    },
  ],
  ['that takes everything for right', { importKey, verify: async () => true }],
  ['that takes nothing for right', { importKey, verify: async () => false }],
];

describe.each(engines)('an engine %s', (_, subtle) => {
  it('knows right signatures from wrong ones', async () => {
    const verify = createEd25519(subtle);
    for (const [key, message, signature] of vectors) {
      expect(await verify(fromHex(key), fromHex(signature), fromHex(message))).toBe(true);
      for (const [what, at] of [
        ['signature', 0],
        ['signature', 40],
        ['key', 3],
      ] as const) {
        const changed = { key: fromHex(key), signature: fromHex(signature) };
        changed[what][at] = (changed[what][at] ?? 0) ^ 1;
        const isValid = verify(changed.key, changed.signature, fromHex(message));
        // A key that is no point may also reject.
        expect(await isValid.catch(() => false)).toBe(false);
      }
      expect(await verify(fromHex(key), fromHex(signature), fromHex(`${message}00`))).toBe(false);
    }
  });

  it('refuses a signature whose scalar is not the smallest (RFC 8032 §5.1.7)', async () => {
    const [[key, message, signature]] = vectors;
    const order = 2n ** 252n + 27_742_317_777_372_353_535_851_937_790_883_648_493n;
    const bytes = fromHex(signature);
    let scalar = order;
    for (let i = 63; i >= 32; i -= 1) scalar += BigInt(bytes[i] ?? 0) << BigInt(8 * (i - 32));
    for (let i = 32; i < 64; i += 1) bytes[i] = Number((scalar >> BigInt(8 * (i - 32))) & 255n);
    const isValid = createEd25519(subtle)(fromHex(key), bytes, fromHex(message));
    expect(await isValid.catch(() => false)).toBe(false);
  });
});

it('finds out once what the engine can', async () => {
  let imports = 0;
  const verify = createEd25519({
    importKey: (...given) => {
      imports += 1;
      return native.importKey(...given);
    },
    verify: (...given) => native.verify(...given),
  });
  const [[key, message, signature]] = vectors;
  const all = Array.from({ length: 5 }, () => verify(fromHex(key), fromHex(signature), fromHex(message)));
  expect(await Promise.all(all)).toEqual([true, true, true, true, true]);
  expect(imports).toBe(2 + 5);
});
