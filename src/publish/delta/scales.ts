/** How far numbers spread by row and by column: what picks the probabilities of each (docs/spec/idp.md §5). */
import { FEWEST_WEIGHTS } from './numbers.ts';

/** Scales of rows and columns, int8 each. */
export interface Scales {
  readonly rows: Int8Array;
  readonly columns: Int8Array;
  readonly bias: number;
}

/** What {@link fitScales} looks at. */
export interface FitParts {
  readonly rows: number;
  readonly columns: number;
  /** Steps of a scale for each doubling. */
  readonly perOctave: number;
  readonly bias: number;
}

/** Log2 of a mean of nothing but zeros: below every number. */
const SILENT = -60;

/**
 * Fits scales to the magnitudes of numbers: the mean of each row, and how much its columns differ from that. What is not
 * finite counts as nothing.
 * @returns the fits to choose from, the coarsest first: one scale for all, by row, by column, by both.
 */
export function fitScales(
  magnitudes: Float32Array,
  { rows, columns, perOctave, bias }: FitParts,
): readonly Scales[] {
  const ofRow = new Float64Array(rows);
  const ofColumn = new Float64Array(columns);
  let total = 0;
  for (let i = 0, k = 0; i < rows; i += 1) {
    let sum = 0;
    for (let j = 0; j < columns; j += 1, k += 1) {
      const magnitude = magnitudes[k] as number;
      if (magnitude < Infinity) sum += magnitude;
    }
    ofRow[i] = sum / columns;
    total += sum;
  }
  const mean = total / (rows * columns);
  const toScale = (log: number): number => Math.max(-127, Math.min(127, Math.round(perOctave * log)));
  const logOf = (value: number): number => (value > 0 ? Math.max(SILENT, Math.log2(value)) : SILENT);
  const level = logOf(mean);
  const flat: Scales = {
    rows: new Int8Array(rows).fill(toScale(level)),
    columns: new Int8Array(columns),
    bias,
  };
  if (rows === 1 || columns === 1 || rows * columns < FEWEST_WEIGHTS || total === 0) return [flat];
  for (let i = 0, k = 0; i < rows; i += 1) {
    const weight = (ofRow[i] as number) > 0 ? 1 / (ofRow[i] as number) : 0;
    if (weight === Infinity) continue;
    for (let j = 0; j < columns; j += 1, k += 1) {
      const magnitude = magnitudes[k] as number;
      if (magnitude < Infinity) ofColumn[j] = (ofColumn[j] as number) + magnitude * weight;
    }
  }
  const byRow = Int8Array.from(ofRow, (value) => toScale(logOf(value)));
  const byColumn = Int8Array.from(ofColumn, (value) => toScale(logOf(value / rows)));
  return [
    flat,
    { rows: byRow, columns: flat.columns, bias },
    { rows: flat.rows, columns: byColumn, bias },
    { rows: byRow, columns: byColumn, bias },
  ];
}

/** The symbols of a side block: the first scale, and of each other one the difference from the one before. */
export function sideSymbols({ rows, columns }: Scales): Uint8Array {
  const all = new Uint8Array(rows.length + columns.length);
  let before = 0;
  for (let i = 0; i < all.length; i += 1) {
    const scale = (i < rows.length ? rows[i] : columns[i - rows.length]) as number;
    all[i] = scale - before;
    before = scale;
  }
  return all;
}
