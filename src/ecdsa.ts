/** ECDSA over P-256 with SHA-256 (FIPS 186-5 §6), for engines without WebCrypto. */

import { fromHex, toUtf8 } from './core/bytes.ts';
import type { SchemeParts, Verify } from './signatures.ts';
import { readP256, toRawEcdsa } from './trust/der.ts';

/** Verifies in JavaScript: some milliseconds. */
const verify: Verify = async (spki, signature, message) => {
  const point = readP256(spki);
  const raw = toRawEcdsa(signature);
  if (point === undefined || raw === undefined) return false;
  const { p256 } = await import('@noble/curves/nist.js');
  // As in WebCrypto: either of the two values of s counts.
  return p256.verify(raw, message, point, { lowS: false });
};

/** ECDSA. Its vector is the one of RFC 6979 §A.2.5 for P-256 with SHA-256 and the message "sample". */
export const ecdsa: SchemeParts = {
  verify,
  toNative: toRawEcdsa,
  vector: {
    spki: fromHex(
      '3059301306072a8648ce3d020106082a8648ce3d03010703420004' +
        '60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6' +
        '7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299',
    ),
    signature: fromHex(
      '3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716' +
        '022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8',
    ),
    message: toUtf8('sample'),
  },
};
