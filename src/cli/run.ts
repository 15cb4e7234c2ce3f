import { availableParallelism } from 'node:os';
import { dirname, extname, resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { createInlay, type DevicePreference } from '../node.ts';
import { nodePlatform } from '../platform-node.ts';
import type { Mapping } from './data/columns.ts';
import { isDataPath } from './data/open-file.ts';
import { OUTPUT_FORMATS, type OutputFormat } from './data/row-writers.ts';
import { runRows, type RunRowsSummary } from './data/run-rows.ts';
import { loadModelFile } from './model-file.ts';
import { createProgress, formatSeconds } from './progress.ts';
import type { Terminal } from './terminal.ts';

interface Flags {
  readonly input: string;
  readonly output: string;
  readonly map: readonly Mapping[];
  readonly concurrency: number;
  readonly batchRows: number;
  readonly device: DevicePreference;
  readonly onError: 'stop' | 'skip';
  readonly restart?: true;
  readonly json?: true;
}

/** Exit codes of `inlay run` beyond those of every command. */
const SKIPPED = 3;
/** 128 and the number of SIGINT, as shells count. */
const INTERRUPTED = 130;

/**
 * Adds `inlay run`.
 * @param exitWith ends the command with a code other than 0 that is no failure.
 */
export function addRun(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  program
    .command('run')
    .description('run a model over a file of samples; an interrupted run goes on where it stopped')
    .argument('<model>', 'ONNX model')
    .requiredOption('--input <file>', 'samples: .npy, .npz, .jsonl or .csv', parseInput)
    .requiredOption('--output <file>', 'results: .jsonl or .npz', parseOutput)
    .addOption(
      new Option('--map <column=input>', 'columns that feed an input, * for any text; may be repeated')
        .argParser(parseMapping)
        .default([], 'columns feed inputs of the same name'),
    )
    .option('--concurrency <n>', 'runs under way at once', parseCount, defaultConcurrency())
    .option(
      '--batch-rows <n>',
      'samples of one run, joined along the first axis, always the same ones',
      parseCount,
      1,
    )
    .option(
      '--device <device>',
      'auto, cpu, gpu, or execution providers such as cuda,cpu',
      parseDevice,
      'auto',
    )
    .addOption(
      new Option('--on-error <what>', 'what to do at a bad row').choices(['stop', 'skip']).default('stop'),
    )
    .option('--restart', 'forget what an interrupted run has done')
    .option('--json', 'print a summary as JSON, and no progress')
    .addHelpText('after', help)
    .action(async (model: string, flags: Flags) => {
      const started = performance.now();
      const summary = await runFile(resolve(terminal.cwd, model), flags, terminal);
      const seconds = (performance.now() - started) / 1000;
      if (flags.json) terminal.print(JSON.stringify({ ...summary, output: flags.output, seconds }));
      else terminal.print(describe(summary, flags, seconds));
      if (!summary.isComplete) exitWith(INTERRUPTED);
      else if (summary.skipped > 0) exitWith(SKIPPED);
    });
}

async function runFile(model: string, flags: Flags, terminal: Terminal): Promise<RunRowsSummary> {
  const { device, batchRows, concurrency, onError } = flags;
  const input = resolve(terminal.cwd, flags.input);
  const output = resolve(terminal.cwd, flags.output);
  if (input === output) throw new RangeError('--output is the input; choose another name.');
  const { report } = await loadModelFile(model);
  const { files, ...rest } = nodePlatform();
  if (files === undefined) throw new TypeError('This runtime has no files.');
  const platform = { ...rest, files };
  const inlay = createInlay({ device });
  const stop = new AbortController();
  void terminal.interrupted().then(() => {
    stop.abort();
  });
  const progress = createProgress({
    terminal: flags.json ? { ...terminal, printError: () => {} } : terminal,
    bar: process.stderr.isTTY && !flags.json ? process.stderr : undefined,
    monotonicMs: platform.monotonicMs,
  });
  try {
    return await runRows({
      platform,
      modelFiles: [model, ...report.externalFiles.map((file) => resolve(dirname(model), file))],
      // Rows that are joined here stay together, so that results do not hang on who comes when.
      openModel: () => inlay.load(model, batchRows > 1 ? { maxBatch: 1 } : {}),
      input,
      output,
      format: extname(output).slice(1) as OutputFormat,
      mappings: flags.map,
      concurrency,
      batchRows,
      settings: { '--device': String(device) },
      onError,
      restart: flags.restart === true,
      checkpointMs: 1_000,
      signal: stop.signal,
      onProgress: progress.update,
    });
  } finally {
    progress.stop();
    await inlay.close();
  }
}

function describe(summary: RunRowsSummary, { output }: Flags, seconds: number): string {
  const { rows, skipped, resumedFrom, isComplete, ignored, skippedList } = summary;
  const rate = (rows - resumedFrom) / Math.max(seconds, 0.001);
  const lines = [
    `${isComplete ? 'Ran' : 'Interrupted after'} ${rows.toLocaleString('en')} rows in ${formatSeconds(seconds)} (${rate.toFixed(0)} rows/s)`,
    ...(resumedFrom > 0 ? [`  ${resumedFrom.toLocaleString('en')} of them had been done before`] : []),
    ...(ignored.length > 0 ? [`  columns that feed no input: ${ignored.slice(0, 10).join(', ')}`] : []),
    ...(isComplete ? [`  output   ${output}`] : ['  the same command goes on from there']),
    ...(skipped > 0
      ? [
          `  skipped  ${skipped.toLocaleString('en')} rows${skippedList ? `, listed in ${output}.skipped` : ''}`,
        ]
      : []),
  ];
  return lines.join('\n');
}

/** Enough calls under way for batches to form; memory holds that many samples. */
function defaultConcurrency(): number {
  return Math.max(32, 8 * availableParallelism());
}

/** Parses the path of a data file. */
export function parseInput(text: string): string {
  if (isDataPath(text)) return text;
  throw new InvalidArgumentError('Its extension is .npy, .npz, .jsonl, .ndjson or .csv.');
}

function parseOutput(text: string): string {
  if (Object.hasOwn(OUTPUT_FORMATS, extname(text).slice(1))) return text;
  throw new InvalidArgumentError('Its extension is .jsonl or .npz.');
}

/** Parses `COLUMN=INPUT`, after those before it. */
export function parseMapping(text: string, before: readonly Mapping[]): readonly Mapping[] {
  const at = text.lastIndexOf('=');
  if (at <= 0 || at === text.length - 1) throw new InvalidArgumentError('It is written COLUMN=INPUT.');
  return [...before, { pattern: text.slice(0, at), input: text.slice(at + 1) }];
}

function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= 65_536) return count;
  throw new InvalidArgumentError('It is a whole number from 1 to 65536.');
}

function parseDevice(text: string): DevicePreference {
  if (text === 'auto' || text === 'cpu' || text === 'gpu') return text;
  const names = text.split(',');
  if (names.every((name) => /^[a-z0-9_-]+$/i.test(name))) return names;
  throw new InvalidArgumentError('It is auto, cpu, gpu or a list of execution providers.');
}

const help = `
Input, one sample per row:
  .npy    the first axis counts the samples; goes to the only input
  .npz    one array per input, by name, with equal first axes
  .jsonl  one object per line, with one entry per input; or the value alone for the only input
  .csv    the first line names the columns; columns go to inputs by name, or all
          columns of numbers together to the only input
Numbers are converted to the dtype of the input where they fit. Samples need no batch axis.
In JSON, "NaN", "Infinity" and "-Infinity" are floats, and 64-bit integers beyond 2^53 - 1
are strings of digits.

Output, in the order of the input:
  .jsonl  one object per line; null for a row that was skipped
  .npz    one array per output; with --on-error skip also row_index, the rows that are there
Rows that are skipped are listed with their reasons in OUTPUT.skipped. The output appears
when it is whole. Until then OUTPUT.progress keeps what is done: the same command goes on
after an interruption or a crash, if model, input and options are the same.
Results are the same to the last bit from run to run with --batch-rows above 1; without it
calls share batches as they come, and may differ by rounding.

Exit codes:
  0  all rows are done             2  wrong command line
  1  failed; see the message       3  done, but rows were skipped
  130  interrupted

Examples:
  $ npx inlay run digits.onnx --input images.npy --output logits.npz
  $ npx inlay run digits.onnx --input train.csv --map 'pixel*=image' --output out.jsonl --on-error skip
  $ npx inlay run speech.onnx --input clips.jsonl --map samples=input --output out.jsonl --batch-rows 16`;
