/** Numbers of all kinds but the two that {@link HotLoops} are for: contexts first, then symbols, then what they mean. */

import { NUMBER_BITS } from './bounds.ts';
import { EXTRA, FIRST } from './differences.ts';
import type { NumberKind, NumberSegment } from './head.ts';
import { STRETCH, type Layout } from './layout.ts';
import { decodeSymbols, type Coding, type Cursor } from './rans.ts';

/** Decodes a stretch of numbers: `bytes` holds what is expected of them, `old` what the base has. */
export type DecodeStretch = (
  coding: Coding,
  cursor: Cursor,
  first: number,
  bytes: Uint8Array,
  old: Uint8Array,
) => void;

type Elements = Uint8Array | Uint16Array | Uint32Array;

/**
 * Creates what decodes the numbers of a segment of mode `self` or `delta`, at most {@link STRETCH} of them in one go:
 * `bytes` holds what the base has there, or floats that are expected, and then the numbers.
 */
export function createStretches(segment: NumberSegment, layout: Layout): DecodeStretch {
  const { numbers, context } = segment;
  const most = Math.min(STRETCH, segment.rows * segment.columns);
  const contexts = new Uint8Array(most);
  const symbols = new Uint8Array(most);
  const combine =
    segment.mode === 'self' ? combineSelf[numbers] : combineDelta[numbers as Exclude<NumberKind, 'float32'>];
  const isUnsigned = segment.mode === 'delta' && segment.predictor === 'requantized-unsigned';
  return (coding, cursor, first, bytes, old) => {
    const values = numbers === 'int4' ? unpack(bytes) : elementsOf(segment, bytes);
    const own = contexts.subarray(0, values.length);
    if (context.kind !== 'fraction') {
      fillContexts(layout, first, own, layout.byExponent ? elementsOf(segment, old) : values, numbers);
    }
    const bits = NUMBER_BITS[numbers];
    // What is expected of floats is there already.
    if (layout.gains !== undefined && bits <= 8) {
      const fractions = context.kind === 'fraction' ? own : undefined;
      requantize(layout.columns.length, layout.gains, first, values, bits, isUnsigned, fractions);
    }
    const found = symbols.subarray(0, values.length);
    decodeSymbols(coding, cursor, own, found);
    combine(cursor, found, values);
    if (numbers === 'int4') pack(values, bytes);
  };
}

function elementsOf({ numbers }: NumberSegment, { buffer, byteOffset, length }: Uint8Array): Elements {
  if (numbers === 'float32') return new Uint32Array(buffer, byteOffset, length / 4);
  return numbers === 'int8'
    ? new Uint8Array(buffer, byteOffset, length)
    : new Uint16Array(buffer, byteOffset, length / 2);
}

/** The first number is in the low bits. */
function unpack(bytes: Uint8Array): Uint8Array {
  const values = new Uint8Array(2 * bytes.length);
  for (let k = 0; k < values.length; k += 1) values[k] = ((bytes[k >> 1] as number) >> (4 * (k & 1))) & 15;
  return values;
}

function pack(values: Elements, bytes: Uint8Array): void {
  for (let k = 0; k < bytes.length; k += 1) {
    bytes[k] = ((values[2 * k] as number) & 15) | ((values[2 * k + 1] as number) << 4);
  }
}

/** @param values - of floats of 16 bits those of the base, which twice the exponent fields are taken from. */
function fillContexts(
  { rows, columns, bias, byExponent }: Layout,
  first: number,
  contexts: Uint8Array,
  values: Elements,
  numbers: NumberKind,
): void {
  const [shift, mask] = numbers === 'float16' ? [9, 62] : [6, 510];
  const width = columns.length;
  let row = Math.floor(first / width);
  let column = first - row * width;
  for (let k = 0; k < contexts.length; k += 1) {
    if (column === width) {
      column = 0;
      row += 1;
    }
    const context =
      (rows[row] as number) +
      (columns[column] as number) +
      bias -
      (byExponent ? ((values[k] as number) >>> shift) & mask : 0);
    contexts[k] = context < 0 ? 0 : context > 63 ? 63 : context;
    column += 1;
  }
}

/** Scales integers to the grid of the target, and puts the fraction aside, which tells how sure the rounding is. */
function requantize(
  width: number,
  gains: Float32Array,
  first: number,
  values: Elements,
  bits: number,
  isUnsigned: boolean,
  fractions: Uint8Array | undefined,
): void {
  const half = 1 << (bits - 1);
  const all = 2 * half - 1;
  const flip = isUnsigned ? 0 : half;
  for (let k = 0; k < values.length; k += 1) {
    const gain = gains[Math.floor((first + k) / width)] as number;
    // As a number about the middle: in two's complement, the highest bit is the other way round.
    const exact = (((values[k] as number) ^ flip) - half) * gain + 0.5;
    const whole = Math.floor(exact);
    values[k] = ((Math.min(Math.max(whole, -half), half - 1) + half) ^ flip) & all;
    if (fractions === undefined) continue;
    const far = Math.abs(gain - 1) <= 2 ** -6 ? 0 : gain < 1 ? 16 : 32;
    fractions[k] = Math.floor(16 * (exact - whole)) + far;
  }
}

type Combine = (cursor: Cursor, symbols: Uint8Array, values: Elements) => void;

/** Numbers that are a symbol, and raw bits below it and above it. */
const selfOf =
  (below: number, above: number): Combine =>
  (cursor, symbols, values) => {
    const { raw } = cursor;
    const count = below + above;
    const mask = 2 ** below - 1;
    let { bit } = cursor;
    for (let k = 0; k < symbols.length; k += 1) {
      let value = (symbols[k] as number) << below;
      if (count !== 0) {
        const at = bit >> 5;
        const shift = bit & 31;
        const bits = ((raw[at] as number) >>> shift) | (((raw[at + 1] as number) << 1) << (31 - shift));
        bit += count;
        value |= bits & mask;
        if (above === 1) value |= ((bits >>> below) & 1) << (below + 8);
      }
      values[k] = value;
    }
    cursor.bit = bit;
  };

const combineSelf: Readonly<Record<NumberKind, Combine>> = {
  float32: selfOf(23, 1),
  float16: selfOf(8, 0),
  bfloat16: selfOf(7, 1),
  int8: selfOf(0, 0),
  int4: selfOf(0, 0),
};

const addHalves: Combine = (cursor, symbols, values) => {
  const { raw } = cursor;
  let { bit } = cursor;
  for (let k = 0; k < symbols.length; k += 1) {
    const symbol = symbols[k] as number;
    if (symbol === 0) continue;
    const at = bit >> 5;
    const shift = bit & 31;
    const bits = ((raw[at] as number) >>> shift) | (((raw[at + 1] as number) << 1) << (31 - shift));
    const extra = EXTRA[symbol] as number;
    const magnitude = (FIRST[symbol] as number) + (bits & ((1 << extra) - 1));
    bit += extra + 1;
    let ordered = values[k] as number;
    if (ordered >= 0x8000) ordered ^= 0x7fff;
    ordered = (((bits >>> extra) & 1) === 0 ? ordered + magnitude : ordered - magnitude) & 0xffff;
    values[k] = ordered >= 0x8000 ? ordered ^ 0x7fff : ordered;
  }
  cursor.bit = bit;
};

/** In 8 bits the sum is cut by the array, in 4 when it is packed. */
const addIntegers: Combine = (_cursor, symbols, values) => {
  for (let k = 0; k < symbols.length; k += 1) values[k] = (values[k] as number) + (symbols[k] as number);
};

const combineDelta: Readonly<Record<Exclude<NumberKind, 'float32'>, Combine>> = {
  float16: addHalves,
  bfloat16: addHalves,
  int8: addIntegers,
  int4: addIntegers,
};
