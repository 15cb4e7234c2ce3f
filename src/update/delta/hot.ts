/** The two loops in which patches of float32 models spend their time. */

import { EXTRA, FIRST } from './differences.ts';
import type { Layout } from './layout.ts';
import type { Coding, CodingRoom, Cursor } from './rans.ts';

/** Decodes numbers in place. There is one in JavaScript and one in WebAssembly, which give the same bits. */
export interface HotLoops {
  /** Where the loops are fast: a block of coded symbols and a coding at a time may lie there. */
  readonly room?: CodingRoom & { readonly block: Uint8Array };
  /**
   * Turns predictions into numbers.
   * @param first - place of the first of them in the layout.
   * @param base - bits of the base's numbers; may be the same memory as `values`.
   * @param values - bits of the predictions, which become those of the numbers.
   */
  differences(
    coding: Coding,
    cursor: Cursor,
    layout: Layout,
    first: number,
    base: Int32Array,
    values: Int32Array,
  ): void;
  /**
   * Adds multiples of a step.
   * @param products - what each symbol adds.
   * @param gains - factors of rows; absent: 1.
   */
  updates(
    coding: Coding,
    cursor: Cursor,
    layout: Layout,
    first: number,
    products: Float64Array,
    gains: Float32Array | undefined,
    values: Float32Array,
  ): void;
}

/** The loops in JavaScript. */
export const scriptLoops: HotLoops = {
  differences({ symbolOf, stepOf, symbols }, cursor, layout, first, base, values) {
    const { words, raw } = cursor;
    const { rows, columns, bias } = layout;
    const width = columns.length;
    const exponents = layout.byExponent ? 510 : 0;
    let { next, after, word, bit, fault } = cursor;
    let row = Math.floor(first / width);
    let column = first - row * width;
    let rowScale = (rows[row] as number) + bias;
    for (let k = 0; k < values.length; k += 1) {
      if (column === width) {
        column = 0;
        row += 1;
        rowScale = (rows[row] as number) + bias;
      }
      let context = rowScale + (columns[column] as number) - (((base[k] as number) >>> 22) & exponents);
      context = context < 0 ? 0 : context > 63 ? 63 : context;
      const slot = next & 4095;
      const symbol = symbolOf[(context << 12) | slot] as number;
      const step = stepOf[context * symbols + symbol] as number;
      const frequency = step & 0xffff;
      fault |= frequency - 1;
      let x = Math.imul(frequency, next >>> 12) + slot - (step >>> 16);
      if (x < 32768) {
        x = (x << 16) | (words[word] as number);
        word += 1;
      }
      next = after;
      after = x;
      if (symbol !== 0) {
        const at = bit >> 5;
        const shift = bit & 31;
        const bits = ((raw[at] as number) >>> shift) | (((raw[at + 1] as number) << 1) << (31 - shift));
        const extra = EXTRA[symbol] as number;
        const magnitude = (FIRST[symbol] as number) + (bits & ((1 << extra) - 1));
        bit += extra + 1;
        let ordered = values[k] as number;
        ordered ^= (ordered >> 31) & 0x7fffffff;
        ordered = ((bits >>> extra) & 1) === 0 ? (ordered + magnitude) | 0 : (ordered - magnitude) | 0;
        values[k] = ordered ^ ((ordered >> 31) & 0x7fffffff);
      }
      column += 1;
    }
    Object.assign(cursor, { next, after, word, bit, fault });
  },

  updates({ symbolOf, stepOf, symbols }, cursor, layout, first, products, gains, values) {
    const { words } = cursor;
    const { rows, columns, bias } = layout;
    const width = columns.length;
    let { next, after, word, fault } = cursor;
    let row = Math.floor(first / width);
    let column = first - row * width;
    let rowScale = (rows[row] as number) + bias;
    let gain = gains === undefined ? 1 : (gains[row] as number);
    for (let k = 0; k < values.length; k += 1) {
      if (column === width) {
        column = 0;
        row += 1;
        rowScale = (rows[row] as number) + bias;
        if (gains !== undefined) gain = gains[row] as number;
      }
      let context = rowScale + (columns[column] as number);
      context = context < 0 ? 0 : context > 63 ? 63 : context;
      const slot = next & 4095;
      const symbol = symbolOf[(context << 12) | slot] as number;
      const step = stepOf[context * symbols + symbol] as number;
      const frequency = step & 0xffff;
      fault |= frequency - 1;
      let x = Math.imul(frequency, next >>> 12) + slot - (step >>> 16);
      if (x < 32768) {
        x = (x << 16) | (words[word] as number);
        word += 1;
      }
      next = after;
      after = x;
      values[k] = (values[k] as number) * gain + (products[symbol] as number);
      column += 1;
    }
    Object.assign(cursor, { next, after, word, fault });
  },
};
