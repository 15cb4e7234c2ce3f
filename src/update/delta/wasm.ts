/** The hot loops in WebAssembly, for runtimes that have it. Hermes has none, and some sites and hosts forbid it. */

import { fromHex } from '../../core/bytes.ts';
import { MAX_CONTEXTS, MAX_SYMBOLS } from './bounds.ts';
import { EXTRA, FIRST } from './differences.ts';
import { scriptLoops, type HotLoops } from './hot.ts';
import { STRETCH, type Layout } from './layout.ts';
import type { Coding, Cursor } from './rans.ts';
import {
  MODULE,
  EXTRA_AT,
  FIRST_AT,
  OWN_STEPS_AT,
  OWN_SYMBOLS_AT,
  PAYLOAD_AT,
  PRODUCTS_AT,
  ROWS_AT,
  STEPS_AT,
  SYMBOLS_AT,
  VALUES_AT,
} from './wasm-module.ts';

/** Where the numbers of the base lie that are not predictions themselves. */
const BASE: number = VALUES_AT + 4 * STRETCH;

type Loop = (...numbers: readonly number[]) => void;

interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly differences: Loop;
  readonly updates: Loop;
}

/** @returns the hot loops: in WebAssembly where that may be used, otherwise in JavaScript. */
export function openLoops(): HotLoops {
  const exports = instantiate();
  return exports === undefined ? scriptLoops : createTwin(exports);
}

function instantiate(): Exports | undefined {
  try {
    const module = new WebAssembly.Module(fromHex(MODULE));
    return new WebAssembly.Instance(module).exports as WebAssembly.Exports & Exports;
  } catch {
    return undefined;
  }
}

function createTwin({ memory: { buffer }, differences, updates }: Exports): HotLoops {
  const bytes = new Uint8Array(buffer);
  const cursorInts = new Int32Array(buffer, 0, 5);
  const put = (values: ArrayBufferView, place: number): void => bytes.set(bytesOf(values), place);
  put(FIRST, FIRST_AT);
  put(EXTRA, EXTRA_AT);
  const room = {
    block: bytes.subarray(PAYLOAD_AT, SYMBOLS_AT),
    symbolOf: bytes.subarray(SYMBOLS_AT, STEPS_AT),
    stepOf: new Int32Array(buffer, STEPS_AT, MAX_CONTEXTS * MAX_SYMBOLS),
  };
  let loaded: Layout | undefined;

  const gainsAt = ({ rows, columns }: Layout): number => (ROWS_AT + rows.length + columns.length + 3) & ~3;
  /** Blocks and layouts that find no room are left to the other loops. What overruns a block ends in an error. */
  const fits = ({ words }: Cursor, layout: Layout): boolean =>
    words.buffer === buffer && gainsAt(layout) + (layout.gains?.byteLength ?? 0) <= PAYLOAD_AT;

  const run = (
    loop: Loop,
    [coding, cursor, layout, first]: readonly [Coding, Cursor, Layout, number],
    values: ArrayBufferView,
    ...more: readonly number[]
  ): void => {
    const { rows, columns, gains, bias } = layout;
    const columnsAt = ROWS_AT + rows.length;
    if (loaded !== layout) {
      put(rows, ROWS_AT);
      put(columns, columnsAt);
      if (gains !== undefined) put(gains, gainsAt(layout));
    }
    loaded = layout;
    // Codings of one context are small, and not in the room.
    const isRoomed = coding.stepOf.buffer === buffer;
    if (!isRoomed) {
      put(coding.symbolOf, OWN_SYMBOLS_AT);
      put(coding.stepOf, OWN_STEPS_AT);
    }
    const [symbolsAt, stepsAt] = isRoomed ? [SYMBOLS_AT, STEPS_AT] : [OWN_SYMBOLS_AT, OWN_STEPS_AT];
    put(values, VALUES_AT);
    cursorInts.set([cursor.next, cursor.after, 2 * cursor.word, cursor.bit, cursor.fault]);
    const width = columns.length;
    const row = Math.floor(first / width);
    const place = [values.byteLength, row, first - row * width, width, bias, columnsAt];
    loop(...place, symbolsAt, stepsAt / 4, coding.symbols, ...more);
    bytesOf(values).set(bytes.subarray(VALUES_AT, VALUES_AT + values.byteLength));
    const [next = 0, after = 0, word = 0, bit = 0, fault = 0] = cursorInts;
    Object.assign(cursor, { next, after, word: word / 2, bit, fault });
  };

  return {
    room,
    differences(coding, cursor, layout, first, base, values) {
      if (!fits(cursor, layout)) return scriptLoops.differences(coding, cursor, layout, first, base, values);
      if (base !== values) put(base, BASE);
      const baseAt = base === values ? VALUES_AT : BASE;
      const exponents = layout.byExponent ? 510 : 0;
      run(differences, [coding, cursor, layout, first], values, exponents, baseAt, cursor.raw.byteOffset);
    },
    updates(coding, cursor, layout, first, products, gains, values) {
      if (!fits(cursor, layout))
        return scriptLoops.updates(coding, cursor, layout, first, products, gains, values);
      put(products, PRODUCTS_AT);
      run(updates, [coding, cursor, layout, first], values, gains === undefined ? 0 : gainsAt(layout));
    },
  };
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
