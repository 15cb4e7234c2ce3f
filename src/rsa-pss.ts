/** RSA-PSS with SHA-256, MGF1 and 32 bytes of salt (RFC 8017 §8.1), for engines without WebCrypto. */

import { concatBytes, equalBytes, fromHex, toHex, toUtf8 } from './core/bytes.ts';
import { createSha256 } from './core/hash.ts';
import type { SchemeParts, Verify } from './signatures.ts';
import { readRsa } from './trust/der.ts';

const hashBytes = 32;
const saltBytes = 32;

/** Verifies in JavaScript: some milliseconds for 4096 bits. */
const verify: Verify = async (spki, signature, message) => {
  const key = readRsa(spki);
  if (key === undefined || signature.length !== key.modulus.length) return false;
  const modulus = toBigInt(key.modulus);
  const base = toBigInt(signature);
  if (base >= modulus) return false;
  const encodedBits = modulus.toString(2).length - 1;
  const encodedBytes = Math.ceil(encodedBits / 8);
  const encoded = power(base, toBigInt(key.exponent), modulus)
    .toString(16)
    .padStart(2 * encodedBytes, '0');
  return encoded.length === 2 * encodedBytes && isEncodingOf(fromHex(encoded), encodedBits, sha256(message));
};

/** EMSA-PSS-VERIFY (RFC 8017 §9.1.2), by its steps. */
function isEncodingOf(encoded: Uint8Array, encodedBits: number, messageHash: Uint8Array): boolean {
  if (encoded.at(-1) !== 0xbc) return false;
  const masked = encoded.subarray(0, -hashBytes - 1);
  const hash = encoded.subarray(-hashBytes - 1, -1);
  // Step 6: bits beyond the modulus are zeros.
  const used = 0xff >> (8 * encoded.length - encodedBits);
  if (((masked[0] ?? 0) & ~used) !== 0) return false;
  const mask = mgf1(hash, masked.length);
  const block = masked.map((byte, i) => byte ^ (mask[i] ?? 0));
  block[0] = (block[0] ?? 0) & used;
  // Step 10: zeros, a one, and the salt.
  const zeros = block.length - saltBytes - 1;
  if (block[zeros] !== 1 || block.subarray(0, zeros).some((byte) => byte !== 0)) return false;
  const salt = block.subarray(-saltBytes);
  return equalBytes(hash, sha256(concatBytes([new Uint8Array(8), messageHash, salt])));
}

/** RFC 8017 §B.2.1. */
function mgf1(seed: Uint8Array, length: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (let counter = 0; pieces.length * hashBytes < length; counter += 1) {
    pieces.push(sha256(concatBytes([seed, Uint8Array.of(0, 0, counter >> 8, counter & 0xff)])));
  }
  return concatBytes(pieces).subarray(0, length);
}

function sha256(bytes: Uint8Array): Uint8Array {
  const hash = createSha256();
  hash.update(bytes);
  return hash.digest();
}

function toBigInt(bytes: Uint8Array): bigint {
  return BigInt(`0x${toHex(bytes)}`);
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let square = base;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}

/** RSA-PSS. Its vector was made with OpenSSL for this purpose; the private key was thrown away. */
export const rsaPss: SchemeParts = {
  verify,
  toNative: (signature) => signature.slice(),
  vector: {
    spki: fromHex(
      '30820122300d06092a864886f70d01010105000382010f003082010a02820101009122cd93a3d2789ebe86ca2354a7bb' +
        '494073f0d1c198df6a1132544abe781734107a81236ac8da66c262cad2a30b8c27d59b2c39a772f3404eca9226f88769' +
        'c9d0ed0cdaca6aa8c1cf2e28cb4bdfe9f876bcddb83cab7e50fa3fc37e2a0f32d3458b9cefb1b7d0c53109d6350489c1' +
        '5fc14079a4757396bf0ed438f3c6e1f520d5ce84862bbaf018909c4490571aa08d62f42eaa8f6cdfa6e416a2a5ca2283' +
        '38ee9b8c9b602e7a2beff26d8e36fc84d9a672172f98126163aceeff7e890998115bf1df3a0b32d01b639cf4ac368664' +
        '49ecaf28a886652d703af8702b16da35ec04ee7cf3b8f7f3afb49c0b3d2fbf11331fc43558271ad733995fd4cd8165e7' +
        'f10203010001',
    ),
    signature: fromHex(
      '12934b2d7ae17b07f9a6a1b09bfb5153def56c7eeb27ead4c0551bd3ecdb2c64b71f17827b0bf7bb2965075e577614e9' +
        '5360796a5125658a9f9a73f44635db0e8fe51f0ba7b52ba4c9824860724844ee61de7dca7f34eba9f55a51b265ee64e1' +
        'c33b7c5cc3a175ef8ed9070dd46bb2f06c28fbac854032008de0cb4312de6c04f0215cc63ac1dfdb945610a627658c74' +
        '67d9c18bbfa8ee8be68e340b2c9c68e16117741d90bb5239ad812c81730b2bf8ba230106403426e896a719a1e8bc0779' +
        '76bbad03ae80d3f40d952d9af936e9e4ea061396b0e5ecd93bbb780158e71d090935e7520c64c636acdc231dec1d15ea' +
        '2178f32ffc20f372e29110cfb8ee0a26',
    ),
    message: toUtf8('sample'),
  },
};
