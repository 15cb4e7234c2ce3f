import * as nodeFs from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { describeDecision } from '../optimize/report-facts.ts';
import { optimizeModel, type Optimized } from '../optimize/optimize.ts';
import type { Goal } from '../optimize/options.ts';
import type { TargetName } from '../optimize/runtime.ts';
import type { Technique } from '../optimize/technique.ts';
import type { CalibrationMethod } from '../optimize/calibrate-options.ts';
import { encodeModel } from '../onnx/model.ts';
import { openModelFile, saveModelFile, type SavedModel } from '../optimize-node/model-file.ts';
import { replaceFile } from '../optimize-node/staged-file.ts';
import { openTarget } from '../optimize-node/target.ts';
import { toJson } from './data/numbers.ts';
import {
  defaultBatches,
  parseCount,
  parseCounts,
  parseJsonPath,
  parseNumber,
  parseRatio,
  toPattern,
} from './optimize-flags.ts';
import { calibrationOption, openCalibration } from './optimize-calibration.ts';
import { openSamples, withSampleFlags, type SampleFlags } from './optimize-inputs.ts';
import { notesOnExcluded, outputsOf } from './optimize-output.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';
import { withUsageCode } from './usage.ts';

/** Flags that say what is asked of a model; `inlay publish --optimize` has defaults for them. */
interface Flags extends SampleFlags {
  readonly output: string;
  readonly auto?: true;
  readonly target: TargetName;
  readonly browser?: string;
  readonly calib?: string;
  readonly calibMethod: CalibrationMethod;
  readonly calibration?: string;
  readonly minSqnr?: number;
  readonly minAgreement?: number;
  readonly maxSize?: number;
  readonly minSpeedup?: number;
  readonly batchInvariant?: boolean;
  readonly batch: readonly number[];
  readonly threads: number;
  readonly technique?: Technique;
  readonly exclude?: readonly string[];
  readonly force?: true;
  readonly runs: number;
  readonly report: readonly string[];
  readonly goldenOut?: string;
  readonly json?: true;
}

/** Exit code for a goal that no model holds: the original was kept. */
const KEPT = 2;

/** Techniques as `--technique` names them. */
const techniques: Readonly<Record<string, Technique>> = {
  'int8-row': { kind: 'dynamic', mode: 'row' },
  'int8-dynamic': { kind: 'dynamic', mode: 'tensor' },
  'int8-static': { kind: 'static' },
  'int8-static-lstm': { kind: 'static', lstms: true },
  'int8-conv': { kind: 'dynamic', mode: 'tensor', convolutions: true },
  'int8-block128': { kind: 'nbits', bits: 8, blockSize: 128 },
  'int4-block32': { kind: 'nbits', bits: 4, blockSize: 32 },
  'int4-block128': { kind: 'nbits', bits: 4, blockSize: 128 },
  fp16: { kind: 'float16' },
};

/**
 * Adds `inlay optimize`.
 * @param exitWith ends the command with a code other than 0 that is no failure.
 */
export function addOptimize(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  const command = withUsageCode(program.command('optimize'))
    .description('make a model that is measurably smaller or faster on a target, or say why none is')
    .argument('<model>', 'ONNX model')
    .requiredOption(
      '-o, --output <file>',
      'where to write the model; nothing is written if the original is kept',
    )
    .option('--auto', 'try what suits model and target, and take the best (default without --technique)')
    .addOption(
      new Option(
        '--technique <name>',
        `take this one if it holds the goal: ${Object.keys(techniques).join(', ')}`,
      )
        .argParser(parseTechnique)
        .conflicts('auto'),
    )
    .addOption(
      new Option('--target <target>', 'where the model is to run')
        .choices(['node-cpu', 'wasm', 'webgpu'])
        .default('node-cpu'),
    )
    .option('--browser <path>', 'browser for webgpu (default: the one that is installed)');
  withSampleFlags(command, false)
    .option(
      '--calib <file>',
      'samples that ranges of activations are read from, without which none are fixed',
    )
    .addOption(calibrationOption())
    .addOption(
      new Option('--calib-method <method>', 'how ranges are made of what was seen')
        .choices(['minmax', 'percentile', 'entropy'])
        .default('percentile'),
    )
    .option(
      '--min-sqnr <dB>',
      'least signal-to-noise ratio of answers (default: 25; 40 where an output goes into the next call)',
      parseNumber,
    )
    .option('--min-agreement <ratio>', 'least share of decisions that stay the same', parseRatio)
    .option('--max-size <ratio>', 'largest size, as a ratio of the original', parseRatio)
    .option(
      '--min-speedup <ratio>',
      'least speed at every batch (default: 0.97; 0 with --max-size)',
      parseNumber,
    )
    .option(
      '--batch-invariant',
      'a row has to get alone what it gets in a batch (default: if a batch is above 1)',
    )
    .option('--no-batch-invariant', 'answers may depend on the rows beside them')
    .option('--batch <n...>', 'rows of one call; each is measured', parseCounts, defaultBatches)
    .option('--threads <n>', 'threads inside one operator', parseCount, 1)
    .option('--exclude <name...>', 'nodes that stay as they are: names of nodes or outputs, or /patterns/')
    .option('--force', 'quantize also what is quantized already')
    .option('--runs <n>', 'timed runs of each model for each batch', parseCount, 30)
    .option('--report <file>', 'write a report: .md, .html or .json; may be repeated', parseReport, [])
    .option(
      '--golden-out <file>',
      'write inputs and answers for `inlay publish --golden`: .json',
      parseJsonPath,
    )
    .option('--json', 'print the decision as JSON')
    .addHelpText('after', help)
    .action(async (file: string, flags: Flags) => {
      const path = (given: string): string => resolve(terminal.cwd, given);
      if (flags.technique?.kind === 'static' && flags.calib === undefined)
        throw new RangeError(
          'Static quantization takes ranges from calibration data; give some with --calib.',
        );
      const written = [
        flags.output,
        ...flags.report,
        ...[flags.goldenOut, flags.calibration].filter((one) => one !== undefined),
      ];
      await outputsOf(terminal.cwd, file, written);
      const exclude = (flags.exclude ?? []).map(toPattern);
      const kept = await openCalibration(flags, terminal);
      const { model, sizeBytes, files } = await openModelFile(path(file));
      const runtime = await openTarget(flags.target, { browser: flags.browser && path(flags.browser) });
      // What a browser or WebAssembly cannot say of a graph, the native library says as well.
      const preparer = flags.target === 'node-cpu' ? undefined : await openTarget('node-cpu');
      let optimized: Optimized;
      try {
        const session = await runtime.open(encodeModel(model)).catch(() => undefined);
        const signature = session && { inputs: session.inputs, outputs: session.outputs };
        await session?.release();
        const read = (data: string): ReturnType<typeof openSamples> =>
          openSamples(path(data), signature ?? { inputs: [], outputs: [] }, {
            mappings: flags.map,
            limit: flags.samples,
          });
        optimized = await optimizeModel(model, {
          runtime,
          ...(preparer && { preparer }),
          monotonicMs: () => performance.now(),
          batches: flags.batch,
          threads: flags.threads,
          goal: goalOf(flags),
          technique: flags.technique ?? 'auto',
          runs: flags.runs,
          maxSamples: flags.samples,
          ...(flags.inputs !== undefined && { samples: read(flags.inputs) }),
          ...(flags.calib !== undefined && {
            calibration: {
              data: read(flags.calib),
              method: flags.calibMethod,
              max: flags.samples,
              ...kept,
            },
          }),
          exclude,
          isForced: flags.force === true,
          onProgress: ({ step, candidate, ratio }) => {
            const what = candidate === undefined ? step : `${step}: ${candidate}`;
            terminal.printError(`${String(Math.round(100 * ratio)).padStart(3)} %  ${what}`);
          },
        });
      } finally {
        await runtime.close();
        await preparer?.close();
      }
      for (const report of flags.report) await writeText(path(report), reportOf(optimized, report));
      if (flags.goldenOut !== undefined) await writeText(path(flags.goldenOut), goldenOf(optimized));
      const saved = optimized.isChanged
        ? await saveModelFile(path(flags.output), optimized.model)
        : undefined;
      if (saved === undefined) exitWith(KEPT);
      for (const note of notesOnExcluded(exclude, [model, optimized.model]))
        terminal.printError(`note: ${note}`);
      const before = sizeBytes + [...files.values()].reduce((sum, size) => sum + size, 0);
      terminal.print(flags.json ? toText(optimized, saved) : describe(optimized, flags, before, saved));
    });
}

function goalOf({ minSqnr, minAgreement, maxSize, minSpeedup, batchInvariant }: Flags): Goal {
  return {
    ...(minSqnr !== undefined && { minSqnrDb: minSqnr }),
    ...(minAgreement !== undefined && { minAgreement }),
    ...(maxSize !== undefined && { maxSizeRatio: maxSize }),
    ...(minSpeedup !== undefined && { minSpeedup }),
    ...(batchInvariant !== undefined && { isBatchInvariant: batchInvariant }),
  };
}

function describe(
  { decision, isChanged }: Optimized,
  { output }: Flags,
  sizeBytes: number,
  saved: SavedModel | undefined,
): string {
  const { facts, tables, warnings, verdict } = describeDecision(decision);
  const whole = saved && saved.sizeBytes + (saved.data?.sizeBytes ?? 0);
  return [
    ...facts.map(([label, value]) => `${label.padEnd(16)}  ${value}`),
    ...tables.map(({ title, head, rows }) => `\n${title}\n${table(head, rows)}`),
    '',
    ...warnings.map((warning) => `note: ${warning}`),
    verdict,
    isChanged && whole !== undefined
      ? `Wrote ${output}: ${formatBytes(whole)} instead of ${formatBytes(sizeBytes)}`
      : `${output} was not written.`,
  ].join('\n');
}

function toText({ decision, isChanged }: Optimized, saved: SavedModel | undefined): string {
  return JSON.stringify({ v: 1, ...decision, isChanged, ...(saved && { saved }) });
}

function reportOf({ report }: Optimized, file: string): string {
  const extension = extname(file).toLowerCase();
  if (extension === '.html') return report.toHtml();
  return extension === '.md' ? report.toMarkdown() : `${JSON.stringify(report.toJSON(), undefined, 2)}\n`;
}

/** The list that `inlay publish --golden` reads. */
function goldenOf({ golden }: Optimized): string {
  const write = (tensors: (typeof golden)[number]['inputs']): string =>
    `{${Object.entries(tensors)
      .map(([name, tensor]) => `${JSON.stringify(name)}:${toJson(tensor)}`)
      .join(',')}}`;
  const cases = golden.map(
    ({ inputs, outputs }) => `{"inputs":${write(inputs)},"outputs":${write(outputs)}}`,
  );
  return `[${cases.join(',\n')}]\n`;
}

async function writeText(path: string, text: string): Promise<void> {
  await replaceFile(nodeFs, path, [new TextEncoder().encode(text)]);
}

function parseTechnique(text: string): Technique {
  const technique = Object.hasOwn(techniques, text) ? techniques[text] : undefined;
  if (technique !== undefined) return technique;
  throw new InvalidArgumentError(`It is one of ${Object.keys(techniques).join(', ')}.`);
}

function parseReport(text: string, before: readonly string[]): readonly string[] {
  if (['.md', '.html', '.json'].includes(extname(text).toLowerCase())) return [...before, text];
  throw new InvalidArgumentError('Its extension is .md, .html or .json.');
}

const help = `
Candidates are tried on the target itself: their answers are compared with those of the original,
and they are timed in turns with it. The fastest one that holds the goal is taken; where two are as
fast, the one that is nearer to the original. Without --max-size, what is written is never slower
than the original.

Exit codes: 0, the model was written; 1, something failed; 2, nothing holds the goal, or nothing is
faster, so that the original is kept and no output written; 64, wrong command line.

Give samples of your own with --inputs: what is made up says little of accuracy on your data.
Convolutions need --calib, for which 32 to 128 samples do.

Examples:
  $ npx inlay optimize encoder.onnx -o encoder.int8.onnx --auto --inputs samples.npz --batch 1 8
  $ npx inlay optimize faces.onnx -o faces.int8.onnx --target wasm --inputs test.npz --calib train.npz \\
      --min-agreement 0.99 --report faces.html --golden-out golden.json`;
