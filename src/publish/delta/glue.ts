/** What lies between tensors: runs that the base has somewhere are copied, the rest is carried along. */

/** A run of the file that comes out. */
export interface Run {
  readonly offset: number;
  readonly sizeBytes: number;
  /** Where the base has the same bytes. Absent: nowhere. */
  readonly baseOffset?: number | undefined;
}

/** A range of bytes. */
export interface Range {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Finds copies of a range. */
export type FindCopies = (range: Range, expectedOffset: number) => readonly Run[];

/** Bytes that are looked up at once; twice as many in a row are surely found. */
const WINDOW = 32;
/** Most windows of the base that are remembered. */
const MAX_WINDOWS = 2 ** 20;
/** Fewest bytes that are copied from where they are expected. */
const LEAST = 8;
const FACTOR = 0x0100_0193;

/** Remembers the ranges of a base that are glue. */
export function createCopyFinder(base: Uint8Array, ranges: readonly Range[], next: Uint8Array): FindCopies {
  const total = ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const stride = Math.max(WINDOW, Math.ceil(total / MAX_WINDOWS));
  const windows = new Map<number, number>();
  for (const { offset, sizeBytes } of ranges) {
    for (let at = offset; at + WINDOW <= offset + sizeBytes; at += stride) {
      const hash = hashAt(base, at);
      if (!windows.has(hash)) windows.set(hash, at);
    }
  }
  let leaving = 1;
  for (let i = 1; i < WINDOW; i += 1) leaving = Math.imul(leaving, FACTOR);
  const common = (at: number, baseAt: number, end: number): number => {
    let size = 0;
    while (at + size < end && baseAt + size < base.length && next[at + size] === base[baseAt + size])
      size += 1;
    return size;
  };
  return ({ offset, sizeBytes }, expectedOffset) => {
    const end = offset + sizeBytes;
    const runs: Run[] = [];
    let plain = offset;
    const copy = (at: number, baseOffset: number, size: number): void => {
      if (at > plain) runs.push({ offset: plain, sizeBytes: at - plain });
      runs.push({ offset: at, sizeBytes: size, baseOffset });
      plain = at + size;
    };
    const first = expectedOffset < 0 ? 0 : common(offset, expectedOffset, end);
    if (first >= Math.min(LEAST, sizeBytes) && first > 0) copy(offset, expectedOffset, first);
    let hash = 0;
    // No place, nor the one before the first.
    let hashed = -2;
    for (let at = plain; at + WINDOW <= end; at += 1) {
      hash =
        hashed === at - 1
          ? (Math.imul(hash - Math.imul(next[at - 1] as number, leaving), FACTOR) +
              (next[at + WINDOW - 1] as number)) |
            0
          : hashAt(next, at);
      hashed = at;
      const found = windows.get(hash);
      if (found === undefined) continue;
      const size = common(at, found, end);
      if (size < WINDOW) continue;
      let before = 0;
      while (at - before > plain && found > before && next[at - before - 1] === base[found - before - 1])
        before += 1;
      copy(at - before, found - before, size + before);
      at = plain - 1;
    }
    if (plain < end) runs.push({ offset: plain, sizeBytes: end - plain });
    return runs;
  };
}

/** The ranges of a file between others, which are in order. */
export function gapsOf(ranges: readonly Range[], sizeBytes: number): readonly Range[] {
  const gaps: Range[] = [];
  let end = 0;
  for (const range of [...ranges, { offset: sizeBytes, sizeBytes: 0 }]) {
    if (range.offset > end) gaps.push({ offset: end, sizeBytes: range.offset - end });
    end = range.offset + range.sizeBytes;
  }
  return gaps;
}

/** Polynomial hash of a window (Karp and Rabin 1987), modulo 2^32. */
function hashAt(bytes: Uint8Array, at: number): number {
  let hash = 0;
  for (let i = at; i < at + WINDOW; i += 1) hash = (Math.imul(hash, FACTOR) + (bytes[i] as number)) | 0;
  return hash;
}
