/** How often symbols occur in their contexts, what that costs, and the probabilities that come of it. */
import { SCALE, SCALE_BITS } from '../../update/delta/bounds.ts';
import type { FrequencyTable } from '../../update/delta/head.ts';

/** Counts of the cells `context * alphabet + symbol` that occur. */
export interface Counts {
  readonly cells: Uint32Array;
  readonly counts: Uint32Array;
}

/** Keeps the cells that are not 0. */
export function toCounts(dense: Uint32Array): Counts {
  let size = 0;
  for (const count of dense) if (count > 0) size += 1;
  const cells = new Uint32Array(size);
  const counts = new Uint32Array(size);
  for (let cell = 0, at = 0; cell < dense.length; cell += 1) {
    const count = dense[cell] as number;
    if (count === 0) continue;
    cells[at] = cell;
    counts[at] = count;
    at += 1;
  }
  return { cells, counts };
}

/** Bits that a cell of a table takes in the head, about. */
const CELL_BITS = 10;

/** Bits of counted symbols with probabilities of their own, and of these. */
export function ownBits({ cells, counts }: Counts, alphabet: number): number {
  const totals = new Float64Array(65);
  for (let i = 0; i < cells.length; i += 1) {
    const context = Math.floor((cells[i] as number) / alphabet);
    totals[context] = (totals[context] as number) + (counts[i] as number);
  }
  let bits = CELL_BITS * cells.length;
  for (let i = 0; i < cells.length; i += 1) {
    const count = counts[i] as number;
    bits += count * Math.log2((totals[Math.floor((cells[i] as number) / alphabet)] as number) / count);
  }
  return bits;
}

/** Bits of each cell by a table; what does not occur there costs as if it were added. */
export function bitsByCell({ frequencies }: FrequencyTable): Float32Array {
  return Float32Array.from(frequencies, (frequency) =>
    frequency === 0 ? SCALE_BITS + 2 : SCALE_BITS - Math.log2(frequency),
  );
}

/** Bits of counted symbols by {@link bitsByCell}; `shift` moves them to another context. */
export function sharedBits({ cells, counts }: Counts, byCell: Float32Array, shift = 0): number {
  let bits = 0;
  for (let i = 0; i < cells.length; i += 1) {
    bits += (counts[i] as number) * (byCell[(cells[i] as number) + shift] ?? SCALE_BITS + 2);
  }
  return bits;
}

/** Sums counts, each moved by its shift. */
export function sumCounts(
  parts: Iterable<{ readonly counts: Counts; readonly shift: number }>,
  length: number,
): Float64Array {
  const sum = new Float64Array(length);
  for (const { counts, shift } of parts) {
    counts.cells.forEach((cell, i) => {
      sum[cell + shift] = (sum[cell + shift] as number) + (counts.counts[i] as number);
    });
  }
  return sum;
}

/** Makes a table; contexts at the end that do not occur are left out. */
export function toTable(sum: Float64Array, symbols: number): FrequencyTable {
  let end = sum.length;
  while (end > symbols && sum[end - 1] === 0) end -= 1;
  const length = Math.ceil(end / symbols) * symbols;
  const frequencies = new Uint16Array(length);
  for (let at = 0; at < length; at += symbols) {
    frequencies.set(toFrequencies(sum.subarray(at, at + symbols)), at);
  }
  return { symbols, frequencies };
}

/** Rounds counts to frequencies that add up to 4096; what occurs keeps at least 1. */
function toFrequencies(counts: Float64Array): Uint16Array {
  const frequencies = new Uint16Array(counts.length);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return frequencies;
  let sum = 0;
  counts.forEach((count, i) => {
    if (count === 0) return;
    const frequency = Math.max(1, Math.round((count / total) * SCALE));
    frequencies[i] = frequency;
    sum += frequency;
  });
  // The error goes where it costs least, one step after the other.
  while (sum !== SCALE) {
    const step = sum > SCALE ? -1 : 1;
    let best = -1;
    let least = Infinity;
    frequencies.forEach((frequency, i) => {
      if (frequency === 0 || frequency + step === 0) return;
      const cost = (counts[i] as number) * Math.log2(frequency / (frequency + step));
      if (cost < least) [best, least] = [i, cost];
    });
    frequencies[best] = (frequencies[best] as number) + step;
    sum += step;
  }
  return frequencies;
}

/** Bytes that a table takes in the head, about. */
export function tableBytes({ frequencies }: FrequencyTable): number {
  let bytes = 4;
  let isRun = false;
  for (const frequency of frequencies) {
    if (frequency > 0) bytes += frequency < 128 ? 1 : 2;
    else if (!isRun) bytes += 2;
    isRun = frequency === 0;
  }
  return bytes;
}
