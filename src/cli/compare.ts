import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { ModelError } from '../core/errors.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { encodeModel } from '../onnx/model.ts';
import { signatureOf } from '../onnx/signature.ts';
import { compareModels, type ModelComparison } from '../optimize/compare-models.ts';
import type { LayerComparison } from '../optimize/compare-layers.ts';
import type { TargetName } from '../optimize/runtime.ts';
import { openModelFile } from '../optimize-node/model-file.ts';
import { openTarget } from '../optimize-node/target.ts';
import { formatShare, none } from './format.ts';
import { defaultBatches, parseCount, parseCounts, parseNumber, parseRatio } from './optimize-flags.ts';
import { openSamples, withSampleFlags, type SampleFlags } from './optimize-inputs.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';
import { withUsageCode } from './usage.ts';

interface Flags extends SampleFlags {
  readonly inputs: string;
  readonly target: TargetName;
  readonly browser?: string;
  readonly outputs?: readonly string[];
  readonly layers?: true;
  readonly batch: readonly number[];
  readonly threads: number;
  readonly runs: number;
  readonly minSqnr?: number;
  readonly minAgreement?: number;
  readonly json?: true;
}

/** Exit code for models that are further apart than they may be. */
const APART = 2;

/**
 * Adds `inlay compare`.
 * @param exitWith ends the command with a code other than 0 that is no failure.
 */
export function addCompare(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  const command = withUsageCode(program.command('compare'))
    .description(
      'tell how far the answers of a model are from those of another, and how fast it is beside it',
    )
    .argument('<model>', 'ONNX model that is right')
    .argument('<other>', 'ONNX model that is compared with it')
    .addOption(
      new Option('--target <target>', 'where they are run')
        .choices(['node-cpu', 'wasm', 'webgpu'])
        .default('node-cpu'),
    )
    .option('--browser <path>', 'browser for webgpu (default: the one that is installed)');
  withSampleFlags(command, true)
    .option('--outputs <name...>', 'outputs that are compared (default: all)')
    .option('--layers', 'also compare what is between the layers, worst first')
    .option('--batch <n...>', 'rows of one call; each is timed', parseCounts, defaultBatches)
    .option('--threads <n>', 'threads inside one operator', parseCount, 1)
    .option('--runs <n>', 'timed runs of each model for each batch', parseCount, 30)
    .option('--min-sqnr <dB>', 'least signal-to-noise ratio of each output', parseNumber)
    .option('--min-agreement <ratio>', 'least share of decisions that are the same', parseRatio)
    .option('--json', 'print JSON, and no progress')
    .addHelpText('after', help)
    .action(async (file: string, other: string, flags: Flags) => {
      const path = (given: string): string => resolve(terminal.cwd, given);
      const open = (given: string): ReturnType<typeof openModelFile> => openNamed(path(given), given);
      const [expected, actual] = [await open(file), await open(other)];
      assertSameInputs(expected.model, actual.model);
      const samples = openSamples(path(flags.inputs), signatureOf(expected.model), {
        mappings: flags.map,
        limit: flags.samples,
      });
      const runtime = await openTarget(flags.target, { browser: flags.browser && path(flags.browser) });
      let comparison: ModelComparison;
      try {
        comparison = await compareModels(
          runtime,
          encodeModel(expected.model),
          encodeModel(actual.model),
          samples,
          {
            layers: flags.layers === true,
            batches: flags.batch,
            threads: flags.threads,
            runs: flags.runs,
            monotonicMs: () => performance.now(),
            ...(flags.outputs !== undefined && { outputs: flags.outputs }),
            ...(!flags.json && { onProgress: (step) => terminal.printError(`${step} …`) }),
          },
        );
      } finally {
        await runtime.close();
      }
      const missed = missedBy(comparison, flags);
      if (flags.json) terminal.print(JSON.stringify({ v: 1, ...comparison, missed }));
      else terminal.print(describe(comparison, missed));
      if (missed.length > 0) exitWith(APART);
    });
}

/** Opens a model; of two, people want to know which one is broken. */
async function openNamed(path: string, name: string): ReturnType<typeof openModelFile> {
  try {
    return await openModelFile(path);
  } catch (error) {
    if (!(error instanceof ModelError) || error.message.includes(name)) throw error;
    throw new ModelError(error.code, `${name}: ${error.message}`, { details: error.details, cause: error });
  }
}

/** @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for models that do not take the same feeds. */
function assertSameInputs(expected: ModelProto, actual: ModelProto): void {
  const [wanted, given] = [expected, actual].map((model) =>
    signatureOf(model)
      .inputs.map(({ name, dtype }) => `${name} ${dtype}`)
      .sort()
      .join(', '),
  );
  if (wanted === given) return;
  throw new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `The models do not take the same inputs: the first takes ${wanted || 'none'}, the other ${given || 'none'}; compare models of one signature.`,
  );
}

/** What a comparison lacks, in words. */
export function missedBy(
  { sqnrDb, agreement = 1, findings }: ModelComparison,
  { minSqnr, minAgreement }: Pick<Flags, 'minSqnr' | 'minAgreement'>,
): readonly string[] {
  if (minSqnr === undefined && minAgreement === undefined) return [];
  return [
    ...findings
      .filter(({ kind }) => kind !== 'dtype')
      .map(({ output, message }) => `output "${output}" ${message}`),
    ...(minSqnr !== undefined && sqnrDb < minSqnr ? [`${formatDb(sqnrDb)} is below ${minSqnr} dB`] : []),
    ...(minAgreement !== undefined && agreement < minAgreement
      ? [`agreement of ${formatShare(agreement)} is below ${formatShare(minAgreement)}`]
      : []),
  ];
}

function describe(comparison: ModelComparison, missed: readonly string[]): string {
  const { samples, outputs, findings, sizeBytes, sizeRatio, speed, batchInvariance, layers } = comparison;
  const facts = [
    ['samples', samples.toLocaleString('en')],
    [
      'size',
      `${formatBytes(sizeBytes[1])} instead of ${formatBytes(sizeBytes[0])} (${sizeRatio.toFixed(3)})`,
    ],
    ...speed.map(({ batch, p50Ms, speedup }) => [
      `speed, batch ${batch}`,
      `${speedup.toFixed(2)}× (${p50Ms[1].toPrecision(3)} ms instead of ${p50Ms[0].toPrecision(3)} ms)`,
    ]),
    ...(batchInvariance === undefined
      ? []
      : [
          [
            'rows',
            batchInvariance.isInvariant
              ? 'do not depend on those beside them'
              : `depend on those beside them: ${formatDb(batchInvariance.sqnrDb)} beside a row ten times as large`,
          ],
        ]),
  ];
  const shown = outputs.map(({ name, dtype, isIdentical, sqnrDb, cosine, maxAbs, agreement }) => [
    name,
    dtype,
    isIdentical ? 'identical' : sqnrDb === undefined ? none : formatDb(sqnrDb),
    cosine === undefined ? none : cosine.toFixed(6),
    maxAbs === undefined ? none : maxAbs.toPrecision(3),
    formatShare(agreement ?? null),
  ]);
  const worst = layers && [...layers].sort(byRatio).slice(0, SHOWN_LAYERS);
  return [
    ...facts.map(([label = '', value = '']) => `${label.padEnd(16)}  ${value}`),
    `\n${table(['output', 'dtype', 'SQNR', 'cosine', 'max diff', 'agreement'], shown)}`,
    ...(worst === undefined || worst.length === 0
      ? []
      : [
          `\n${table(
            ['layer', 'operator', 'SQNR', 'max diff'],
            worst.map(({ name, op, sqnrDb, maxAbs }) => [name, op, formatDb(sqnrDb), maxAbs.toPrecision(3)]),
          )}`,
        ]),
    ...(layers !== undefined && layers.length > SHOWN_LAYERS
      ? [`… and ${layers.length - SHOWN_LAYERS} more; --json lists them all.`]
      : []),
    ...findings.map(({ output, message }) => `note: output "${output}" ${message}`),
    ...missed.map((one) => `missed: ${one}`),
  ].join('\n');
}

/** Infinite ratios are equal to each other. */
function byRatio(a: LayerComparison, b: LayerComparison): number {
  return a.sqnrDb === b.sqnrDb ? 0 : a.sqnrDb - b.sqnrDb;
}

/** Layers that people see. */
const SHOWN_LAYERS = 20;

/** Writes a signal-to-noise ratio. */
export function formatDb(sqnrDb: number): string {
  if (sqnrDb === Infinity) return 'equal';
  return sqnrDb === -Infinity ? 'not comparable' : `${sqnrDb.toFixed(1)} dB`;
}

const help = `
SQNR is the signal-to-noise ratio over all samples: 20 dB more is a tenth of the difference. Agreement
is the share of rows, along the last axis, whose largest element is in the same place. In JSON, a ratio
of null means that nothing differs, or that nothing can be compared: see isIdentical and findings.

Exit codes: 1, something failed; 2, --min-sqnr or --min-agreement is not reached; 64, wrong command line.

Example:
  $ npx inlay compare digits.onnx digits.int8.onnx --inputs images.npy --min-sqnr 30 --min-agreement 0.99`;
