/** Weights of a TensorFlow.js model that is one ZIP archive: `model.json` tells how they lie in its weight files. */
import { fromUtf8 } from '../../core/bytes.ts';
import { NUMBER_BITS } from '../../update/delta/bounds.ts';
import type { NumberKind } from '../../update/delta/head.ts';
import type { Span } from './spans.ts';
import { isZip, storedFiles, type StoredFile } from './spans-zip.ts';

/** What numbers are stored as, with their bytes; `kind` is absent where they stay bytes. */
const dtypes: Readonly<Record<string, { readonly bytes: number; readonly kind?: NumberKind }>> = {
  float32: { bytes: 4, kind: 'float32' },
  float16: { bytes: 2, kind: 'float16' },
  uint8: { bytes: 1, kind: 'int8' },
  bool: { bytes: 1, kind: 'int8' },
  int32: { bytes: 4 },
  uint16: { bytes: 2 },
  complex64: { bytes: 8 },
};

type Fields = Readonly<Record<string, unknown>>;

/** Weights of a group, one after the other, over its files, one after the other. */
interface Weight {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly sizeBytes: number;
}

/**
 * Finds weights in files that are stored, not deflated. Of one that is cut by the end of a file, each part is a tensor of
 * the rows that it has whole, along all axes but the last.
 * @returns `undefined` if the file is no archive.
 */
export function tfjsSpans(file: Uint8Array): readonly Span[] | undefined {
  if (!isZip(file)) return undefined;
  const files = storedFiles(file);
  const model = findModel([...files.keys()]);
  if (model === undefined) return [];
  const folder = model.slice(0, model.lastIndexOf('/') + 1);
  return groupsOf(file, files.get(model)).flatMap(({ paths, weights }) => {
    const shards = toList(paths).map((path) =>
      typeof path === 'string' ? files.get(folder + path.replace(/^(\.\/)+/, '')) : undefined,
    );
    return shards.every((shard) => shard !== undefined) ? spansOf(toWeights(weights), shards) : [];
  });
}

/** The `model.json` that is highest up, or the only JSON file. */
function findModel(names: readonly string[]): string | undefined {
  const depth = (name: string): number => name.split('/').length;
  const [first] = names
    .filter((name) => /(^|\/)model\.json$/.test(name))
    .sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1));
  const [only, ...others] = names.filter((name) => name.endsWith('.json'));
  return first ?? (others.length === 0 ? only : undefined);
}

function groupsOf(file: Uint8Array, model: StoredFile | undefined): readonly Fields[] {
  if (model === undefined) return [];
  try {
    const text = fromUtf8(file.subarray(model.offset, model.offset + model.sizeBytes));
    return toList(toFields(JSON.parse(text.replace(/^\uFEFF/, '')))['weightsManifest']).map(toFields);
  } catch {
    return [];
  }
}

/** Weights up to the first one whose size nobody can tell. */
function toWeights(value: unknown): readonly Weight[] {
  const weights: Weight[] = [];
  for (const { name, shape, dtype, quantization } of toList(value).map(toFields)) {
    const stored = String(toFields(quantization)['dtype'] ?? dtype);
    const bytes = Object.hasOwn(dtypes, stored) ? dtypes[stored]?.bytes : undefined;
    if (typeof name !== 'string' || bytes === undefined || !isShape(shape)) break;
    const sizeBytes = shape.reduce((size, axis) => size * axis, bytes);
    if (!Number.isSafeInteger(sizeBytes)) break;
    weights.push({ name, dtype: stored, shape, sizeBytes });
  }
  return weights;
}

function spansOf(weights: readonly Weight[], shards: readonly StoredFile[]): readonly Span[] {
  const spans: Span[] = [];
  // Bytes of the group before the shard, and before the weight.
  let [shardAt, weightAt, i] = [0, 0, 0];
  for (const weight of weights) {
    const end = weightAt + weight.sizeBytes;
    for (let shard = shards[i]; shard; shard = shards[i]) {
      const [from, to] = [Math.max(weightAt, shardAt), Math.min(end, shardAt + shard.sizeBytes)];
      const span = partOf(weight, from - weightAt, to - weightAt, shard.offset + from - shardAt);
      if (span) spans.push(span);
      if (end < shardAt + shard.sizeBytes) break;
      shardAt += shard.sizeBytes;
      i += 1;
    }
    weightAt = end;
  }
  return spans;
}

/** A weight, or the rows that are whole between two of its bytes, the first of which is at `offset` of the archive. */
function partOf(weight: Weight, from: number, to: number, offset: number): Span | undefined {
  const { name, dtype, shape, sizeBytes } = weight;
  const numbers = dtypes[dtype]?.kind;
  if (numbers === undefined || to <= from) return undefined;
  const whole = { numbers, isUnsigned: dtype === 'uint8' };
  if (from === 0 && to === sizeBytes) return { name, ...whole, shape, offset, sizeBytes };
  const columns = shape.length > 1 ? (shape.at(-1) ?? 1) : 1;
  const rowBytes = (columns * NUMBER_BITS[numbers]) / 8;
  const [first, end] = [Math.ceil(from / rowBytes), Math.floor(to / rowBytes)];
  if (end <= first) return undefined;
  return {
    name: `${name} (rows ${first} to ${end - 1})`,
    ...whole,
    shape: shape.length > 1 ? [end - first, columns] : [end - first],
    offset: offset + first * rowBytes - from,
    sizeBytes: (end - first) * rowBytes,
  };
}

function toFields(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function toList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function isShape(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((axis) => Number.isSafeInteger(axis) && axis >= 0);
}
