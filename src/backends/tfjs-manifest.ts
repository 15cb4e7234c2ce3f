/** What a `model.json` says: the format that the converter of TensorFlow.js and `model.save` write. */
import { fromUtf8 } from '../core/bytes.ts';

/** One weight, as `weightsManifest` describes it. */
export interface WeightSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly quantization?: { readonly dtype: string };
}

/** Weights that are stored one after the other, cut into files. */
export interface WeightGroup {
  readonly paths: readonly string[];
  readonly weights: readonly WeightSpec[];
  /** Bytes of all its files; at least, where strings are among the weights. */
  readonly sizeBytes: number;
  readonly hasStrings: boolean;
}

/** A `model.json` that was checked, as far as its weights go. */
export interface Manifest {
  readonly kind: 'graph' | 'layers';
  readonly groups: readonly WeightGroup[];
  /** Everything that the library takes besides weights. */
  readonly artifacts: Readonly<Record<string, unknown>>;
}

/** Bytes per element of what weights are stored as; a string has its length in 4 bytes before it. */
const SIZES: Readonly<Record<string, number>> = {
  float32: 4,
  int32: 4,
  bool: 1,
  string: 4,
  complex64: 8,
  float16: 2,
  uint16: 2,
  uint8: 1,
};

const DTYPES = ['float32', 'int32', 'bool', 'string', 'complex64'];
const QUANTIZED = ['float16', 'uint16', 'uint8'];

/** Parts that the library is given; those for training are left out. */
const PARTS = [
  'modelTopology',
  'format',
  'signature',
  'userDefinedMetadata',
  'modelInitializer',
  'initializerSignature',
];

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads a `model.json`.
 * @throws `RangeError` or `SyntaxError` if it is none.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const json = toFields(JSON.parse(decode(bytes)), 'model.json is no object');
  const topology = toFields(json['modelTopology'], 'model.json has no modelTopology');
  const nodes = topology['node'];
  const isGraph = json['format'] === 'graph-model' || (json['format'] === undefined && Array.isArray(nodes));
  if (isGraph) assertGraph(nodes, topology['versions']);
  const groups = toList(json['weightsManifest'], 'weightsManifest is no list').map((group) => toGroup(group));
  const paths = groups.flatMap((group) => group.paths);
  if (new Set(paths).size !== paths.length) throw new RangeError('weightsManifest names a file twice');
  const names = groups.flatMap(({ weights }) => weights.map(({ name }) => name));
  if (new Set(names).size !== names.length) throw new RangeError('weightsManifest names a weight twice');
  const artifacts = Object.fromEntries(
    PARTS.filter((part) => (json[part] ?? undefined) !== undefined).map((part) => [part, json[part]]),
  );
  return { kind: isGraph ? 'graph' : 'layers', groups, artifacts };
}

function decode(bytes: Uint8Array): string {
  try {
    return fromUtf8(bytes).replace(/^\uFEFF/, '');
  } catch {
    throw new RangeError('it is neither a ZIP archive nor a model.json');
  }
}

/** The library follows the names of nodes without looking whether they are there. */
function assertGraph(nodes: unknown, versions: unknown): void {
  toFields(versions, 'the graph has no versions');
  const names = new Set<unknown>();
  const list = toList(nodes, 'the graph has no list of nodes').map((node) =>
    toFields(node, 'a node of the graph is no object'),
  );
  for (const { name, op } of list) {
    if (typeof name !== 'string' || typeof op !== 'string') {
      throw new RangeError('a node of the graph has no name or no op');
    }
    if (names.has(name)) throw new RangeError(`the graph has two nodes "${name}"`);
    names.add(name);
  }
  for (const { name, input = [] } of list) {
    for (const source of toList(input, `the inputs of node "${String(name)}" are no list`)) {
      const node = typeof source === 'string' ? source.replace(/^\^/, '').replace(/:.*$/s, '') : undefined;
      if (!names.has(node)) {
        throw new RangeError(
          `node "${String(name)}" takes ${JSON.stringify(source)}, which is not in the graph`,
        );
      }
    }
  }
}

function toGroup(value: unknown): WeightGroup {
  const group = toFields(value, 'a group of weightsManifest is no object');
  const paths = toList(group['paths'], 'a group of weightsManifest has no paths').map((path) => toPath(path));
  const weights = toList(group['weights'], 'a group of weightsManifest has no weights').map((weight) =>
    toWeight(weight),
  );
  const sizeBytes = weights.reduce((sum, weight) => sum + sizeBytesOf(weight), 0);
  if (!Number.isSafeInteger(sizeBytes)) throw new RangeError('the weights are larger than any memory');
  return { paths, weights, sizeBytes, hasStrings: weights.some((weight) => storedAs(weight) === 'string') };
}

/** A path to a file in the folder of `model.json` or below it; nothing else is read in its name. */
function toPath(value: unknown): string {
  if (typeof value === 'string' && !/^$|^\/|[\\:?#%]|\0/.test(value)) {
    if (value.split('/').every((part) => part !== '' && part !== '..'))
      return value.replace(/(^|\/)(\.\/)+/g, '$1');
  }
  throw new RangeError(`${JSON.stringify(value)} is no path to a file beside model.json`);
}

function toWeight(value: unknown): WeightSpec {
  const weight = toFields(value, 'a weight is no object');
  const { name, dtype, quantization } = weight;
  if (typeof name !== 'string') throw new RangeError('a weight has no name');
  const shape = toList(weight['shape'], `weight "${name}" has no shape`);
  if (!shape.every((size): size is number => Number.isSafeInteger(size) && (size as number) >= 0)) {
    throw new RangeError(`weight "${name}" has the shape [${shape.join(', ')}]`);
  }
  if (typeof dtype !== 'string' || !DTYPES.includes(dtype)) {
    throw new RangeError(`weight "${name}" is of dtype ${JSON.stringify(dtype)}, which is not supported`);
  }
  if (quantization === undefined) return { ...weight, name, shape, dtype };
  const stored = toFields(quantization, `the quantization of weight "${name}" is no object`)['dtype'];
  if (typeof stored !== 'string' || !QUANTIZED.includes(stored)) {
    throw new RangeError(
      `weight "${name}" is quantized to ${JSON.stringify(stored)}, which is not supported`,
    );
  }
  return { ...weight, name, shape, dtype, quantization: { ...quantization, dtype: stored } };
}

function storedAs({ dtype, quantization }: WeightSpec): string {
  return quantization?.dtype ?? dtype;
}

function sizeBytesOf(weight: WeightSpec): number {
  return weight.shape.reduce((size, axis) => size * axis, 1) * (SIZES[storedAs(weight)] as number);
}

/**
 * Bytes that the weights of a group take with the strings among them.
 * @param bytes - its files, one after the other.
 */
export function measureStrings(weights: readonly WeightSpec[], bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  for (const weight of weights) {
    const end = at + sizeBytesOf(weight);
    if (storedAs(weight) !== 'string') at = end;
    else {
      for (let left = (end - at) / 4; left > 0 && at + 4 <= bytes.length; left -= 1)
        at += 4 + view.getUint32(at, true);
      // Strings that are not there count as empty ones.
      at = Math.max(at, end);
    }
  }
  return at;
}

function toFields(value: unknown, otherwise: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new RangeError(otherwise);
  return value as Fields;
}

function toList(value: unknown, otherwise: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new RangeError(otherwise);
  return value;
}
