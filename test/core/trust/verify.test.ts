import { beforeAll, describe, expect, it } from 'vitest';
import { createTimestamp } from '../../../src/publish/release.ts';
import { signMetadata } from '../../../src/publish/sign.ts';
import type { Signer } from '../../../src/publish/signer.ts';
import { keyIdOf } from '../../../src/trust/keys.ts';
import type { Envelope, PublicKey, RoleKeys, Timestamp } from '../../../src/trust/metadata.ts';
import { parseEnvelope } from '../../../src/trust/parse.ts';
import { verifySignatures } from '../../../src/trust/verify.ts';
import { testPlatform } from '../platform.ts';
import { newSigner } from '../publish/repository.ts';

const platform = testPlatform();
const body = createTimestamp({ version: 1, expires: '2031-01-01T00:00:00Z', snapshot: { version: 1 } });
let a: Signer;
let b: Signer;
let signed: Envelope<Timestamp>;

beforeAll(async () => {
  [a, b] = await Promise.all([newSigner(platform), newSigner(platform)]);
  signed = parseEnvelope(await signMetadata(body, [a, b]), 'timestamp');
});

const keysOf = (...signers: Signer[]): Record<string, PublicKey> =>
  Object.fromEntries(signers.map(({ keyid, key }) => [keyid, key]));
const verify = (envelope: Envelope, keys: Record<string, PublicKey>, role: RoleKeys): Promise<void> =>
  verifySignatures(platform, envelope, 'timestamp', keys, role);
const refused = expect.objectContaining({ code: 'ERR_INLAY_SIGNATURE' });

describe('verifySignatures', () => {
  it('accepts a threshold of distinct keys', async () => {
    await verify(signed, keysOf(a, b), { keyids: [a.keyid, b.keyid], threshold: 2 });
  });

  it('refuses fewer', async () => {
    const one = { ...signed, signatures: signed.signatures.slice(0, 1) };
    await expect(verify(one, keysOf(a, b), { keyids: [a.keyid, b.keyid], threshold: 2 })).rejects.toThrow(
      refused,
    );
  });

  it('refuses a changed body', async () => {
    const changed = { ...signed, signed: { ...signed.signed, version: 2 } };
    await expect(verify(changed, keysOf(a), { keyids: [a.keyid], threshold: 1 })).rejects.toThrow(refused);
  });

  it('refuses a body with an added field', async () => {
    const changed = { ...signed, signed: { ...signed.signed, extra: 1 } };
    await expect(verify(changed, keysOf(a), { keyids: [a.keyid], threshold: 1 })).rejects.toThrow(refused);
  });

  it('ignores a wrong extra signature', async () => {
    const signatures = signed.signatures.map((one) =>
      one.keyid === b.keyid ? { ...one, sig: '00'.repeat(64) } : one,
    );
    await verify({ ...signed, signatures }, keysOf(a, b), { keyids: [a.keyid, b.keyid], threshold: 1 });
  });

  it('ignores signatures of keys that the role does not name', async () => {
    await expect(verify(signed, keysOf(a, b), { keyids: [a.keyid], threshold: 2 })).rejects.toThrow(refused);
  });

  it('refuses two signatures under one keyid', async () => {
    const signatures = [...signed.signatures, ...signed.signatures.slice(0, 1)];
    await expect(
      verify({ ...signed, signatures }, keysOf(a, b), { keyids: [a.keyid, b.keyid], threshold: 1 }),
    ).rejects.toThrow(refused);
  });

  it('counts one key once, whatever keyids it goes by', async () => {
    const [sig] = signed.signatures.filter(({ keyid }) => keyid === a.keyid);
    const alias = { keyid: 'alias', sig: sig?.sig ?? '' };
    const envelope = { ...signed, signatures: [{ ...alias, keyid: a.keyid }, alias] };
    const upper = { ...a.key, keyval: { public: a.key.keyval.public.toUpperCase() } };
    await expect(
      verify(envelope, { [a.keyid]: a.key, alias: upper }, { keyids: [a.keyid, 'alias'], threshold: 2 }),
    ).rejects.toThrow(refused);
  });

  it('skips keys of other kinds', async () => {
    const rsa = { keytype: 'rsa', scheme: 'rsassa-pss-sha256', keyval: { public: 'PEM' } };
    const keys = { ...keysOf(a), [b.keyid]: rsa };
    await verify(signed, keys, { keyids: [a.keyid, b.keyid], threshold: 1 });
    await expect(verify(signed, keys, { keyids: [a.keyid, b.keyid], threshold: 2 })).rejects.toThrow(refused);
  });

  it('takes a key that the platform cannot read for a signature that does not count', async () => {
    const broken = { ...platform, verifyEd25519: () => Promise.reject(new Error('bad point')) };
    await expect(
      verifySignatures(broken, signed, 'timestamp', keysOf(a), { keyids: [a.keyid], threshold: 1 }),
    ).rejects.toThrow(refused);
  });
});

describe('keyIdOf', () => {
  it('hashes the canonical JSON of the key', () => {
    // printf '{"keytype":"ed25519","keyval":{"public":"%064d"},"scheme":"ed25519"}' 0 | sha256sum
    const key = { scheme: 'ed25519', keytype: 'ed25519', keyval: { public: '0'.repeat(64) } };
    expect(keyIdOf(platform, key)).toBe('7f7373360bc914a5d4a7bd87711615178beb6cf52494fcc49082ec65ba62908c');
  });
});
