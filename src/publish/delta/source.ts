/** The symbols that stand for the numbers of a tensor (docs/spec/idp.md §4), run by run. */
import { EXTRA } from '../../update/delta/differences.ts';
import type { NumberKind } from '../../update/delta/head.ts';
import type { BitWriter } from './bits.ts';
import { addProduct, type LowRank } from './factors.ts';
import { isFloat, patternsOf, valuesOf, type Words } from './numbers.ts';

/** What a tensor becomes, from what, and how. */
export interface SourceParts {
  readonly numbers: NumberKind;
  readonly columns: number;
  readonly next: Words;
  /** Absent: the numbers stand for themselves. */
  readonly base?: Words;
  /** Of each row. */
  readonly gains?: Float32Array | undefined;
  /** What is added to the base, of floats. */
  readonly lowRank?: LowRank | undefined;
  /** Whether integers are unsigned about their middle, which only gains ask for. */
  readonly isUnsigned?: boolean | undefined;
  /** Present: what comes is the prediction plus whole multiples of it; or, without a base, whole multiples. */
  readonly step?: number | undefined;
}

/** Reads symbols. */
export interface Source {
  /** Symbols of the alphabet. */
  readonly alphabet: number;
  /** Symbols of the run that was read last. */
  readonly symbols: Uint8Array;
  /** What each number takes off the scale of its row and column: twice the exponent of its base. */
  readonly lowered: Int16Array;
  /** Context of each number by its fraction, for requantized integers. */
  readonly fractions: Uint8Array;
  /** Raw bits that follow each symbol. */
  readonly rawBits: Uint8Array;
  /** Reads the numbers of a run. @returns `false` if they cannot be written this way. */
  read(from: number, to: number): boolean;
  /** Writes the raw bits of the run that was read last. */
  write(bits: BitWriter, count: number): void;
}

const bitsOfDifference: Uint8Array = /* @__PURE__ */ EXTRA.map((bits, symbol) =>
  symbol === 0 ? 0 : bits + 1,
);

/** How what is read becomes symbols. */
type Mode = 'self' | 'delta' | 'update' | 'grid';

const alphabets: Readonly<Record<Mode, Readonly<Record<NumberKind, number>>>> = {
  self: { float32: 256, float16: 256, bfloat16: 256, int8: 256, int4: 16 },
  delta: { float32: 64, float16: 32, bfloat16: 32, int8: 256, int4: 16 },
  update: { float32: 256, float16: 256, bfloat16: 256, int8: 256, int4: 256 },
  grid: { float32: 48, float16: 48, bfloat16: 48, int8: 48, int4: 48 },
};
const rawOfSelf: Readonly<Record<NumberKind, number>> = {
  float32: 24,
  float16: 8,
  bfloat16: 8,
  int8: 0,
  int4: 0,
};

/** Room for runs of that many numbers, shared by sources one after the other. */
export interface Scratch {
  readonly symbols: Uint8Array;
  readonly lowered: Int16Array;
  readonly fractions: Uint8Array;
  readonly rests: Int32Array;
}

/** Makes room for runs of up to `length` numbers. */
export function createScratch(length: number): Scratch {
  return {
    symbols: new Uint8Array(length),
    lowered: new Int16Array(length),
    fractions: new Uint8Array(length),
    rests: new Int32Array(length),
  };
}

/** Opens a source. What another one read into the same scratch is lost. */
export function createSource(parts: SourceParts, { symbols, lowered, fractions, rests }: Scratch): Source {
  const { numbers, base, step } = parts;
  const [alone, based] = step === undefined ? (['self', 'delta'] as const) : (['grid', 'update'] as const);
  const mode = base === undefined ? alone : based;
  const hasDifferences = mode === 'grid' || (mode === 'delta' && isFloat(numbers));
  const alphabet = alphabets[mode][numbers];
  const rawBits =
    mode === 'self'
      ? new Uint8Array(alphabet).fill(rawOfSelf[numbers])
      : hasDifferences
        ? bitsOfDifference
        : new Uint8Array(alphabet);
  const room = { symbols, lowered, fractions, rests };
  const read =
    mode === 'self'
      ? readSelf(parts, room)
      : mode === 'update'
        ? readUpdates(parts, room)
        : mode === 'grid'
          ? readMultiples(parts, room)
          : isFloat(numbers)
            ? readDifferences(parts, room)
            : readIntegers(parts, room);
  return {
    alphabet,
    symbols,
    lowered,
    fractions,
    rawBits,
    read: (from, to) => {
      if (mode !== 'delta') lowered.fill(0, 0, to - from);
      return read(from, to);
    },
    write: (bits, count) => {
      if (mode === 'self') {
        const each = rawOfSelf[numbers];
        if (each > 0) for (let k = 0; k < count; k += 1) bits.put(rests[k] as number, each);
      } else if (hasDifferences) writeDifferences(room, bits, count);
    },
  };
}

type Read = (from: number, to: number) => boolean;

function readSelf({ numbers, next }: SourceParts, { symbols, rests }: Scratch): Read {
  return (from, to) => {
    for (let k = from, at = 0; k < to; k += 1, at += 1) {
      const i = next[k] as number;
      switch (numbers) {
        case 'float32':
          symbols[at] = (i >>> 23) & 255;
          rests[at] = (i & 0x7f_ffff) | ((i >>> 31) << 23);
          break;
        case 'bfloat16':
          symbols[at] = (i >>> 7) & 255;
          rests[at] = (i & 127) | ((i >>> 15) << 7);
          break;
        case 'float16':
          symbols[at] = i >>> 8;
          rests[at] = i & 255;
          break;
        default:
          symbols[at] = i;
      }
    }
    return true;
  };
}

function readDifferences(parts: SourceParts, { symbols, lowered, rests }: Scratch): Read {
  const { numbers, next, base, gains, lowRank } = parts;
  const from32 = numbers === 'float32';
  const old = base as Words;
  const isPredicted = (gains ?? lowRank) !== undefined;
  const exponentShift = from32 ? 22 : numbers === 'float16' ? 9 : 6;
  const exponentMask = numbers === 'float16' ? 62 : 510;
  return (from, to) => {
    const values = isPredicted ? predict(parts, from, to) : undefined;
    // The bits of what is no number are not the same everywhere.
    if (values?.some(Number.isNaN)) return false;
    const expected = values ? patternsOf(values, numbers) : old.subarray(from, to);
    for (let k = from, at = 0; k < to; k += 1, at += 1) {
      lowered[at] = ((old[k] as number) >>> exponentShift) & exponentMask;
      const p = expected[at] as number;
      const b = next[k] as number;
      let d: number;
      if (from32) d = ((b ^ ((b >> 31) & 0x7fff_ffff)) - (p ^ ((p >> 31) & 0x7fff_ffff))) | 0;
      else {
        const [high, low] = [(b << 16) >> 16, (p << 16) >> 16];
        d = (((high ^ ((high >> 15) & 0x7fff)) - (low ^ ((low >> 15) & 0x7fff))) << 16) >> 16;
      }
      rests[at] = d;
      symbols[at] = symbolOf(d);
    }
    return true;
  };
}

/** What decoders expect of a run of floats of a base, before they round it to floats of 16 bits. */
export function predict(
  { numbers, columns, base, gains, lowRank }: SourceParts,
  from: number,
  to: number,
): Float32Array {
  const expected = valuesOf((base as Words).slice(from, to), numbers) as Float32Array;
  if (gains) {
    for (let i = 0; i < expected.length; i += 1) {
      expected[i] = (expected[i] as number) * (gains[Math.floor((from + i) / columns)] as number);
    }
  }
  if (lowRank) addProduct(lowRank, from, expected);
  return expected;
}

function symbolOf(difference: number): number {
  const m = difference < 0 ? -difference >>> 0 : difference;
  if (m < 2) return m;
  const bits = 32 - Math.clz32(m);
  return ((bits - 1) << 1) | ((m >>> (bits - 2)) & 1);
}

function readMultiples({ next, step = 1 }: SourceParts, { symbols, rests }: Scratch): Read {
  const now = valuesOf(next, 'float32');
  return (from, to) => {
    for (let k = from, at = 0; k < to; k += 1, at += 1) {
      const d = (now[k] as number) / step;
      rests[at] = d;
      symbols[at] = symbolOf(d);
    }
    return true;
  };
}

function writeDifferences({ symbols, rests }: Scratch, bits: BitWriter, count: number): void {
  for (let k = 0; k < count; k += 1) {
    const symbol = symbols[k] as number;
    if (symbol === 0) continue;
    const d = rests[k] as number;
    const m = d < 0 ? -d : d;
    const extra = EXTRA[symbol] as number;
    // The leading two bits are the symbol's.
    if (extra < 23) bits.put((m & ((1 << extra) - 1)) | ((d < 0 ? 1 : 0) << extra), extra + 1);
    else {
      bits.put(m & 0xffff, 16);
      bits.put(((m >>> 16) & ((1 << (extra - 16)) - 1)) | ((d < 0 ? 1 : 0) << (extra - 16)), extra - 15);
    }
  }
}

function readIntegers(
  { numbers, columns, next, base, gains, isUnsigned = false }: SourceParts,
  { symbols, lowered, fractions }: Scratch,
): Read {
  const old = base as Words;
  const mask = numbers === 'int4' ? 15 : 255;
  const half = (mask + 1) / 2;
  const middle = isUnsigned ? half : 0;
  const values = gains && valuesOf(old, numbers, isUnsigned);
  return (from, to) => {
    lowered.fill(0, 0, to - from);
    for (let k = from, at = 0; k < to; k += 1, at += 1) {
      let p = old[k] as number;
      if (values && gains) {
        const gain = gains[Math.floor(k / columns)] as number;
        const t = (values[k] as number) * gain + 0.5;
        const whole = Math.floor(t);
        fractions[at] = Math.floor(16 * (t - whole)) + 16 * classOf(gain);
        p = middle + (whole < -half ? -half : whole > half - 1 ? half - 1 : whole);
      }
      symbols[at] = ((next[k] as number) - p) & mask;
    }
    return true;
  };
}

/** Class of a gain: about one, shrinking, growing. */
function classOf(gain: number): 0 | 1 | 2 {
  return Math.abs(gain - 1) <= 2 ** -6 ? 0 : gain < 1 ? 1 : 2;
}

function readUpdates(
  { numbers, columns, next, base, gains, step = 1 }: SourceParts,
  { symbols }: Scratch,
): Read {
  return (from, to) => {
    const patterns = next.subarray(from, to);
    const now = valuesOf(patterns, numbers);
    const expected = Float64Array.from(valuesOf((base as Words).subarray(from, to), numbers));
    if (gains)
      for (let at = 0; at < expected.length; at += 1)
        expected[at] = (expected[at] as number) * (gains[Math.floor((from + at) / columns)] as number);
    const isMade = (multiples: Float64Array): ((at: number) => boolean) => {
      const sums = Float32Array.from(expected);
      for (let at = 0; at < sums.length; at += 1)
        sums[at] = (expected[at] as number) + (multiples[at] as number) * step;
      const made = patternsOf(sums, numbers);
      return (at) => made[at] === patterns[at];
    };
    const nearest = expected.map((p, at) => Math.round(((now[at] as number) - p) / step));
    const isNearest = isMade(nearest);
    const least = numbers === 'float32' ? nearest : leastMultiples(patterns, numbers, expected, step);
    const isLeast = isMade(least);
    for (let at = 0; at < now.length; at += 1) {
      const q = (isLeast(at) ? least : nearest)[at] as number;
      // Also false for what is no number.
      if (!(q >= -127 && q <= 127) || !(isLeast(at) || isNearest(at))) return false;
      symbols[at] = q + 128;
    }
    return true;
  };
}

/**
 * Finds the multiples nearest to 0 that lead to numbers, or next to them: where numbers lie further apart than steps, several
 * come out as the same, and small ones take fewer bits. Some may lead to another number, and some be none.
 */
function leastMultiples(
  patterns: Words,
  numbers: NumberKind,
  expected: Float64Array,
  step: number,
): Float64Array {
  const now = valuesOf(patterns, numbers);
  const isOutward = (at: number): boolean =>
    (now[at] as number) > (expected[at] as number) === (now[at] as number) > 0;
  const before = valuesOf(
    patterns.map((pattern, at) => pattern + (isOutward(at) ? -1 : 1)),
    numbers,
  );
  return expected.map((p, at) => {
    const moved = (((now[at] as number) + (before[at] as number)) / 2 - p) / step;
    // From beyond what is expected, that itself is near enough.
    if ((now[at] as number) > p) return Math.max(0, Math.ceil(moved));
    return Math.min(0, Math.floor(moved));
  });
}
