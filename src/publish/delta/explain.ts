/** Says where the bytes of a patch go. */
import { blocksOf, bytesOf, factorsOf, hasSide, isNumbers } from '../../update/delta/bounds.ts';
import type { NumberKind, PatchBlock, Predictor, Segment } from '../../update/delta/head.ts';
import { parsePatch } from '../../update/delta/read-head.ts';
import { tableBytes } from './counts.ts';
import { segmentsOf } from './spans.ts';

/**
 * What bytes of a patch are for. `magnitudes`: how large differences are, or which multiple of a step · `noise`: their
 * lower bits and signs, which nothing predicts · `scales`: side information of rows and columns · `factors`: thin
 * matrices, whose product foretells an update · `bytes`: what is carried as it is · `framing`: lengths, hashes, states of
 * the coder.
 */
export type PatchPart = 'magnitudes' | 'noise' | 'scales' | 'factors' | 'bytes' | 'framing';

/** A segment of a patch. */
export interface ExplainedSegment {
  readonly mode: Segment['mode'];
  /** Tensors that lie in it, if the file was given; empty for glue. */
  readonly names: readonly string[];
  /** Where it begins in the file that comes out. */
  readonly offset: number;
  /** Bytes of that file. */
  readonly sizeBytes: number;
  /** Bytes of the patch. */
  readonly patchBytes: number;
  /** Part of the patch, in [0, 1]. */
  readonly share: number;
  readonly parts: Readonly<Record<PatchPart, number>>;
  /** The largest part. */
  readonly dominant: PatchPart;
  /** Absent for bytes. */
  readonly numbers?: NumberKind;
  readonly rows?: number;
  readonly columns?: number;
  readonly predictor?: Predictor;
  /** Of the factors of the predictor `low-rank`. */
  readonly rank?: number;
  readonly context?: 'constant' | 'scales' | 'fraction';
  /** Of the first layer of an update. */
  readonly step?: number;
  readonly bitsPerNumber?: number;
}

/** What {@link explainPatch} finds. */
export interface PatchExplanation {
  /** Whether the patch starts from a file. */
  readonly hasBase: boolean;
  readonly baseBytes: number;
  readonly targetBytes: number;
  readonly patchBytes: number;
  /** Patch by target, bytes. */
  readonly ratio: number;
  /** Bytes of the tables of probabilities, about. */
  readonly tableBytes: number;
  readonly segments: readonly ExplainedSegment[];
}

/** States and number of words at the beginning of a block of symbols, and hash and length in the head. */
const CODER_BYTES = 12;
const HASH_BYTES = 34;

/**
 * Tells where the bytes of a patch go. Nothing is decoded but its head.
 * @param next - the file that comes out, which has the names of the tensors.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH` if it is no patch.
 */
export function explainPatch(patch: Uint8Array, next?: Uint8Array): PatchExplanation {
  const { head, payloadOffset } = parsePatch(patch);
  const spans = next ? segmentsOf(next) : [];
  const view = new DataView(patch.buffer, patch.byteOffset);
  let [span, block, at, offset] = [0, 0, payloadOffset, 0];
  const segments = head.segments.map((segment): ExplainedSegment => {
    const sizeBytes = bytesOf(segment);
    const parts = { magnitudes: 0, noise: 0, scales: 0, factors: 0, bytes: 0, framing: 0 };
    for (let i = 0; i < blocksOf(segment); i += 1) {
      const { sizeBytes: blockBytes } = head.blocks[block] as PatchBlock;
      addBlock(parts, segment, i, blockBytes, (place) => view.getUint32(at + place, true));
      at += blockBytes;
      block += 1;
    }
    const names: string[] = [];
    for (; span < spans.length && (spans[span]?.offset ?? 0) < offset + sizeBytes; span += 1) {
      names.push(spans[span]?.name ?? '');
    }
    const patchBytes = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
    const [dominant] = Object.entries(parts).reduce(
      (best, part) => (part[1] > best[1] ? part : best),
      ['framing', 0],
    ) as [PatchPart, number];
    const explained = {
      mode: segment.mode,
      names,
      offset,
      sizeBytes,
      patchBytes,
      share: patchBytes / patch.length,
      parts,
      dominant,
    };
    offset += sizeBytes;
    if (!isNumbers(segment)) return explained;
    const { numbers, rows, columns } = segment;
    const factors = factorsOf(segment);
    return {
      ...explained,
      numbers,
      rows,
      columns,
      context: segment.context.kind,
      ...('predictor' in segment && { predictor: segment.predictor }),
      ...(factors && { rank: factors.rank }),
      ...(segment.mode === 'update' && { step: segment.layers[0]?.step ?? 0 }),
      bitsPerNumber: (8 * patchBytes) / (rows * columns),
    };
  });
  return {
    hasBase: head.base.some((byte) => byte !== 0),
    baseBytes: head.baseBytes,
    targetBytes: head.targetBytes,
    patchBytes: patch.length,
    ratio: patch.length / Math.max(1, head.targetBytes),
    tableBytes: head.tables.reduce((sum, table) => sum + tableBytes(table), 0),
    segments,
  };
}

function addBlock(
  parts: Record<PatchPart, number>,
  segment: Segment,
  index: number,
  sizeBytes: number,
  uint32At: (place: number) => number,
): void {
  parts.framing += HASH_BYTES;
  const factorBlocks = factorsOf(segment) ? 1 : 0;
  if (segment.mode === 'raw') parts.bytes += sizeBytes;
  else if (index < factorBlocks) parts.factors += sizeBytes;
  else if (isNumbers(segment) && hasSide(segment) && index === factorBlocks) parts.scales += sizeBytes;
  else {
    const symbolBytes = 2 * uint32At(8);
    parts.framing += CODER_BYTES;
    parts[segment.mode === 'packed' ? 'bytes' : 'magnitudes'] += symbolBytes;
    parts.noise += sizeBytes - CODER_BYTES - symbolBytes;
  }
}
