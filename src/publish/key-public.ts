import { fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { fromPem } from '../trust/der.ts';
import { keyIdOf, toSignatureKey, type NamedKey } from '../trust/keys.ts';
import type { PublicKey } from '../trust/metadata.ts';
import { isFields } from '../trust/parse.ts';

/**
 * Reads a public key as people pass it on: 64 hex digits (Ed25519), a PEM block (Ed25519, ECDSA P-256 or RSA), or the
 * JSON of `inlay keys export` and of `GET /v1/online-key`.
 * @param from where it comes from, for the message.
 * @throws `TypeError` if it is none of them.
 */
export function parsePublicKey(
  platform: Pick<Platform, 'createSha256'>,
  input: string | Uint8Array,
  from: string,
): NamedKey {
  const text = (typeof input === 'string' ? input : fromUtf8(input)).trim();
  const key = ed25519(text) ?? pemKey(text) ?? jsonKey(text);
  if (key) return { keyid: keyIdOf(platform, key), key };
  throw new TypeError(
    `There is no public key in ${from}; it is 64 hex digits, a PEM block, or what \`inlay keys export\` writes.`,
  );
}

/** Writes a public key so that {@link parsePublicKey} reads it. The same key gives the same text. */
export function formatPublicKey({ keyid, key }: NamedKey): Uint8Array<ArrayBuffer> {
  return toUtf8(`${JSON.stringify({ keyid, key }, undefined, 2)}\n`);
}

const schemes: Readonly<Record<string, string>> = {
  ed25519: 'ed25519',
  ecdsa: 'ecdsa-sha2-nistp256',
  rsa: 'rsassa-pss-sha256',
};

function ed25519(text: string): PublicKey | undefined {
  if (!/^[0-9a-f]{64}$/i.test(text)) return undefined;
  return { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: text.toLowerCase() } };
}

/** SubjectPublicKeyInfo of Ed25519, up to the point (RFC 8410 §4). */
const ed25519Spki = '302a300506032b6570032100';

function pemKey(text: string): PublicKey | undefined {
  const spki = fromPem(text);
  if (!spki) return undefined;
  const hex = toHex(spki);
  if (hex.startsWith(ed25519Spki)) return ed25519(hex.slice(ed25519Spki.length));
  // One way to write it, so that the same key always has the same identifier.
  const lines = btoa(String.fromCharCode(...spki)).match(/.{1,64}/g) ?? [];
  const pem = ['-----BEGIN PUBLIC KEY-----', ...lines, '-----END PUBLIC KEY-----', ''].join('\n');
  return ['ecdsa', 'rsa']
    .map((keytype) => ({ keytype, scheme: schemes[keytype] ?? '', keyval: { public: pem } }))
    .find((key) => toSignatureKey(key) !== undefined);
}

function jsonKey(text: string): PublicKey | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isFields(value) || !isFields(value['key'])) return undefined;
  const { keytype, scheme, keyval } = value['key'];
  if (typeof keytype !== 'string' || !isFields(keyval) || typeof keyval['public'] !== 'string')
    return undefined;
  if (!Object.hasOwn(schemes, keytype) || schemes[keytype] !== scheme) return undefined;
  const read = keytype === 'ed25519' ? ed25519(keyval['public']) : pemKey(keyval['public'].trim());
  return read?.keytype === keytype ? read : undefined;
}
