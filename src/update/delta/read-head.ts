import { equalBytes } from '../../core/bytes.ts';
import {
  blockLimits,
  bytesOf,
  bytesOfShape,
  contextsOf,
  factorsOf,
  hasSide,
  isNumbers,
  MAGIC,
  MAX_CONTEXTS,
  MAX_FACTOR_BYTES,
  MAX_FACTORS,
  MAX_FREQUENCIES,
  MAX_HEAD_BYTES,
  MAX_LAYERS,
  MAX_RANK,
  MAX_SEGMENTS,
  MAX_SIDE,
  MAX_SYMBOLS,
  MAX_TABLES,
  patchError,
  PREFIX_BYTES,
  SCALE,
  symbolsFor,
} from './bounds.ts';
import {
  MODES,
  NUMBER_KINDS,
  PREDICTORS,
  type Factors,
  type FrequencyTable,
  type Layer,
  type NumberKind,
  type NumberSegment,
  type PatchBlock,
  type PatchContext,
  type PatchHead,
  type Predictor,
  type Segment,
} from './head.ts';
import { createReader, type Reader } from './reader.ts';

/** A patch whose head was read. */
export interface ParsedPatch {
  readonly head: PatchHead;
  /** Where the first block begins, bytes. */
  readonly payloadOffset: number;
}

/**
 * Reads the length of a head.
 * @param prefix - the first 8 bytes of the patch.
 * @param patchBytes - size of the patch.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function readHeadLength(prefix: Uint8Array, patchBytes: number): number {
  if (prefix.length < PREFIX_BYTES || !equalBytes(prefix.subarray(0, MAGIC.length), MAGIC)) {
    throw patchError('The file is no patch of version 1');
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset).getUint32(MAGIC.length, true);
  if (length > MAX_HEAD_BYTES || length > patchBytes - PREFIX_BYTES) {
    throw patchError(`A patch of ${patchBytes} bytes has no head of ${length}`);
  }
  return length;
}

/**
 * Reads a patch that is all there, without its blocks.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function parsePatch(patch: Uint8Array): ParsedPatch {
  const payloadOffset = PREFIX_BYTES + readHeadLength(patch, patch.length);
  const steps = readHead(patch.subarray(PREFIX_BYTES, payloadOffset), patch.length - payloadOffset);
  let step = steps.next();
  while (step.done !== true) step = steps.next();
  return { head: step.value, payloadOffset };
}

/**
 * Reads a head, a table, a segment or a block in each step, so that others may have the thread in between. Everything
 * that can be known without base and blocks is checked: bounds, sums, and that the blocks are those that the segments
 * take.
 * @param bytes - the head, without magic and length. They must not change while what comes out is used.
 * @param payloadBytes - size of all blocks.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function* readHead(bytes: Uint8Array, payloadBytes: number): Generator<void, PatchHead> {
  const reader = createReader(bytes);
  const { check, integer, take } = reader;
  const base = take(32);
  const target = take(32);
  const isBased = base.some((byte) => byte !== 0);
  const baseBytes = integer('size of the base', 0, isBased ? undefined : 0);
  const targetBytes = integer('size of the target');

  const tables: FrequencyTable[] = [];
  let room = MAX_FREQUENCIES;
  for (let count = integer('number of tables', 0, MAX_TABLES); count > 0; count -= 1) {
    const table = readTable(reader, room);
    tables.push(table);
    room -= table.frequencies.length;
    yield;
  }

  const segments: Segment[] = [];
  let made = 0;
  for (let count = integer('number of segments', 0, MAX_SEGMENTS); count > 0; count -= 1) {
    const segment = readSegment(reader, { tables, baseBytes, roomBytes: targetBytes - made });
    if (isNumbers(segment)) assertTables(reader, segment, tables);
    segments.push(segment);
    made += bytesOf(segment);
    yield;
  }
  check('size of all segments', made, targetBytes);

  const blocks: PatchBlock[] = [];
  const blockCount = integer('number of blocks');
  let sum = 0;
  for (const segment of segments) {
    for (const limit of blockLimits(segment)) {
      const sizeBytes = integer('size of a block', 0, limit);
      blocks.push({ sizeBytes, sha256: take(32) });
      sum += sizeBytes;
      yield;
    }
  }
  check('number of blocks', blockCount, blocks.length);
  check('size of all blocks', sum, payloadBytes);
  reader.end();
  return { base, target, baseBytes, targetBytes, tables, segments, blocks };
}

function readTable({ check, integer }: Reader, room: number): FrequencyTable {
  const symbols = integer('number of symbols', 1, MAX_SYMBOLS);
  const contexts = integer('number of contexts', 1, MAX_CONTEXTS);
  check('number of frequencies', symbols * contexts, 1, room);
  const frequencies = new Uint16Array(symbols * contexts);
  for (let start = 0; start < frequencies.length; start += symbols) {
    let sum = 0;
    for (let symbol = 0; symbol < symbols; symbol += 1) {
      const frequency = integer('frequency', 0, SCALE);
      frequencies[start + symbol] = frequency;
      sum += frequency;
      if (frequency === 0) symbol += integer('number of zeros', 0, symbols - symbol - 1);
    }
    if (sum !== 0) check('sum of frequencies', sum, SCALE);
  }
  return { symbols, frequencies };
}

interface Surroundings {
  readonly tables: readonly FrequencyTable[];
  readonly baseBytes: number;
  /** Bytes of the target that are still to be made. */
  readonly roomBytes: number;
}

function readSegment(reader: Reader, { tables, baseBytes, roomBytes }: Surroundings): Segment {
  const { byte, check, integer, float64 } = reader;
  const table = (): number => integer('table', 0, tables.length - 1);
  const readContext = (kinds = 1): PatchContext => {
    const kind = byte('kind of context', 0, kinds);
    if (kind === 0) return { kind: 'constant', context: byte('context', 0, MAX_CONTEXTS - 1) };
    if (kind === 2) return { kind: 'fraction' };
    const bias = integer('bias', 0, 2 ** 16 - 1);
    return { kind: 'scales', bias: bias % 2 === 0 ? bias / 2 : -(bias + 1) / 2, sideTable: table() };
  };
  const mode = MODES[byte('mode', 0, MODES.length - 1)] as Segment['mode'];
  if (mode === 'same') {
    const baseOffset = integer('offset');
    const sizeBytes = integer('size of a segment', 1, roomBytes);
    check('end in the base', baseOffset + sizeBytes, 0, baseBytes);
    return { mode, baseOffset, sizeBytes };
  }
  if (mode === 'raw' || mode === 'packed') {
    const sizeBytes = integer('size of a segment', 1, roomBytes);
    return mode === 'raw' ? { mode, sizeBytes } : { mode, sizeBytes, table: table() };
  }

  // Floats come first, those of 32 bits before the others.
  const kinds = mode === 'grid' ? 1 : mode === 'update' ? 3 : NUMBER_KINDS.length;
  const numbers = NUMBER_KINDS[byte('kind of numbers', 0, kinds - 1)] as NumberKind;
  const rows = integer('number of rows', 1);
  const columns = integer('number of columns', 1);
  if (numbers === 'int4') check('rest of columns', columns % 2, 0);
  const shape = { numbers, rows, columns };
  const sizeBytes = check('size of a segment', bytesOfShape(shape), 1, roomBytes);
  if (mode === 'self') return { mode, ...shape, context: readContext(), table: table() };
  if (mode === 'grid') {
    const exponent = byte('exponent', 1, 254);
    return { mode, ...shape, exponent, context: readContext(), table: table() };
  }

  const baseOffset = integer('offset');
  check('end in the base', baseOffset + sizeBytes, 0, baseBytes);
  const predictor = readPredictor(reader, numbers, mode === 'delta' ? 2 : 1);
  const based = { ...shape, baseOffset, predictor };
  if (mode === 'delta') {
    const factors = predictor === 'low-rank' ? readFactors() : undefined;
    const context = readContext(predictor.startsWith('requantized') ? 2 : 1);
    return { mode, ...based, factors, context, table: table() };
  }
  const context = readContext();
  const layers: Layer[] = [];
  for (let count = integer('number of layers', 1, MAX_LAYERS); count > 0; count -= 1)
    layers.push({ step: float64('step', Number.MIN_VALUE, Number.MAX_VALUE), table: table() });
  return { mode, ...based, context, layers };

  function readFactors(): Factors {
    const rank = integer('rank', 1, MAX_RANK);
    // With more of them than numbers, a few bytes would keep a device busy for long.
    check('number of factors', rank * (rows + columns), 1, Math.min(MAX_FACTORS, rows * columns));
    return { rank, width: integer('size of a factor', 1, MAX_FACTOR_BYTES), table: table() };
  }
}

/** @param highest - code of the last predictor of floats. */
function readPredictor({ byte, check }: Reader, numbers: NumberKind, highest: number): Predictor {
  const code = byte('predictor', 0, PREDICTORS.length - 1);
  const [low, high] = numbers.startsWith('int') ? [3, 4] : [1, highest];
  return PREDICTORS[code && check('predictor', code, low, high)] as Predictor;
}

/** Checks that tables have what a segment looks up in them, and nothing that stands for no number. */
function assertTables({ check }: Reader, segment: NumberSegment, tables: readonly FrequencyTable[]): void {
  const { context, rows, columns } = segment;
  const assertContexts = (table: number, low: number, high: number): void => {
    check('number of contexts', contextsOf(tables[table] as FrequencyTable), low, high);
  };
  for (const { table } of segment.mode === 'update' ? segment.layers : [segment]) {
    const { symbols, frequencies } = tables[table] as FrequencyTable;
    check('number of symbols', symbols, 1, symbolsFor(segment));
    if (context.kind === 'constant') assertContexts(table, context.context + 1, MAX_CONTEXTS);
    // It would be -128 steps.
    for (let at = 0; segment.mode === 'update' && at < frequencies.length; at += symbols)
      check('frequency of symbol 0', frequencies[at] as number, 0);
  }
  if (hasSide(segment)) check('number of rows and columns', rows + columns, 1, MAX_SIDE);
  if (context.kind === 'scales') assertContexts(context.sideTable, 1, 1);
  const factors = factorsOf(segment);
  if (factors !== undefined) assertContexts(factors.table, factors.width, factors.width);
}
