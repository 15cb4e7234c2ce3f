/** The ways in which a tensor can be written, each counted symbol by symbol. */
import { MAX_SIDE } from '../../update/delta/bounds.ts';
import type { NumberKind, Predictor } from '../../update/delta/head.ts';
import { toCounts, type Counts } from './counts.ts';
import { findExponent, findStep } from './grid.ts';
import { findLowRank } from './low-rank.ts';
import { isFloat, valuesOf, type Words } from './numbers.ts';
import { fitScales, type Scales } from './scales.ts';
import { createSource, predict, type Scratch, type SourceParts } from './source.ts';
import type { Span } from './spans.ts';
import type { UpdateStep } from './steps.ts';

/** A tensor, and the one that it can be told from. */
export interface Pair {
  readonly span: Span;
  readonly next: Words;
  readonly base?: Words | undefined;
  readonly step?: UpdateStep | undefined;
}

/** One way to write a tensor. */
export interface Candidate {
  readonly mode: 'self' | 'delta' | 'update' | 'grid';
  readonly predictor: Predictor;
  readonly rows: number;
  readonly parts: SourceParts;
  /** Symbols of the alphabet. */
  readonly alphabet: number;
  /** By what the context is chosen; `scales` has them. */
  readonly context: 'constant' | 'fraction' | 'scales';
  readonly scales?: Scales;
  /** Of a constant context: the one that was guessed. */
  readonly level: number;
  readonly counts: Counts;
  readonly rawBits: number;
}

/** Kinds of candidates that may share probabilities. */
export function tableClass({ mode, predictor, parts }: Candidate): string {
  if (mode === 'update') return mode;
  return `${predictor === 'low-rank' ? predictor : mode} ${parts.numbers}`;
}

/** Numbers that are read at once. */
const RUN = 65_536;

/** Context of a number whose base is as large as what is added to it, for each kind: twice the weight of the last place. */
const deltaBias: Readonly<Record<NumberKind, number>> = {
  float32: 300,
  float16: 50,
  bfloat16: 268,
  int8: 20,
  int4: 20,
};
const ownBias: Readonly<Partial<Record<Candidate['mode'], number>>> = { self: 44, grid: 8 };
const UPDATE_BIAS = 32;
/** What a product foretells is mostly off by less than the last place: it has lower contexts for that. */
const LOW_RANK_BIAS = 24;
/** Below this share of the energy that is left, a gain of each row is tried. */
const GAIN_PAYS = 0.97;
/** Differences that take more than this share of the numbers themselves make those worth a try. */
const SELF_FROM = 0.72;
const MIN_ROWS = 8;

/** Counts the ways to write a tensor. Some can be tried only if `pair.base` is there. */
export function candidatesOf(pair: Pair, scratch: Scratch): readonly Candidate[] {
  const { span, next, base, step } = pair;
  const { numbers, isUnsigned } = span;
  const found: Candidate[] = [];
  const add = (
    mode: Candidate['mode'],
    predictor: Predictor,
    [rows, columns]: Shape,
    more: Partial<SourceParts>,
  ): void => {
    const parts: SourceParts = { numbers, isUnsigned, columns, next, ...more };
    found.push(...tally({ mode, predictor, rows, parts }, scratch));
  };
  const shapes = shapesOf(span);
  const [first] = shapes;
  if (base) {
    if (isFloat(numbers)) {
      const isUpdate = (): boolean => found.some(({ mode }) => mode === 'update');
      if (step && isFitting(step, first)) {
        const predictor = step.gain ? 'gain' : 'same';
        add('update', predictor, first, { base, step: step.step, gains: step.gain });
      }
      const size = isUpdate() ? undefined : findStep(base, next, numbers);
      if (size !== undefined) add('update', 'same', first, { base, step: size });
      // Nothing else comes near, but for steps that are smaller than the spacing of numbers.
      if (isUpdate() && numbers === 'float32') return found;
    }
    for (const shape of shapes) add('delta', 'same', shape, { base });
    const gains = gainsOf(pair, first);
    if (gains && isFloat(numbers)) add('delta', 'gain', first, { base, gains });
    else if (gains) {
      add('delta', isUnsigned ? 'requantized-unsigned' : 'requantized', first, { base, gains });
    }
    for (const shape of isFloat(numbers) ? shapes : []) {
      const lowRank = findLowRank({ numbers, columns: shape[1], next, base }, scratch);
      if (lowRank) add('delta', 'low-rank', shape, { base, lowRank });
    }
  }
  const exponent = numbers === 'float32' ? findExponent(next as Int32Array) : undefined;
  if (exponent !== undefined) {
    for (const shape of shapes) add('grid', 'same', shape, { step: 2 ** (exponent - 127) });
    return found;
  }
  const whole = span.sizeBytes * 8 * SELF_FROM;
  const isWorse = !found.some(({ rawBits, counts }) => rawBits + roughBits(counts) < whole);
  if (isWorse) for (const shape of shapes) add('self', 'same', shape, {});
  return found;
}

/** Gains have to be those of the rows. */
function isFitting({ gain }: UpdateStep, [rows, columns]: Shape): boolean {
  return (
    gain === undefined || (gain.length === rows && rows + columns <= MAX_SIDE && gain.every(Number.isFinite))
  );
}

type Shape = readonly [rows: number, columns: number];

/** Rows are the first axis; of more than two axes, all but the last are tried too: what spreads alike is not known. */
function shapesOf({ shape }: Span): readonly [Shape, ...Shape[]] {
  const count = shape.reduce((product, length) => product * length, 1);
  const [rows = 1] = shape;
  const last = shape.at(-1) ?? 1;
  if (shape.length < 2) return [[1, count]];
  const first: Shape = [rows, count / rows];
  return shape.length > 2 && last >= MIN_ROWS && count / last !== rows
    ? [first, [count / last, last]]
    : [first];
}

/** Bits of the symbols with probabilities of their own, without those. */
function roughBits({ counts }: Counts): number {
  let [total, bits] = [0, 0];
  for (const count of counts) {
    total += count;
    bits -= count * Math.log2(count);
  }
  return bits + total * Math.log2(Math.max(1, total));
}

/** Least-squares gain of each row; `undefined` if it explains little. */
function gainsOf({ span, next, base }: Pair, [rows, columns]: Shape): Float32Array | undefined {
  const { numbers, isUnsigned } = span;
  if (!base || rows < MIN_ROWS || columns < MIN_ROWS || rows + columns > MAX_SIDE) return undefined;
  const a = valuesOf(base, numbers, isUnsigned);
  const b = valuesOf(next, numbers, isUnsigned);
  const gains = new Float32Array(rows);
  let [before, after] = [0, 0];
  for (let i = 0, start = 0; i < rows; i += 1, start += columns) {
    let [aa, ab, bb] = [0, 0, 0];
    for (let k = start; k < start + columns; k += 1) {
      const x = a[k] as number;
      const y = b[k] as number;
      aa += x * x;
      ab += x * y;
      bb += y * y;
    }
    const gain = Math.fround(ab / aa);
    const isUsable = Number.isFinite(gain) && aa > 0;
    gains[i] = isUsable ? gain : 1;
    before += bb - 2 * ab + aa;
    after += isUsable ? Math.max(0, bb - (ab * ab) / aa) : bb - 2 * ab + aa;
  }
  // Also for what is no number.
  return after < GAIN_PAYS * before ? gains : undefined;
}

/** How a tensor is read, before contexts are chosen. */
type Reading = Pick<Candidate, 'mode' | 'predictor' | 'rows' | 'parts'>;

/** @returns a candidate for each way to choose contexts; none if the numbers cannot be written this way. */
function tally(reading: Reading, scratch: Scratch): readonly Candidate[] {
  const { mode, rows, parts, predictor } = reading;
  const { numbers, columns, next } = parts;
  const source = createSource(parts, scratch);
  const { alphabet, symbols, rawBits } = source;
  const hasExponents = mode === 'delta' && isFloat(numbers);
  const hasFractions = predictor.startsWith('requantized');
  const canHaveSide = rows + columns <= MAX_SIDE;
  const bias = hasExponents
    ? deltaBias[numbers] + (parts.lowRank ? LOW_RANK_BIAS : 0)
    : (ownBias[mode] ?? UPDATE_BIAS);
  const fits =
    canHaveSide && !hasFractions
      ? fitScales(magnitudesOf(parts), { rows, columns, perOctave: perOctaveOf(reading), bias })
      : [];
  const levels = fits.map((scales) => ({ scales, dense: new Uint32Array(64 * alphabet) }));
  const flat = new Uint32Array(alphabet);
  const fractions = new Uint32Array(hasFractions ? 64 * alphabet : 0);
  const contexts = new Uint8Array(Math.min(RUN, next.length));
  for (let from = 0; from < next.length; from += RUN) {
    const to = Math.min(next.length, from + RUN);
    if (!source.read(from, to)) return [];
    const count = to - from;
    for (let k = 0; k < count; k += 1) {
      const symbol = symbols[k] as number;
      flat[symbol] = (flat[symbol] as number) + 1;
    }
    for (const { scales, dense } of levels) {
      fillContexts(contexts, scales, columns, source.lowered, from, to);
      countCells(dense, contexts, symbols, alphabet, count);
    }
    if (hasFractions) countCells(fractions, source.fractions, symbols, alphabet, count);
  }
  const raw = flat.reduce((sum, count, symbol) => sum + count * (rawBits[symbol] as number), 0);
  const level = levels[0] ? meanContext(levels[0].dense, alphabet) : 0;
  const common = { ...reading, alphabet, level, rawBits: raw };
  const found: Candidate[] = [{ ...common, context: 'constant', counts: toCounts(flat) }];
  // Without exponents, one scale for all is one context for all.
  for (const { scales, dense } of levels.slice(hasExponents ? 0 : 1)) {
    found.push({ ...common, context: 'scales', scales, counts: toCounts(dense) });
  }
  if (hasFractions) found.push({ ...common, context: 'fraction', counts: toCounts(fractions) });
  return found;
}

/** Steps of a scale for each doubling: what has exponents in its contexts takes theirs, the others finer ones. */
function perOctaveOf({ mode, parts: { numbers } }: Reading): number {
  return mode === 'update' || mode === 'grid' || !isFloat(numbers) ? 4 : 2;
}

function magnitudesOf(parts: SourceParts): Float32Array {
  const { numbers, next, base, gains, lowRank, columns, step, isUnsigned } = parts;
  const b = valuesOf(next, numbers, isUnsigned);
  const a = lowRank ? predict(parts, 0, next.length) : base && valuesOf(base, numbers, isUnsigned);
  const magnitudes = new Float32Array(next.length);
  const scale = step === undefined ? 1 : 1 / step;
  for (let k = 0; k < magnitudes.length; k += 1) {
    const gain = gains ? (gains[Math.floor(k / columns)] as number) : 1;
    magnitudes[k] = Math.abs((b[k] as number) - (a ? (a[k] as number) * gain : 0)) * scale;
  }
  return magnitudes;
}

function countCells(
  dense: Uint32Array,
  contexts: Uint8Array,
  symbols: Uint8Array,
  alphabet: number,
  count: number,
): void {
  for (let k = 0; k < count; k += 1) {
    const cell = (contexts[k] as number) * alphabet + (symbols[k] as number);
    dense[cell] = (dense[cell] as number) + 1;
  }
}

/** Finds the contexts of a run by the scales of row and column. */
export function fillContexts(
  contexts: Uint8Array,
  { rows, columns: ofColumn, bias }: Scales,
  columns: number,
  lowered: Int16Array,
  from: number,
  to: number,
): void {
  let i = Math.floor(from / columns);
  let j = from - i * columns;
  let level = (rows[i] as number) + bias;
  for (let at = 0; at < to - from; at += 1) {
    const c = level + (ofColumn[j] as number) - (lowered[at] as number);
    contexts[at] = c < 0 ? 0 : c > 63 ? 63 : c;
    j += 1;
    if (j === columns) {
      j = 0;
      i += 1;
      level = (rows[i] as number) + bias;
    }
  }
}

function meanContext(dense: Uint32Array, alphabet: number): number {
  let [sum, total] = [0, 0];
  dense.forEach((count, cell) => {
    sum += count * Math.floor(cell / alphabet);
    total += count;
  });
  return Math.round(sum / Math.max(1, total));
}
