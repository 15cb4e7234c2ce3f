/** Key files under a passphrase: scrypt (RFC 7914) makes the key, AES-256-GCM closes the private half. */

import { fromHex, fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { isFields, isSize } from '../trust/parse.ts';
import { parseKeyFile, type KeyFile } from './signer.ts';

/** Cost of scrypt: memory is 128·n·r bytes. */
export interface ScryptCost {
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

/** scrypt as a platform has it: Node's own, or one in JavaScript. */
export type Scrypt = (
  passphrase: Uint8Array<ArrayBuffer>,
  salt: Uint8Array<ArrayBuffer>,
  cost: ScryptCost,
  length: number,
) => Promise<Uint8Array<ArrayBuffer>>;

/** A key pair whose private half needs a passphrase. The public half stays readable, and cannot be exchanged. */
export interface SealedKeyFile extends Omit<KeyFile, 'private'> {
  readonly sealed: ScryptCost & {
    readonly v: 1;
    readonly kdf: 'scrypt';
    /** Hex. */
    readonly salt: string;
    readonly cipher: 'aes-256-gcm';
    /** Hex. */
    readonly nonce: string;
    /** Hex. */
    readonly data: string;
  };
}

/** What sealing works with. */
export interface SealParts {
  readonly subtle: SubtleCrypto;
  readonly platform: Pick<Platform, 'randomBytes'>;
  readonly scrypt: Scrypt;
}

/** 128 MiB and about half a second: what RFC 7914 §2 leaves to the user, sized for a file on a disk. */
const usualCost: ScryptCost = { n: 2 ** 17, r: 8, p: 1 };
/** A damaged file must not ask for more than this machine has. */
const highestCost: ScryptCost = { n: 2 ** 20, r: 8, p: 4 };

/**
 * Seals a key pair.
 * @param cost default 2^17, 8, 1.
 * @throws `RangeError` if the passphrase is empty.
 */
export async function sealKeyFile(
  parts: SealParts,
  { keytype, scheme, public: publicKey, private: privateKey }: KeyFile,
  passphrase: string,
  cost: ScryptCost = usualCost,
): Promise<SealedKeyFile> {
  const { platform, subtle } = parts;
  const { n, r, p } = cost;
  const head = {
    keytype,
    scheme,
    public: publicKey,
    sealed: {
      v: 1,
      kdf: 'scrypt',
      n,
      r,
      p,
      salt: toHex(platform.randomBytes(16)),
      cipher: 'aes-256-gcm',
      nonce: toHex(platform.randomBytes(12)),
    },
  } as const;
  const key = await deriveKey(parts, head, passphrase);
  const data = await subtle.encrypt(gcm(head), key, toUtf8(privateKey));
  return { ...head, sealed: { ...head.sealed, data: toHex(new Uint8Array(data)) } };
}

/**
 * Opens a sealed key pair.
 * @param path where it is stored, for the message.
 * @throws {@link ServerError} `ERR_INLAY_UNAUTHORIZED` if the passphrase is another one or the file is damaged: the
 * two cannot be told apart.
 */
export async function unsealKeyFile(
  parts: SealParts,
  file: SealedKeyFile,
  passphrase: string,
  path: string,
): Promise<KeyFile> {
  const { keytype, scheme, public: publicKey, sealed } = file;
  const { data, ...rest } = sealed;
  const head = { keytype, scheme, public: publicKey, sealed: rest };
  try {
    const key = await deriveKey(parts, head, passphrase);
    const opened = await parts.subtle.decrypt(gcm(head), key, fromHex(data));
    return { keytype, scheme, public: publicKey, private: fromUtf8(new Uint8Array(opened)) };
  } catch {
    throw new ServerError(
      'ERR_INLAY_UNAUTHORIZED',
      `The passphrase does not open ${path}: either it is another one, or the file is damaged and has to come from a backup.`,
      { details: { path } },
    );
  }
}

/**
 * Reads a stored key pair, sealed or not.
 * @param path where it is stored, for the message.
 * @throws `TypeError` if it is neither; the message does not quote it.
 */
export function parseStoredKey(text: string, path: string): KeyFile | SealedKeyFile {
  const file: KeyFile | SealedKeyFile = parseKeyFile(text, path);
  if (typeof file.public === 'string' && (!('sealed' in file) || isSealedBody(file.sealed))) return file;
  throw new TypeError(`The key file ${path} is damaged; restore it from a backup.`);
}

/** Tells whether a stored key pair needs a passphrase. */
export function isSealed(file: KeyFile | SealedKeyFile): file is SealedKeyFile {
  return 'sealed' in file;
}

function isSealedBody(value: unknown): value is SealedKeyFile['sealed'] {
  if (!isFields(value)) return false;
  const { v, kdf, cipher, salt, nonce, data } = value;
  const isHex = (text: unknown): boolean => typeof text === 'string' && /^([0-9a-f]{2})+$/.test(text);
  const isCost = (['n', 'r', 'p'] as const).every((name) => {
    const cost = value[name];
    return isSize(cost) && cost >= 1 && cost <= highestCost[name];
  });
  return (
    v === 1 && kdf === 'scrypt' && cipher === 'aes-256-gcm' && isCost && [salt, nonce, data].every(isHex)
  );
}

type Head = Omit<SealedKeyFile, 'sealed'> & { readonly sealed: Omit<SealedKeyFile['sealed'], 'data'> };

async function deriveKey(
  { subtle, scrypt }: SealParts,
  { sealed }: Head,
  passphrase: string,
): Promise<CryptoKey> {
  if (passphrase === '') throw new RangeError('A passphrase has at least one character.');
  // Keyboards write the same letter in several ways.
  const secret = toUtf8(passphrase.normalize('NFKC'));
  const bytes = await scrypt(secret, fromHex(sealed.salt), sealed, 32);
  return subtle.importKey('raw', bytes, 'AES-GCM', false, ['encrypt', 'decrypt']);
}

function gcm(head: Head): AesGcmParams {
  return { name: 'AES-GCM', iv: fromHex(head.sealed.nonce), additionalData: canonicalJson(head) };
}
