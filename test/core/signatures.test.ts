import { describe, expect, it } from 'vitest';
import { concatBytes, fromHex, toUtf8 } from '../../src/core/bytes.ts';
import type { SignatureKey } from '../../src/core/platform.ts';
import { ecdsa } from '../../src/ecdsa.ts';
import { rsaPss } from '../../src/rsa-pss.ts';
import { createSignatures, type SubtleSignatures } from '../../src/signatures.ts';
import { fromPem, toRawEcdsa } from '../../src/trust/der.ts';
import { toSignatureKey } from '../../src/trust/keys.ts';
import { newSimulatedSigner, toDer, toPem, type Scheme } from './trust/simulator.ts';

const native: SubtleSignatures = globalThis.crypto.subtle;
const importKey: SubtleSignatures['importKey'] = (...given) => native.importKey(...given);
const never = (): Promise<never> => Promise.reject(new DOMException('No.', 'NotSupportedError'));
const p256Order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** Engines as they are. */
const engines: readonly [string, SubtleSignatures | undefined][] = [
  ['that has them', native],
  ['without WebCrypto', undefined],
  ['whose WebCrypto has none of them', { importKey: never, verify: never }],
  ['that takes everything for right', { importKey, verify: async () => true }],
  ['that takes nothing for right', { importKey, verify: async () => false }],
];

const schemes = ['ecdsa-sha2-nistp256', 'rsassa-pss-sha256'] as const;
const message = toUtf8('what is signed');
const keyOf = (scheme: Scheme, pem: string): SignatureKey => {
  const keytype = scheme === 'ecdsa-sha2-nistp256' ? 'ecdsa' : 'rsa';
  const key = toSignatureKey({ keytype, scheme, keyval: { public: pem } });
  if (!key) throw new Error('The key cannot be read.');
  return key;
};

describe.each(engines)('an engine %s', (_, subtle) => {
  const verify = createSignatures(subtle, async () => true);

  it.each(schemes)('knows right signatures of %s from wrong ones', async (scheme) => {
    const signer = await newSimulatedSigner(scheme);
    const key = keyOf(scheme, signer.key.keyval.public);
    // Numbers with leading zeros come up once in 256 times.
    for (let i = 0; i < (scheme === 'rsassa-pss-sha256' ? 4 : 24); i += 1) {
      const signed = concatBytes([message, Uint8Array.of(i)]);
      const signature = await signer.sign(signed);
      expect(await verify(key, signature, signed)).toBe(true);
      expect(await verify(key, signature, message)).toBe(false);
      const changed = signature.slice();
      changed[20] = (changed[20] ?? 0) ^ 1;
      expect(await verify(key, changed, signed)).toBe(false);
    }
  });

  it.each(schemes)('takes no garbage for a signature of %s', async (scheme) => {
    const signer = await newSimulatedSigner(scheme);
    const key = keyOf(scheme, signer.key.keyval.public);
    for (const length of [0, 1, 8, 64, 70, 72, 255, 256, 257]) {
      for (const byte of [0x00, 0x30, 0xff]) {
        const garbage = new Uint8Array(length).fill(byte);
        expect(await verify(key, garbage, message).catch(() => false)).toBe(false);
      }
    }
  });

  it('takes an ECDSA signature with either s, and with none that is zero or beyond the order', async () => {
    const signer = await newSimulatedSigner('ecdsa-sha2-nistp256');
    const key = keyOf('ecdsa-sha2-nistp256', signer.key.keyval.public);
    const raw = toRawEcdsa(await signer.sign(message)) ?? new Uint8Array();
    const s = BigInt(`0x${[...raw.subarray(32)].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`);
    const withS = (other: bigint): Uint8Array =>
      toDer(concatBytes([raw.subarray(0, 32), fromHex(other.toString(16).padStart(64, '0'))]));
    expect(await verify(key, withS(p256Order - s), message)).toBe(true);
    const over = p256Order + s;
    for (const other of [p256Order, ...(over < 2n ** 256n ? [over] : [])]) {
      expect(await verify(key, withS(other), message).catch(() => false)).toBe(false);
    }
    const zero = fromHex('3006020100020100');
    expect(await verify(key, zero, message).catch(() => false)).toBe(false);
  });

  it('refuses a point beside the curve', async () => {
    const spki = ecdsa.vector.spki.slice();
    spki[spki.length - 1] = (spki.at(-1) ?? 0) ^ 1;
    const key = keyOf('ecdsa-sha2-nistp256', toPem(spki));
    const { signature, message: signed } = ecdsa.vector;
    expect(await verify(key, signature, signed).catch(() => false)).toBe(false);
  });

  it('refuses an RSA-PSS signature with another length of salt', async () => {
    const algorithm = {
      name: 'RSA-PSS',
      hash: 'SHA-256',
      modulusLength: 2048,
      publicExponent: Uint8Array.of(1, 0, 1),
    };
    const { subtle: real } = globalThis.crypto;
    const pair = await real.generateKey(algorithm, true, ['sign', 'verify']);
    const spki = new Uint8Array(await real.exportKey('spki', pair.publicKey));
    const key = keyOf('rsassa-pss-sha256', toPem(spki));
    for (const [saltLength, counts] of [
      [32, true],
      [0, false],
      [20, false],
    ] as const) {
      const signature = await real.sign({ name: 'RSA-PSS', saltLength }, pair.privateKey, message);
      expect(await verify(key, new Uint8Array(signature), message)).toBe(counts);
    }
  });
});

it.each([1024 + 512, 2048 + 128, 3072])(
  'verifies RSA keys of %i bits only from 2048 on',
  async (modulusLength) => {
    const { subtle } = globalThis.crypto;
    const algorithm = {
      name: 'RSA-PSS',
      hash: 'SHA-256',
      modulusLength,
      publicExponent: Uint8Array.of(1, 0, 1),
    };
    const pair = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const spki = new Uint8Array(await subtle.exportKey('spki', pair.publicKey));
    const parameters = { name: 'RSA-PSS', saltLength: 32 };
    const signature = new Uint8Array(await subtle.sign(parameters, pair.privateKey, message));
    const key = { keytype: 'rsa', scheme: 'rsassa-pss-sha256', keyval: { public: toPem(spki) } };
    expect(toSignatureKey(key) !== undefined).toBe(modulusLength >= 2048);
    expect(await rsaPss.verify(spki, signature, message)).toBe(modulusLength >= 2048);
  },
);

it('leaves Ed25519 to its own verifier', async () => {
  const verify = createSignatures(undefined, async (key) => key.length === 32);
  expect(await verify({ scheme: 'ed25519', public: new Uint8Array(32) }, message, message)).toBe(true);
});

it('finds out once what the engine can', async () => {
  let imports = 0;
  const counting: SubtleSignatures = {
    importKey: (...given) => {
      imports += 1;
      return importKey(...given);
    },
    verify: (...given) => native.verify(...given),
  };
  const verify = createSignatures(counting, async () => false);
  const { spki, signature, message: signed } = ecdsa.vector;
  const key: SignatureKey = { scheme: 'ecdsa-sha2-nistp256', public: spki };
  const all = Array.from({ length: 5 }, () => verify(key, signature, signed));
  expect(await Promise.all(all)).toEqual([true, true, true, true, true]);
  expect(imports).toBe(2 + 5);
});

describe('keys', () => {
  const { spki } = ecdsa.vector;
  const read = (pem: string): unknown =>
    toSignatureKey({ keytype: 'ecdsa', scheme: 'ecdsa-sha2-nistp256', keyval: { public: pem } });

  it('are the same however their PEM is laid out', () => {
    const pem = toPem(spki);
    const expected = { scheme: 'ecdsa-sha2-nistp256', public: spki };
    for (const text of [pem, pem.trimEnd(), pem.replace(/\n/g, '\r\n'), `${pem}\n\n`]) {
      expect(read(text)).toEqual(expected);
    }
  });

  it.each([
    ['no PEM', 'MFkw'],
    ['another label', toPem(spki).replaceAll('PUBLIC KEY', 'CERTIFICATE')],
    ['bits left over', toPem(spki).replace(/.(={1,2})\n-/, '/$1\n-')],
    ['a byte too many', toPem(concatBytes([spki, Uint8Array.of(0)]))],
    ['a byte too few', toPem(spki.subarray(0, -1))],
    ['an RSA key', toPem(rsaPss.vector.spki)],
    [
      'a compressed point',
      toPem(concatBytes([spki.subarray(0, 26), Uint8Array.of(2), spki.subarray(27, 59)])),
    ],
    ['no end', toPem(spki).slice(0, -10)],
  ])('with %s do not count', (_, text) => {
    expect(read(text)).toBeUndefined();
  });

  it('of RSA are read in one form only', () => {
    const rsa = (bytes: Uint8Array): unknown =>
      toSignatureKey({ keytype: 'rsa', scheme: 'rsassa-pss-sha256', keyval: { public: toPem(bytes) } });
    const { spki: good } = rsaPss.vector;
    expect(rsa(good)).toEqual({ scheme: 'rsassa-pss-sha256', public: good });
    const changed = (at: number, value: number): Uint8Array =>
      good.map((byte, i) => (i === at ? value : byte));
    // A modulus that is even, an exponent of 1, a length that is longer than it has to be, other parameters.
    expect(rsa(changed(good.length - 6, 0))).toBeUndefined();
    expect(rsa(concatBytes([good.subarray(0, -3), Uint8Array.of(0, 0, 1)]))).toBeUndefined();
    expect(rsa(changed(3, (good[3] ?? 0) + 1))).toBeUndefined();
    expect(rsa(changed(18, 4))).toBeUndefined();
    expect(rsa(good.subarray(1))).toBeUndefined();
  });

  it('of other kinds do not count', () => {
    const key = (keytype: string, scheme: string): unknown =>
      toSignatureKey({ keytype, scheme, keyval: { public: toPem(spki) } });
    expect(key('ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp256')).toBeDefined();
    for (const [keytype, scheme] of [
      ['ecdsa', 'ed25519'],
      ['rsa', 'rsa-pkcs1v15-sha256'],
      ['sphincs', 'sphincs-shake-128s'],
      ['constructor', ''],
    ] as const) {
      expect(key(keytype, scheme)).toBeUndefined();
    }
  });
});

it.each([
  ['a sequence of one number', '3003020101'],
  ['three numbers', '3009020101020101020101'],
  ['a negative number', '3006020181020101'],
  ['a number with a needless zero', '300702020001020101'],
  ['a length in the long form', '308106020101020101'],
  ['bytes after the end', '300602010102010100'],
  ['no end', '3006020101'],
  ['33 bytes', `3026022101${'00'.repeat(32)}020101`],
])('reads no ECDSA signature with %s', (_, hex) => {
  expect(toRawEcdsa(fromHex('3006020101020102'))?.[63]).toBe(2);
  expect(toRawEcdsa(fromHex(hex))).toBeUndefined();
});

it('decodes PEM of any length', () => {
  for (let length = 1; length < 70; length += 1) {
    const bytes = Uint8Array.from({ length }, (_, i) => i * 37);
    expect(fromPem(toPem(bytes))).toEqual(bytes);
  }
});

describe('an RSA-PSS signature by the right key', () => {
  const sha = async (...parts: Uint8Array[]): Promise<Uint8Array> =>
    new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', concatBytes(parts)));
  const numberOf = (text = ''): bigint => {
    const bytes = atob(text.replace(/-/g, '+').replace(/_/g, '/'));
    return [...bytes].reduce((sum, char) => sum * 256n + BigInt(char.charCodeAt(0)), 0n);
  };
  const power = (base: bigint, exponent: bigint, modulus: bigint): bigint => {
    let result = 1n;
    for (const bit of exponent.toString(2)) {
      result = (result * result) % modulus;
      if (bit === '1') result = (result * base) % modulus;
    }
    return result;
  };

  it.each([
    ['counts as it has to be', true, () => {}, 0],
    [
      'does not count with another byte before the salt',
      false,
      (block: Uint8Array): void => void (block[190] = 2),
      0,
    ],
    [
      'does not count with a byte among the zeros',
      false,
      (block: Uint8Array): void => void (block[7] = 1),
      0,
    ],
    ['does not count with a bit beyond the modulus', false, () => {}, 0x80],
  ] as const)('%s (RFC 8017 §9.1.2)', async (_, counts, damage, extraBit) => {
    const { subtle } = globalThis.crypto;
    const algorithm = {
      name: 'RSA-PSS',
      hash: 'SHA-256',
      modulusLength: 2048,
      publicExponent: Uint8Array.of(1, 0, 1),
    };
    let encoded = 0n;
    let modulus = 0n;
    let pair: CryptoKeyPair;
    let exponent: bigint;
    // With that bit it may be beyond the modulus altogether, depending on the key.
    do {
      pair = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
      const { n, d } = await subtle.exportKey('jwk', pair.privateKey);
      modulus = numberOf(n);
      exponent = numberOf(d);
      const salt = new Uint8Array(32).fill(7);
      const hash = await sha(new Uint8Array(8), await sha(message), salt);
      const block = new Uint8Array(223);
      block[190] = 1;
      block.set(salt, 191);
      damage(block);
      for (let counter = 0; counter < 7; counter += 1) {
        const mask = await sha(hash, Uint8Array.of(0, 0, 0, counter));
        for (let i = 0; i < 32 && 32 * counter + i < block.length; i += 1) {
          block[32 * counter + i] = (block[32 * counter + i] ?? 0) ^ (mask[i] ?? 0);
        }
      }
      block[0] = ((block[0] ?? 0) & 0x7f) | extraBit;
      const whole = concatBytes([block, hash, Uint8Array.of(0xbc)]);
      encoded = [...whole].reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
    } while (encoded >= modulus);
    const signature = fromHex(power(encoded, exponent, modulus).toString(16).padStart(512, '0'));
    const spki = new Uint8Array(await subtle.exportKey('spki', pair.publicKey));
    expect(await rsaPss.verify(spki, signature, message)).toBe(counts);
    const parameters = { name: 'RSA-PSS', saltLength: 32 };
    expect(await subtle.verify(parameters, pair.publicKey, signature, message.slice())).toBe(counts);
  });
});
