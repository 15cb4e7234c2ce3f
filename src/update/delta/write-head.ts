import { concatBytes } from '../../core/bytes.ts';
import { factorsOf, MAGIC, PREFIX_BYTES } from './bounds.ts';
import {
  MODES,
  NUMBER_KINDS,
  PREDICTORS,
  type FrequencyTable,
  type PatchContext,
  type PatchHead,
  type Segment,
} from './head.ts';

/**
 * Writes magic, length and head: all of a patch but its blocks.
 * @param head - valid; what is not makes a patch that no decoder takes.
 */
export function writeHead(head: PatchHead): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  const list = <Item>(items: readonly Item[], write: (item: Item) => void): void => {
    writeVarint(bytes, items.length);
    items.forEach(write);
  };
  bytes.push(...head.base, ...head.target);
  writeVarint(bytes, head.baseBytes);
  writeVarint(bytes, head.targetBytes);
  list(head.tables, (table) => writeTable(bytes, table));
  list(head.segments, (segment) => writeSegment(bytes, segment));
  list(head.blocks, ({ sizeBytes, sha256 }) => {
    writeVarint(bytes, sizeBytes);
    bytes.push(...sha256);
  });
  const prefix = new Uint8Array(PREFIX_BYTES);
  prefix.set(MAGIC);
  new DataView(prefix.buffer).setUint32(MAGIC.length, bytes.length, true);
  return concatBytes([prefix, Uint8Array.from(bytes)]);
}

function writeVarint(bytes: number[], value: number): void {
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  bytes.push(rest);
}

function writeTable(bytes: number[], { symbols, frequencies }: FrequencyTable): void {
  writeVarint(bytes, symbols);
  writeVarint(bytes, frequencies.length / symbols);
  for (let start = 0; start < frequencies.length; start += symbols) {
    const end = start + symbols;
    for (let at = start; at < end; at += 1) {
      const frequency = frequencies[at] as number;
      writeVarint(bytes, frequency);
      if (frequency !== 0) continue;
      const first = at;
      while (at + 1 < end && frequencies[at + 1] === 0) at += 1;
      writeVarint(bytes, at - first);
    }
  }
}

function writeSegment(bytes: number[], segment: Segment): void {
  const varints = (...values: readonly number[]): void =>
    values.forEach((value) => writeVarint(bytes, value));
  bytes.push(MODES.indexOf(segment.mode));
  if (segment.mode === 'same') {
    varints(segment.baseOffset, segment.sizeBytes);
  } else if (segment.mode === 'raw') {
    varints(segment.sizeBytes);
  } else if (segment.mode === 'packed') {
    varints(segment.sizeBytes, segment.table);
  } else {
    bytes.push(NUMBER_KINDS.indexOf(segment.numbers));
    varints(segment.rows, segment.columns);
    if (segment.mode === 'grid') bytes.push(segment.exponent);
    else if (segment.mode !== 'self') {
      varints(segment.baseOffset);
      bytes.push(PREDICTORS.indexOf(segment.predictor));
      const factors = factorsOf(segment);
      if (factors !== undefined) varints(factors.rank, factors.width, factors.table);
    }
    writeContext(bytes, segment.context);
    if (segment.mode !== 'update') {
      varints(segment.table);
    } else {
      varints(segment.layers.length);
      for (const { step, table } of segment.layers) {
        const eight = new Uint8Array(8);
        new DataView(eight.buffer).setFloat64(0, step, true);
        bytes.push(...eight);
        varints(table);
      }
    }
  }
}

function writeContext(bytes: number[], context: PatchContext): void {
  if (context.kind === 'constant') {
    bytes.push(0, context.context);
  } else if (context.kind === 'fraction') {
    bytes.push(2);
  } else {
    bytes.push(1);
    writeVarint(bytes, context.bias >= 0 ? 2 * context.bias : -2 * context.bias - 1);
    writeVarint(bytes, context.sideTable);
  }
}
