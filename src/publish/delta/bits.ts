/** Gathers the raw bits of a block (docs/spec/idp.md §3), the lowest first. */
export interface BitWriter {
  /** Appends the low `count` bits of a value, at most 24; its other bits are 0. */
  put(value: number, count: number): void;
  /** Ends the run and starts the next one. @returns whole bytes, owned by the caller. */
  finish(): Uint8Array<ArrayBuffer>;
}

/** Opens a bit writer. */
export function createBitWriter(): BitWriter {
  let bytes = new Uint8Array(1 << 16);
  let at = 0;
  let held = 0;
  let bits = 0;
  return {
    put: (value, count) => {
      held |= value << bits;
      bits += count;
      while (bits >= 8) {
        if (at === bytes.length) {
          const grown = new Uint8Array(2 * at);
          grown.set(bytes);
          bytes = grown;
        }
        bytes[at++] = held;
        held >>>= 8;
        bits -= 8;
      }
    },
    finish: () => {
      const whole = new Uint8Array(at + (bits > 0 ? 1 : 0));
      whole.set(bytes.subarray(0, at));
      if (bits > 0) whole[at] = held;
      at = held = bits = 0;
      return whole;
    },
  };
}
