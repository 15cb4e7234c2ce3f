/** Samples for commands that try models out, read from the files that `inlay run` takes. */

import { InvalidArgumentError, Option, type Command } from 'commander';
import type { TensorMap } from '../core/backend.ts';
import { InputError, isInlayError } from '../core/errors.ts';
import type { Dimension, Signature } from '../core/signature.ts';
import { createFeedBinder, type Feeds } from '../engine/feeds.ts';
import { joinFeeds } from './data/batch-rows.ts';
import { bindColumns, type Mapping } from './data/columns.ts';
import { openDataFile } from './data/open-file.ts';
import { parseInput, parseMapping } from './run.ts';

/** Flags of commands that read samples. */
export interface SampleFlags {
  readonly inputs?: string;
  readonly map: readonly Mapping[];
  readonly samples: number;
}

/** Which samples are read, and how. */
export interface SampleOptions {
  /** Columns that feed an input of another name. */
  readonly mappings?: readonly Mapping[];
  /** Most samples that are read. Default: all. */
  readonly limit?: number;
  /**
   * Rows that are joined into one sample along the first axis, where it is free in every input; what is left at the end
   * is a smaller one. Default 1.
   */
  readonly batchRows?: number;
}

/** Samples that are held in memory, unless the command says otherwise. */
const DEFAULT_SAMPLES = 128;

/** Adds `--inputs`, `--map` and `--samples`. */
export function withSampleFlags(command: Command, isRequired: boolean): Command {
  const inputs = new Option(
    '--inputs <file>',
    'samples: .npy, .npz, .jsonl or .csv, as `inlay run` reads them',
  );
  return command
    .addOption(inputs.argParser(parseInput).makeOptionMandatory(isRequired))
    .addOption(
      new Option('--map <column=input>', 'columns that feed an input, * for any text; may be repeated')
        .argParser(parseMapping)
        .default([], 'columns feed inputs of the same name'),
    )
    .option('--samples <n>', 'most samples that are read', parseSampleCount, DEFAULT_SAMPLES);
}

/**
 * Reads samples of a data file as feeds of a model. The result may be iterated several times: each opens the file anew.
 * @throws {@link InputError} while it is iterated: what the file or a row lacks, with its place; `ERR_INLAY_FEED_MISSING`
 * if there is no sample at all.
 */
export function openSamples(
  path: string,
  signature: Signature,
  { mappings = [], limit = Number.POSITIVE_INFINITY, batchRows = 1 }: SampleOptions = {},
): AsyncIterable<TensorMap> {
  const rows = (): AsyncIterable<TensorMap> => readRows(path, signature, mappings, limit);
  const isJoined = batchRows > 1 && signature.inputs.every(({ shape }) => isFree(shape));
  return {
    [Symbol.asyncIterator]: () => (isJoined ? join(rows(), batchRows) : rows())[Symbol.asyncIterator](),
  };
}

/** Reads samples into memory. @throws {@link InputError} as {@link openSamples} does. */
export async function readSamples(
  path: string,
  signature: Signature,
  options: SampleOptions = {},
): Promise<readonly TensorMap[]> {
  const samples: TensorMap[] = [];
  for await (const sample of openSamples(path, signature, options)) samples.push(sample);
  return samples;
}

async function* readRows(
  path: string,
  signature: Signature,
  mappings: readonly Mapping[],
  limit: number,
): AsyncGenerator<TensorMap, void, undefined> {
  const data = await openDataFile(path);
  try {
    const binding = bindColumns(signature, data, mappings);
    const complete = createFeedBinder(signature);
    let count = 0;
    for await (const { place, cells, error } of data.rows(binding.columns, 0)) {
      if (error !== undefined) throw error;
      const { feeds } = atPlace(`${place} of ${data.name}`, () => binding.toFeeds(cells));
      yield atPlace(`${place} of ${data.name}`, () => complete(feeds));
      count += 1;
      if (count >= limit) return;
    }
    if (count > 0) return;
    throw new InputError('ERR_INLAY_FEED_MISSING', `${data.name} has no samples; give at least one.`);
  } finally {
    await data.close();
  }
}

async function* join(
  rows: AsyncIterable<TensorMap>,
  batchRows: number,
): AsyncGenerator<TensorMap, void, undefined> {
  let block: TensorMap[] = [];
  for await (const row of rows) {
    block.push(row);
    if (block.length < batchRows) continue;
    yield* joined(block);
    block = [];
  }
  if (block.length > 0) yield* joined(block);
}

/** One batch, or the samples themselves where their shapes differ. */
function joined(block: readonly TensorMap[]): readonly TensorMap[] {
  const feeds: Feeds | undefined = joinFeeds(block);
  // Feeds that were tensors are joined to tensors.
  return feeds === undefined ? block : [feeds as TensorMap];
}

function isFree(shape: readonly Dimension[] | null): boolean {
  return shape !== null && shape.length > 0 && typeof shape[0] !== 'number';
}

function atPlace<Value>(place: string, make: () => Value): Value {
  try {
    return make();
  } catch (error) {
    if (!isInlayError(error) || error.name !== 'InputError') throw error;
    throw new InputError(error.code, `${place[0]?.toUpperCase()}${place.slice(1)}: ${error.message}`, {
      cause: error,
      details: error.details,
    });
  }
}

/** Parses a number of samples. */
export function parseSampleCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= 1_000_000) return count;
  throw new InvalidArgumentError('It is a whole number from 1 to 1000000.');
}
