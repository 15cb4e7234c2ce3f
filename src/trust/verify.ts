import { fromHex, toHex } from '../core/bytes.ts';
import { TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from './canonical-json.ts';
import { show } from './checks.ts';
import { toSignatureKey } from './keys.ts';
import type { Envelope, PublicKey, RoleKeys } from './metadata.ts';

/** What verifies signatures. */
export type SignaturePlatform = Pick<Platform, 'verifyEd25519' | 'verifySignature'>;

/** Longest signature in hex: RSA of 8192 bits. */
const maxSignatureDigits = 2048;

/**
 * Checks that enough distinct keys of a role signed an envelope (TUF 1.0 §4.2.1, §5.3.4). A wrong extra signature is
 * harmless, keys of unknown kinds are skipped, and one key counts once whatever identifiers it goes by.
 * @param roleName for the message.
 * @param keys the delegator's keys by identifier.
 * @param role identifiers and threshold that the delegator gives the role.
 * @throws {@link TrustError} `ERR_INLAY_SIGNATURE`
 */
export async function verifySignatures(
  platform: SignaturePlatform,
  envelope: Envelope,
  roleName: string,
  keys: Readonly<Record<string, PublicKey>>,
  role: RoleKeys,
): Promise<void> {
  const signatures = new Map(envelope.signatures.map(({ keyid, sig }) => [keyid, sig]));
  if (signatures.size !== envelope.signatures.length) {
    throw new TrustError(
      'ERR_INLAY_SIGNATURE',
      `Metadata of role ${show(roleName)} carries two signatures of one key; have it signed anew.`,
      { details: { role: roleName } },
    );
  }
  const message = canonicalJson(envelope.signed);
  const signedBy = new Set<string>();
  let cause: unknown;
  for (const keyid of role.keyids) {
    const sig = signatures.get(keyid) ?? '';
    const listed = Object.hasOwn(keys, keyid) ? keys[keyid] : undefined;
    const key = listed && toSignatureKey(listed);
    if (key === undefined || sig === '' || sig.length > maxSignatureDigits) continue;
    const identity = `${key.scheme} ${toHex(key.public)}`;
    if (signedBy.has(identity)) continue;
    try {
      const isValid =
        key.scheme === 'ed25519'
          ? sig.length === 128 && (await platform.verifyEd25519(key.public, fromHex(sig), message))
          : await platform.verifySignature?.(key, fromHex(sig), message);
      if (isValid === true) signedBy.add(identity);
    } catch (error) {
      // A point that is not on the curve makes the platform throw; that is a signature that does not count.
      cause = error;
    }
    if (signedBy.size >= role.threshold) return;
  }
  throw new TrustError(
    'ERR_INLAY_SIGNATURE',
    `Metadata of role ${show(roleName)} has ${signedBy.size} valid signatures of the ${role.threshold} that it ` +
      'needs; either it was tampered with, or this root belongs to another server.',
    {
      details: { role: roleName, valid: signedBy.size, threshold: role.threshold },
      ...(cause !== undefined && { cause }),
    },
  );
}
