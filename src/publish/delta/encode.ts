/** Makes patches of Inlay's own format (docs/spec/idp.md). */
import { concatBytes } from '../../core/bytes.ts';
import { createSha256 } from '../../core/hash.ts';
import type { Platform } from '../../core/platform.ts';
import { MAX_HEAD_BYTES, MAX_SEGMENTS, PREFIX_BYTES } from '../../update/delta/bounds.ts';
import {
  UPDATES_PER_BLOCK,
  type FrequencyTable,
  type PatchContext,
  type PatchHead,
  type Segment,
} from '../../update/delta/head.ts';
import { writeHead } from '../../update/delta/write-head.ts';
import { candidatesOf } from './candidates.ts';
import { choose, countsOf, tablesOf, toOptions, type Option, type Picked } from './choose.ts';
import { ownBits, sumCounts, tableBytes, toTable } from './counts.ts';
import { createCopyFinder, gapsOf, type Range } from './glue.ts';
import { alignGrown } from './grown.ts';
import { mergePieces, type Piece, type PlainPiece } from './layout.ts';
import { equalWords, wordsOf, type Words } from './numbers.ts';
import { createBaseFinder } from './pairs.ts';
import { planeCounts } from './low-rank.ts';
import { createPayload, type Payload, type TensorTables } from './payload.ts';
import { sideSymbols } from './scales.ts';
import { createScratch, type Scratch } from './source.ts';
import { inOrder, segmentsOf, type Span } from './spans.ts';
import type { UpdateSteps } from './steps.ts';

/** How {@link encodePatch} works. */
export interface EncodeOptions {
  /** Hashes blocks and files. Default: in plain TypeScript. */
  readonly platform?: Pick<Platform, 'createSha256'> | undefined;
  /** Grids that tensors were rounded onto, by name. A grid without gains is found also where it is not named. */
  readonly steps?: UpdateSteps | undefined;
  /**
   * Where the tensors of both files are, for a data file beside a model, in any order; of those that overlap, as tied ones
   * do, the first counts. Default: what {@link segmentsOf} finds.
   */
  readonly spans?: { readonly base: readonly Span[]; readonly next: readonly Span[] } | undefined;
  /** Hears how many tensors were looked at, and how many there are; most of the time goes there. */
  readonly onProgress?: ((tensor: number, tensors: number) => void) | undefined;
}

/** Tensors of fewer bytes are taken for glue: at first, and where a head has no room for as many as there are. */
const LEAST_TENSOR_BYTES = [64, 4096] as const;
/** Plain runs of fewer bytes are not packed. */
const LEAST_PACKED_BYTES = 256;

/**
 * Makes the patch that turns `base` into `next`, bit for bit. Without a base it makes the file out of nothing: a file
 * coded by itself. Every tensor is written in the way that takes the fewest bytes, what describes it included. The same
 * files give the same patch. Of some 25,000 tensors that change, small ones are no longer told apart; what is in more
 * pieces than a head may name is carried along as it is.
 */
export function encodePatch(
  base: Uint8Array | undefined,
  next: Uint8Array,
  options: EncodeOptions = {},
): Uint8Array<ArrayBuffer> {
  const platform = options.platform ?? { createSha256 };
  const from = base ?? new Uint8Array(0);
  const scratch = createScratch(Math.min(UPDATES_PER_BLOCK, 2 * next.length));
  const hashOf = (bytes: Uint8Array): Uint8Array => {
    const hash = platform.createSha256();
    hash.update(bytes);
    return hash.digest();
  };
  const files = {
    base: base ? hashOf(base) : new Uint8Array(32),
    target: hashOf(next),
    baseBytes: from.length,
    targetBytes: next.length,
  };
  for (const leastBytes of LEAST_TENSOR_BYTES) {
    const { head, payload } = encodePieces(layOut(from, next, options, scratch, leastBytes));
    if (head.segments.length > MAX_SEGMENTS) continue;
    const written = writeHead(head);
    if (written.length <= PREFIX_BYTES + MAX_HEAD_BYTES) return concatBytes([written, ...payload.pieces]);
  }
  const plain = encodePieces([{ kind: 'plain', offset: 0, sizeBytes: next.length }]);
  return concatBytes([writeHead(plain.head), ...plain.payload.pieces]);

  function encodePieces(pieces: readonly Piece[]): { readonly head: PatchHead; readonly payload: Payload } {
    const { tables, sides, factors, packed } = makeTables(pieces, next);
    const all = [...tables.values(), ...sides.values(), ...factors.values(), ...(packed ? [packed] : [])];
    const payload = createPayload(platform, scratch);
    let at = 0;
    const segments = pieces.map((piece): Segment => {
      const start = at;
      at += piece.sizeBytes;
      if (piece.kind === 'copy') {
        return { mode: 'same', baseOffset: piece.baseOffset, sizeBytes: piece.sizeBytes };
      }
      if (piece.kind === 'plain') {
        const bytes = next.subarray(start, at);
        const isPacked = packed !== undefined && isWorthPacking(bytes);
        if (isPacked) payload.packed(bytes, packed);
        else payload.plain(bytes);
        return isPacked
          ? { mode: 'packed', sizeBytes: bytes.length, table: all.indexOf(packed) }
          : { mode: 'raw', sizeBytes: bytes.length };
      }
      const { pick, baseOffset } = piece;
      const own: TensorTables = {
        numbers: tables.get(pick.kind) as FrequencyTable,
        side: sides.get(pick.candidate.mode),
        factors: factors.get(pick.candidate.parts.lowRank?.width ?? 0),
      };
      payload.tensor(pick, own);
      return toSegment(pick, baseOffset, (table) => (table ? all.indexOf(table) : 0), own);
    });
    return { head: { ...files, tables: all, segments, blocks: payload.blocks }, payload };
  }
}

/** A tensor that the base does not have as it is. */
interface ChangedTensor {
  /** Which piece it is. */
  readonly piece: number;
  readonly sizeBytes: number;
  readonly baseOffset: number;
  readonly options: readonly Option[];
}

/** Finds out what the file is made of, and how each tensor is written. */
function layOut(
  base: Uint8Array,
  next: Uint8Array,
  { spans, steps, onProgress }: EncodeOptions,
  scratch: Scratch,
  leastBytes: number,
): readonly Piece[] {
  const isLarge = ({ sizeBytes }: Span): boolean => sizeBytes >= leastBytes;
  const aligned = alignGrown(
    spans ? inOrder(spans.base, base.length) : segmentsOf(base),
    spans ? inOrder(spans.next, next.length) : segmentsOf(next),
  );
  const [baseSpans, nextSpans] = [aligned.base.filter(isLarge), aligned.next.filter(isLarge)];
  const findBase = createBaseFinder(base, baseSpans, next);
  const findCopies = createCopyFinder(base, gapsOf(baseSpans, base.length), next);
  const changed: ChangedTensor[] = [];
  const pieces: Piece[] = [];
  // Where the base goes on, if it goes on as the file does.
  let expected = 0;
  const putGlue = (range: Range): void => {
    for (const { offset, sizeBytes, baseOffset } of findCopies(range, expected)) {
      pieces.push(
        baseOffset === undefined
          ? { kind: 'plain', offset, sizeBytes }
          : { kind: 'copy', baseOffset, sizeBytes },
      );
      expected = (baseOffset ?? expected) + sizeBytes;
    }
  };
  const putTensor = (span: Span): void => {
    const { numbers, offset, sizeBytes } = span;
    const origin = findBase(span);
    const words = wordsOf(next, numbers, offset, sizeBytes);
    const old = origin && wordsOf(base, numbers, origin.offset, sizeBytes);
    const baseOffset = origin?.offset ?? 0;
    if (origin) expected = baseOffset + sizeBytes;
    if (old && equalWords(old, words)) {
      pieces.push({ kind: 'copy', baseOffset, sizeBytes });
      return;
    }
    const candidates = [
      ...candidatesOf({ span, next: words, base: old, step: steps?.get(span.name) }, scratch),
    ];
    if (numbers === 'int4') {
      // Where little moves, a symbol for two numbers takes less.
      const { shape } = span;
      const bytes: Span = {
        ...span,
        numbers: 'int8',
        shape: [...shape.slice(0, -1), (shape.at(-1) ?? 0) / 2],
      };
      const read = (file: Uint8Array, at: number): Words => wordsOf(file, 'int8', at, sizeBytes);
      const before = origin && read(base, baseOffset);
      candidates.push(...candidatesOf({ span: bytes, next: read(next, offset), base: before }, scratch));
    }
    changed.push({ piece: pieces.length, sizeBytes, baseOffset, options: toOptions(candidates) });
    pieces.push({ kind: 'plain', offset, sizeBytes });
  };
  const gaps = gapsOf(nextSpans, next.length);
  let gap = 0;
  for (const [i, span] of [...nextSpans, undefined].entries()) {
    onProgress?.(i, nextSpans.length);
    for (; gap < gaps.length && (gaps[gap] as Range).offset < (span?.offset ?? next.length); gap += 1) {
      putGlue(gaps[gap] as Range);
    }
    if (span) putTensor(span);
  }
  choose(changed).forEach((pick, i) => {
    const { piece, sizeBytes, baseOffset } = changed[i] as ChangedTensor;
    if (pick) pieces[piece] = { kind: 'tensor', sizeBytes, pick, baseOffset };
  });
  return mergePieces(pieces);
}

interface Tables {
  readonly tables: ReadonlyMap<string, FrequencyTable>;
  /** Of scales, by mode. */
  readonly sides: ReadonlyMap<string, FrequencyTable>;
  /** Of factors, by the bytes of their numbers. */
  readonly factors: ReadonlyMap<number, FrequencyTable>;
  readonly packed: FrequencyTable | undefined;
}

function makeTables(pieces: readonly Piece[], next: Uint8Array): Tables {
  const picks = pieces.flatMap((piece) => (piece.kind === 'tensor' ? [piece.pick] : []));
  const sides = new Map<string, FrequencyTable>();
  for (const mode of new Set(picks.map(({ candidate }) => candidate.mode))) {
    const members = picks.flatMap(({ candidate: { mode: own, scales } }) =>
      own === mode && scales ? [scales] : [],
    );
    if (members.length === 0) continue;
    const parts = members.map((scales) => ({ counts: countsOf(sideSymbols(scales)), shift: 0 }));
    sides.set(mode, toTable(sumCounts(parts, 256), 256));
  }
  const products = picks.flatMap(({ candidate: { parts } }) => parts.lowRank ?? []);
  const factors = new Map(
    [...new Set(products.map(({ width }) => width))].map((width) => {
      const members = products.filter((product) => product.width === width);
      const parts = members.map((product) => ({ counts: planeCounts(product), shift: 0 }));
      return [width, toTable(sumCounts(parts, 256 * width), 256)];
    }),
  );
  const plain = pieces.filter((piece): piece is PlainPiece => piece.kind === 'plain');
  const runs = plain
    .map(({ offset, sizeBytes }) => next.subarray(offset, offset + sizeBytes))
    .filter(isWorthPacking);
  return { tables: tablesOf(picks), sides, factors, packed: packedTable(runs) };
}

/** Long runs whose bytes are uneven enough. */
function isWorthPacking(bytes: Uint8Array): boolean {
  return bytes.length >= LEAST_PACKED_BYTES && ownBits(countsOf(bytes), 256) < 8 * 0.9 * bytes.length;
}

function packedTable(runs: readonly Uint8Array[]): FrequencyTable | undefined {
  const parts = runs.map((bytes) => ({ counts: countsOf(bytes), shift: 0 }));
  const table = toTable(sumCounts(parts, 256), 256);
  const savedBytes = runs.reduce((sum, bytes, i) => {
    const { counts } = parts[i] as (typeof parts)[number];
    return sum + bytes.length - ownBits(counts, 256) / 8 - 16;
  }, 0);
  return savedBytes > tableBytes(table) ? table : undefined;
}

function toSegment(
  { candidate, context }: Picked,
  baseOffset: number,
  indexOf: (table: FrequencyTable | undefined) => number,
  tables: TensorTables,
): Segment {
  const { mode, predictor, rows, parts, scales } = candidate;
  const { numbers, columns, lowRank, step = 1 } = parts;
  const table = indexOf(tables.numbers);
  const chosen: PatchContext = scales
    ? { kind: 'scales', bias: scales.bias, sideTable: indexOf(tables.side) }
    : candidate.context === 'fraction'
      ? { kind: 'fraction' }
      : { kind: 'constant', context };
  const shape = { numbers, rows, columns };
  if (mode === 'self') return { mode, ...shape, context: chosen, table };
  if (mode === 'grid') return { mode, ...shape, exponent: 127 + Math.log2(step), context: chosen, table };
  const common = { ...shape, baseOffset, predictor, context: chosen };
  if (mode === 'update') return { mode, ...common, layers: [{ step, table }] };
  const factors = lowRank && {
    rank: lowRank.rank,
    width: lowRank.width,
    table: indexOf(tables.factors),
  };
  return { mode, ...common, ...(factors && { factors }), table };
}
