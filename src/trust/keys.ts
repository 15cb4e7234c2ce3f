import { toHex } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from './canonical-json.ts';
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

/** Tells whether a key is an Ed25519 key of the right form; other kinds are skipped in verification. */
export function isEd25519Key(key: PublicKey): boolean {
  return key.keytype === 'ed25519' && key.scheme === 'ed25519' && /^[0-9a-f]{64}$/i.test(key.keyval.public);
}
