/** What the automatic choice is asked for. */

import type { TensorMap } from '../core/backend.ts';
import type { ModelProto } from '../onnx/messages.ts';
import type { Calibration } from './calibrate.ts';
import type { CalibrateOptions, CalibrationMethod } from './calibrate-options.ts';
import type { OptimizeRuntime, RuntimeSession } from './runtime.ts';
import type { Range, Technique, TechniqueOptions } from './technique.ts';

/** What a model has to reach to be taken. Each is a constraint; among the models that hold all, the fastest is taken. */
export interface Goal {
  /**
   * Least signal-to-noise ratio of any output of floats, dB. Default 25; 40 where an output has the form of an input, so
   * that its errors may go into the next call.
   */
  readonly minSqnrDb?: number;
  /** Least share of rows whose largest element stays where it was, in [0, 1]. Default: not asked for. */
  readonly minAgreement?: number;
  /** Largest size of the file, as a ratio of the original's. Default: not asked for. */
  readonly maxSizeRatio?: number;
  /**
   * Least speed at every batch, as a ratio of the original's. Default 0.97, which is as fast as the original within
   * what a measurement can tell; 0 where `maxSizeRatio` is given, since size is the goal then.
   */
  readonly minSpeedup?: number;
  /** Whether a row has to get alone what it gets in a batch. Default: where a batch of more than one is asked for. */
  readonly isBatchInvariant?: boolean;
}

/** A goal without anything left to default. */
export type CompleteGoal = Required<Omit<Goal, 'minAgreement' | 'maxSizeRatio'>> &
  Pick<Goal, 'minAgreement' | 'maxSizeRatio'>;

/** Where a calibration is kept, so that a model need not be calibrated twice on the same data. */
export interface CalibrationStore {
  /** The calibration of that model with those settings; `undefined` if it is not there. */
  load(model: ModelProto, settings: CalibrateOptions): Promise<Calibration | undefined>;
  save(calibration: Calibration, model: ModelProto, settings: CalibrateOptions): Promise<void>;
}

/** Data that ranges of values are read from. */
export interface CalibrationData {
  readonly data: AsyncIterable<TensorMap> | Iterable<TensorMap>;
  /** Default `percentile`. */
  readonly method?: CalibrationMethod;
  /** Most samples that are read. Default 128. */
  readonly max?: number;
  /** Asked before the data is run, and told what came of it. Default: nothing is kept. */
  readonly store?: CalibrationStore;
}

/** The user's own measure of a model, such as accuracy: higher is better. */
export interface Evaluation {
  readonly score: (session: RuntimeSession) => Promise<number>;
  /** Least score. Default: that of the original minus `maxLoss`. */
  readonly min?: number;
  /** How much of the original's score may be lost, absolute. Default 0.01. */
  readonly maxLoss?: number;
}

/** What is under way. */
export interface OptimizeProgress {
  /** In words: what is being done. */
  readonly step: string;
  /** Name of the candidate that it is done to. */
  readonly candidate?: string;
  /** Share of all steps that are done, in [0, 1]. */
  readonly ratio: number;
}

/** Options of {@link optimizeModel}. */
export interface OptimizeOptions extends TechniqueOptions {
  /** Where candidates are tried, compared and timed: the target itself. */
  readonly runtime: OptimizeRuntime;
  /**
   * Where the model is tidied up before techniques see it, if the target cannot say how it rewrites models: what the level
   * `basic` does holds everywhere. Default: it is not.
   */
  readonly preparer?: Pick<OptimizeRuntime, 'description' | 'optimized'>;
  /** Rows of one call; each is measured. Default `[1]`. */
  readonly batches?: readonly number[];
  /** Threads inside one operator. Default 1. */
  readonly threads?: number;
  readonly goal?: Goal;
  /**
   * Inputs that answers are compared on. Default: the first that calibration reads, or else some that are made up from the
   * signature, which says little of the user's data.
   */
  readonly samples?: AsyncIterable<TensorMap> | Iterable<TensorMap>;
  /** Most of them that are used. Default 64. */
  readonly maxSamples?: number;
  /** Without it no technique with fixed ranges of activations is a candidate. */
  readonly calibration?: CalibrationData;
  /** `auto` tries what suits model and target. Default `auto`. */
  readonly technique?: 'auto' | Technique;
  readonly evaluate?: Evaluation;
  /** Monotonic clock, milliseconds. */
  readonly monotonicMs: () => number;
  /** Of inputs that are made up. Default 1. */
  readonly seed?: number;
  /** Times that each model is run for each batch. Default 30. */
  readonly runs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: OptimizeProgress) => void;
}

/** What answers are asked to have by default, dB: of models that hand on a state, and of others. */
const defaultDb = { stateful: 40, stateless: 25 };

/**
 * Fills a goal up.
 * @param hasState - whether what the model answers goes into its next call.
 * @throws `RangeError` for a goal that is none.
 */
export function completeGoal(
  goal: Goal = {},
  batches: readonly number[] = [1],
  hasState = false,
): CompleteGoal {
  const { minSqnrDb = defaultDb[hasState ? 'stateful' : 'stateless'], minAgreement, maxSizeRatio } = goal;
  const { minSpeedup = maxSizeRatio === undefined ? 0.97 : 0 } = goal;
  const { isBatchInvariant = batches.some((batch) => batch > 1) } = goal;
  assertIn('minSqnrDb', minSqnrDb, { min: -200, max: 200 });
  assertIn('minSpeedup', minSpeedup, { min: 0, max: 1000 });
  assertIn('minAgreement', minAgreement, { min: 0, max: 1 });
  assertIn('maxSizeRatio', maxSizeRatio, { min: 0, max: 1000 });
  return {
    minSqnrDb,
    minSpeedup,
    isBatchInvariant,
    ...(minAgreement !== undefined && { minAgreement }),
    ...(maxSizeRatio !== undefined && { maxSizeRatio }),
  };
}

/** @throws `RangeError` for batches that cannot be run. */
export function assertBatches(batches: readonly number[]): void {
  const isFine = batches.length > 0 && batches.every((batch) => Number.isSafeInteger(batch) && batch > 0);
  if (!isFine)
    throw new RangeError(`Batches are whole numbers of at least 1, got [${batches.join(', ')}]; give [1].`);
}

function assertIn(name: string, value: number | undefined, { min, max }: Range): void {
  if (value === undefined || (value >= min && value <= max)) return;
  throw new RangeError(`The goal ${name} is a number from ${min} to ${max}, got ${value}.`);
}
