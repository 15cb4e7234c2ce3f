/** Codes the blocks of a patch, one after the other (docs/spec/idp.md §3). */
import { concatBytes } from '../../core/bytes.ts';
import type { Platform } from '../../core/platform.ts';
import { contextsOf } from '../../update/delta/bounds.ts';
import { encodeBlock } from '../../update/delta/encode-block.ts';
import {
  BYTES_PER_BLOCK,
  NUMBERS_PER_BLOCK,
  UPDATES_PER_BLOCK,
  type FrequencyTable,
  type PatchBlock,
} from '../../update/delta/head.ts';
import { createCoding, type Coding } from '../../update/delta/rans.ts';
import { createBitWriter } from './bits.ts';
import { fillContexts } from './candidates.ts';
import type { Picked } from './choose.ts';
import { planesOf } from './factors.ts';
import { sideSymbols } from './scales.ts';
import { createSource, type Scratch } from './source.ts';

/** Blocks in the making. */
export interface Payload {
  readonly blocks: readonly PatchBlock[];
  readonly pieces: readonly Uint8Array[];
  plain(bytes: Uint8Array): void;
  packed(bytes: Uint8Array, table: FrequencyTable): void;
  tensor(picked: Picked, tables: TensorTables): void;
}

/** Probabilities of a tensor. */
export interface TensorTables {
  readonly numbers: FrequencyTable;
  /** Of the scales, where there are some. */
  readonly side: FrequencyTable | undefined;
  /** Of the factors, where there are some. */
  readonly factors: FrequencyTable | undefined;
}

/** Opens a payload. */
export function createPayload(platform: Pick<Platform, 'createSha256'>, scratch: Scratch): Payload {
  const blocks: PatchBlock[] = [];
  const pieces: Uint8Array[] = [];
  const bits = createBitWriter();
  const codings = new Map<FrequencyTable, Coding>();
  const contexts = new Uint8Array(scratch.symbols.length);
  const add = (bytes: Uint8Array): void => {
    const hash = platform.createSha256();
    hash.update(bytes);
    blocks.push({ sizeBytes: bytes.length, sha256: hash.digest() });
    pieces.push(bytes);
  };
  const code = (
    table: FrequencyTable,
    ofEach: Uint8Array,
    symbols: Uint8Array,
    raw?: Uint8Array,
  ): Uint8Array => {
    const coding = codings.get(table) ?? createCoding(table, contextsOf(table));
    codings.set(table, coding);
    return encodeBlock(coding, ofEach, symbols, raw);
  };
  return {
    blocks,
    pieces,
    plain: (bytes) => cut(bytes, add),
    packed: (bytes, table) => cut(bytes, (block) => add(code(table, new Uint8Array(block.length), block))),
    tensor: ({ candidate, context }, tables) => {
      const { mode, parts, scales } = candidate;
      const { gains, lowRank, columns, next } = parts;
      if (lowRank && tables.factors) {
        const planes = planesOf(lowRank);
        const levels = planes.map((plane, level) => plane.slice().fill(level));
        const coded = code(tables.factors, concatBytes(levels), concatBytes(planes));
        add(concatBytes([new Uint8Array(lowRank.scales.slice().buffer), coded]));
      }
      if (gains || (scales && tables.side)) {
        const side: Uint8Array[] = gains ? [new Uint8Array(gains.slice().buffer)] : [];
        if (scales && tables.side) {
          const symbols = sideSymbols(scales);
          side.push(code(tables.side, new Uint8Array(symbols.length), symbols));
        }
        add(concatBytes(side));
      }
      const source = createSource(parts, scratch);
      const size = mode === 'update' ? UPDATES_PER_BLOCK : NUMBERS_PER_BLOCK;
      if (candidate.context === 'constant') contexts.fill(context);
      for (let from = 0; from < next.length; from += size) {
        const to = Math.min(next.length, from + size);
        source.read(from, to);
        source.write(bits, to - from);
        if (scales) fillContexts(contexts, scales, columns, source.lowered, from, to);
        const ofEach = candidate.context === 'fraction' ? source.fractions : contexts;
        add(code(tables.numbers, ofEach, source.symbols.subarray(0, to - from), bits.finish()));
      }
    },
  };
}

function cut(bytes: Uint8Array, give: (block: Uint8Array) => void): void {
  for (let at = 0; at < bytes.length; at += BYTES_PER_BLOCK) give(bytes.subarray(at, at + BYTES_PER_BLOCK));
}
