/** Verifying Ed25519 signatures (RFC 8032) natively where the engine can, in JavaScript where it cannot. */
import { fromHex } from './core/bytes.ts';
import type { Platform } from './core/platform.ts';

/** The part of `crypto.subtle` that is used. */
export interface SubtleVerifier {
  importKey(
    format: 'raw',
    keyData: Uint8Array<ArrayBuffer>,
    algorithm: 'Ed25519',
    extractable: boolean,
    usages: 'verify'[],
  ): Promise<CryptoKey>;
  verify(
    algorithm: 'Ed25519',
    key: CryptoKey,
    signature: Uint8Array<ArrayBuffer>,
    data: Uint8Array<ArrayBuffer>,
  ): Promise<boolean>;
}

type Verify = Platform['verifyEd25519'];

/**
 * Creates a verifier. The first call finds out whether the engine's own works: browsers got Ed25519 years after the rest
 * of WebCrypto, pages over plain HTTP and React Native have none. Only then `@noble/ed25519` is loaded, which takes a few
 * milliseconds for a signature, and some ten where JavaScript is interpreted, as in Hermes.
 */
export function createEd25519(subtle: SubtleVerifier | undefined): Verify {
  let verifier: Promise<Verify> | undefined;
  const choose = async (): Promise<Verify> => {
    const native = subtle && nativeVerify(subtle);
    return native && (await works(native)) ? native : loadPortable();
  };
  return async (publicKey, signature, message) => {
    verifier ??= choose().catch((error: unknown) => {
      verifier = undefined;
      throw error;
    });
    return (await verifier)(publicKey, signature, message);
  };
}

function nativeVerify(subtle: SubtleVerifier): Verify {
  return async (publicKey, signature, message) => {
    const key = await subtle.importKey('raw', publicKey.slice(), 'Ed25519', false, ['verify']);
    return subtle.verify('Ed25519', key, signature.slice(), message.slice());
  };
}

/** RFC 8032 §7.1, test 1: the signature of no bytes, which must count, and a changed one, which must not. */
async function works(verify: Verify): Promise<boolean> {
  const key = fromHex('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a');
  const signature = fromHex(
    'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155' +
      '5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  );
  try {
    const message = new Uint8Array();
    if (!(await verify(key, signature, message))) return false;
    signature[0] = 0;
    return !(await verify(key, signature, message));
  } catch {
    return false;
  }
}

async function loadPortable(): Promise<Verify> {
  const [{ hashes, verify }, { sha512 }] = await Promise.all([
    import('@noble/ed25519'),
    import('@noble/hashes/sha2.js'),
  ]);
  hashes.sha512 ??= sha512;
  // As in WebCrypto: encodings that are not canonical do not count (RFC 8032 §5.1.7).
  return async (publicKey, signature, message) => verify(signature, message, publicKey, { zip215: false });
}
