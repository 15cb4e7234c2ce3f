/** Symbols of differences: their length in bits, and the bit after the first. */

/** Smallest magnitude of each symbol; those above 2^31 are negative. */
export const FIRST: Int32Array = /* @__PURE__ */ Int32Array.from({ length: 64 }, (_, symbol) =>
  symbol < 2 ? symbol : (2 | (symbol & 1)) << ((symbol >> 1) - 1),
);
/** Raw bits of each symbol, without the sign. */
export const EXTRA: Uint8Array = /* @__PURE__ */ Uint8Array.from({ length: 64 }, (_, symbol) =>
  symbol < 2 ? 0 : (symbol >> 1) - 1,
);
