/** A release that is rounded around the one before it, so that devices download a few per cent of it. */

import { InvalidArgumentError, Option, type Command } from 'commander';
import type { OptimizeRuntime } from '../optimize/runtime.ts';
import { ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { chooseAnchor } from '../publish/compact/anchor.ts';
import {
  compactLimits,
  compactRelease,
  type CompactAttempt,
  type CompactMode,
  type CompactRelease,
} from '../publish/compact/compact.ts';
import { isHalf, weightsOf } from '../publish/compact/weights.ts';
import { currentTargets } from '../publish/current.ts';
import { encodePatch } from '../publish/delta/encode.ts';
import type { UpdateSteps } from '../publish/delta/steps.ts';
import type { PublisherKeys, ReleaseServer, ReleaseVariant } from '../publish/publisher.ts';
import { readBases } from '../publish/released-files.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { ModelTarget } from '../trust/metadata.ts';
import { formatShare } from './format.ts';
import { parseRatio } from './optimize-flags.ts';
import { describeFigures, figureColumns, openGate, type GateRequest } from './publish-gate.ts';
import { formatBytes, table } from './terminal.ts';

/** Flags of `inlay publish` around compact releases. */
export interface CompactFlags {
  readonly near?: true;
  readonly small?: true;
  readonly compactMetric?: string;
  readonly compactData?: string;
  readonly compactLoss?: number;
  readonly compactAgreement?: number;
  readonly compactKl?: number;
  readonly compactSqnr?: number;
  readonly compactFrom?: string;
  readonly trainedFromPublished?: true;
  readonly seed?: number;
  readonly snap?: number;
}

/** Adds the flags of compact releases. */
export function withCompactFlags(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--near',
        'round the update so that float32 travels in some 9 to 16 % of the file, answers all but the same',
      ).conflicts('small'),
    )
    .option(
      '--small',
      'round it further, so that it travels in 3 to 7 %; single answers change, what was learnt stays',
    )
    .option(
      '--compact-metric <command>',
      'judge it by a command that prints a score of the model $INLAY_MODEL as its last line',
    )
    .option('--compact-loss <ratio>', 'largest share of the gain in that score that may be lost', parseRatio)
    .addOption(
      new Option(
        '--compact-data <file>',
        'judge it by its answers to these inputs (default: --reference or --golden)',
      ).conflicts(['compactMetric', 'compactLoss']),
    )
    .addOption(
      limit('--compact-agreement <ratio>', 'least share of decisions that stay the same', parseRatio),
    )
    .addOption(limit('--compact-kl <nats>', 'largest mean divergence of its answers', parseLimit))
    .addOption(limit('--compact-sqnr <dB>', 'least signal-to-noise ratio of outputs', parseLimit))
    .option('--compact-from <version>', 'release that it is rounded around (default: the anchor)')
    .option('--trained-from-published', 'the published file is what training went on from')
    .option('--seed <n>', 'seed of the rounding of --small', parseSeed)
    .addOption(
      new Option(
        '--snap <bits>',
        'round weights onto a grid of their own, 1 to 20 bits, for small first installs; 6 takes a quarter of the file',
      )
        .argParser(parseBits)
        .conflicts(['near', 'small']),
    );
}

/** A limit of answers, of which a score knows nothing. */
function limit(name: string, description: string, parse: (text: string) => number): Option {
  return new Option(name, description).argParser(parse).conflicts(['compactMetric', 'compactLoss']);
}

/** What gates ask for: what the publisher says, and the limits of the mode where nothing is said. */
export function limitsOf(
  mode: CompactMode,
  { compactAgreement, compactKl, compactSqnr, compactLoss }: CompactFlags,
): GateRequest['limits'] {
  const limits = compactLimits[mode];
  return {
    ...limits,
    ...(compactAgreement !== undefined && { minAgreement: compactAgreement }),
    maxDivergence: compactKl ?? limits.maxDivergence,
    minSqnrDb: compactSqnr ?? limits.minSqnrDb,
    maxLoss: compactLoss ?? limits.maxLoss,
  };
}

/**
 * What the flags ask for; `undefined`: nothing is rounded around another release.
 * @throws `RangeError` for what says something about rounding that is not asked for.
 */
export function compactModeOf(flags: CompactFlags): CompactMode | undefined {
  if (flags.compactLoss !== undefined && flags.compactMetric === undefined)
    throw new RangeError('--compact-loss belongs to a score; give one with --compact-metric.');
  if (flags.near || flags.small) return flags.near ? 'near' : 'small';
  if (flags.snap === undefined)
    assertNone(
      {
        '--compact-metric': flags.compactMetric,
        '--compact-data': flags.compactData,
        '--compact-loss': flags.compactLoss,
        '--compact-agreement': flags.compactAgreement,
        '--compact-kl': flags.compactKl,
        '--compact-sqnr': flags.compactSqnr,
      },
      '--near, --small or --snap',
    );
  assertNone(
    {
      '--compact-from': flags.compactFrom,
      '--trained-from-published': flags.trainedFromPublished,
      '--seed': flags.seed,
    },
    '--near or --small',
  );
  return undefined;
}

function assertNone(flags: Readonly<Record<string, unknown>>, missing: string): void {
  const alone = Object.entries(flags).find(([, value]) => value !== undefined);
  if (alone) throw new RangeError(`${alone[0]} belongs to rounded releases; add ${missing}.`);
}

/** What {@link compactReference} works with. */
export interface CompactRequest {
  readonly mode: CompactMode;
  readonly model: string;
  readonly version: string;
  readonly file: ReleaseVariant;
  readonly server: ReleaseServer;
  readonly keys: PublisherKeys;
  readonly platform: Platform;
  readonly flags: CompactFlags;
  /** Absolute path of a data file; without one there has to be a metric. */
  readonly data: string | undefined;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly tell: (text: string) => void;
  /** Opens the runtime that answers are compared in. Default: that of this machine. */
  readonly open?: (target: 'node-cpu') => Promise<OptimizeRuntime>;
}

/** A release that was rounded, or was not because no step is good enough. */
export interface CompactReference {
  readonly file: ReleaseVariant;
  readonly steps: UpdateSteps;
  /** Version of the release that it was rounded around. */
  readonly anchor: string;
  readonly record: ModelTarget['compact'];
  readonly notices: readonly string[];
  readonly facts: CompactFacts;
}

/** What is told of it. */
export interface CompactFacts {
  readonly mode: CompactMode;
  readonly anchor: string;
  readonly chosen: CompactAttempt | null;
  readonly attempts: readonly CompactAttempt[];
  readonly sizeBytes: number;
  /** Of the patch without rounding. */
  readonly losslessBytes: number;
  /** Of what is published, which is what was judged. */
  readonly sha256: string;
  readonly tensors: CompactRelease['tensors'];
}

/**
 * Rounds a release around the one that devices have, as far as the gate lets it.
 * @throws {@link ServerError} as `chooseAnchor` does; {@link ModelError} for a model without weights; {@link InputError}
 * for samples that do not fit; `RangeError` for a metric that gives no number, or a base that has no such variant.
 */
export async function compactReference(request: CompactRequest): Promise<CompactReference> {
  const { mode, model, version, file, flags, platform, tell, server } = request;
  const targets = await currentTargets(request);
  const anchor = chooseAnchor(targets, {
    model,
    version,
    from: flags.compactFrom,
    isTrainedFromPublished: flags.trainedFromPublished === true,
  });
  const bases = await readBases({ server, platform }, targets, { model, from: [anchor.version] });
  const base = bases.get(file.variant)?.[0];
  if (base === undefined) {
    throw new RangeError(
      `The release ${anchor.version} has no variant "${file.variant}" that the update could be rounded around.`,
    );
  }
  const weights = weightsOf(file.bytes);
  if (weights.length === 0) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The model ${file.file} has no weights of float32, float16, bfloat16 or 8-bit integers that could be rounded; publish it without --near and --small.`,
    );
  }
  const half = weights.find(({ dtype }) => isHalf(dtype));
  const notices =
    half === undefined
      ? []
      : [
          `Patches hold rounded ${half.dtype} numbers as differences, so that rounding saves less than of float32.`,
        ];
  const { gate, close } = await openGate({
    base: base.bytes,
    next: file.bytes,
    limits: limitsOf(mode, flags),
    command: flags.compactMetric,
    data: request.data,
    cwd: request.cwd,
    env: request.env,
    open: request.open,
  });
  const encode = (
    from: Uint8Array<ArrayBuffer>,
    to: Uint8Array<ArrayBuffer>,
    steps: UpdateSteps,
  ): Uint8Array => encodePatch(from, to, { platform, steps });
  const seed = flags.seed ?? 1;
  let release: CompactRelease;
  try {
    release = await compactRelease({
      base: base.bytes,
      next: file.bytes,
      mode,
      gate,
      seed,
      encode,
      onAttempt: (attempt) => {
        tell(
          `compact  step ${attempt.step}, seed ${attempt.seed}: ${attempt.verdict.isGood ? 'good' : 'not good enough'}`,
        );
      },
    });
  } finally {
    await close();
  }
  const { chosen, attempts, bytes, steps, tensors, losslessBytes = bytes.length } = release;
  if (chosen === undefined)
    notices.push(
      attempts.length === 0
        ? 'Nothing was rounded: only weights with two axes and 4,096 numbers are, of floats or 8-bit integers, where they changed enough.'
        : 'No step is good enough, or saves enough, so that the weights are published as they are.',
    );
  const sha256 = sha256Hex(platform, bytes);
  return {
    file: { ...file, bytes },
    steps,
    anchor: anchor.version,
    record: chosen && { mode, step: chosen.step, seed: chosen.seed, anchor: base.sha256 },
    notices,
    facts: {
      mode,
      anchor: anchor.version,
      chosen: chosen ?? null,
      attempts,
      sizeBytes: bytes.length,
      losslessBytes,
      sha256,
      tensors,
    },
  };
}

/** Says what was tried, both in bytes and in quality, and what is published. */
export function describeCompact({
  mode,
  anchor,
  chosen,
  attempts,
  sizeBytes,
  losslessBytes,
  sha256,
}: CompactFacts): string {
  const share = (bytes: number | undefined): string =>
    bytes === undefined ? '' : `${formatBytes(bytes)}, ${formatShare(bytes / sizeBytes)}`;
  const rows = attempts.map(({ step, seed, patchBytes, verdict }) => [
    `${step} σ`,
    String(seed),
    share(patchBytes),
    ...describeFigures(verdict.figures),
    verdict.isGood ? 'good' : 'not good enough',
  ]);
  return [
    `Rounded around ${anchor} (--${mode}); the file stays ${formatBytes(sizeBytes)}, a lossless patch is ${share(losslessBytes)}`,
    ...(rows.length === 0 ? [] : [table(['step', 'seed', 'patch', ...figureColumns, ''], rows)]),
    chosen === null
      ? `Published as it is: ${sha256}`
      : `Published with ${chosen.step} σ, seed ${chosen.seed}, exactly as judged: ${sha256}`,
  ].join('\n');
}

function parseBits(text: string): number {
  const bits = Number(text);
  if (/^\d{1,2}$/.test(text) && bits >= 1 && bits <= 20) return bits;
  throw new InvalidArgumentError('It is a whole number from 1 to 20.');
}

function parseLimit(text: string): number {
  const value = Number(text);
  if (/^\d*\.?\d+(e-?\d+)?$/i.test(text) && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('It is a number of at least 0.');
}

function parseSeed(text: string): number {
  const seed = Number(text);
  if (/^\d{1,9}$/.test(text)) return seed;
  throw new InvalidArgumentError('It is a whole number from 0 to 999999999.');
}
