import { equalBytes, fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import { ServerError } from '../core/errors.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import type { Envelope, MetadataSignature, Signed } from '../trust/metadata.ts';
import type { Signer } from './signer.ts';

/**
 * Signs metadata with every signer. The same body and keys give the same bytes, in whatever order the signers come.
 * @returns the envelope as JSON text.
 * @throws `RangeError` if a signer is named twice, `TypeError` if the body has no canonical form.
 */
export async function signMetadata(
  body: Signed,
  signers: readonly Signer[],
): Promise<Uint8Array<ArrayBuffer>> {
  return encodeEnvelope(await addSignatures({ signatures: [], signed: body }, signers));
}

/**
 * Adds a signature of every signer, in place of one it may have made before.
 * @returns a new envelope with its signatures in the order of their key identifiers.
 * @throws `RangeError` if a signer is named twice, `TypeError` if the body has no canonical form.
 */
export async function addSignatures<Body extends Signed>(
  { signatures, signed }: Envelope<Body>,
  signers: readonly Signer[],
): Promise<Envelope<Body>> {
  const message = canonicalJson(signed);
  const added = new Map<string, string>();
  for (const { keyid, sign } of signers) {
    if (added.has(keyid)) throw new RangeError('A signer is named twice; name each signer once.');
    added.set(keyid, toHex(await sign(message)));
  }
  return { signatures: inOrder([...signatures, ...named(added)]), signed };
}

/**
 * Puts the signatures of two copies of the same metadata together.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if they are not of the same body.
 */
export function mergeSignatures<Body extends Signed>(a: Envelope<Body>, b: Envelope<Body>): Envelope<Body> {
  const { _type: role, version } = a.signed;
  if (!equalBytes(canonicalJson(a.signed), canonicalJson(b.signed))) {
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      `There are two different drafts of ${role} ${version}; sign copies of one file.`,
    );
  }
  return { signatures: inOrder([...a.signatures, ...b.signatures]), signed: a.signed };
}

/**
 * Writes an envelope as JSON. It is its canonical form, except that control characters are escaped: OLPC canonical
 * JSON leaves them bare, and JSON readers refuse that.
 */
export function encodeEnvelope(envelope: Envelope): Uint8Array<ArrayBuffer> {
  const text = fromUtf8(canonicalJson(envelope));
  // White space stands only inside strings, so every control character is one of theirs.
  const escape = (char: string): string =>
    char < ' ' ? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}` : char;
  return toUtf8(text.replace(/[^ -~]/g, escape));
}

/** One signature per key, the last one that is named. */
function inOrder(signatures: readonly MetadataSignature[]): readonly MetadataSignature[] {
  const byKey = new Map(signatures.map(({ keyid, sig }) => [keyid, sig]));
  return named(new Map([...byKey].sort(([a], [b]) => (a < b ? -1 : 1))));
}

function named(signatures: ReadonlyMap<string, string>): readonly MetadataSignature[] {
  return [...signatures].map(([keyid, sig]) => ({ keyid, sig }));
}
