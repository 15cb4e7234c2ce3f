import { describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { createTargets } from '../../../src/publish/release.ts';
import { signMetadata } from '../../../src/publish/sign.ts';
import { generateKeyPair, openSigner, toKeyFile } from '../../../src/publish/signer.ts';
import { keyIdOf } from '../../../src/trust/keys.ts';
import { parseEnvelope } from '../../../src/trust/parse.ts';
import { verifySignatures } from '../../../src/trust/verify.ts';
import { testPlatform } from '../platform.ts';
import { newSigner } from './repository.ts';

const platform = testPlatform();
const { subtle } = globalThis.crypto;
const expires = '2031-01-01T00:00:00Z';

describe('signMetadata', () => {
  it('gives the same bytes for the same body, whatever the order of signers and keys', async () => {
    const [a, b] = await Promise.all([newSigner(platform), newSigner(platform)]);
    const body = createTargets({ onlineKey: a, expires });
    const reversed = Object.fromEntries(Object.entries(body).reverse()) as typeof body;
    expect(fromUtf8(await signMetadata(body, [a, b]))).toBe(fromUtf8(await signMetadata(reversed, [b, a])));
  });

  it('writes JSON also where canonical JSON is none', async () => {
    const signer = await newSigner(platform);
    const body = createTargets({ onlineKey: signer, expires });
    const custom = { notes: 'line\nline\t"quoted" \\ \u0000' };
    const targets = { x: { length: 1, hashes: { sha256: 'ab'.repeat(32) }, custom } };
    const envelope = parseEnvelope(await signMetadata({ ...body, targets }, [signer]), 'targets');
    expect(envelope.signed.targets['x']?.custom).toEqual(custom);
    const role = { keyids: [signer.keyid], threshold: 1 };
    await verifySignatures(platform, envelope, 'targets', { [signer.keyid]: signer.key }, role);
  });

  it('refuses a signer that is named twice', async () => {
    const signer = await newSigner(platform);
    const body = createTargets({ onlineKey: signer, expires });
    await expect(signMetadata(body, [signer, signer])).rejects.toThrow(RangeError);
  });
});

describe('openSigner', () => {
  it('signs with a stored key pair', async () => {
    const pair = await generateKeyPair(subtle);
    const signer = await openSigner({ subtle, platform }, JSON.parse(JSON.stringify(toKeyFile(pair))));
    expect(pair.publicKey).toMatch(/^[0-9a-f]{64}$/);
    expect(signer.key.keyval.public).toBe(pair.publicKey);
    expect(signer.keyid).toBe(keyIdOf(platform, signer.key));
    expect(await signer.sign(toUtf8('x'))).toHaveLength(64);
  });

  it('refuses halves that do not belong together', async () => {
    const [one, other] = await Promise.all([generateKeyPair(subtle), generateKeyPair(subtle)]);
    const file = toKeyFile({ publicKey: one.publicKey, privateKey: other.privateKey });
    await expect(openSigner({ subtle, platform }, file)).rejects.toThrow(/do not belong together/);
  });

  it.each([
    ['no base64', { private: '?' }],
    ['no PKCS #8', { private: 'AAAA' }],
    ['no hex', { public: 'zz' }],
    ['another type', { keytype: 'rsa' }],
  ])('refuses a file with %s and does not quote it', async (_, change) => {
    const file = { ...toKeyFile(await generateKeyPair(subtle)), ...change };
    const error: unknown = await openSigner({ subtle, platform }, file).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(TypeError);
    expect(String(error)).not.toContain(file.private);
    expect((error as Error).cause).toBeUndefined();
  });
});
