/**
 * Numbers as text and as JSON, read and written by the same rules: floats that JSON has no numbers for are the strings
 * "NaN", "Infinity" and "-Infinity"; 64-bit integers beyond ±(2^53 - 1) are strings of digits.
 */
import { DTYPES, type DType } from '../../core/dtype.ts';
import { readElements, type Scalar, type Tensor } from '../../core/tensor.ts';

/**
 * Reads a number as people write it: `-1.5e3`, `nan`, `inf`. Integers too large for a float64 become bigint.
 * @returns `undefined` for anything else, empty text included.
 */
export function parseNumber(text: string): number | bigint | undefined {
  const trimmed = text.trim();
  if (/^[+-]?\d+$/.test(trimmed)) {
    const value = Number(trimmed);
    return Number.isSafeInteger(value) ? value : BigInt(trimmed.replace('+', ''));
  }
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return Number(trimmed);
  const [, sign, word] = /^([+-]?)(nan|inf|infinity)$/i.exec(trimmed) ?? [];
  if (word === undefined) return undefined;
  if (word.toLowerCase() === 'nan') return Number.NaN;
  return sign === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/**
 * Reads an element of a CSV field or of JSON text for a dtype: numbers for floats and integers, `true`, `false`, 1 or 0
 * for bool.
 * @returns the text itself where it is no such thing, for the dtype to refuse.
 */
export function parseElement(dtype: DType, text: string): Scalar {
  const { kind } = DTYPES[dtype];
  if (kind === 'string') return text;
  if (kind === 'bool' && /^\s*(true|false)\s*$/i.test(text)) return /true/i.test(text);
  const value = parseNumber(text);
  if (value === undefined) return text;
  return kind === 'float' ? Number(value) : value;
}

/**
 * Writes a tensor as JSON, nested by shape. Reading it back gives the same elements to the last bit, NaN payloads aside:
 * float32 has as many digits as that takes.
 */
export function toJson(tensor: Tensor): string {
  const { dtype, data, shape, size } = tensor;
  const write = writerOf(dtype);
  let level = readElements(dtype, data, size).map(write);
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    const length = shape[axis] as number;
    const rows = shape.slice(0, axis).reduce((product, next) => product * next, 1);
    const inner = level;
    level = Array.from(
      { length: rows },
      (_, row) => `[${inner.slice(row * length, (row + 1) * length).join(',')}]`,
    );
  }
  return level[0] as string;
}

/** Whether the elements of a dtype have a plain form, as JSON needs. */
export function hasPlainForm(dtype: DType): boolean {
  const { kind, bits } = DTYPES[dtype];
  return kind !== 'complex' && !(kind === 'float' && bits < 16);
}

function writerOf(dtype: DType): (value: Scalar) => string {
  const { kind } = DTYPES[dtype];
  if (kind === 'string') return (value) => JSON.stringify(value);
  if (dtype === 'float32') return (value) => floatToJson(shortestFloat32(value as number));
  if (kind === 'float') return (value) => floatToJson(value as number);
  return (value) => {
    if (typeof value !== 'bigint') return String(value);
    return BigInt.asIntN(54, value) === value && value !== -(2n ** 53n) ? String(value) : `"${value}"`;
  };
}

function floatToJson(value: number): string {
  if (Number.isFinite(value)) return Object.is(value, -0) ? '-0' : String(value);
  return `"${value}"`;
}

/** The float64 of fewest digits that rounds to a float32; nine always do. */
function shortestFloat32(value: number): number {
  if (value === 0 || !Number.isFinite(value)) return value;
  for (let digits = 7; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}
