/** What a patch is made of, before it is coded: copies, plain bytes and tensors, in the order of the file. */
import type { Picked } from './choose.ts';

/** Bytes that the base has. */
export interface CopyPiece {
  readonly kind: 'copy';
  readonly baseOffset: number;
  readonly sizeBytes: number;
}
/** Bytes that are carried along. */
export interface PlainPiece {
  readonly kind: 'plain';
  readonly offset: number;
  readonly sizeBytes: number;
}
/** A tensor that is coded. */
export interface TensorPiece {
  readonly kind: 'tensor';
  readonly sizeBytes: number;
  readonly pick: Picked;
  readonly baseOffset: number;
}
export type Piece = CopyPiece | PlainPiece | TensorPiece;

/** What a block of plain bytes takes besides them, and what a segment takes. */
const BLOCK_BYTES = 36;
const SEGMENT_BYTES = 5;

/** Merges what belongs together, and copies that cost more than they save. */
export function mergePieces(next: readonly Piece[]): readonly Piece[] {
  return merge(dropSmallCopies(merge(next)));
}

function merge(pieces: readonly Piece[]): readonly Piece[] {
  const merged: Piece[] = [];
  for (const piece of pieces) {
    const last = merged.at(-1);
    if (piece.sizeBytes === 0) continue;
    const sizeBytes = (last?.sizeBytes ?? 0) + piece.sizeBytes;
    if (last?.kind === 'plain' && piece.kind === 'plain') {
      merged[merged.length - 1] = { ...last, sizeBytes };
    } else if (
      last?.kind === 'copy' &&
      piece.kind === 'copy' &&
      last.baseOffset + last.sizeBytes === piece.baseOffset
    ) {
      merged[merged.length - 1] = { ...last, sizeBytes };
    } else merged.push(piece);
  }
  return merged;
}

function dropSmallCopies(pieces: readonly Piece[]): readonly Piece[] {
  let offset = 0;
  return pieces.map((piece, i): Piece => {
    const at = offset;
    offset += piece.sizeBytes;
    if (piece.kind !== 'copy') return piece;
    const neighbours = [pieces[i - 1], pieces[i + 1]].filter((other) => other?.kind === 'plain').length;
    const worth = [0, SEGMENT_BYTES, BLOCK_BYTES + SEGMENT_BYTES][neighbours] as number;
    return piece.sizeBytes < worth ? { kind: 'plain', offset: at, sizeBytes: piece.sizeBytes } : piece;
  });
}
