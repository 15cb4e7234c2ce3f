import { equalBytes } from '../../core/bytes.ts';
import type { UpdateError } from '../../core/errors.ts';
import {
  blocksOf,
  bytesOf,
  bytesOfShape,
  contextsOf,
  hasSide,
  MAGIC,
  MAX_CONTEXTS,
  MAX_HEAD_BYTES,
  MAX_LAYERS,
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
  NUMBER_KINDS,
  PREDICTORS,
  type FrequencyTable,
  type Layer,
  type NumberKind,
  type NumberSegment,
  type NumberShape,
  type PatchBlock,
  type PatchContext,
  type PatchHead,
  type Predictor,
  type Segment,
} from './head.ts';

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
    throw patchError(`The patch has ${patchBytes} bytes, too few for a head of ${length}`);
  }
  return length;
}

/**
 * Reads a patch that is all there, without its blocks.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function parsePatch(patch: Uint8Array): ParsedPatch {
  const payloadOffset = PREFIX_BYTES + readHeadLength(patch, patch.length);
  const head = readHead(patch.subarray(PREFIX_BYTES, payloadOffset), patch.length - payloadOffset);
  return { head, payloadOffset };
}

/**
 * Reads a head. Everything that can be known without base and blocks is checked: bounds, sums, and that the blocks are
 * those that the segments take.
 * @param bytes - the head, without magic and length.
 * @param payloadBytes - size of all blocks.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export function readHead(bytes: Uint8Array, payloadBytes: number): PatchHead {
  const reader = createReader(bytes);
  const base = reader.take(32).slice();
  const target = reader.take(32).slice();
  const baseBytes = reader.varint();
  const targetBytes = reader.varint();
  if (baseBytes > 0 && base.every((byte) => byte === 0))
    throw patchError('A patch without a base has one of 0 bytes');
  const tables = reader.list(MAX_TABLES, () => readTable(reader));
  let made = 0;
  let blockCount = 0;
  const segments = reader.list(MAX_SEGMENTS, () => {
    const segment = readSegment(reader, { tables, baseBytes, roomBytes: targetBytes - made });
    made += bytesOf(segment);
    blockCount += blocksOf(segment);
    return segment;
  });
  if (made !== targetBytes) {
    throw patchError(`The segments of the patch make ${made} bytes, its target has ${targetBytes}`);
  }
  let sum = 0;
  const blocks = reader.list(blockCount, (): PatchBlock => {
    const sizeBytes = reader.varint(2 ** 24);
    sum += sizeBytes;
    return { sizeBytes, sha256: reader.take(32).slice() };
  });
  if (blocks.length !== blockCount) {
    throw patchError(`The patch has ${blocks.length} blocks, its segments take ${blockCount}`);
  }
  if (sum !== payloadBytes)
    throw patchError(`The blocks of the patch have ${sum} bytes, ${payloadBytes} are there`);
  reader.end();
  return { base, target, baseBytes, targetBytes, tables, segments, blocks };
}

interface Reader {
  take(length: number): Uint8Array;
  byte(): number;
  /** @param limit - the largest number that is valid. */
  varint(limit?: number): number;
  zigzag(): number;
  float64(): number;
  /** Reads how many there are, and as many: nothing is set aside for those that are not there. */
  list<Item>(limit: number, item: () => Item): Item[];
  end(): void;
}

function createReader(bytes: Uint8Array): Reader {
  let at = 0;
  const invalid = (what: string): UpdateError =>
    patchError(`The head of the patch is invalid at byte ${at}: ${what}`);
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw invalid('it ends too early');
    at += length;
    return bytes.subarray(at - length, at);
  };
  const byte = (): number => {
    const value = bytes[at];
    if (value === undefined) throw invalid('it ends too early');
    at += 1;
    return value;
  };
  const varint = (limit = Number.MAX_SAFE_INTEGER): number => {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
      const next = byte();
      value += (next & 127) * scale;
      if (next >= 128) continue;
      if (next === 0 && scale > 1) throw invalid('a number is written longer than need be');
      if (value > limit) throw invalid(`${value} is more than ${limit}`);
      return value;
    }
    throw invalid('a number has more than 8 bytes');
  };
  return {
    take,
    byte,
    varint,
    zigzag: () => {
      const value = varint(2 ** 16 - 1);
      return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
    },
    float64: () => {
      const eight = take(8);
      return new DataView(eight.buffer, eight.byteOffset).getFloat64(0, true);
    },
    list: (limit, item) => {
      const count = varint(limit);
      const items = [];
      while (items.length < count) items.push(item());
      return items;
    },
    end: () => {
      if (at !== bytes.length) throw invalid('it goes on after its end');
    },
  };
}

function readTable(reader: Reader): FrequencyTable {
  const symbols = reader.varint(MAX_SYMBOLS);
  const contexts = reader.varint(MAX_CONTEXTS);
  if (symbols === 0 || contexts === 0) throw patchError('A table of the patch is empty');
  const frequencies = new Uint16Array(symbols * contexts);
  for (let context = 0; context < contexts; context += 1) {
    let sum = 0;
    for (let symbol = 0; symbol < symbols; symbol += 1) {
      const frequency = reader.varint(SCALE);
      frequencies[context * symbols + symbol] = frequency;
      sum += frequency;
      if (frequency === 0) symbol += reader.varint(symbols - symbol - 1);
    }
    if (sum !== 0 && sum !== SCALE)
      throw patchError(`Frequencies of the patch add up to ${sum}, not to ${SCALE}`);
  }
  return { symbols, frequencies };
}

interface Surroundings {
  readonly tables: readonly FrequencyTable[];
  readonly baseBytes: number;
  /** Bytes of the target that are still to be made. */
  readonly roomBytes: number;
}

function readSegment(reader: Reader, around: Surroundings): Segment {
  const { tables, roomBytes } = around;
  const table = (): number => readTableIndex(reader, tables);
  const mode = reader.byte();
  switch (mode) {
    case 0: {
      const baseOffset = reader.varint();
      const sizeBytes = reader.varint(roomBytes);
      assertInBase(baseOffset, sizeBytes, around);
      return { mode: 'same', baseOffset, sizeBytes };
    }
    case 1:
      return { mode: 'raw', sizeBytes: reader.varint(roomBytes) };
    case 2:
      return { mode: 'packed', sizeBytes: reader.varint(roomBytes), table: table() };
    case 3: {
      const shape = readShape(reader, roomBytes);
      const context = readContext(reader, tables);
      return checked({ mode: 'self', ...shape, context, table: table() }, tables);
    }
    case 4:
    case 5: {
      const shape = readShape(reader, roomBytes);
      const baseOffset = reader.varint();
      assertInBase(baseOffset, bytesOfShape(shape), around);
      const predictor = readPredictor(reader, shape.numbers);
      const common = { ...shape, baseOffset, predictor, context: readContext(reader, tables) };
      return checked(
        mode === 4
          ? { mode: 'delta', ...common, table: table() }
          : { mode: 'update', ...common, layers: readLayers(reader, tables) },
        tables,
      );
    }
    case 6: {
      const shape = readShape(reader, roomBytes);
      const exponent = reader.byte();
      if (exponent === 0 || exponent === 255)
        throw patchError(`A grid of the patch has the exponent ${exponent}, which no number has`);
      const context = readContext(reader, tables);
      return checked({ mode: 'grid', ...shape, exponent, context, table: table() }, tables);
    }
    default:
      throw patchError(`The patch has a segment of mode ${mode}, which is unknown`);
  }
}

function readTableIndex(reader: Reader, tables: readonly FrequencyTable[]): number {
  const index = reader.varint();
  if (index >= tables.length) throw patchError(`The patch has no table ${index}`);
  return index;
}

function assertInBase(offset: number, sizeBytes: number, { baseBytes }: Surroundings): void {
  if (offset > baseBytes - sizeBytes)
    throw patchError('The patch refers to bytes beyond the end of its base');
}

function readShape(reader: Reader, roomBytes: number): NumberShape {
  const numbers = NUMBER_KINDS[reader.byte()];
  const rows = reader.varint();
  const columns = reader.varint();
  if (numbers === undefined || rows === 0 || columns === 0 || (numbers === 'int4' && columns % 2 !== 0)) {
    throw patchError('The patch has numbers of an unknown kind, none, or half a byte of them');
  }
  const shape = { numbers, rows, columns };
  if (bytesOfShape(shape) > roomBytes)
    throw patchError('The segments of the patch make more than its target has');
  return shape;
}

function readPredictor(reader: Reader, numbers: NumberKind): Predictor {
  const predictor = PREDICTORS[reader.byte()];
  if (predictor === 'same') return predictor;
  const fits = predictor === 'gain' ? numbers === 'float32' : numbers === 'int8' || numbers === 'int4';
  if (predictor === undefined || !fits) {
    throw patchError('The patch has a predictor that is unknown, or not for its numbers');
  }
  return predictor;
}

function readContext(reader: Reader, tables: readonly FrequencyTable[]): PatchContext {
  const kind = reader.byte();
  if (kind === 0) return { kind: 'constant', context: reader.byte() };
  if (kind === 1) return { kind: 'scales', bias: reader.zigzag(), sideTable: readTableIndex(reader, tables) };
  if (kind === 2) return { kind: 'fraction' };
  throw patchError(`The patch has a context of kind ${kind}, which is unknown`);
}

function readLayers(reader: Reader, tables: readonly FrequencyTable[]): readonly Layer[] {
  const layers = reader.list(MAX_LAYERS, (): Layer => {
    const step = reader.float64();
    if (!(step > 0 && step < Infinity)) throw patchError('A step of the patch is not above 0 and finite');
    return { step, table: readTableIndex(reader, tables) };
  });
  if (layers.length === 0) throw patchError('An update of the patch has no layer');
  return layers;
}

/** What of a segment depends on more than one of its fields. */
function checked(segment: NumberSegment, tables: readonly FrequencyTable[]): Segment {
  const { mode, numbers, rows, columns, context } = segment;
  if ((mode === 'update' || mode === 'grid') && numbers !== 'float32')
    throw patchError('An update or a grid of the patch is not of float32');
  if (hasSide(segment) && rows + columns > MAX_SIDE) {
    throw patchError(
      `A segment of the patch has ${rows} rows and ${columns} columns, too many to describe each`,
    );
  }
  const layers = mode === 'update' ? segment.layers : [segment];
  for (const { table } of layers) {
    const used = tables[table] as FrequencyTable;
    if (used.symbols > symbolsFor(segment)) {
      throw patchError(
        `A table of the patch has ${used.symbols} symbols, too many for ${mode} of ${numbers}`,
      );
    }
    if (context.kind === 'constant' && context.context >= contextsOf(used)) {
      throw patchError(
        `A segment of the patch is coded in context ${context.context}, which its table has not`,
      );
    }
    if (mode === 'update') assertWithoutSmallest(used);
  }
  if (context.kind === 'fraction' && (mode !== 'delta' || !segment.predictor.startsWith('requantized'))) {
    throw patchError('A segment of the patch has fractions as contexts, and no predictor that makes any');
  }
  if (context.kind === 'scales') {
    const side = tables[context.sideTable] as FrequencyTable;
    if (contextsOf(side) !== 1) throw patchError('A table for scales of the patch has more than one context');
  }
  return segment;
}

/** Symbol 0 would be -128 steps. */
function assertWithoutSmallest({ symbols, frequencies }: FrequencyTable): void {
  for (let at = 0; at < frequencies.length; at += symbols) {
    if (frequencies[at] !== 0) throw patchError('An update of the patch has a symbol 0');
  }
}
