import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { InvalidArgumentError, type Command } from 'commander';
import { encodeModel } from '../onnx/model.ts';
import { signatureOf } from '../onnx/signature.ts';
import { compareModels, type ModelComparison } from '../optimize/compare-models.ts';
import { convertModel } from '../optimize/convert.ts';
import { openModelFile, saveModelFile } from '../optimize-node/model-file.ts';
import { openTarget } from '../optimize-node/target.ts';
import { formatDb, missedBy } from './compare.ts';
import { formatShare } from './format.ts';
import { parseNumber, parseRatio, toPattern } from './optimize-flags.ts';
import { openSamples, withSampleFlags, type SampleFlags } from './optimize-inputs.ts';
import { notesOnExcluded, outputsOf } from './optimize-output.ts';
import { describeNodes, withRewriteFlags, type RewriteFlags } from './quantize.ts';
import { formatBytes, type Terminal } from './terminal.ts';
import { withUsageCode } from './usage.ts';

interface Flags extends RewriteFlags, SampleFlags {
  readonly sparsity: number;
  readonly minSqnr?: number;
  readonly minAgreement?: number;
}

/** Exit code for a model that lost too much, or nothing: it was not written. */
const KEPT = 2;

/**
 * Adds `inlay prune`.
 * @param exitWith ends the command with a code other than 0 that is no failure.
 */
export function addPrune(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  const command = withUsageCode(program.command('prune'))
    .description('set the smallest weights to zero: smaller when compressed, and no faster')
    .requiredOption('--sparsity <share>', 'share of each weight that becomes zero, below 1', parseShare);
  withSampleFlags(withRewriteFlags(command), false)
    .option('--min-sqnr <dB>', 'least signal-to-noise ratio of each output; needs --inputs', parseNumber)
    .option(
      '--min-agreement <ratio>',
      'least share of decisions that stay the same; needs --inputs',
      parseRatio,
    )
    .addHelpText('after', help)
    .action(async (file: string, flags: Flags) => {
      const { inputs, minSqnr, minAgreement } = flags;
      if (inputs === undefined && (minSqnr !== undefined || minAgreement !== undefined)) {
        throw new RangeError('Answers are compared on samples; give some with --inputs.');
      }
      await pruneFile(file, flags, terminal, exitWith);
    });
}

async function pruneFile(
  file: string,
  flags: Flags,
  terminal: Terminal,
  exitWith: (code: number) => void,
): Promise<void> {
  const path = (given: string): string => resolve(terminal.cwd, given);
  const onProgress = (step: string): void => {
    if (!flags.json) terminal.printError(`${step} …`);
  };
  await outputsOf(terminal.cwd, file, [flags.output]);
  const exclude = (flags.exclude ?? []).map(toPattern);
  const { model } = await openModelFile(path(file));
  const runtime = await openTarget('node-cpu');
  try {
    const technique = { kind: 'prune', sparsity: flags.sparsity } as const;
    const rewritten = await convertModel(model, technique, {
      runtime,
      prepares: flags.prepare,
      exclude,
      onProgress,
    });
    const [before, after] = [encodeModel(model), encodeModel(rewritten.model)];
    onProgress('compressing');
    const [packedBefore, packedAfter] = await Promise.all([before, after].map((bytes) => packedSize(bytes)));
    let comparison: ModelComparison | undefined;
    if (flags.inputs !== undefined) {
      const options = { mappings: flags.map, limit: flags.samples };
      const samples = openSamples(path(flags.inputs), signatureOf(model), options);
      const settings = { batches: [], monotonicMs: () => performance.now(), onProgress };
      comparison = await compareModels(runtime, before, after, samples, settings);
    }
    const missed = comparison === undefined ? [] : missedBy(comparison, flags);
    const saved =
      missed.length > 0 || rewritten.changed.length === 0
        ? undefined
        : await saveModelFile(path(flags.output), rewritten.model, { external: flags.external });
    if (saved === undefined) exitWith(KEPT);
    const gzipBytes = [packedBefore ?? 0, packedAfter ?? 0] as const;
    const { changed, kept } = rewritten;
    const warnings = [...rewritten.warnings, ...notesOnExcluded(exclude, [model, rewritten.model])];
    if (flags.json) {
      const facts = {
        sizeBytes: [before.length, after.length],
        gzipBytes,
        gzipRatio: gzipBytes[1] / gzipBytes[0],
      };
      terminal.print(
        JSON.stringify({ v: 1, technique, ...facts, changed, kept, warnings, comparison, missed, saved }),
      );
      return;
    }
    terminal.print(
      [
        describeNodes(rewritten),
        ...warnings.map((warning) => `note: ${warning}`),
        ...(comparison === undefined
          ? ['note: Nothing tells what this does to answers; give samples with --inputs.']
          : [
              `answers           ${formatDb(comparison.sqnrDb)}, agreement ${formatShare(comparison.agreement ?? null)}`,
            ]),
        `file              ${formatBytes(after.length)} instead of ${formatBytes(before.length)}`,
        `gzip              ${formatBytes(gzipBytes[1])} instead of ${formatBytes(gzipBytes[0])} (${(gzipBytes[1] / gzipBytes[0]).toFixed(3)})`,
        ...missed.map((one) => `missed: ${one}`),
        saved === undefined ? `${flags.output} was not written.` : `Wrote ${flags.output}`,
      ].join('\n'),
    );
  } finally {
    await runtime.close();
  }
}

async function packedSize(bytes: Uint8Array): Promise<number> {
  return (await promisify(gzip)(bytes)).length;
}

function parseShare(text: string): number {
  const share = Number(text);
  if (/^(0?\.\d+|0)$/.test(text)) return share;
  throw new InvalidArgumentError('It is a number from 0 to 1, below 1, such as 0.5.');
}

const help = `
onnxruntime multiplies zeros as it does other numbers, so that a pruned model is as fast as before;
it pays only where models travel compressed. Without training afterwards, half of the weights at zero
costs a lot of accuracy: let --inputs with --min-sqnr or --min-agreement decide.

Exit codes: 0, the model was written; 1, something failed; 2, they are not reached, or there is
nothing to prune, and nothing was written; 64, wrong command line.

Example:
  $ npx inlay prune digits.onnx -o digits.pruned.onnx --sparsity 0.3 --inputs images.npy --min-agreement 0.99`;
