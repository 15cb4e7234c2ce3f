/** Tries candidates: makes them, opens them, compares their answers with the original's, and times them in turns with it. */

import type { TensorMap } from '../core/backend.ts';
import { InputError, isInlayError } from '../core/errors.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { encodeModel } from '../onnx/model.ts';
import { applyTechnique, type ApplyOptions } from './apply.ts';
import { auditModel } from './audit.ts';
import { batchOf } from './batches.ts';
import type { Candidate } from './candidates.ts';
import { missedBeforeTiming, missedByTiming } from './choose.ts';
import { createComparer, type Comparison } from './compare.ts';
import { compareLayers } from './compare-layers.ts';
import type { Accuracy, Attempt, LayerAccuracy } from './decision.ts';
import { isBatchInvariant } from './invariance.ts';
import { measureModels, type Measurement } from './measure.ts';
import type { CompleteGoal, OptimizeOptions } from './options.ts';
import type { NamedValueType } from './runtime.ts';
import type { Samples } from './samples.ts';
import type { NodeNote, Rewritten } from './technique.ts';

/** A candidate that was tried. */
export interface Trial {
  readonly attempt: Attempt;
  /**
   * Makes the model again, the same: of what was tried, only what runs is in memory. Absent if it could not be made,
   * opened or run.
   */
  readonly make?: () => ModelProto;
  readonly changed: readonly NodeNote[];
  /** Goals that it misses, in words; a candidate that failed misses all. */
  readonly missed: readonly string[];
  /** Whether accuracy is all that it misses, so that leaving layers in floats may help. */
  readonly isAccuracyMissed: boolean;
}

/** Options of one attempt. */
export interface AttemptOptions extends ApplyOptions {
  /** Those of `exclude` that are left in floats for accuracy or speed. */
  readonly excluded: readonly string[];
}

/** Tries candidates of one model. */
export interface Trials {
  /** Answers of the original to the samples. */
  readonly expected: readonly TensorMap[];
  /** Batches that the model takes, of those that were asked for. */
  readonly batches: readonly number[];
  readonly warnings: readonly string[];
  readonly minScore: number | undefined;
  /** What is known of the original by now. */
  original(): Attempt;
  /** Makes a candidate and compares its answers. Faults of the candidate are part of the result. */
  attempt(candidate: Candidate, from: ModelProto, options: AttemptOptions): Promise<Trial>;
  /** Times those that miss nothing so far, all in turns with the original. */
  time(trials: readonly Trial[]): Promise<readonly Trial[]>;
  /** Compares layers of a candidate with those of the model that it was made of. */
  layers(trial: Trial, from: ModelProto): Promise<readonly LayerAccuracy[]>;
  close(): Promise<void>;
}

/** What {@link createTrials} works with. */
export interface TrialParts {
  /** The original. */
  readonly bytes: Uint8Array;
  readonly samples: Samples;
  readonly options: OptimizeOptions;
  readonly goal: CompleteGoal;
  readonly batches: readonly number[];
  readonly threads: number;
}

const original = 'original';
/** Samples that layers are compared on: all their values lie in memory. */
const layerSamples = 4;

/** Runs the original on the samples, and starts to try candidates. */
export async function createTrials(parts: TrialParts): Promise<Trials> {
  const { bytes, samples, options, threads } = parts;
  const { runtime, evaluate, signal } = options;
  const warnings: string[] = [];
  const session = await runtime.open(bytes, { threads });
  const expected: TensorMap[] = [];
  let batches: readonly number[];
  let score: number | undefined;
  try {
    for (const sample of samples.list) {
      expected.push(await session.run(sample).catch((error: unknown) => refuseSample(samples, error)));
    }
    batches = feasible(parts, session.inputs, warnings);
    score = await evaluate?.score(session);
  } finally {
    await session.release();
  }
  const { min, maxLoss = 0.01 } = evaluate ?? {};
  const minScore = min ?? (score === undefined ? undefined : score - maxLoss);
  const goal = { ...parts.goal, minScore };
  let known: Attempt = {
    name: original,
    outcome: 'beaten',
    reason: 'it is what the others are compared with',
    sizeBytes: bytes.length,
    sizeRatio: 1,
    ...(score !== undefined && { score }),
  };

  const examine = async (candidate: Candidate, from: ModelProto, given: AttemptOptions): Promise<Trial> => {
    const { excluded, ...applied } = given;
    const rewrite = (): Rewritten => applyTechnique(from, candidate.technique, applied);
    const rewritten = rewrite();
    const { model, changed, kept } = rewritten;
    const about = {
      name: candidate.name,
      technique: candidate.technique,
      changed: changed.length,
      kept,
      warnings: rewritten.warnings,
      ...(excluded.length > 0 && { excluded }),
    };
    if (changed.length === 0)
      return failed({ ...about, reason: 'there is nothing in the model that it applies to' });
    const made = encodeModel(model);
    const size = { sizeBytes: made.length, sizeRatio: made.length / bytes.length };
    const opened = await runtime.open(made, { threads });
    let accuracy: Accuracy;
    let own: number | undefined;
    try {
      const comparer = createComparer();
      for (const [i, sample] of samples.list.entries())
        comparer.add(expected[i] ?? {}, await opened.run(sample));
      accuracy = toAccuracy(comparer.result());
      own = await evaluate?.score(opened);
    } finally {
      await opened.release();
    }
    const invariant = await isBatchInvariant(made, runtime, samples.list);
    const attempt: Attempt = {
      ...about,
      ...size,
      outcome: 'beaten',
      reason: candidate.reason,
      accuracy,
      ...(invariant !== undefined && { isBatchInvariant: invariant }),
      ...(own !== undefined && { score: own }),
      ...(runtime.optimized && { findings: (await auditModel(model, runtime)).findings }),
    };
    const missed = missedBeforeTiming(attempt, goal);
    const { accuracy: _, score: __, ...others } = attempt;
    return {
      attempt: missed.length > 0 ? { ...attempt, outcome: 'rejected', reason: missed.join('; ') } : attempt,
      make: () => rewrite().model,
      changed,
      missed,
      isAccuracyMissed:
        missed.length > 0 && accuracy.mismatch === undefined && missedBeforeTiming(others, goal).length === 0,
    };
  };

  return {
    expected,
    batches,
    warnings,
    minScore,
    original: () => known,
    attempt: async (candidate, from, given) => {
      try {
        return await examine(candidate, from, given);
      } catch (error) {
        // What a candidate cannot do says nothing against the others.
        const isAsked = options.technique !== undefined && options.technique !== 'auto';
        if (!isInlayError(error) || signal?.aborted || isAsked) throw error;
        const { name, technique } = candidate;
        return failed({ name, technique, reason: `it cannot be used: ${error.message.replace(/\.$/, '')}` });
      }
    },
    time: async (trials) => {
      const good = trials.filter((trial) => trial.missed.length === 0 && trial.make !== undefined);
      if (good.length === 0 && known.times !== undefined) return trials;
      const subjects = [
        { name: original, model: bytes },
        ...good.flatMap(({ attempt: { name }, make }) =>
          make === undefined ? [] : [{ name, model: encodeModel(make()) }],
        ),
      ];
      const [reference, ...others] = await measureModels(subjects, runtime, {
        monotonicMs: options.monotonicMs,
        samples: samples.list,
        batches,
        threads,
        ...(options.runs !== undefined && { runs: options.runs }),
        ...(signal && { signal }),
      });
      if (reference === undefined) return trials;
      if (known.times === undefined) known = { ...known, ...timesOf(reference, reference) };
      return trials.map((trial) => {
        const at = good.indexOf(trial);
        const measured = others[at];
        if (at < 0 || measured === undefined) return trial;
        const attempt = { ...trial.attempt, ...timesOf(measured, reference, known.times) };
        const missed = missedByTiming(attempt, goal);
        return missed.length === 0
          ? { ...trial, attempt }
          : { ...trial, missed, attempt: { ...attempt, outcome: 'rejected', reason: missed.join('; ') } };
      });
    },
    layers: async ({ make }, from) => {
      if (make === undefined) return [];
      const compared = await compareLayers(runtime, from, make(), samples.list.slice(0, layerSamples));
      return compared.map(({ name, sqnrDb }) => ({ value: name, sqnrDb: finite(sqnrDb) }));
    },
    close: async () => {},
  };
}

/** @throws the error, or that inputs have to be given where made-up ones do not do. */
function refuseSample({ isMadeUp }: Samples, error: unknown): never {
  if (!isMadeUp || !isInlayError(error)) throw error;
  throw new InputError(
    'ERR_INLAY_FEED_MISSING',
    `The model does not take inputs that are made up (${error.message.replace(/\.$/, '')}); give samples of your own.`,
    { cause: error },
  );
}

function failed(attempt: Omit<Attempt, 'outcome'>): Trial {
  return {
    attempt: { ...attempt, outcome: 'failed' },
    changed: [],
    missed: [attempt.reason],
    isAccuracyMissed: false,
  };
}

/** Batches that a model takes: one with a fixed first axis takes one size only. */
function feasible(
  { batches, samples: { list } }: TrialParts,
  inputs: readonly NamedValueType[],
  warnings: string[],
): readonly number[] {
  const isTaken = (batch: number): boolean => {
    try {
      batchOf(inputs, list, batch);
      return true;
    } catch (error) {
      if (!isInlayError(error)) throw error;
      return false;
    }
  };
  const taken = batches.filter(isTaken);
  if (taken.length === batches.length) return batches;
  const [first] = inputs;
  const fixed = list[0]?.[first?.name ?? '']?.shape[0] ?? 1;
  const left = taken.length > 0 ? taken : [fixed];
  warnings.push(
    `The model does not take every batch that was asked for ([${batches.join(', ')}]); measured were [${left.join(', ')}].`,
  );
  return left;
}

function timesOf(
  own: Measurement,
  reference: Measurement,
  first: Attempt['times'] = [],
): Pick<Attempt, 'times' | 'loadMs' | 'memoryBytes'> {
  return {
    loadMs: own.loadMs,
    ...(own.memoryBytes !== undefined && { memoryBytes: own.memoryBytes }),
    times: own.latencies.map(({ batch, p10Ms, p50Ms }, i) => {
      const ofOriginal = reference.latencies[i]?.p10Ms ?? Number.NaN;
      // The machine may have been slower or faster when the original was timed first.
      const pace = (first[i]?.p10Ms ?? ofOriginal) / ofOriginal;
      return { batch, p10Ms: p10Ms * pace, p50Ms: p50Ms * pace, speedup: ofOriginal / p10Ms };
    }),
  };
}

function toAccuracy({ sqnrDb, agreement = 1, outputs, findings }: Comparison): Accuracy {
  const floats = outputs.filter((output) => output.sqnrDb !== undefined);
  const [fault] = findings;
  return {
    sqnrDb: finite(sqnrDb),
    cosine: Math.min(1, ...floats.map(({ cosine = 1 }) => cosine)),
    maxAbs: Math.max(0, ...floats.map(({ maxAbs = 0 }) => maxAbs)),
    agreement,
    ...(fault && { mismatch: `output "${fault.output}" ${fault.message}` }),
  };
}

/** Equal answers have an infinite ratio, which JSON cannot say. */
function finite(sqnrDb: number): number | null {
  return sqnrDb === Infinity ? null : sqnrDb;
}
