import { concatBytes } from '../../src/core/bytes.ts';
import { factorsOf, hasSide, isNumbers, MAX_CONTEXTS, symbolsFor } from '../../src/update/delta/bounds.ts';
import { encodeBlock } from '../../src/update/delta/encode-block.ts';
import {
  BYTES_PER_BLOCK,
  NUMBERS_PER_BLOCK,
  UPDATES_PER_BLOCK,
  type FrequencyTable,
  type NumberKind,
  type NumberSegment,
  type Segment,
} from '../../src/update/delta/head.ts';
import { createCoding } from '../../src/update/delta/rans.ts';
import { writeHead } from '../../src/update/delta/write-head.ts';
import { sha256Of } from '../core/update/delta-fixture.ts';

/** A segment, and what its blocks are made of. */
export interface Plan {
  /** Tables and blocks are filled in: indices that it has are ignored. */
  readonly segment: Segment;
  /** Scales of rows and columns, half octaves. */
  readonly rows?: readonly number[];
  readonly columns?: readonly number[];
  readonly gains?: readonly number[];
  /** Of the predictor of low rank: scales, and the numbers of both matrices in C order. */
  readonly product?: { readonly scales: readonly number[]; readonly factors: readonly number[] };
  /** Whole multiples of the steps, one list for each layer. */
  readonly multiples?: readonly (readonly number[])[];
}

interface Coded {
  readonly contexts: number[];
  readonly symbols: number[];
  readonly bits: number[];
}

const emptyCoded = (): Coded => ({ contexts: [], symbols: [], bits: [] });

/**
 * Makes the patch that the plans describe, number by number as the specification has it: slow, and nothing that decoders
 * are made of but tables and the coder itself.
 */
export function makePatch(
  base: Uint8Array,
  target: Uint8Array,
  plans: readonly Plan[],
  options: { isBased?: boolean } = {},
): Uint8Array<ArrayBuffer> {
  const tables: FrequencyTable[] = [];
  const segments: Segment[] = [];
  const blocks: Uint8Array[] = [];
  const code = (coded: readonly Coded[], symbolCount: number, contexts: number): number => {
    tables.push(tableOf(coded, symbolCount, contexts));
    const coding = createCoding(tables.at(-1) as FrequencyTable);
    for (const { contexts: own, symbols, bits } of coded) {
      blocks.push(encodeBlock(coding, Uint8Array.from(own), Uint8Array.from(symbols), packBits(bits)));
    }
    return tables.length - 1;
  };
  let at = 0;
  for (const plan of plans) {
    const { segment } = plan;
    if (!isNumbers(segment)) {
      const own = target.subarray(at, at + segment.sizeBytes);
      at += segment.sizeBytes;
      if (segment.mode === 'same') {
        segments.push(segment);
      } else {
        const cut = cutInto(own.length, BYTES_PER_BLOCK).map(([from, to]) => own.subarray(from, to));
        if (segment.mode === 'raw') {
          blocks.push(...cut);
          segments.push(segment);
        } else {
          const coded = cut.map((bytes) => ({
            contexts: [...bytes].map(() => 0),
            symbols: [...bytes],
            bits: [],
          }));
          segments.push({ ...segment, table: code(coded, 256, 1) });
        }
      }
      continue;
    }
    const bits = { float32: 32, float16: 16, bfloat16: 16, int8: 8, int4: 4 }[segment.numbers];
    const count = segment.rows * segment.columns;
    const own = patternsOf(target.subarray(at, at + (count * bits) / 8), bits);
    at += (count * bits) / 8;
    const old =
      segment.mode === 'self' || segment.mode === 'grid'
        ? own
        : patternsOf(base.subarray(segment.baseOffset, segment.baseOffset + (count * bits) / 8), bits);
    let context = segment.context;
    const product = factorsOf(segment);
    const factors = product && { ...product, table: tables.length };
    if (factors !== undefined) {
      const { scales = [], factors: numbers = [] } = plan.product ?? {};
      const coded = emptyCoded();
      for (let byte = 0; byte < factors.width; byte += 1) {
        coded.contexts.push(...numbers.map(() => byte));
        coded.symbols.push(...numbers.map((number) => (number >> (8 * (factors.width - 1 - byte))) & 255));
      }
      const held = blocks.length;
      code([coded], 256, factors.width);
      const bytes = new Uint8Array(Float32Array.from(scales).buffer);
      blocks.push(concatBytes([bytes, blocks.splice(held)[0] as Uint8Array]));
    }
    if (hasSide(segment)) {
      const gains = new Uint8Array(Float32Array.from(plan.gains ?? []).buffer);
      if (context.kind === 'scales') {
        const scales = [...(plan.rows ?? []), ...(plan.columns ?? [])];
        const symbols = scales.map((scale, i) => (scale - (i === 0 ? 0 : (scales[i - 1] as number))) & 255);
        const held = blocks.length;
        context = {
          ...context,
          sideTable: code([{ contexts: symbols.map(() => 0), symbols, bits: [] }], 256, 1),
        };
        blocks.push(concatBytes([gains, blocks.splice(held)[0] as Uint8Array]));
      } else {
        blocks.push(gains);
      }
    }
    const contexts =
      context.kind === 'constant' ? context.context + 1 : context.kind === 'fraction' ? 48 : MAX_CONTEXTS;
    const one = { ...plan, old, own, bits };
    if (segment.mode === 'update') {
      const runs = cutInto(count, UPDATES_PER_BLOCK);
      const first = tables.length;
      const layered = segment.layers.map((layer, index) => {
        const coded = runs.map(([from, to]) => updateOf(segment, one, index, from, to));
        const held = blocks.length;
        const table = code(coded, 256, contexts);
        return { layer: { ...layer, table }, blocks: blocks.splice(held) };
      });
      if (tables.length !== first + layered.length) throw new Error('Each layer has a table.');
      runs.forEach((_, run) => layered.forEach((layer) => blocks.push(layer.blocks[run] as Uint8Array)));
      segments.push({ ...segment, context, layers: layered.map(({ layer }) => layer) });
    } else {
      const coded = cutInto(count, NUMBERS_PER_BLOCK).map(([from, to]) =>
        segment.mode === 'self'
          ? selfOf(segment, one, from, to)
          : segment.mode === 'grid'
            ? gridOf(segment, one, from, to)
            : deltaOf(segment, one, from, to),
      );
      const table = code(coded, symbolsFor(segment), contexts);
      segments.push({ ...segment, context, table, ...(factors && { factors }) });
    }
  }
  const isBased = options.isBased ?? true;
  const head = writeHead({
    base: isBased ? sha256Of(base) : new Uint8Array(32),
    baseBytes: isBased ? base.length : 0,
    target: sha256Of(target),
    targetBytes: target.length,
    tables,
    segments,
    blocks: blocks.map((block) => ({ sizeBytes: block.length, sha256: sha256Of(block) })),
  });
  return concatBytes([head, ...blocks]);
}

const cutInto = (count: number, size: number): [number, number][] =>
  Array.from({ length: Math.ceil(count / size) }, (_, i) => [i * size, Math.min(count, (i + 1) * size)]);

/** Bit patterns, as whole numbers from 0 on. */
function patternsOf(bytes: Uint8Array, bits: number): number[] {
  if (bits === 4) return [...bytes].flatMap((byte) => [byte & 15, byte >> 4]);
  const size = bits / 8;
  return Array.from({ length: bytes.length / size }, (_, k) =>
    Array.from({ length: size }, (__, i) => (bytes[k * size + i] as number) * 256 ** i).reduce(
      (a, b) => a + b,
      0,
    ),
  );
}

/** Every symbol that occurs in a context is as likely as it is frequent, within rounding. */
function tableOf(coded: readonly Coded[], symbols: number, contexts: number): FrequencyTable {
  const counts = new Float64Array(symbols * contexts);
  for (const one of coded) {
    one.symbols.forEach((symbol, k) => {
      const at = (one.contexts[k] as number) * symbols + symbol;
      counts[at] = (counts[at] as number) + 1;
    });
  }
  const frequencies = new Uint16Array(counts.length);
  for (let context = 0; context < contexts; context += 1) {
    const own = counts.subarray(context * symbols, (context + 1) * symbols);
    const total = own.reduce((a, b) => a + b, 0);
    if (total === 0) continue;
    const used = own.filter((count) => count > 0).length;
    const rounded = own.map((count) => (count === 0 ? 0 : 1 + Math.floor((count / total) * (4096 - used))));
    const most = rounded.indexOf(Math.max(...rounded));
    rounded[most] = (rounded[most] as number) + 4096 - rounded.reduce((a, b) => a + b, 0);
    frequencies.set(rounded, context * symbols);
  }
  return { symbols, frequencies };
}

function packBits(bits: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8));
  bits.forEach((bit, i) => {
    bytes[i >> 3] = (bytes[i >> 3] as number) | (bit << (i & 7));
  });
  return bytes;
}

const bitsOf = (value: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => Math.floor(value / 2 ** i) % 2);

interface Numbers extends Plan {
  readonly old: readonly number[];
  readonly own: readonly number[];
  readonly bits: number;
}

const word = new DataView(new ArrayBuffer(4));
const toFloat = (pattern: number): number => {
  word.setUint32(0, pattern);
  return word.getFloat32(0);
};
const toPattern = (value: number): number => {
  word.setFloat32(0, value);
  return word.getUint32(0);
};

/** Value of a pattern, and the pattern of the number nearest to a value, as IEEE 754 has them. */
export function floatOf(numbers: NumberKind, pattern: number): number {
  if (numbers === 'float32') return toFloat(pattern);
  if (numbers === 'bfloat16') return toFloat(pattern * 2 ** 16);
  const [exponent, fraction] = [(pattern >>> 10) & 31, pattern & 1023];
  const magnitude =
    exponent === 31
      ? fraction === 0
        ? Infinity
        : Number.NaN
      : exponent === 0
        ? fraction * 2 ** -24
        : (1024 + fraction) * 2 ** (exponent - 25);
  return pattern >= 0x8000 ? -magnitude : magnitude;
}

/** Patterns of positive numbers are in the order of these, and infinity is as far as the next one would be. */
export function patternOf(numbers: NumberKind, value: number): number {
  if (numbers === 'float32') return toPattern(value);
  const sign = toPattern(value) >= 2 ** 31 ? 0x8000 : 0;
  const infinity = numbers === 'float16' ? 0x7c00 : 0x7f80;
  const worth = (pattern: number): number =>
    pattern === infinity ? (numbers === 'float16' ? 2 ** 16 : 2 ** 128) : floatOf(numbers, pattern);
  const magnitude = Math.abs(value);
  let [low, high] = [0, infinity];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (worth(middle) <= magnitude) low = middle;
    else high = middle;
  }
  const [below, above] = [magnitude - worth(low), worth(high) - magnitude];
  return sign + (below < above || (below === above && low % 2 === 0) ? low : high);
}

const exponentOf = (numbers: NumberKind, pattern: number): number =>
  numbers === 'float16'
    ? (pattern >>> 10) & 31
    : numbers === 'bfloat16'
      ? (pattern >>> 7) & 255
      : (pattern >>> 23) & 255;

function contextOf(segment: NumberSegment, { rows = [], columns = [], old }: Numbers, k: number): number {
  const { context } = segment;
  if (context.kind === 'constant') return context.context;
  if (context.kind === 'fraction') throw new Error('Fractions come from the predictor.');
  const scale = (rows[Math.floor(k / segment.columns)] as number) + (columns[k % segment.columns] as number);
  const isFloat = segment.mode === 'delta' && segment.numbers.includes('float');
  const exponent = isFloat ? exponentOf(segment.numbers, old[k] as number) : 0;
  return Math.min(Math.max(scale - 2 * exponent + context.bias, 0), 63);
}

function updateOf(
  segment: Extract<Segment, { mode: 'update' }>,
  numbers: Numbers,
  layer: number,
  from: number,
  to: number,
): Coded {
  const coded = emptyCoded();
  for (let k = from; k < to; k += 1) {
    coded.contexts.push(contextOf(segment, numbers, k));
    coded.symbols.push((numbers.multiples?.[layer]?.[k] as number) + 128);
  }
  return coded;
}

function selfOf(segment: NumberSegment, numbers: Numbers, from: number, to: number): Coded {
  const coded = emptyCoded();
  for (let k = from; k < to; k += 1) {
    const pattern = numbers.own[k] as number;
    coded.contexts.push(contextOf(segment, numbers, k));
    if (segment.numbers === 'float32') {
      coded.symbols.push((pattern >>> 23) & 255);
      coded.bits.push(...bitsOf(pattern, 23), pattern >>> 31);
    } else if (segment.numbers === 'bfloat16') {
      coded.symbols.push((pattern >>> 7) & 255);
      coded.bits.push(...bitsOf(pattern, 7), pattern >>> 15);
    } else if (segment.numbers === 'float16') {
      coded.symbols.push(pattern >>> 8);
      coded.bits.push(...bitsOf(pattern, 8));
    } else {
      coded.symbols.push(pattern);
    }
  }
  return coded;
}

function gridOf(
  segment: Extract<Segment, { mode: 'grid' }>,
  numbers: Numbers,
  from: number,
  to: number,
): Coded {
  const coded = emptyCoded();
  for (let k = from; k < to; k += 1) {
    coded.contexts.push(contextOf(segment, numbers, k));
    const multiple = toFloat(numbers.own[k] as number) / 2 ** (segment.exponent - 127);
    addDifference(coded, Math.abs(multiple), multiple < 0);
  }
  return coded;
}

/** What comes out in place of the old number before the difference is added, and the context of its fraction. */
function predict(
  segment: Extract<Segment, { mode: 'delta' }>,
  numbers: Numbers,
  k: number,
): [number, number] {
  const { old, gains = [], bits, product } = numbers;
  const pattern = old[k] as number;
  const gain = gains[Math.floor(k / segment.columns)] as number;
  if (segment.predictor === 'same') return [pattern, 0];
  if (segment.predictor === 'low-rank' || segment.predictor === 'gain') {
    const { scales = [], factors = [] } = product ?? {};
    const second = scales.length * segment.rows + (k % segment.columns);
    let sum = 0;
    scales.forEach((scale, rank) => {
      const left = factors[Math.floor(k / segment.columns) * scales.length + rank] as number;
      sum += left * scale * (factors[second + rank * segment.columns] as number);
    });
    const before = floatOf(segment.numbers, pattern);
    const value = Math.fround(product ? before + sum : before * gain);
    return [Number.isNaN(value) ? pattern : patternOf(segment.numbers, value), 0];
  }
  const half = 2 ** (bits - 1);
  const isSigned = segment.predictor === 'requantized';
  const value = isSigned ? (pattern >= half ? pattern - 2 * half : pattern) : pattern - half;
  const exact = value * gain + 0.5;
  const whole = Math.min(Math.max(Math.floor(exact), -half), half - 1);
  const far = Math.abs(gain - 1) <= 2 ** -6 ? 0 : gain < 1 ? 1 : 2;
  const fraction = Math.floor(16 * (exact - Math.floor(exact))) + 16 * far;
  return [isSigned ? (whole + 2 * half) % (2 * half) : whole + half, fraction];
}

function deltaOf(
  segment: Extract<Segment, { mode: 'delta' }>,
  numbers: Numbers,
  from: number,
  to: number,
): Coded {
  const coded = emptyCoded();
  const { bits } = numbers;
  const range = 2 ** bits;
  // Negative numbers count down, so that neighbours differ by one.
  const ordered = (pattern: number): number => (pattern >= range / 2 ? 1.5 * range - 1 - pattern : pattern);
  for (let k = from; k < to; k += 1) {
    const [predicted, fraction] = predict(segment, numbers, k);
    const own = numbers.own[k] as number;
    coded.contexts.push(segment.context.kind === 'fraction' ? fraction : contextOf(segment, numbers, k));
    if (bits <= 8) {
      coded.symbols.push((own - predicted + range) % range);
      continue;
    }
    const difference = (ordered(own) - ordered(predicted) + 2 * range) % range;
    const isNegative = difference >= range / 2;
    const magnitude = isNegative ? range - difference : difference;
    addDifference(coded, magnitude, isNegative);
  }
  return coded;
}

function addDifference({ symbols, bits }: Coded, magnitude: number, isNegative: boolean): void {
  const length = magnitude.toString(2).length;
  if (magnitude < 2) {
    symbols.push(magnitude);
  } else {
    const second = Math.floor(magnitude / 2 ** (length - 2)) % 2;
    symbols.push(2 * (length - 1) + second);
    bits.push(...bitsOf(magnitude, length - 2));
  }
  if (magnitude !== 0) bits.push(isNegative ? 1 : 0);
}
