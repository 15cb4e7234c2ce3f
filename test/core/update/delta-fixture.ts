import { concatBytes, toHex } from '../../../src/core/bytes.ts';
import { createSha256 } from '../../../src/core/hash.ts';
import type { Blob } from '../../../src/core/store.ts';

export const sha256Of = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const hash = createSha256();
  hash.update(bytes);
  return hash.digest();
};

/** A blob in memory, which notes the largest read. */
export function blobOf(bytes: Uint8Array): Blob & { largest: number } {
  const blob = {
    sha256: toHex(sha256Of(bytes)),
    sizeBytes: bytes.length,
    largest: 0,
    bytes: async () => bytes.slice(),
    read: async (offset: number, length: number) => {
      if (offset < 0 || length < 0 || offset + length > bytes.length)
        throw new RangeError('Outside of the blob.');
      blob.largest = Math.max(blob.largest, length);
      return bytes.slice(offset, offset + length);
    },
  };
  return blob;
}

/** mulberry32 */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Two files that are too large to be written down, and follow a rule instead. */
export interface Pair {
  readonly base: Uint8Array<ArrayBuffer>;
  readonly target: Uint8Array<ArrayBuffer>;
}

/** 70,000 bytes `i * i * 7 + i mod 256`; in the target every thousandth is one more. */
export function pairOfBytes(): Pair {
  const base = Uint8Array.from({ length: 70_000 }, (_, i) => (i * i * 7 + i) % 256);
  return { base, target: base.map((byte, i) => (i % 1000 === 999 ? byte + 1 : byte)) };
}

/** 270,000 float32 numbers `(i mod 1009 - 504) / 1024`; to every thousandth, 3 / 1000 is added and then 1 / 4096 taken. */
export function pairOfFloats(): Pair {
  const base = Float32Array.from({ length: 270_000 }, (_, i) => ((i % 1009) - 504) / 1024);
  const target = base.map((value, i) =>
    i % 1000 === 999 ? Math.fround(Math.fround(value + 3 * 0.001) - 1 / 4096) : value,
  );
  return { base: new Uint8Array(base.buffer), target: new Uint8Array(target.buffer) };
}

/** Joins what comes out. */
export async function joined(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return concatBytes(all);
}
