/** The hot loops in WebAssembly, for runtimes that have it. Hermes has none, and some sites and hosts forbid it. */

import { EXTRA, FIRST } from './differences.ts';
import { scriptLoops, type HotLoops } from './hot.ts';
import { STRETCH, type Layout } from './layout.ts';
import type { Coding, Cursor } from './rans.ts';
import { MODULE, PLACES } from './wasm-module.ts';

/** Where the numbers of the base lie that are not predictions themselves. */
const BASE: number = PLACES.VALUES + 4 * STRETCH;
/** Room for words and raw bits; what overruns it by a stretch reads what comes after, and ends in an error. */
const PAYLOAD_BYTES: number = PLACES.ROWS - PLACES.PAYLOAD;
/** Room for scales and gains, and for the overrun. */
const LAYOUT_BYTES: number = PLACES.END - PLACES.ROWS - 2 ** 16;

interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly differences: (...numbers: readonly number[]) => void;
  readonly updates: (...numbers: readonly number[]) => void;
}

/** @returns the hot loops: in WebAssembly where that may be used, otherwise in JavaScript. */
export function openLoops(): HotLoops {
  const exports = instantiate();
  return exports === undefined ? scriptLoops : createTwin(exports);
}

function instantiate(): Exports | undefined {
  try {
    const bytes = Uint8Array.from(atob(MODULE), (letter) => letter.charCodeAt(0));
    return new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports as WebAssembly.Exports & Exports;
  } catch {
    return undefined;
  }
}

function createTwin({ memory, differences, updates }: Exports): HotLoops {
  const bytes = new Uint8Array(memory.buffer);
  const ints = new Int32Array(memory.buffer);
  const doubles = new Float64Array(memory.buffer);
  const put = (values: Int32Array, place: number): void => ints.set(values, place / 4);
  put(FIRST, PLACES.FIRST);
  bytes.set(EXTRA, PLACES.EXTRA);
  let held: { coding?: Coding; layout?: Layout; words?: Uint16Array; products?: Float64Array } = {};

  const columnsAt = ({ rows }: Layout): number => PLACES.ROWS + rows.length;
  const gainsAt = ({ rows, columns }: Layout): number =>
    (PLACES.ROWS + rows.length + columns.length + 3) & ~3;
  const rawAt = ({ words }: Cursor): number => PLACES.PAYLOAD + 2 * words.length;
  const fits = ({ words, raw }: Cursor, { rows, columns, gains }: Layout): boolean =>
    2 * words.length + 4 * raw.length <= PAYLOAD_BYTES &&
    rows.length + columns.length + (gains === undefined ? 0 : 4 * gains.length) + 4 <= LAYOUT_BYTES;

  /** Copies what is not there since the last stretch. */
  const load = (coding: Coding, cursor: Cursor, layout: Layout): void => {
    if (held.coding !== coding) {
      bytes.set(coding.symbolOf, PLACES.SYMBOLS);
      put(coding.stepOf, PLACES.STEPS);
    }
    if (held.layout !== layout) {
      bytes.set(new Uint8Array(layout.rows.buffer, layout.rows.byteOffset, layout.rows.length), PLACES.ROWS);
      const { columns, gains } = layout;
      bytes.set(new Uint8Array(columns.buffer, columns.byteOffset, columns.length), columnsAt(layout));
      if (gains !== undefined)
        put(new Int32Array(gains.buffer, gains.byteOffset, gains.length), gainsAt(layout));
    }
    const { words, raw } = cursor;
    if (held.words !== words) {
      bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), PLACES.PAYLOAD);
      bytes.set(new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength), rawAt(cursor));
    }
    held = { ...held, coding, layout, words };
    ints.set([cursor.next, cursor.after, cursor.word, cursor.bit, cursor.fault]);
  };
  const save = (cursor: Cursor): void => {
    const [next = 0, after = 0, word = 0, bit = 0, fault = 0] = ints;
    Object.assign(cursor, { next, after, word, bit, fault });
  };
  const common = ({ symbols }: Coding, layout: Layout, first: number, count: number): readonly number[] => {
    const width = layout.columns.length;
    const row = Math.floor(first / width);
    return [4 * count, row, first - row * width, width, layout.bias, symbols, columnsAt(layout)];
  };

  return {
    differences(coding, cursor, layout, first, base, values) {
      if (!fits(cursor, layout)) return scriptLoops.differences(coding, cursor, layout, first, base, values);
      load(coding, cursor, layout);
      put(values, PLACES.VALUES);
      if (base !== values) put(base, BASE);
      const exponents = layout.byExponent ? 510 : 0;
      const baseAt = base === values ? PLACES.VALUES : BASE;
      differences(...common(coding, layout, first, values.length), exponents, baseAt, rawAt(cursor));
      values.set(ints.subarray(PLACES.VALUES / 4, PLACES.VALUES / 4 + values.length));
      save(cursor);
    },
    updates(coding, cursor, layout, first, products, gains, values) {
      if (!fits(cursor, layout))
        return scriptLoops.updates(coding, cursor, layout, first, products, gains, values);
      load(coding, cursor, layout);
      if (held.products !== products) doubles.set(products, PLACES.PRODUCTS / 8);
      held.products = products;
      const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
      put(bits, PLACES.VALUES);
      updates(...common(coding, layout, first, bits.length), gains === undefined ? 0 : gainsAt(layout));
      bits.set(ints.subarray(PLACES.VALUES / 4, PLACES.VALUES / 4 + bits.length));
      save(cursor);
    },
  };
}
