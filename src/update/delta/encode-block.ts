import { BLOCK_PREFIX_BYTES, LOW, SCALE } from './bounds.ts';
import type { Coding } from './rans.ts';

/**
 * Codes symbols, each in its context.
 * @param raw - raw bits, from the lowest bit of the first byte on; those left over in the last byte are 0.
 * @returns a block.
 */
export function encodeBlock(
  { stepOf, symbols: alphabet }: Coding,
  contexts: Uint8Array,
  symbols: Uint8Array,
  raw: Uint8Array = new Uint8Array(0),
): Uint8Array<ArrayBuffer> {
  const words = new Uint16Array(symbols.length);
  const states = [LOW, LOW];
  let at = words.length;
  for (let k = symbols.length - 1; k >= 0; k -= 1) {
    const step = stepOf[(contexts[k] as number) * alphabet + (symbols[k] as number)] as number;
    const frequency = step & 0xffff;
    if (frequency === 0)
      throw new RangeError(`Symbol ${symbols[k]} does not occur in context ${contexts[k]}.`);
    let x = states[k & 1] as number;
    // It stays below 2^31 after the step.
    if (x >= frequency * 2 ** 19) {
      at -= 1;
      words[at] = x & 0xffff;
      x >>>= 16;
    }
    states[k & 1] = Math.floor(x / frequency) * SCALE + (x % frequency) + (step >>> 16);
  }
  const used = words.subarray(at);
  const block = new Uint8Array(BLOCK_PREFIX_BYTES + 2 * used.length + raw.length);
  const view = new DataView(block.buffer);
  [...states, used.length].forEach((value, i) => view.setUint32(4 * i, value, true));
  used.forEach((value, i) => view.setUint16(BLOCK_PREFIX_BYTES + 2 * i, value, true));
  block.set(raw, BLOCK_PREFIX_BYTES + 2 * used.length);
  return block;
}
