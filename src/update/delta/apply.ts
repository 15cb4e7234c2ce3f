/** Makes a file out of a patch, one block at a time. */

import { equalBytes, fromHex, toHex } from '../../core/bytes.ts';
import { createPace, digestHex, type DigestPlatform, type Pace } from '../../core/digest.ts';
import type { Blob } from '../../core/store.ts';
import {
  factorsOf,
  hasGains,
  hasSide,
  MAX_SYMBOLS,
  NUMBER_BITS,
  patchError,
  PREFIX_BYTES,
  runs,
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
import { halves } from './halves.ts';
import type { HotLoops } from './hot.ts';
import { createLayout, STRETCH, type Layout, type ThinProduct } from './layout.ts';
import { createStretches, type DecodeStretch } from './numbers.ts';
import type { Give } from './pieces.ts';
import { predict } from './predict.ts';
import {
  assertEnded,
  assertWithin,
  createCoding,
  decodeSymbols,
  openBlock,
  type Coding,
  type Cursor,
} from './rans.ts';
import { readHead, readHeadLength, type ParsedPatch } from './read-head.ts';

/** Largest piece that is given, bytes: as many as a block of float32 numbers makes. */
const PIECE_BYTES: number = 4 * NUMBERS_PER_BLOCK;

/** Reads that are shorter are answered from longer ones, as each costs as much as many bytes of it. */
const SHORT_BYTES: number = 2 ** 14;

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
export async function applyPatch(parts: ApplyParts, giveOn: Give<Uint8Array>): Promise<void> {
  const { platform, loops } = parts;
  const readBase = readAhead(parts.base);
  const readPatch = readAhead(parts.patch);
  const pace = createPace(
    () => platform.monotonicMs(),
    () =>
      new Promise((resolve) => {
        platform.setTimer(resolve, 0, true);
      }),
  );
  // Files in memory are read and written without others ever having the thread.
  const give: typeof giveOn = async (piece) => {
    await giveOn(piece);
    await pace();
  };
  const { head, payloadOffset } = await openPatch(parts, readPatch, pace);
  const nextBlock = createBlocks(platform, readPatch, head, payloadOffset);
  const tableAt = (index: number): FrequencyTable => head.tables[index] as FrequencyTable;
  /** Of the table with all contexts that was used last, as the next tensor often uses it, too. */
  let kept: { readonly table: number; readonly coding: Coding } | undefined;
  for (const segment of head.segments) {
    if (segment.mode === 'same') await giveSame(segment);
    else if (segment.mode === 'raw') await giveRaw(segment);
    else if (segment.mode === 'packed') await givePacked(segment);
    else if (segment.mode === 'update') await giveUpdated(segment);
    else await giveNumbers(segment);
  }

  async function giveSame({ baseOffset, sizeBytes }: Mode<'same'>): Promise<void> {
    for (const [at, length] of runs(sizeBytes, PIECE_BYTES))
      await give(await readBase(baseOffset + at, length));
  }

  async function giveRaw({ sizeBytes }: Mode<'raw'>): Promise<void> {
    for (const [, length] of runs(sizeBytes, BYTES_PER_BLOCK)) {
      const block = await nextBlock();
      if (block.length !== length)
        throw patchError(`A block of the patch has ${block.length} bytes, not ${length}`);
      await give(block);
    }
  }

  async function givePacked({ sizeBytes, table }: Mode<'packed'>): Promise<void> {
    const coding = codingIn(tableAt(table));
    for (const [, length] of runs(sizeBytes, BYTES_PER_BLOCK)) {
      const cursor = openBlock(await nextBlock(), length);
      const piece = new Uint8Array(length);
      await decodePlain(coding, 0, cursor, piece, pace);
      assertEnded(cursor);
      await give(piece);
    }
  }

  async function readProduct(segment: NumberSegment): Promise<ThinProduct | undefined> {
    const shape = factorsOf(segment);
    if (shape === undefined) return undefined;
    const { rank, width, table } = shape;
    const block = await nextBlock();
    const scales = await readFloats(block, rank, pace);
    const factors = new Int32Array(rank * (segment.rows + segment.columns));
    const cursor = openBlock(block, width * factors.length, 4 * rank);
    const coding = createCoding(tableAt(table), width);
    for (let byte = 0; byte < width; byte += 1) await decodePlain(coding, byte, cursor, factors, pace);
    assertEnded(cursor);
    const unused = 32 - 8 * width;
    for (let i = 0; i < factors.length; i += 1) factors[i] = ((factors[i] as number) << unused) >> unused;
    return { scales, factors };
  }

  async function readLayout(segment: NumberSegment): Promise<Layout> {
    const product = await readProduct(segment);
    const side = hasSide(segment) ? await nextBlock() : new Uint8Array(0);
    const gains = hasGains(segment) ? await readFloats(side, segment.rows, pace) : undefined;
    const gainBytes = gains?.byteLength ?? 0;
    const { context } = segment;
    const scales = new Uint8Array(context.kind === 'scales' ? segment.rows + segment.columns : 0);
    if (context.kind === 'scales') {
      const cursor = openBlock(side, scales.length, gainBytes);
      await decodePlain(codingIn(tableAt(context.sideTable)), 0, cursor, scales, pace);
      assertEnded(cursor);
      for (const [at, count] of runs(scales.length, STRETCH)) {
        for (let i = Math.max(1, at); i < at + count; i += 1)
          scales[i] = (scales[i] as number) + (scales[i - 1] as number);
        await pace();
      }
    } else if (side.length > gainBytes) {
      throw patchError('A block of the patch goes on after its gains');
    }
    return createLayout(segment, { gains, scales: new Int8Array(scales.buffer), product });
  }

  function codingFor({ context }: NumberSegment, index: number): Coding {
    const table = tableAt(index);
    if (context.kind === 'constant') return codingIn(table, context.context);
    if (kept?.table !== index) kept = { table: index, coding: createCoding(table, undefined, loops.room) };
    return kept.coding;
  }

  async function giveNumbers(segment: Mode<'self'> | Mode<'delta'> | Mode<'grid'>): Promise<void> {
    const layout = await readLayout(segment);
    const bits = NUMBER_BITS[segment.numbers];
    const isPredicted = bits > 8 && (layout.gains ?? layout.product) !== undefined;
    const half = halves[segment.numbers];
    const decode =
      segment.mode === 'grid'
        ? hotMultiples(loops, layout, segment.exponent)
        : segment.mode === 'delta' && segment.numbers === 'float32'
          ? hotDifferences(loops, layout)
          : createStretches(segment, layout);
    for (const [first, count] of runs(segment.rows * segment.columns, NUMBERS_PER_BLOCK)) {
      const coding = codingFor(segment, segment.table);
      const cursor = openBlock(await nextBlock(), count, 0, loops.room?.block);
      const length = (count * bits) / 8;
      const bytes = new Uint8Array(length);
      if (segment.mode === 'delta')
        bytes.set(await readBase(segment.baseOffset + (first * bits) / 8, length));
      for (const [at, some] of runs(count, STRETCH)) {
        const place = layout.isShaped ? first + at : 0;
        const piece = bytes.subarray((at * bits) / 8, ((at + some) * bits) / 8);
        const old = isPredicted ? piece.slice() : piece;
        if (isPredicted) await predict(layout, place, piece, half, pace);
        decode(coding, cursor, place, piece, old);
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
    const half = halves[segment.numbers];
    const width = half ? 2 : 4;
    for (const [first, count] of runs(segment.rows * segment.columns, UPDATES_PER_BLOCK)) {
      // One layer is decoded as it is given; several need all that a block covers.
      const window = layers.length === 1 ? NUMBERS_PER_BLOCK : UPDATES_PER_BLOCK;
      const cursors =
        layers.length === 1 ? [openBlock(await nextBlock(), count, 0, loops.room?.block)] : undefined;
      for (const [start, size] of runs(count, window)) {
        const values = new Float32Array(size);
        // Those of 16 bits wait at the end, are widened from the front on, and narrowed to the front.
        const bytes = new Uint8Array(values.buffer, (4 - width) * size);
        bytes.set(await readBase(baseOffset + width * (first + start), width * size));
        for (const [index, { step, table }] of layers.entries()) {
          const coding = codingFor(segment, table);
          const cursor = cursors?.[0] ?? openBlock(await nextBlock(), count, 0, loops.room?.block);
          const products = multiplesOf(step);
          const gains = index === 0 ? layout.gains : undefined;
          for (const [at, some] of runs(size, STRETCH)) {
            const place = layout.isShaped ? first + start + at : 0;
            const own = values.subarray(at, at + some);
            if (half && index === 0)
              own.set(half.widen(new Uint16Array(values.buffer, 2 * (size + at), some)));
            loops.updates(coding, cursor, layout, place, products, gains, own);
            if (half && index === layers.length - 1)
              new Uint16Array(values.buffer, 2 * at).set(half.narrow(own));
            assertWithin(cursor);
            await pace();
          }
          if (start + size === count) assertEnded(cursor);
        }
        for (const [at, length] of runs(width * size, PIECE_BYTES))
          await give(new Uint8Array(values.buffer, at, length));
      }
    }
  }
}

async function openPatch(
  { base, patch, sizeBytes }: ApplyParts,
  read: Blob['read'],
  pace: Pace,
): Promise<ParsedPatch> {
  const headBytes = readHeadLength(await read(0, PREFIX_BYTES), patch.sizeBytes);
  const payloadOffset = PREFIX_BYTES + headBytes;
  const steps = readHead(await read(PREFIX_BYTES, headBytes), patch.sizeBytes - payloadOffset);
  let step = steps.next();
  while (step.done !== true) {
    await pace();
    step = steps.next();
  }
  const head = step.value;
  if (head.targetBytes !== sizeBytes) {
    throw patchError(`The patch makes ${head.targetBytes} bytes, the file has ${sizeBytes}`);
  }
  const isBased = head.base.some((byte) => byte !== 0);
  if (isBased && (head.baseBytes !== base.sizeBytes || !equalBytes(head.base, fromHex(base.sha256)))) {
    throw patchError('The patch starts from another file than the one that is there');
  }
  return { head, payloadOffset };
}

function readAhead(blob: Blob): Blob['read'] {
  let start = 0;
  let held = new Uint8Array(0);
  return async (offset, length) => {
    if (offset < start || offset + length > start + held.length) {
      if (length >= SHORT_BYTES) return blob.read(offset, length);
      held = await blob.read(offset, Math.min(SHORT_BYTES, blob.sizeBytes - offset));
      start = offset;
    }
    return held.slice(offset - start, offset - start + length);
  };
}

/** @returns what reads the next block, and checks its hash. */
function createBlocks(
  platform: DigestPlatform,
  read: Blob['read'],
  { blocks }: PatchHead,
  payloadOffset: number,
): () => Promise<Uint8Array> {
  let index = 0;
  let offset = payloadOffset;
  return async () => {
    const { sizeBytes, sha256 } = blocks[index] as PatchHead['blocks'][number];
    const block = await read(offset, sizeBytes);
    if ((await digestHex(platform, block)) !== toHex(sha256)) {
      throw patchError(`Block ${index} of the patch is not the one that its head names`);
    }
    index += 1;
    offset += sizeBytes;
    return block;
  };
}

/** @returns what is looked up in one context of a table. */
function codingIn({ symbols, frequencies }: FrequencyTable, context = 0): Coding {
  return createCoding({ symbols, frequencies: frequencies.subarray(context * symbols) }, 1);
}

/** @returns finite numbers at the start of a block. */
async function readFloats(block: Uint8Array, count: number, pace: Pace): Promise<Float32Array> {
  const bytes = block.slice(0, 4 * count);
  if (bytes.length < 4 * count) throw patchError('A block of the patch has too few gains or scales');
  const values = new Float32Array(bytes.buffer);
  for (const [at, some] of runs(count, STRETCH)) {
    if (!values.subarray(at, at + some).every(Number.isFinite))
      throw patchError('A gain or a scale of the patch is not finite');
    await pace();
  }
  return values;
}

/** Decodes bytes, all in one context. What there is in `out` is shifted by a byte to make room for them. */
async function decodePlain(
  coding: Coding,
  context: number,
  cursor: Cursor,
  out: Uint8Array | Int32Array,
  pace: Pace,
): Promise<void> {
  const contexts = new Uint8Array(Math.min(STRETCH, out.length)).fill(context);
  const symbols = new Uint8Array(contexts.length);
  for (const [at, count] of runs(out.length, STRETCH)) {
    const found = symbols.subarray(0, count);
    decodeSymbols(coding, cursor, contexts, found);
    for (let k = 0; k < count; k += 1) out[at + k] = ((out[at + k] as number) << 8) | (found[k] as number);
    assertWithin(cursor);
    await pace();
  }
}

function hotDifferences(loops: HotLoops, layout: Layout): DecodeStretch {
  return (coding, cursor, first, bytes, old) => {
    const values = bitsOf(bytes);
    loops.differences(coding, cursor, layout, first, old === bytes ? values : bitsOf(old), values);
  };
}

const bitsOf = ({ buffer, byteOffset, length }: Uint8Array): Int32Array =>
  new Int32Array(buffer, byteOffset, length / 4);

/** Multiples of a power of two are coded as differences from 0, and come out as ordered integers. */
function hotMultiples(loops: HotLoops, layout: Layout, exponent: number): DecodeStretch {
  const [step = 0] = new Float32Array(Uint32Array.of(exponent << 23).buffer);
  return (coding, cursor, first, bytes) => {
    const ordered = bitsOf(bytes);
    const values = new Float32Array(ordered.buffer, ordered.byteOffset, ordered.length);
    loops.differences(coding, cursor, layout, first, ordered, ordered);
    for (let k = 0; k < values.length; k += 1) {
      const pattern = ordered[k] as number;
      values[k] = (pattern ^ ((pattern >> 31) & 0x7fffffff)) * step;
    }
  };
}

/** What each symbol of an update adds. */
function multiplesOf(step: number): Float64Array {
  return Float64Array.from({ length: MAX_SYMBOLS }, (_, symbol) => (symbol - 128) * step);
}
