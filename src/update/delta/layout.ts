import { hasGains, hasSide, patchError } from './bounds.ts';
import type { NumberSegment } from './head.ts';

/** Numbers that are decoded at a stretch: some 3 ms where JavaScript is interpreted, as in Hermes. */
export const STRETCH = 8192;

/** What the contexts of a segment's numbers come from, and their gains. */
export interface Layout {
  /** Scale of each row, half octaves. */
  readonly rows: Int8Array;
  /** Scale of each column, half octaves. */
  readonly columns: Int8Array;
  /** Added to the scales. */
  readonly bias: number;
  /** Whether exponents of the base are subtracted. */
  readonly byExponent: boolean;
  /** Factor of each row. */
  readonly gains: Float32Array | undefined;
  /** Whether rows and columns are the segment's: without scales and gains, each stretch is a row. */
  readonly isShaped: boolean;
}

/**
 * Creates the layout of a segment.
 * @param gainBytes - the gains of its rows, if it has such.
 * @param scales - those of rows and columns, if it has such.
 * @throws {@link UpdateError} `ERR_INLAY_PATCH` for gains that are not finite.
 */
export function createLayout(segment: NumberSegment, gainBytes: Uint8Array, scales: Int8Array): Layout {
  const { context, mode, numbers } = segment;
  const isShaped = hasSide(segment);
  const rowCount = isShaped ? segment.rows : 1;
  const columnCount = isShaped ? segment.columns : Math.min(STRETCH, segment.rows * segment.columns);
  const isScaled = context.kind === 'scales';
  const gains = hasGains(segment) ? new Float32Array(gainBytes.slice().buffer) : undefined;
  if (gains !== undefined && !gains.every(Number.isFinite))
    throw patchError('A gain of the patch is not finite');
  return {
    rows: isScaled ? scales.subarray(0, rowCount) : new Int8Array(rowCount),
    columns: isScaled ? scales.subarray(rowCount) : new Int8Array(columnCount),
    bias: isScaled ? context.bias : context.kind === 'constant' ? context.context : 0,
    byExponent: isScaled && mode === 'delta' && numbers.includes('float'),
    gains,
    isShaped,
  };
}
