/** Runs a model over the rows of a data file, in order, such that an interrupted run goes on where it stopped. */
import { rm } from 'node:fs/promises';
import { basename } from 'node:path';
import type { TensorMap } from '../../core/backend.ts';
import { toUtf8 } from '../../core/bytes.ts';
import { BackendError, InputError, isInlayError, type AnyInlayError } from '../../core/errors.ts';
import type { FileAccess, Platform } from '../../core/platform.ts';
import { Tensor } from '../../core/tensor.ts';
import type { Model } from '../../engine/model.ts';
import { assertJoinable, joinFeeds, splitOutputs } from './batch-rows.ts';
import { bindColumns, type Binding, type BoundRow, type Mapping } from './columns.ts';
import { onDisk } from '../../optimize-node/on-disk.ts';
import { openDataFile } from './open-file.ts';
import { openProgressFolder, type ProgressFolder, type RunIdentity } from './progress-folder.ts';
import { OUTPUT_FORMATS, type OutputFormat } from './row-writers.ts';
import type { DataFile, DataRow } from './rows.ts';

/** Options of {@link runRows}. */
export interface RunRowsOptions {
  readonly platform: Platform & { readonly files: FileAccess };
  /** Files that the model is made of. */
  readonly modelFiles: readonly string[];
  /** Opens the model; closed by the run. */
  readonly openModel: () => Promise<Model>;
  readonly input: string;
  readonly output: string;
  readonly format: OutputFormat;
  readonly mappings: readonly Mapping[];
  /** Runs under way at once. */
  readonly concurrency: number;
  /** Rows of one run. */
  readonly batchRows: number;
  /** What else decides on the results: it has to be the same when a run goes on. */
  readonly settings: RunIdentity;
  readonly onError: 'stop' | 'skip';
  readonly restart: boolean;
  /** Milliseconds between two checkpoints. */
  readonly checkpointMs: number;
  /** Ends the run early, in a state from which it can go on. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RunProgress) => void;
}

/** How far a run has come. */
export interface RunProgress {
  readonly rows: number;
  readonly skipped: number;
  /** How much of `total`, in rows or bytes, was read. */
  readonly position: number;
  readonly total: number;
}

/** What became of a run. */
export interface RunRowsSummary {
  readonly rows: number;
  readonly skipped: number;
  /** Rows that an earlier run had done. */
  readonly resumedFrom: number;
  readonly isComplete: boolean;
  /** Columns of the input that feed nothing. */
  readonly ignored: readonly string[];
  /** List of the rows that were skipped; absent if none was. */
  readonly skippedList?: string;
}

const skippedName = 'skipped.jsonl';

/**
 * Runs all rows and puts the output in its place, at once and whole.
 *
 * Rows so far are kept in a folder beside the output, with a journal; see {@link openProgressFolder}. Memory is bounded
 * by `concurrency` runs. With `stop`, the first row that fails ends the run, which goes on there when it is repeated.
 * @throws the error of the first bad row, with its place; {@link StoreError} if the output cannot be written or an
 * earlier run was another one.
 */
export async function runRows(options: RunRowsOptions): Promise<RunRowsSummary> {
  const { platform, input, output, format, restart } = options;
  const stamp = await platform.files.stamp(input);
  const data = await openDataFile(input);
  try {
    const model = await options.openModel();
    try {
      const { signature } = model;
      OUTPUT_FORMATS[format].assertWritable(signature);
      if (options.batchRows > 1) assertJoinable(signature);
      const binding = bindColumns(signature, data, options.mappings);
      const folder = await openProgressFolder(`${output}.progress`, await identify(options), restart);
      const run = { options, model, data, binding, folder, stamp };
      let isWorthKeeping = true;
      try {
        const end = await runRest(run);
        isWorthKeeping = !end.isComplete && end.rows > 0;
        if (end.error !== undefined) throw end.error;
        const { rows, skipped, resumedFrom, isComplete } = end;
        const summary = { rows, skipped, resumedFrom, isComplete, ignored: binding.ignored };
        if (!isComplete) return summary;
        isWorthKeeping = true;
        const skippedList = await finish(run, end);
        isWorthKeeping = false;
        return { ...summary, ...(skippedList !== undefined && { skippedList }) };
      } finally {
        await folder.close();
        if (!isWorthKeeping) await folder.remove();
      }
    } finally {
      await model.close();
    }
  } finally {
    await data.close();
  }
}

interface Run {
  readonly options: RunRowsOptions;
  readonly model: Model;
  readonly data: DataFile;
  readonly binding: Binding;
  readonly folder: ProgressFolder;
  /** State of the input before it was read. */
  readonly stamp: string | undefined;
}

/** Where a run ended, and why if it did so too early. */
interface RunEnd {
  readonly rows: number;
  readonly skipped: number;
  readonly resumedFrom: number;
  readonly isComplete: boolean;
  readonly writer: unknown;
  readonly error?: unknown;
}

async function runRest({ options, model, data, binding, folder, stamp }: Run): Promise<RunEnd> {
  const { platform, signal, input, format, checkpointMs, concurrency, onError, onProgress } = options;
  const { checkpoint } = folder;
  if (checkpoint?.isComplete) return { ...checkpoint, resumedFrom: checkpoint.rows, isComplete: true };
  const writer = await OUTPUT_FORMATS[format].open(folder, model.signature);
  const skippedList = await folder.file(skippedName);
  const resumedFrom = checkpoint?.rows ?? 0;
  let rows = resumedFrom;
  let skipped = checkpoint?.skipped ?? 0;
  // The first rows are kept at once: that the output can be written is worth knowing early.
  let checkedMs = Number.NEGATIVE_INFINITY;

  const take = async (outcomes: readonly Outcome[]): Promise<void> => {
    // No part of a block is kept, for a run that goes on begins with a whole one.
    const fatal = outcomes.find(
      ({ error }) => error !== undefined && (onError === 'stop' || !isOfRow(error)),
    );
    if (fatal !== undefined) throw atPlace(fatal.error, data.name, fatal.place);
    for (const { index, place, outputs, error } of outcomes) {
      if (error !== undefined) {
        skipped += 1;
        const { code, message } = error;
        await skippedList.append(toUtf8(`${JSON.stringify({ row: index, place, code, reason: message })}\n`));
      }
      await writer.append(index, outputs).catch((reason: unknown) => {
        throw atPlace(reason, data.name, place);
      });
      rows = index + 1;
    }
    onProgress({ rows, skipped, position: data.extent.position(), total: data.extent.total });
    const now = platform.monotonicMs();
    if (now - checkedMs < checkpointMs) return;
    await folder.commit({ rows, skipped, writer: writer.state() });
    checkedMs = now;
  };

  const window: Promise<readonly Outcome[]>[] = [];
  const takeFirst = async (): Promise<void> => take((await window.shift()) as readonly Outcome[]);
  const takeAll = async (): Promise<void> => {
    for await (const block of inBlocks(data.rows(binding.columns, resumedFrom), options.batchRows)) {
      if (signal.aborted) break;
      if (window.length >= concurrency) await takeFirst();
      const running = runBlock(model, binding, block);
      // What goes wrong is seen when its turn comes.
      running.catch(() => {});
      window.push(running);
    }
    while (window.length > 0) await takeFirst();
    if (signal.aborted || (await platform.files.stamp(input)) === stamp) return;
    throw new InputError(
      'ERR_INLAY_FEED_VALUE',
      `${data.name} changed while it was read; repeat with --restart.`,
    );
  };

  const end = await takeAll().then(
    () => ({ isComplete: !signal.aborted }),
    (error: unknown) => ({ isComplete: false, error }),
  );
  await Promise.allSettled(window);
  const { isComplete } = end;
  const committed = folder.commit({
    rows,
    skipped,
    writer: writer.state(),
    ...(isComplete && { isComplete }),
  });
  // Why the run ends is worth more than why its last rows could not be kept.
  await ('error' in end ? committed.catch(() => {}) : committed);
  return { ...end, rows, skipped, resumedFrom, writer: writer.state() };
}

/** Puts the output in its place. @returns path of the list of skipped rows, if there are any. */
async function finish(
  { options, model, folder }: Run,
  { skipped, writer }: RunEnd,
): Promise<string | undefined> {
  const { output, format, onError } = options;
  const withIndex = onError === 'skip' || skipped > 0;
  const name = await OUTPUT_FORMATS[format].finish(folder, model.signature, writer, withIndex);
  const list = `${output}.skipped`;
  if (skipped > 0) await folder.moveOut(skippedName, list);
  else await onDisk(list, () => rm(list, { force: true }));
  await folder.moveOut(name, output);
  return skipped > 0 ? list : undefined;
}

async function identify(options: RunRowsOptions): Promise<RunIdentity> {
  const { platform, modelFiles, input, mappings, batchRows, settings } = options;
  const models: string[] = [];
  for (const file of modelFiles) models.push(await platform.files.sha256(file));
  return {
    journal: '1',
    input: `${basename(input)} ${await platform.files.sha256(input)}`,
    model: models.join(' '),
    '--map': mappings.map(({ pattern, input: name }) => `${pattern}=${name}`).join(' '),
    '--batch-rows': String(batchRows),
    ...settings,
  };
}

/** What became of one row. */
interface Outcome {
  readonly index: number;
  readonly place: string;
  readonly outputs?: TensorMap;
  readonly error?: AnyInlayError;
}

/** Runs the rows of a block together, or one by one where that cannot be or fails. */
async function runBlock(
  model: Model,
  binding: Binding,
  block: readonly DataRow[],
): Promise<readonly Outcome[]> {
  const bound = block.map((row) => bind(binding, row));
  const samples = bound.flatMap(({ row }) => (row === undefined ? [] : [row]));
  const joined = samples.length > 1 && samples.every(({ hasBatchAxis }) => hasBatchAxis);
  const feeds = joined ? joinFeeds(samples.map((sample) => sample.feeds)) : undefined;
  if (feeds !== undefined) {
    const together = await model.run(feeds).then(
      (outputs) => splitOutputs(outputs, samples.length),
      (error: unknown) => {
        if (isOfRow(error)) return undefined;
        throw error;
      },
    );
    const results = together?.values();
    if (results !== undefined) {
      return bound.map(({ index, place, error }) =>
        error === undefined
          ? { index, place, outputs: withoutBatchAxis(results.next().value as TensorMap) }
          : { index, place, error },
      );
    }
  }
  return Promise.all(bound.map((row) => runRow(model, row)));
}

interface BoundOutcome extends Outcome {
  readonly row?: BoundRow;
}

function bind(binding: Binding, { index, place, cells, error }: DataRow): BoundOutcome {
  try {
    if (error !== undefined) throw error;
    return { index, place, row: binding.toFeeds(cells) };
  } catch (reason) {
    if (!isInlayError(reason)) throw reason;
    return { index, place, error: reason };
  }
}

async function runRow(model: Model, { index, place, row, error }: BoundOutcome): Promise<Outcome> {
  if (row === undefined) return { index, place, ...(error !== undefined && { error }) };
  try {
    const outputs = await model.run(row.feeds);
    return { index, place, outputs: row.hasBatchAxis ? withoutBatchAxis(outputs) : outputs };
  } catch (reason) {
    if (!isInlayError(reason)) throw reason;
    return { index, place, error: reason };
  }
}

/** Takes the first axis off where it counts the one sample. */
function withoutBatchAxis(outputs: TensorMap): TensorMap {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, tensor]) => {
      const { dtype, shape, data } = tensor;
      return [name, shape[0] === 1 ? new Tensor(dtype, shape.slice(1), data) : tensor];
    }),
  );
}

/** Whether another row may fare better. */
function isOfRow(error: unknown): error is AnyInlayError {
  return isInlayError(error) && (error.name === 'InputError' || error.code === 'ERR_INLAY_RUN_FAILED');
}

function atPlace(error: unknown, name: string, place: string): unknown {
  if (!isOfRow(error) || error.details['file'] !== undefined) return error;
  const message = `${place[0]?.toUpperCase()}${place.slice(1)} of ${name}: ${error.message}`;
  const parts = { cause: error, details: error.details };
  return error.name === 'InputError'
    ? new InputError(error.code, message, parts)
    : new BackendError('ERR_INLAY_RUN_FAILED', message, parts);
}

/** Groups rows such that a row is in the same block wherever reading began. */
async function* inBlocks(rows: AsyncIterable<DataRow>, size: number): AsyncIterable<readonly DataRow[]> {
  let block: DataRow[] = [];
  for await (const row of rows) {
    block.push(row);
    if ((row.index + 1) % size !== 0) continue;
    yield block;
    block = [];
  }
  if (block.length > 0) yield block;
}
