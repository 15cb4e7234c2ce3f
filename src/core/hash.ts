/** SHA-256 (FIPS 180-4), incremental and synchronous: for places where the platform offers nothing faster. */

/** A hash in progress. */
export interface Hasher {
  update(bytes: Uint8Array): void;
  /** Ends the hash. @returns 32 bytes, owned by the caller. */
  digest(): Uint8Array<ArrayBuffer>;
}

// First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4 §4.2.2), and of the
// square roots of the first 8 (§5.3.3), computed rather than typed.
const primes = /* @__PURE__ */ (() => {
  const found: number[] = [];
  for (let n = 2; found.length < 64; n += 1) if (found.every((p) => n % p !== 0)) found.push(n);
  return found;
})();
const fraction = (root: number): number => ((root - Math.floor(root)) * 2 ** 32) | 0;
const K = /* @__PURE__ */ Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
const H = /* @__PURE__ */ Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));

/** Starts a SHA-256 hash in plain TypeScript. */
export function createSha256(): Hasher {
  const state = H.slice();
  const words = new Int32Array(64);
  const block = new Uint8Array(64);
  const view = new DataView(block.buffer);
  let filled = 0;
  let total = 0;

  const compress = (): void => {
    for (let i = 0; i < 16; i += 1) words[i] = view.getInt32(4 * i);
    for (let i = 16; i < 64; i += 1) {
      const a = words[i - 15] as number;
      const b = words[i - 2] as number;
      const s0 = ((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3);
      const s1 = ((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10);
      words[i] = ((words[i - 16] as number) + s0 + (words[i - 7] as number) + s1) | 0;
    }
    let [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = state;
    for (let i = 0; i < 64; i += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (K[i] as number) + (words[i] as number)) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => {
      state[i] = (state[i] as number) + value;
    });
  };

  const update = (bytes: Uint8Array): void => {
    total += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const take = Math.min(64 - filled, bytes.length - at);
      block.set(bytes.subarray(at, at + take), filled);
      filled += take;
      at += take;
      if (filled === 64) {
        compress();
        filled = 0;
      }
    }
  };

  return {
    update,
    digest: () => {
      const bits = total * 8;
      const padding = new Uint8Array(filled < 56 ? 64 - filled : 128 - filled);
      padding[0] = 0x80;
      const tail = new DataView(padding.buffer);
      tail.setUint32(padding.length - 8, Math.floor(bits / 2 ** 32));
      tail.setUint32(padding.length - 4, bits >>> 0);
      update(padding);
      const digest = new Uint8Array(32);
      const out = new DataView(digest.buffer);
      state.forEach((value, i) => {
        out.setInt32(4 * i, value);
      });
      return digest;
    },
  };
}
