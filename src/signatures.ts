/**
 * Verifying the signatures of TUF repositories that do not sign with Ed25519: natively where the engine can, in JavaScript
 * where it cannot. Inlay's own repositories need none of it, so a scheme is loaded when its first signature comes.
 */

import type { Platform, SignatureKey } from './core/platform.ts';

/** Checks a signature by a key in SubjectPublicKeyInfo. */
export type Verify = (spki: Uint8Array, signature: Uint8Array, message: Uint8Array) => Promise<boolean>;

/** What is loaded for a scheme. */
export interface SchemeParts {
  /** In JavaScript. */
  readonly verify: Verify;
  /** The form of a signature that WebCrypto takes; `undefined` if it has none. */
  toNative(signature: Uint8Array): Uint8Array<ArrayBuffer> | undefined;
  /** A signature that is right. */
  readonly vector: {
    readonly spki: Uint8Array;
    readonly signature: Uint8Array;
    readonly message: Uint8Array;
  };
}

/** The part of `crypto.subtle` that is used. */
export interface SubtleSignatures {
  importKey(
    format: 'spki',
    keyData: Uint8Array<ArrayBuffer>,
    algorithm: EcKeyImportParams | RsaHashedImportParams,
    extractable: boolean,
    usages: 'verify'[],
  ): Promise<CryptoKey>;
  verify(
    algorithm: EcdsaParams | RsaPssParams,
    key: CryptoKey,
    signature: Uint8Array<ArrayBuffer>,
    data: Uint8Array<ArrayBuffer>,
  ): Promise<boolean>;
}

interface Scheme {
  readonly algorithm: EcKeyImportParams | RsaHashedImportParams;
  readonly parameters: EcdsaParams | RsaPssParams;
  load(): Promise<SchemeParts>;
}

const schemes: Readonly<Record<Exclude<SignatureKey['scheme'], 'ed25519'>, Scheme>> = {
  'ecdsa-sha2-nistp256': {
    algorithm: { name: 'ECDSA', namedCurve: 'P-256' },
    parameters: { name: 'ECDSA', hash: 'SHA-256' },
    load: async () => (await import('./ecdsa.ts')).ecdsa,
  },
  'rsassa-pss-sha256': {
    algorithm: { name: 'RSA-PSS', hash: 'SHA-256' },
    parameters: { name: 'RSA-PSS', saltLength: 32 },
    load: async () => (await import('./rsa-pss.ts')).rsaPss,
  },
};

/**
 * Creates a verifier. The first call for a scheme finds out with a fixed vector whether the engine's own works, and takes
 * the one in JavaScript if it does not.
 * @param verifyEd25519 for keys of that kind.
 */
export function createSignatures(
  subtle: SubtleSignatures | undefined,
  verifyEd25519: Platform['verifyEd25519'],
): NonNullable<Platform['verifySignature']> {
  const verifiers = new Map<string, Promise<Verify>>();
  const choose = async (scheme: Scheme): Promise<Verify> => {
    const parts = await scheme.load();
    const native = subtle && nativeVerify(subtle, scheme, parts);
    return native && (await works(native, parts)) ? native : parts.verify;
  };
  return async (key, signature, message) => {
    if (key.scheme === 'ed25519') return verifyEd25519(key.public, signature, message);
    let verifier = verifiers.get(key.scheme);
    if (verifier === undefined) {
      verifier = choose(schemes[key.scheme]).catch((error: unknown) => {
        verifiers.delete(key.scheme);
        throw error;
      });
      verifiers.set(key.scheme, verifier);
    }
    return (await verifier)(key.public, signature, message);
  };
}

function nativeVerify(subtle: SubtleSignatures, scheme: Scheme, { toNative }: SchemeParts): Verify {
  const { algorithm, parameters } = scheme;
  return async (spki, signature, message) => {
    const raw = toNative(signature);
    if (raw === undefined) return false;
    const key = await subtle.importKey('spki', spki.slice(), algorithm, false, ['verify']);
    return subtle.verify(parameters, key, raw, message.slice());
  };
}

/** The vector must count, and must not with another message. */
async function works(verify: Verify, { vector }: SchemeParts): Promise<boolean> {
  const { spki, signature, message } = vector;
  try {
    return (await verify(spki, signature, message)) && !(await verify(spki, signature, message.subarray(1)));
  } catch {
    return false;
  }
}
