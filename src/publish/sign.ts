import { fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
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
  const message = canonicalJson(body);
  const signatures: MetadataSignature[] = [];
  for (const { keyid, sign } of [...signers].sort((a, b) => (a.keyid < b.keyid ? -1 : 1))) {
    if (signatures.at(-1)?.keyid === keyid)
      throw new RangeError('A signer is named twice; name each signer once.');
    signatures.push({ keyid, sig: toHex(await sign(message)) });
  }
  return encodeEnvelope({ signatures, signed: body });
}

/**
 * Writes an envelope as JSON. It is its canonical form, except that control characters are escaped: OLPC canonical
 * JSON leaves them bare, and JSON readers refuse that.
 */
function encodeEnvelope(envelope: Envelope): Uint8Array<ArrayBuffer> {
  const text = fromUtf8(canonicalJson(envelope));
  // White space stands only inside strings, so every control character is one of theirs.
  const escape = (char: string): string =>
    char < ' ' ? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}` : char;
  return toUtf8(text.replace(/[^ -~]/g, escape));
}
