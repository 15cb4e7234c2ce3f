/** Makes a file out of a patch, one block at a time. */

import { equalBytes, fromHex, toHex } from '../../core/bytes.ts';
import { createPace, digestHex, type DigestPlatform, type Pace } from '../../core/digest.ts';
import type { Blob } from '../../core/store.ts';
import {
  contextsOf,
  hasGains,
  hasSide,
  MAX_CONTEXTS,
  MAX_SYMBOLS,
  NUMBER_BITS,
  patchError,
  PREFIX_BYTES,
  SCALE,
} from './bounds.ts';
import {
  BYTES_PER_BLOCK,
  NUMBERS_PER_BLOCK,
  UPDATES_PER_BLOCK,
  type FrequencyTable,
  type NumberSegment,
  type PatchHead,
  type Segment,
} from './head.ts';
import type { HotLoops } from './hot.ts';
import { createLayout, STRETCH, type Layout } from './layout.ts';
import { createStretches, type DecodeStretch } from './numbers.ts';
import type { Give } from './pieces.ts';
import {
  assertEnded,
  assertWithin,
  createCoding,
  decodeSymbols,
  openBlock,
  type Coding,
  type Cursor,
} from './rans.ts';
import { readHead, readHeadLength } from './read-head.ts';

/** Largest piece that is given, bytes: as many as a block of float32 numbers makes. */
const PIECE_BYTES: number = 4 * NUMBERS_PER_BLOCK;
/** Slots of codings that are kept: those of two that have all contexts, or of many that have one. */
const CODING_SLOTS: number = 2 * MAX_CONTEXTS * SCALE;

/** What {@link applyPatch} works with. */
export interface ApplyParts {
  readonly platform: DigestPlatform;
  readonly loops: HotLoops;
  readonly base: Blob;
  readonly patch: Blob;
  /** Size of the file that has to come out. */
  readonly sizeBytes: number;
}

type Mode<Name extends Segment['mode']> = Extract<Segment, { mode: Name }>;

/**
 * Gives the target of a patch, in order, in pieces of at most 256 KiB.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH`
 */
export async function applyPatch(parts: ApplyParts, give: Give<Uint8Array>): Promise<void> {
  const { platform, loops, base, patch } = parts;
  const { head, payloadOffset } = await openPatch(parts);
  const pace = createPace(
    () => platform.monotonicMs(),
    () =>
      new Promise((resolve) => {
        platform.setTimer(resolve, 0, true);
      }),
  );
  const nextBlock = createBlocks(platform, patch, head, payloadOffset);
  const codingOf = createCodings(head.tables);
  for (const segment of head.segments) {
    if (segment.mode === 'same') await giveSame(segment);
    else if (segment.mode === 'raw') await giveRaw(segment);
    else if (segment.mode === 'packed') await givePacked(segment);
    else if (segment.mode === 'update') await giveUpdated(segment);
    else await giveNumbers(segment);
  }

  async function giveSame({ baseOffset, sizeBytes }: Mode<'same'>): Promise<void> {
    for (const [at, length] of runs(sizeBytes, PIECE_BYTES))
      await give(await base.read(baseOffset + at, length));
  }

  async function giveRaw({ sizeBytes }: Mode<'raw'>): Promise<void> {
    for (const [, length] of runs(sizeBytes, BYTES_PER_BLOCK)) {
      const block = await nextBlock();
      if (block.length !== length)
        throw patchError(`A block of the patch has ${block.length} bytes, not ${length}`);
      for (const [at, count] of runs(length, PIECE_BYTES)) await give(block.subarray(at, at + count));
    }
  }

  async function givePacked({ sizeBytes, table }: Mode<'packed'>): Promise<void> {
    const coding = codingOf(table, 1);
    for (const [, length] of runs(sizeBytes, BYTES_PER_BLOCK)) {
      const cursor = openBlock(await nextBlock(), length);
      for (const [, count] of runs(length, PIECE_BYTES)) {
        const piece = new Uint8Array(count);
        await decodePlain(coding, cursor, piece, pace);
        await give(piece);
      }
      assertEnded(cursor);
    }
  }

  async function readLayout(segment: NumberSegment): Promise<Layout> {
    const side = hasSide(segment) ? await nextBlock() : new Uint8Array(0);
    const gainBytes = hasGains(segment) ? 4 * segment.rows : 0;
    if (side.length < gainBytes) throw patchError('A block of the patch has too few gains');
    const { context } = segment;
    const scales = new Uint8Array(context.kind === 'scales' ? segment.rows + segment.columns : 0);
    if (context.kind === 'scales') {
      const cursor = openBlock(side, scales.length, gainBytes);
      await decodePlain(codingOf(context.sideTable, 1), cursor, scales, pace);
      assertEnded(cursor);
      for (let i = 1; i < scales.length; i += 1)
        scales[i] = (scales[i] as number) + (scales[i - 1] as number);
    } else if (side.length > gainBytes) {
      throw patchError('A block of the patch goes on after its gains');
    }
    return createLayout(segment, side.subarray(0, gainBytes), new Int8Array(scales.buffer));
  }

  function codingFor({ context }: NumberSegment, table: number): Coding {
    const own = contextsOf(head.tables[table] as FrequencyTable);
    return codingOf(table, context.kind === 'constant' ? own : MAX_CONTEXTS);
  }

  async function giveNumbers(segment: Mode<'self'> | Mode<'delta'> | Mode<'grid'>): Promise<void> {
    const layout = await readLayout(segment);
    const bits = NUMBER_BITS[segment.numbers];
    const decode =
      segment.mode === 'grid'
        ? hotMultiples(loops, layout, segment.exponent)
        : segment.mode === 'delta' && segment.numbers === 'float32'
          ? hotDifferences(loops, layout)
          : createStretches(segment, layout);
    for (const [first, count] of runs(segment.rows * segment.columns, NUMBERS_PER_BLOCK)) {
      const coding = codingFor(segment, segment.table);
      const cursor = openBlock(await nextBlock(), count);
      const length = (count * bits) / 8;
      const bytes =
        segment.mode === 'delta'
          ? aligned(await base.read(segment.baseOffset + (first * bits) / 8, length))
          : new Uint8Array(length);
      for (const [at, some] of runs(count, STRETCH)) {
        const place = layout.isShaped ? first + at : 0;
        decode(coding, cursor, place, bytes.subarray((at * bits) / 8, ((at + some) * bits) / 8));
        assertWithin(cursor);
        await pace();
      }
      assertEnded(cursor);
      await give(bytes);
    }
  }

  async function giveUpdated(segment: Mode<'update'>): Promise<void> {
    const layout = await readLayout(segment);
    const { layers, baseOffset } = segment;
    for (const [first, count] of runs(segment.rows * segment.columns, UPDATES_PER_BLOCK)) {
      // One layer is decoded as it is given; several need all that a block covers.
      const window = layers.length === 1 ? NUMBERS_PER_BLOCK : UPDATES_PER_BLOCK;
      const cursors = layers.length === 1 ? [openBlock(await nextBlock(), count)] : undefined;
      for (const [start, size] of runs(count, window)) {
        const bytes = aligned(await base.read(baseOffset + 4 * (first + start), 4 * size));
        const values = new Float32Array(bytes.buffer, bytes.byteOffset, size);
        for (const [index, { step, table }] of layers.entries()) {
          const coding = codingFor(segment, table);
          const cursor = cursors?.[0] ?? openBlock(await nextBlock(), count);
          const products = multiplesOf(step);
          const gains = index === 0 ? layout.gains : undefined;
          for (const [at, some] of runs(size, STRETCH)) {
            const place = layout.isShaped ? first + start + at : 0;
            loops.updates(coding, cursor, layout, place, products, gains, values.subarray(at, at + some));
            assertWithin(cursor);
            await pace();
          }
          if (start + size === count) assertEnded(cursor);
        }
        for (const [at, length] of runs(bytes.length, PIECE_BYTES))
          await give(bytes.subarray(at, at + length));
      }
    }
  }
}

async function openPatch({
  base,
  patch,
  sizeBytes,
}: ApplyParts): Promise<{ head: PatchHead; payloadOffset: number }> {
  if (patch.sizeBytes < PREFIX_BYTES) throw patchError(`A patch has more than ${patch.sizeBytes} bytes`);
  const headBytes = readHeadLength(await patch.read(0, PREFIX_BYTES), patch.sizeBytes);
  const payloadOffset = PREFIX_BYTES + headBytes;
  const head = readHead(await patch.read(PREFIX_BYTES, headBytes), patch.sizeBytes - payloadOffset);
  if (head.targetBytes !== sizeBytes) {
    throw patchError(`The patch makes ${head.targetBytes} bytes, the file has ${sizeBytes}`);
  }
  const isBased = head.base.some((byte) => byte !== 0);
  if (isBased && (head.baseBytes !== base.sizeBytes || !equalBytes(head.base, fromHex(base.sha256)))) {
    throw patchError('The patch starts from another file than the one that is there');
  }
  return { head, payloadOffset };
}

/** @returns what reads the next block, and checks its hash. */
function createBlocks(
  platform: DigestPlatform,
  patch: Blob,
  { blocks }: PatchHead,
  payloadOffset: number,
): () => Promise<Uint8Array> {
  let index = 0;
  let offset = payloadOffset;
  return async () => {
    const { sizeBytes, sha256 } = blocks[index] as PatchHead['blocks'][number];
    const block = await patch.read(offset, sizeBytes);
    if ((await digestHex(platform, block)) !== toHex(sha256)) {
      throw patchError(`Block ${index} of the patch is not the one that its head names`);
    }
    index += 1;
    offset += sizeBytes;
    return block;
  };
}

function createCodings(tables: readonly FrequencyTable[]): (table: number, contexts: number) => Coding {
  const kept: { readonly key: string; readonly coding: Coding }[] = [];
  return (table, contexts) => {
    const key = `${table} ${contexts}`;
    const known = kept.find((entry) => entry.key === key);
    if (known !== undefined) return known.coding;
    const coding = createCoding(tables[table] as FrequencyTable, contexts);
    kept.unshift({ key, coding });
    let slots = 0;
    const fits = kept.filter((entry) => (slots += entry.coding.symbolOf.length) <= CODING_SLOTS);
    kept.splice(0, kept.length, ...fits);
    return coding;
  };
}

/** Decodes bytes, which have no contexts. */
async function decodePlain(coding: Coding, cursor: Cursor, out: Uint8Array, pace: Pace): Promise<void> {
  const contexts = new Uint8Array(Math.min(STRETCH, out.length));
  for (const [at, count] of runs(out.length, STRETCH)) {
    decodeSymbols(coding, cursor, contexts, out.subarray(at, at + count));
    assertWithin(cursor);
    await pace();
  }
}

function hotDifferences(loops: HotLoops, layout: Layout): DecodeStretch {
  return (coding, cursor, first, bytes) => {
    const values = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const base = layout.gains === undefined ? values : values.slice();
    if (layout.gains !== undefined) predict(layout, layout.gains, first, values);
    loops.differences(coding, cursor, layout, first, base, values);
  };
}

/** Multiples of a power of two are coded as differences from 0, and come out as ordered integers. */
function hotMultiples(loops: HotLoops, layout: Layout, exponent: number): DecodeStretch {
  const [step = 0] = new Float32Array(Uint32Array.of(exponent << 23).buffer);
  return (coding, cursor, first, bytes) => {
    const ordered = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const values = new Float32Array(ordered.buffer, ordered.byteOffset, ordered.length);
    loops.differences(coding, cursor, layout, first, ordered, ordered);
    for (let k = 0; k < values.length; k += 1) {
      const pattern = ordered[k] as number;
      values[k] = (pattern ^ ((pattern >> 31) & 0x7fffffff)) * step;
    }
  };
}

/** Multiplies numbers by the gains of their rows. Where no number comes out, which has many patterns, they stay. */
function predict({ columns }: Layout, gains: Float32Array, first: number, bits: Int32Array): void {
  const values = new Float32Array(bits.buffer, bits.byteOffset, bits.length);
  for (let k = 0; k < values.length; k += 1) {
    const product = (values[k] as number) * (gains[Math.floor((first + k) / columns.length)] as number);
    if (!Number.isNaN(product)) values[k] = product;
  }
}

/** What each symbol of an update adds. */
function multiplesOf(step: number): Float64Array {
  return Float64Array.from({ length: MAX_SYMBOLS }, (_, symbol) => (symbol - 128) * step);
}

/** Typed arrays of wide numbers begin at multiples of their size. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
}

/** @returns offset and length of each run of `size`; the last may be shorter. */
function* runs(total: number, size: number): Generator<readonly [number, number]> {
  for (let at = 0; at < total; at += size) yield [at, Math.min(size, total - at)];
}
