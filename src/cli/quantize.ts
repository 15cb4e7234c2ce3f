import { resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { signatureOf } from '../onnx/signature.ts';
import type { CalibrationMethod } from '../optimize/calibrate-options.ts';
import { convertModel } from '../optimize/convert.ts';
import type { Int8, Rewritten, Technique } from '../optimize/technique.ts';
import { openModelFile, saveModelFile, type SaveModelOptions } from '../optimize-node/model-file.ts';
import { openTarget } from '../optimize-node/target.ts';
import { isDataPath } from './data/open-file.ts';
import { calibrationOption, openCalibration, type CalibrationFlags } from './optimize-calibration.ts';
import { toPattern } from './optimize-flags.ts';
import { openSamples, parseSampleCount } from './optimize-inputs.ts';
import { notesOnExcluded, outputsOf } from './optimize-output.ts';
import { parseMapping } from './run.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';
import { withUsageCode } from './usage.ts';

/** Flags of commands that rewrite a model. */
export interface RewriteFlags {
  readonly output: string;
  readonly exclude?: readonly string[];
  readonly prepare: boolean;
  readonly external: NonNullable<SaveModelOptions['external']>;
  readonly json?: true;
}

interface QuantizeFlags extends RewriteFlags {
  readonly force?: true;
}

/** Exit code for a model in which there is nothing to change: none was written. */
const KEPT = 2;

/**
 * Adds `inlay quantize`.
 * @param exitWith ends the command with a code other than 0 that is no failure.
 */
export function addQuantize(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  const quantize = withUsageCode(program.command('quantize')).description(
    'make a smaller model by one technique; `inlay optimize` finds the best one by measuring',
  );
  const int8 = (flag: string, what: string, otherwise: Int8): Option =>
    new Option(`--${flag} <dtype>`, what).choices(['int8', 'uint8']).default(otherwise);
  const add = (name: string, description: string): Command =>
    withRewriteFlags(quantize.command(name).description(description)).option(
      '--force',
      'also a model that is quantized already, and also if nothing changes',
    );
  const rewrite = async (
    file: string,
    flags: QuantizeFlags,
    technique: Technique,
    calibration?: StaticFlags,
  ): Promise<void> => {
    if (!(await rewriteFile(file, flags, terminal, technique, calibration))) exitWith(KEPT);
  };

  add('dynamic', 'weights of 8 bits; activations are quantized at each run')
    .addOption(
      new Option(
        '--mode <mode>',
        'what activations share a scale: row gives a row alone what it gets in a batch',
      )
        .choices(['row', 'tensor'])
        .default('row'),
    )
    .addOption(int8('weights', 'type of the weights', 'int8'))
    .option('--no-per-channel', 'one scale for each weight instead of one for each channel')
    .option('--reduce-range', 'weights of 7 bits, for processors whose products saturate')
    .option('--no-embeddings', 'leave embeddings as they are')
    .option('--convolutions', 'convolutions as well, which helps in WebAssembly only')
    .action(async (file: string, flags: QuantizeFlags & DynamicFlags) => {
      const { mode, weights, perChannel, embeddings } = flags;
      await rewrite(file, flags, {
        kind: 'dynamic',
        mode,
        weights,
        perChannel,
        embeddings,
        reduceRange: flags.reduceRange === true,
        convolutions: flags.convolutions === true,
      });
    });

  add('static', 'weights and activations of 8 bits, by ranges that calibration finds')
    .requiredOption('--calib <file>', 'samples: .npy, .npz, .jsonl or .csv; 32 to 128 of them do', parseData)
    .addOption(
      new Option('--map <column=input>', 'columns that feed an input, * for any text; may be repeated')
        .argParser(parseMapping)
        .default([], 'columns feed inputs of the same name'),
    )
    .option('--samples <n>', 'most samples that are read', parseSampleCount, 128)
    .addOption(
      new Option('--calib-method <method>', 'how ranges are made of what was seen')
        .choices(['minmax', 'percentile', 'entropy'])
        .default('percentile'),
    )
    .addOption(calibrationOption())
    .addOption(int8('activations', 'type of the activations', 'uint8'))
    .addOption(int8('weights', 'type of the weights', 'int8'))
    .option('--no-per-channel', 'one scale for each weight instead of one for each channel')
    .option('--reduce-range', 'weights of 7 bits, for processors whose products saturate')
    .option('--no-depthwise', 'leave depthwise convolutions in floats')
    .option('--lstms', 'LSTMs as well, quantized at each run: their rows depend on those beside them')
    .action(async (file: string, flags: QuantizeFlags & StaticFlags) => {
      const { activations, weights, perChannel } = flags;
      const technique: Technique = {
        kind: 'static',
        activations,
        weights,
        perChannel,
        reduceRange: flags.reduceRange === true,
        depthwise: flags.depthwise,
        lstms: flags.lstms === true,
      };
      await rewrite(file, flags, technique, flags);
    });

  add('nbits', 'weights of 4 or 8 bits in blocks; activations stay floats')
    .addOption(new Option('--bits <n>', 'bits of a weight').choices(['4', '8']).default('4'))
    .option(
      '--block-size <n>',
      'weights that share a scale (default: 32 with 4 bits, 128 with 8)',
      parseBlock,
    )
    .option('--symmetric', 'no zero points')
    .addOption(
      new Option('--accuracy-level <n>', 'how exact products are: 1 float32, 4 int8; 0 as the kernel likes')
        .choices(['0', '1', '2', '3', '4'])
        .default('4'),
    )
    .option('--no-embeddings', 'leave embeddings as they are')
    .action(async (file: string, flags: QuantizeFlags & BlockFlags) => {
      const { bits, blockSize, accuracyLevel, embeddings } = flags;
      await rewrite(file, flags, {
        kind: 'nbits',
        bits: bits === '4' ? 4 : 8,
        embeddings,
        isSymmetric: flags.symmetric === true,
        accuracyLevel: Number(accuracyLevel) as 0 | 1 | 2 | 3 | 4,
        ...(blockSize !== undefined && { blockSize }),
      });
    });

  add('float16', 'floats of 16 bits: half the size, and no faster on most processors')
    .option('--no-keep-io', 'inputs and outputs become float16 as well')
    .action(async (file: string, flags: QuantizeFlags & { readonly keepIo: boolean }) => {
      await rewrite(file, flags, { kind: 'float16', keepsIo: flags.keepIo });
    });
}

interface DynamicFlags {
  readonly mode: 'row' | 'tensor';
  readonly weights: Int8;
  readonly perChannel: boolean;
  readonly reduceRange?: true;
  readonly embeddings: boolean;
  readonly convolutions?: true;
}

interface StaticFlags extends CalibrationFlags {
  readonly calib: string;
  readonly calibMethod: CalibrationMethod;
  readonly samples: number;
  readonly activations: Int8;
  readonly weights: Int8;
  readonly perChannel: boolean;
  readonly reduceRange?: true;
  readonly depthwise: boolean;
  readonly lstms?: true;
}

interface BlockFlags {
  readonly bits: '4' | '8';
  readonly blockSize?: number;
  readonly symmetric?: true;
  readonly accuracyLevel: string;
  readonly embeddings: boolean;
}

/** Adds what commands that rewrite a model take. */
export function withRewriteFlags(command: Command): Command {
  return command
    .argument('<model>', 'ONNX model')
    .requiredOption('-o, --output <file>', 'where to write the model')
    .option('--exclude <name...>', 'nodes that stay as they are: names of nodes or outputs, or /patterns/')
    .option('--no-prepare', 'do not fold constants and normalizations first')
    .addOption(
      new Option('--external <when>', 'weights in a file of their own; auto: beyond 1.5 GB')
        .choices(['auto', 'never', 'always'])
        .default('auto'),
    )
    .option('--json', 'print JSON, and no progress');
}

/** @returns whether there was something to write. */
async function rewriteFile(
  file: string,
  flags: QuantizeFlags,
  terminal: Terminal,
  technique: Technique,
  calibration?: StaticFlags,
): Promise<boolean> {
  const path = (given: string): string => resolve(terminal.cwd, given);
  const written = [flags.output, calibration?.calibration].filter((one) => one !== undefined);
  await outputsOf(terminal.cwd, file, written);
  const exclude = (flags.exclude ?? []).map(toPattern);
  const stored = await openCalibration(calibration ?? { map: [] }, terminal);
  const { model, sizeBytes, files } = await openModelFile(path(file));
  const runtime = await openTarget('node-cpu');
  let rewritten: Rewritten;
  try {
    rewritten = await convertModel(model, technique, {
      runtime,
      prepares: flags.prepare,
      exclude,
      isForced: flags.force === true,
      ...(calibration && {
        calibration: {
          data: openSamples(path(calibration.calib), signatureOf(model), {
            mappings: calibration.map,
            limit: calibration.samples,
          }),
          method: calibration.calibMethod,
          max: calibration.samples,
          ...stored,
        },
      }),
      ...(!flags.json && { onProgress: (step) => terminal.printError(`${step} …`) }),
    });
  } finally {
    await runtime.close();
  }
  const { changed, kept } = rewritten;
  const isWritten = changed.length > 0 || flags.force === true;
  const saved = isWritten
    ? await saveModelFile(path(flags.output), rewritten.model, { external: flags.external })
    : undefined;
  const before = sizeBytes + [...files.values()].reduce((sum, size) => sum + size, 0);
  const after = saved === undefined ? before : saved.sizeBytes + (saved.data?.sizeBytes ?? 0);
  const warnings = [...rewritten.warnings, ...notesOnExcluded(exclude, [model, rewritten.model])];
  if (flags.json) {
    terminal.print(
      JSON.stringify({
        v: 1,
        technique,
        sizeBytes: [before, after],
        changed,
        kept,
        warnings,
        saved,
      }),
    );
    return isWritten;
  }
  const ratio = (after / before).toFixed(3);
  terminal.print(
    [
      describeNodes(rewritten),
      ...warnings.map((warning) => `note: ${warning}`),
      isWritten
        ? `Wrote ${flags.output}: ${formatBytes(after)} instead of ${formatBytes(before)} (${ratio})`
        : `${flags.output} was not written; --force writes it nonetheless.`,
    ].join('\n'),
  );
  return isWritten;
}

/** Nodes that people see one by one. */
const SHOWN_NODES = 40;

/** Draws what was done to which operators, and which nodes stayed as they were. */
export function describeNodes({ changed, kept }: Rewritten): string {
  const counts = new Map<string, { op: string; reason: string; count: number }>();
  for (const { op, reason } of changed) {
    // Figures of single nodes are for --json.
    const what = reason.replace(/ of \d.*/, '');
    const key = `${op} ${what}`;
    const seen = counts.get(key) ?? { op, reason: what, count: 0 };
    counts.set(key, { ...seen, count: seen.count + 1 });
  }
  const done = [...counts.values()].map(({ op, reason, count }) => [op, String(count), reason]);
  const left = kept.slice(0, SHOWN_NODES).map(({ node, op, reason }) => [node, op, reason]);
  return [
    done.length === 0 ? 'Nothing in the model is changed.' : table(['changed', 'nodes', 'how'], done),
    ...(left.length === 0 ? [] : [`\n${table(['kept', 'operator', 'why'], left)}`]),
    ...(kept.length > SHOWN_NODES ? [`… and ${kept.length - SHOWN_NODES} more; --json lists them all.`] : []),
    '',
  ].join('\n');
}

function parseData(text: string): string {
  if (isDataPath(text)) return text;
  throw new InvalidArgumentError('Its extension is .npy, .npz, .jsonl, .ndjson or .csv.');
}

function parseBlock(text: string): number {
  const size = Number(text);
  if (/^\d+$/.test(text) && size >= 16 && size <= 65_536 && Number.isInteger(Math.log2(size))) return size;
  throw new InvalidArgumentError('It is a power of two, at least 16.');
}
