import { fromHex, toHex } from '../core/bytes.ts';
import type { Platform, SignatureKey } from '../core/platform.ts';
import { canonicalJson } from './canonical-json.ts';
import { fromPem, readP256, readRsa } from './der.ts';
import type { PublicKey } from './metadata.ts';

/** A public key with its identifier, as roles and signatures name it. */
export interface NamedKey {
  readonly keyid: string;
  readonly key: PublicKey;
}

/** Computes a key's identifier: hex SHA-256 of its canonical JSON (TUF 1.0 §4.2). */
export function keyIdOf(platform: Pick<Platform, 'createSha256'>, key: PublicKey): string {
  return sha256Hex(platform, canonicalJson(key));
}

/** Computes the SHA-256 of bytes that are in memory, as lower-case hex. */
export function sha256Hex(platform: Pick<Platform, 'createSha256'>, bytes: Uint8Array): string {
  const hash = platform.createSha256();
  hash.update(bytes);
  return toHex(hash.digest());
}

/** How the public part of a key is read, by type and scheme (TUF 1.0 §4.2). */
const readers: Readonly<Record<string, (text: string) => Uint8Array<ArrayBuffer> | undefined>> = {
  'ed25519 ed25519': (text) => (/^[0-9a-f]{64}$/i.test(text) ? fromHex(text) : undefined),
  'ecdsa ecdsa-sha2-nistp256': readPem(readP256),
  // As repositories wrote it before TUF 1.0.
  'ecdsa-sha2-nistp256 ecdsa-sha2-nistp256': readPem(readP256),
  'rsa rsassa-pss-sha256': readPem(readRsa),
};

function readPem(read: (spki: Uint8Array) => unknown): (text: string) => Uint8Array<ArrayBuffer> | undefined {
  return (text) => {
    const spki = fromPem(text);
    return spki !== undefined && read(spki) !== undefined ? spki : undefined;
  };
}

/**
 * Reads a key for verification.
 * @returns the same bytes for the same key, however it is written; `undefined` for kinds that do not count, and for
 * anything malformed.
 */
export function toSignatureKey({ keytype, scheme, keyval }: PublicKey): SignatureKey | undefined {
  const kind = `${keytype} ${scheme}`;
  const bytes = Object.hasOwn(readers, kind) ? readers[kind]?.(keyval.public) : undefined;
  return bytes && { scheme: scheme as SignatureKey['scheme'], public: bytes };
}

/** Names a key by its content: the same text for the same key, however it is written. */
export function identityOf(key: PublicKey): string | undefined {
  const read = toSignatureKey(key);
  return read && `${read.scheme} ${toHex(read.public)}`;
}
