import { hasSide } from './bounds.ts';
import type { NumberSegment } from './head.ts';

/** Numbers that are decoded at a stretch: some 3 ms where JavaScript is interpreted, as in Hermes. */
export const STRETCH = 8192;

/** A product of two thin matrices. */
export interface ThinProduct {
  /** Factor of each column of the first. */
  readonly scales: Float32Array;
  /** The first matrix, then the second, in C order. */
  readonly factors: Int32Array;
}

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
  /** What is added to the base. */
  readonly product: ThinProduct | undefined;
  /** Whether rows and columns are the segment's: without anything that tells them apart, each stretch is a row. */
  readonly isShaped: boolean;
}

/** What the blocks before those of the numbers say of a segment. */
export interface LayoutParts {
  /** The gains of its rows, if it has such. */
  readonly gains?: Float32Array | undefined;
  /** Those of rows and columns, if it has such. */
  readonly scales: Int8Array;
  readonly product?: ThinProduct | undefined;
}

/** Creates the layout of a segment. */
export function createLayout(segment: NumberSegment, { gains, scales, product }: LayoutParts): Layout {
  const { context, mode, numbers } = segment;
  const isShaped = hasSide(segment) || product !== undefined;
  const rowCount = isShaped ? segment.rows : 1;
  const columnCount = isShaped ? segment.columns : Math.min(STRETCH, segment.rows * segment.columns);
  const isScaled = context.kind === 'scales';
  return {
    rows: isScaled ? scales.subarray(0, rowCount) : new Int8Array(rowCount),
    columns: isScaled ? scales.subarray(rowCount) : new Int8Array(columnCount),
    bias: isScaled ? context.bias : 0,
    byExponent: isScaled && mode === 'delta' && numbers.includes('float'),
    gains,
    product,
    isShaped,
  };
}
