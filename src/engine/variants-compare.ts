/** Compares variants of a model by running them: which are correct on this device, and which of those is the fastest. */
import { assertNotAborted } from '../core/abort.ts';
import type { ModelSource, TensorMap } from '../core/backend.ts';
import { DTYPES } from '../core/dtype.ts';
import { InputError, ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Signature } from '../core/signature.ts';
import { readElements } from '../core/tensor.ts';
import { joinFeeds, samplesOf } from '../schedule/batch.ts';
import { openSession } from './candidates.ts';
import { randomFeeds } from './example-feeds.ts';
import { createFeedBinder, type Feeds } from './feeds.ts';
import type { Serving, ServingOptions, ServingParts } from './serving.ts';

/** One precision of a model. */
export interface VariantSource {
  readonly name: string;
  /** Tells where it is, each time that it is opened. A variant for which this rejects is left out. */
  source(): Promise<ModelSource>;
}

/** What a variant has to do to be taken. */
export interface VariantRules {
  /** Inputs by which variants are compared. Default: some that are made up from the signature. */
  readonly golden?: readonly GoldenInput[] | undefined;
  /** How far answers may lie from the expected ones. */
  readonly tolerance?: VariantTolerance | undefined;
  /** The same for single variants, by name. */
  readonly tolerances?: Readonly<Record<string, VariantTolerance>> | undefined;
}

/** How far the answers of a variant may lie from those that are expected. */
export interface VariantTolerance {
  /**
   * Largest error of an output of floats, taken as one vector: ‖expected − actual‖ / ‖expected‖. Default 0.05: 8-bit
   * weights cost 0.01 to 0.03; 4-bit weights, at about 0.1, have to be allowed.
   */
  readonly relative?: number | undefined;
  /**
   * Share of decisions that have to stay the same, in [0, 1]. Decisions are the elements of outputs that are no floats,
   * default 1; where it is given, also the place of the largest element in each row of the last axis of floats.
   */
  readonly agreement?: number | undefined;
}

/** An input whose answer is known, or comes from the first variant. */
export interface GoldenInput {
  readonly feeds: Feeds;
  /** Outputs that are expected, by name, all or some. Default: those of the first variant on the CPU. */
  readonly outputs?: TensorMap | undefined;
  /** Default: that of the variant, or of all. */
  readonly tolerance?: VariantTolerance | undefined;
}

/** A golden input with complete feeds. */
export type Golden = Omit<GoldenInput, 'feeds'> & { readonly feeds: TensorMap };

const MADE_UP = 4;

/**
 * Completes golden inputs, or makes some up.
 * @throws {@link InputError} if one does not fit the signature.
 */
export function bindGolden(
  signature: Signature,
  given: readonly GoldenInput[] | undefined,
): readonly Golden[] {
  if (given === undefined || given.length === 0) {
    return Array.from({ length: MADE_UP }, (_, seed) => ({ feeds: randomFeeds(signature, seed + 1) }));
  }
  const bind = createFeedBinder(signature);
  return given.map(({ feeds, ...golden }) => {
    const unknown = Object.keys(golden.outputs ?? {}).find(
      (name) => !signature.outputs.some((o) => o.name === name),
    );
    if (unknown !== undefined) {
      throw new InputError(
        'ERR_INLAY_OUTPUT_UNKNOWN',
        `A golden input expects the output "${unknown}", which the model does not have.`,
        { details: { output: unknown } },
      );
    }
    return { ...golden, feeds: bind(feeds) };
  });
}

/** Why a variant cannot answer calls that are made for another one; `undefined` if it can. */
function refuseSignature(first: Signature, other: Signature): string | undefined {
  for (const kind of ['inputs', 'outputs'] as const) {
    const known = new Map(first[kind].map((spec) => [spec.name, spec]));
    if (first[kind].length !== other[kind].length)
      return `it has ${other[kind].length} ${kind}, not ${known.size}`;
    for (const { name, dtype, shape } of other[kind]) {
      const before = known.get(name);
      const what = `its ${kind.slice(0, -1)} "${name}"`;
      if (before === undefined) return `${what} is not one of the first variant`;
      if (before.dtype !== dtype) return `${what} is ${dtype}, not ${before.dtype}`;
      if (before.shape === null || shape === null) continue;
      const isSame =
        before.shape.length === shape.length &&
        shape.every((size, axis) => {
          const wanted = before.shape?.[axis];
          const isOpen = typeof size !== 'number' || (kind === 'outputs' && typeof wanted !== 'number');
          return isOpen || size === wanted;
        });
      if (!isSame) return `${what} has shape [${shape.join(', ')}], not [${before.shape.join(', ')}]`;
    }
  }
  return undefined;
}

/** How an answer differs from the expected one. */
export interface Verdict {
  /** Largest {@link VariantTolerance.relative} of all outputs. */
  readonly relative: number;
  /** Why it is not good enough, in words. */
  readonly refusal: string | undefined;
}

const RELATIVE = 0.05;

/** Judges an answer. */
export function judge(expected: TensorMap, actual: TensorMap, tolerance: VariantTolerance = {}): Verdict {
  const { relative: allowed = RELATIVE, agreement } = tolerance;
  let largest = 0;
  let refusal: string | undefined;
  const refuse = (why: string): string => (refusal ??= why);
  for (const [name, before] of Object.entries(expected)) {
    const after = actual[name];
    if (after?.dtype !== before.dtype || after.shape.join() !== before.shape.join()) {
      const has = after === undefined ? 'is missing' : `is ${after.dtype} [${after.shape.join(', ')}]`;
      refuse(`output "${name}" ${has}, expected is ${before.dtype} [${before.shape.join(', ')}]`);
      continue;
    }
    const a: readonly unknown[] = readElements(before.dtype, before.data, before.size);
    const b: readonly unknown[] = readElements(after.dtype, after.data, after.size);
    const { kind, bits } = DTYPES[before.dtype];
    // Floats of 8 bits have no plain number form; as decisions they are compared bit by bit.
    const isFloat = kind === 'complex' || (kind === 'float' && bits >= 16);
    if (isFloat) {
      const relative = relativeError(a as readonly number[], b as readonly number[]);
      largest = Math.max(largest, relative);
      if (!(relative <= allowed)) {
        refuse(`output "${name}" is off by ${percent(relative)}, allowed are ${percent(allowed)}`);
      }
    }
    if (isFloat && (agreement === undefined || kind === 'complex')) continue;
    const wanted = agreement ?? 1;
    const same = agreementOf(a, b, isFloat ? (before.shape.at(-1) ?? 1) : 1);
    if (same < wanted) {
      refuse(
        `${percent(1 - same)} of the decisions in output "${name}" differ, allowed are ${percent(1 - wanted)}`,
      );
    }
  }
  return { relative: largest, refusal };
}

function relativeError(a: readonly number[], b: readonly number[]): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i += 1) {
    const [x, y] = [a[i] as number, b[i] as number];
    if (x === y || (Number.isNaN(x) && Number.isNaN(y))) {
      if (Number.isFinite(x)) norm += x * x;
      continue;
    }
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Infinity;
    norm += x * x;
    error += (x - y) ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / norm);
}

/** Share of rows with the same largest element; of rows of one element, share of equal ones. */
function agreementOf(a: readonly unknown[], b: readonly unknown[], width: number): number {
  const rows = a.length / width;
  let same = 0;
  for (let row = 0; row < rows; row += 1) {
    const at = row * width;
    if (width === 1 ? a[at] === b[at] : largestAt(a, at, width) === largestAt(b, at, width)) same += 1;
  }
  return rows > 0 ? same / rows : 1;
}

function largestAt(elements: readonly unknown[], start: number, width: number): number {
  let best = start;
  for (let i = start + 1; i < start + width; i += 1) {
    if ((elements[i] as number) > (elements[best] as number)) best = i;
  }
  return best;
}

function percent(ratio: number): string {
  return `${Number((100 * ratio).toPrecision(2))} %`;
}

/** What became of one variant. */
export interface VariantAttempt {
  readonly variant: string;
  readonly outcome: 'chosen' | 'slower' | 'refused';
  /** Why, in words. */
  readonly reason: string;
  /** Shortest run on a golden input, in milliseconds. */
  readonly runMs?: number;
  /** Milliseconds per sample in a batch as large as pays, where calls share batches. */
  readonly batchedMs?: number;
  /** Largest relative error of an output; see {@link VariantTolerance.relative}. */
  readonly difference?: number;
}

/** What belongs to one set of variants. */
export interface Shared {
  readonly parts: ServingParts;
  readonly variants: readonly VariantSource[];
  readonly rules: VariantRules;
  readonly options: ServingOptions;
}

/** An open variant. */
export interface OpenVariant {
  readonly name: string;
  readonly serving: Serving;
  /** Lets its runs count as calls, and lets it leave memory. */
  enter(isPinned: boolean): void;
  /** Calls that have not settled. */
  calls: number;
}

/** A variant that is correct, and how fast it is. */
interface Measured {
  readonly opened: OpenVariant;
  readonly outputs: TensorMap;
  readonly figures: Pick<VariantAttempt, 'runMs' | 'batchedMs' | 'difference'>;
  /** Geometric mean of the milliseconds that a sample takes alone and in a full batch. */
  readonly score: number;
}

/** The variant that was chosen, and why. */
export interface Choice {
  readonly opened: OpenVariant;
  /** Best first. */
  readonly attempts: readonly VariantAttempt[];
  /** What it answered to the first golden input; `undefined` where it takes none that is made up. */
  readonly outputs: TensorMap | undefined;
}

/** Opens a variant, for comparison at first. */
export type Open = (variant: VariantSource) => Promise<OpenVariant>;

/** Asks where a variant is. */
export function locate(variant: VariantSource): Promise<ModelSource> {
  const source = Promise.resolve().then(() => variant.source());
  // Whoever opens it hears of it.
  source.catch(() => {});
  return source;
}

/**
 * Opens one variant after the other and keeps the best; at most two are open at once.
 * @throws what made the first variant fail, when none remains; {@link InputError} for golden inputs that do not fit.
 */
export async function compareAll(
  shared: Shared,
  open: Open,
  signal: AbortSignal | undefined,
): Promise<Choice> {
  const { parts, variants, rules } = shared;
  const refused: VariantAttempt[] = [];
  const correct: Measured[] = [];
  const held = new Set<OpenVariant>();
  let first: Signature | undefined;
  let firstError: unknown;
  let goldens: readonly Golden[] = [];
  let expected: { readonly from: string; readonly outputs: readonly TensorMap[] } | undefined;
  /** The first that loads, but does not take the inputs that were made up. */
  let untested: VariantSource | undefined;

  const drop = async (opened: OpenVariant): Promise<void> => {
    held.delete(opened);
    // Why it was dropped is worth more than why it cannot be released.
    await opened.serving.close().catch(() => {});
  };
  const refuse = (variant: VariantSource, reason: string, error?: unknown): void => {
    refused.push({ variant: variant.name, outcome: 'refused', reason });
    if (variant === variants[0]) firstError = error;
  };

  /** Takes a variant, or says why not. */
  const examine = async (variant: VariantSource, opened: OpenVariant): Promise<string | undefined> => {
    const { serving } = opened;
    const other = first && refuseSignature(first, serving.signature);
    if (other !== undefined) return other;
    const outputs: TensorMap[] = [];
    try {
      for (const { feeds } of goldens) outputs.push(await ask(serving, feeds));
    } catch (error) {
      if (!rules.golden?.length) untested ??= variant;
      throw error;
    }
    expected ??= { from: variant.name, outputs: await onCpu(shared, variant, serving, goldens, outputs) };
    let largest = 0;
    for (const [at, golden] of goldens.entries()) {
      const answer = golden.outputs ?? expected.outputs[at] ?? {};
      const tolerance = golden.tolerance ?? rules.tolerances?.[variant.name] ?? rules.tolerance;
      const { relative, refusal } = judge(answer, outputs[at] ?? {}, tolerance);
      largest = Math.max(largest, relative);
      const whose = golden.outputs === undefined ? `the answer of ${expected.from}` : 'what is expected';
      if (refusal !== undefined) return `its answer is not ${whose}: ${refusal}`;
    }
    assertNotAborted(signal);
    const times = await measure(parts.platform, serving, goldens[0] as Golden);
    const figures = { ...times.figures, difference: largest };
    correct.push({ opened, outputs: outputs[0] as TensorMap, score: times.score, figures });
    return undefined;
  };

  try {
    for (const variant of variants) {
      assertNotAborted(signal);
      const opened = await open(variant).catch((error: unknown) => {
        refuse(variant, `it does not load: ${messageOf(error)}`, error);
      });
      if (opened === undefined) continue;
      held.add(opened);
      if (first === undefined) goldens = bindGolden(opened.serving.signature, rules.golden);
      first ??= opened.serving.signature;
      const reason = await examine(variant, opened).catch((error: unknown) => {
        refuse(variant, `it fails: ${messageOf(error)}`, error);
      });
      if (reason !== undefined) refuse(variant, reason);
      const [best] = rank(correct);
      for (const loser of [...held]) if (loser !== best?.opened) await drop(loser);
    }
    assertNotAborted(signal);
    const [best, ...others] = rank(correct);
    if (best !== undefined) return { ...best, attempts: [...attemptsOf(best, others), ...refused] };
    if (untested !== undefined) {
      const reason = 'it takes no inputs that are made up, so that nothing was compared; give golden inputs';
      const { name } = untested;
      const rest = refused.filter(({ variant }) => variant !== name);
      const attempts: VariantAttempt[] = [{ variant: name, outcome: 'chosen', reason }, ...rest];
      return { opened: await open(untested), attempts, outputs: undefined };
    }
  } catch (error) {
    await Promise.all([...held].map(drop));
    throw error;
  }
  throw firstError ?? noneIsCorrect(refused);
}

/** Makes a run that nobody counts. */
export function ask(serving: Serving, feeds: TensorMap): Promise<TensorMap> {
  return serving.run(feeds, {}, () => {});
}

/** Answers of the reference on the CPU, against which GPUs are judged too. */
async function onCpu(
  { parts }: Shared,
  variant: VariantSource,
  serving: Serving,
  goldens: readonly Golden[],
  outputs: readonly TensorMap[],
): Promise<readonly TensorMap[]> {
  const { provider } = serving.info();
  if (provider === 'cpu' || provider === 'wasm' || goldens.every((golden) => golden.outputs)) return outputs;
  try {
    const { session } = await openSession(parts.platform, parts.backends, await locate(variant), 'cpu');
    try {
      const answers: TensorMap[] = [];
      for (const { feeds } of goldens) answers.push(await session.run(feeds));
      return answers;
    } finally {
      await session.release();
    }
  } catch {
    // Then its answers on the GPU are the best there are.
    return outputs;
  }
}

async function measure(
  platform: Platform,
  serving: Serving,
  { feeds }: Golden,
): Promise<Pick<Measured, 'score' | 'figures'>> {
  const samples = samplesOf(feeds) ?? 0;
  const runMs = await shortestOf(platform, () => ask(serving, feeds));
  const cap = Math.max(1, ...serving.info().queue.lanes.map(({ batchCap }) => batchCap));
  const calls = samples > 0 ? Math.floor(cap / samples) : 1;
  if (calls < 2) return { score: runMs / Math.max(1, samples), figures: { runMs } };
  const batch = joinFeeds(Array.from({ length: calls }, () => ({ feeds })));
  const batchedMs = (await shortestOf(platform, () => ask(serving, batch))) / (calls * samples);
  return { score: Math.sqrt((runMs / samples) * batchedMs), figures: { runMs, batchedMs } };
}

/** Whatever else the machine does only adds to a time, so the shortest is the truest. */
async function shortestOf(platform: Platform, run: () => Promise<unknown>): Promise<number> {
  const beganMs = platform.monotonicMs();
  let shortest = Infinity;
  for (let i = 0; i < REPEATS; i += 1) {
    const startedMs = platform.monotonicMs();
    await run();
    const endedMs = platform.monotonicMs();
    shortest = Math.min(shortest, endedMs - startedMs);
    if (endedMs - beganMs > BUDGET_MS) break;
  }
  return shortest;
}

/** The best first, the others by speed. */
function rank(correct: readonly Measured[]): Measured[] {
  const best = correct.reduce<Measured | undefined>(
    (chosen, next) => (chosen !== undefined && next.score >= chosen.score * (1 - WORTHWHILE) ? chosen : next),
    undefined,
  );
  const others = correct.filter((measured) => measured !== best).sort((a, b) => a.score - b.score);
  return best === undefined ? [] : [best, ...others];
}

function attemptsOf({ opened, figures, score }: Measured, others: readonly Measured[]): VariantAttempt[] {
  const { name } = opened;
  return [
    { variant: name, outcome: 'chosen', reason: 'it is the fastest that is correct', ...figures },
    ...others.map((other): VariantAttempt => {
      const reason = other.score < score ? `it is not 5 % faster than ${name}` : `${name} is faster`;
      return { variant: other.opened.name, outcome: 'slower', reason, ...other.figures };
    }),
  ];
}

/** How much faster a variant has to be than an earlier one, relative. */
const WORTHWHILE = 0.05;
const REPEATS = 15;
/** After which no more runs of one kind are timed, in milliseconds. */
const BUDGET_MS = 40;

function noneIsCorrect(attempts: readonly VariantAttempt[]): ModelError {
  const list = attempts.map(({ variant, reason }) => `${variant}: ${reason.replace(/\.$/, '')}`).join('; ');
  return new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', `No variant of the model can be used: ${list}.`, {
    details: { attempts },
  });
}

/** What an error says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
