/** Which columns feed which inputs, and how cells become feeds. */
import { DTYPES, type DType } from '../../core/dtype.ts';
import { InputError } from '../../core/errors.ts';
import { named, type Signature, type TensorSpec } from '../../core/signature.ts';
import {
  readElements,
  Tensor,
  tensorFrom,
  writeElements,
  type NestedArray,
  type Scalar,
} from '../../core/tensor.ts';
import type { Feed, Feeds } from '../../engine/feeds.ts';
import { parseElement } from './numbers.ts';
import type { Cell, DataFile, JsonValue } from './rows.ts';

/** What `--map` says: columns that match the pattern feed the input. `*` stands for any text. */
export interface Mapping {
  readonly pattern: string;
  readonly input: string;
}

/** The columns of one file, bound to the inputs of one model. */
export interface Binding {
  /** Columns that are read. */
  readonly columns: readonly string[];
  /** Columns that feed nothing. */
  readonly ignored: readonly string[];
  /**
   * Makes the feeds of one row.
   * @throws {@link InputError} if a cell is missing or does not fit its input.
   */
  toFeeds(cells: Readonly<Record<string, Cell>>): BoundRow;
}

/** The feeds of one row. */
export interface BoundRow {
  readonly feeds: Feeds;
  /** An axis of length 1 was put before a sample, so that it comes off the outputs again. */
  readonly hasBatchAxis: boolean;
}

/**
 * Binds columns to inputs: those of `--map`, then those of the same name; the only input of a model takes what stands
 * together in the file. Several columns of one input are put one after the other.
 * @throws {@link InputError} `ERR_INLAY_FEED_UNKNOWN` or `ERR_INLAY_FEED_MISSING` for an input or a column that is not there.
 */
export function bindColumns({ inputs }: Signature, file: DataFile, mappings: readonly Mapping[]): Binding {
  const unknown = mappings.find(({ input }) => inputs.every(({ name }) => name !== input));
  if (unknown !== undefined) {
    throw new InputError(
      'ERR_INLAY_FEED_UNKNOWN',
      `The model has no input "${unknown.input}" as --map names it; its inputs are ${quoteAll(inputs.map(({ name }) => name))}.`,
      { details: { input: unknown.input } },
    );
  }
  const sources = inputs.map((spec) => ({ spec, columns: columnsOf(spec, inputs.length, file, mappings) }));
  const columns = [...new Set(sources.flatMap((source) => source.columns))];
  return {
    columns,
    ignored: (file.columns ?? []).filter((column) => !columns.includes(column)),
    toFeeds: (cells) => {
      const feeds: Record<string, Feed> = {};
      let hasBatchAxis = false;
      for (const source of sources) {
        const parts = source.columns.map((column) => cells[column] ?? missingCell(source.spec, column));
        const fitted = fit(
          source.spec,
          named(source.spec, () => toTensor(source.spec.dtype, parts)),
        );
        feeds[source.spec.name] = fitted.feed;
        hasBatchAxis ||= fitted.hasBatchAxis;
      }
      return { feeds, hasBatchAxis };
    },
  };
}

function columnsOf(
  { name }: TensorSpec,
  inputs: number,
  { name: file, columns, together }: DataFile,
  mappings: readonly Mapping[],
): readonly string[] {
  const own = mappings.filter(({ input }) => input === name);
  if (own.length > 0) return [...new Set(own.flatMap(({ pattern }) => matching(pattern, file, columns)))];
  if (columns === undefined || columns.includes(name)) return [name];
  if (inputs === 1 && together.length > 0) return together;
  throw new InputError(
    'ERR_INLAY_FEED_MISSING',
    `No column of ${file} feeds the input "${name}"; its columns are ${quoteAll(columns)}. Name one with --map COLUMN=${name}.`,
    { details: { input: name } },
  );
}

function matching(pattern: string, file: string, columns: readonly string[] | undefined): readonly string[] {
  if (columns === undefined) return [pattern];
  const parts = pattern.split('*').map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`));
  const matches = columns.filter((column) => new RegExp(`^${parts.join('.*')}$`, 's').test(column));
  if (matches.length > 0) return matches;
  throw new InputError(
    'ERR_INLAY_FEED_MISSING',
    `${file} has no column "${pattern}" as --map names it; its columns are ${quoteAll(columns)}.`,
    { details: { column: pattern } },
  );
}

function missingCell({ name }: TensorSpec, column: string): never {
  throw new InputError('ERR_INLAY_FEED_MISSING', `"${column}" is missing, which feeds the input "${name}".`, {
    details: { input: name },
  });
}

/** The elements of one input in the shape that the row gives them. */
function toTensor(dtype: DType, cells: readonly Cell[]): Tensor {
  const [only, second] = cells as [Cell, Cell | undefined];
  if (second === undefined) return cellToTensor(dtype, only);
  const elements = cells.flatMap((cell) => scalarOf(dtype, cell) ?? elementsOf(cellToTensor(dtype, cell)));
  return new Tensor(dtype, [elements.length], writeElements(dtype, elements));
}

/** The common case of tables, without a detour; `undefined` for what is no single value. */
function scalarOf(dtype: DType, cell: Cell): Scalar | undefined {
  if (cell.kind !== 'text' || isList(dtype, cell.text)) return undefined;
  return parseElement(dtype, cell.text);
}

function cellToTensor(dtype: DType, cell: Cell): Tensor {
  if (cell.kind === 'tensor') return convert(dtype, cell.tensor);
  const value =
    cell.kind === 'json' ? cell.value : isList(dtype, cell.text) ? parseList(cell.text) : cell.text;
  return tensorFrom(dtype, toElements(dtype, value));
}

/** A field may hold a whole list, as tables of embeddings do. */
function isList(dtype: DType, text: string): boolean {
  return DTYPES[dtype].kind !== 'string' && /^\s*\[/.test(text);
}

function parseList(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    // Refused by the dtype, with a better message.
    return text;
  }
}

function toElements(dtype: DType, value: JsonValue): NestedArray {
  if (Array.isArray(value)) return value.map((part: JsonValue) => toElements(dtype, part));
  if (typeof value === 'string') return parseElement(dtype, value);
  if (typeof value === 'number' || typeof value === 'boolean') return value;
  throw new InputError(
    'ERR_INLAY_FEED_VALUE',
    `${value === null ? 'null' : 'an object'} is no ${dtype}; give numbers, text, true or false, or arrays of them.`,
    { details: { dtype } },
  );
}

/** Converts what arrays hold to what the model takes, if each element has a value there. */
function convert(dtype: DType, tensor: Tensor): Tensor {
  const { shape } = tensor;
  if (tensor.dtype === dtype) return tensor;
  const from = DTYPES[tensor.dtype];
  const to = DTYPES[dtype];
  if ((from.kind === 'string') !== (to.kind === 'string')) {
    throw new InputError('ERR_INLAY_FEED_DTYPE', `the file holds ${tensor.dtype}, which is no ${dtype}.`, {
      details: { dtype },
    });
  }
  const elements = elementsOf(tensor);
  const numbers = to.kind === 'float' || from.kind === 'bool' ? elements.map(Number) : elements;
  return new Tensor(dtype, shape, writeElements(dtype, numbers));
}

function elementsOf({ dtype, data, size }: Tensor): readonly Scalar[] {
  return readElements(dtype, data, size);
}

/** Gives a sample the rank that the input has. Most models take a batch of samples along their first axis. */
function fit(spec: TensorSpec, tensor: Tensor): { readonly feed: Feed; readonly hasBatchAxis: boolean } {
  const { dtype, shape, data } = tensor;
  if (spec.shape === null) return { feed: new Tensor(dtype, [1, ...shape], data), hasBatchAxis: true };
  const [first, ...rest] = spec.shape;
  if (shape.length >= spec.shape.length) return { feed: tensor, hasBatchAxis: false };
  const isFree = typeof first !== 'number' || first === 1;
  if (isFree && shape.length === rest.length) {
    return { feed: new Tensor(dtype, [1, ...shape], data), hasBatchAxis: true };
  }
  if (isFree && rest.every((length) => typeof length === 'number')) {
    return { feed: named(spec, () => new Tensor(dtype, [1, ...rest], data)), hasBatchAxis: true };
  }
  return { feed: data, hasBatchAxis: false };
}

function quoteAll(names: readonly string[]): string {
  const shown = names.slice(0, 20).map((name) => `"${name}"`);
  return `${shown.join(', ') || 'none'}${names.length > 20 ? ' …' : ''}`;
}
