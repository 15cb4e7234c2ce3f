import { fromHex, toHex, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { keyIdOf, type NamedKey } from '../trust/keys.ts';
import { isFields, type Fields } from '../trust/parse.ts';

/** Something that holds a private key and signs with it: a key file, an HSM, a remote service. */
export interface Signer extends NamedKey {
  /** @returns a signature in the form of the key's scheme: for Ed25519 its 64 bytes (RFC 8032), for ECDSA DER. */
  sign(bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
}

/** An Ed25519 key pair as text. */
export interface KeyPair {
  /** 64 hex digits. */
  readonly publicKey: string;
  /** PKCS #8 (RFC 8410), base64. */
  readonly privateKey: string;
}

/** A key pair as it is stored: one JSON object. */
export interface KeyFile {
  readonly keytype: string;
  readonly scheme: string;
  /** 64 hex digits. */
  readonly public: string;
  /** PKCS #8 (RFC 8410), base64. */
  readonly private: string;
}

/** Generates an Ed25519 key pair. */
export async function generateKeyPair(subtle: SubtleCrypto): Promise<KeyPair> {
  const pair = await subtle.generateKey('Ed25519', true, ['sign', 'verify']);
  const publicKey = new Uint8Array(await subtle.exportKey('raw', pair.publicKey));
  const privateKey = new Uint8Array(await subtle.exportKey('pkcs8', pair.privateKey));
  return { publicKey: toHex(publicKey), privateKey: btoa(String.fromCharCode(...privateKey)) };
}

/** Gives a key pair the form in which it is stored. */
export function toKeyFile(pair: KeyPair): KeyFile {
  return { keytype: 'ed25519', scheme: 'ed25519', public: pair.publicKey, private: pair.privateKey };
}

/**
 * Reads a stored key pair.
 * @param path where it is stored, for the message.
 * @throws `TypeError` if it is no JSON object; the message does not quote it.
 */
export function parseKeyFile(text: string, path: string): KeyFile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message quotes the text, and that holds a private key.
  }
  if (isFields(value)) return value as Fields & KeyFile;
  throw new TypeError(`The key file ${path} is damaged; restore it from a backup.`);
}

/**
 * Opens a stored key pair for signing.
 * @throws `TypeError` if it is no Ed25519 key pair, or if its halves do not belong together.
 */
export async function openSigner(
  { subtle, platform }: { readonly subtle: SubtleCrypto; readonly platform: Platform },
  keyFile: KeyFile,
): Promise<Signer> {
  const { keytype, scheme } = keyFile;
  if (keytype !== 'ed25519' || scheme !== 'ed25519') {
    throw new TypeError(
      `A signing key is of type ed25519, not ${String(keytype)}; create one with \`inlay keys\`.`,
    );
  }
  const key = { keytype, scheme, keyval: { public: keyFile.public } };
  let privateKey: CryptoKey;
  let matches: boolean;
  const probe = toUtf8('inlay key check');
  const sign = async (bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> =>
    new Uint8Array(await subtle.sign('Ed25519', privateKey, bytes.slice()));
  try {
    const der = Uint8Array.from(atob(keyFile.private), (char) => char.charCodeAt(0));
    privateKey = await subtle.importKey('pkcs8', der, 'Ed25519', false, ['sign']);
    matches = await platform.verifyEd25519(fromHex(keyFile.public), await sign(probe), probe);
  } catch {
    // The platform's reason may quote what it read, and that is a private key.
    throw new TypeError(
      'A signing key cannot be read; its file holds a PKCS #8 key in base64 under `private`.',
    );
  }
  if (!matches)
    throw new TypeError('The halves of a signing key do not belong together; restore the key file.');
  return { keyid: keyIdOf(platform, key), key, sign };
}
