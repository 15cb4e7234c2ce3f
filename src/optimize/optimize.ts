/** Makes a model smaller or faster, with proof, or says why not. */

import { assertNotAborted } from '../core/abort.ts';
import { InputError, isInlayError } from '../core/errors.ts';
import type { GoldenCase } from '../update/golden.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { encodeModel } from '../onnx/model.ts';
import { allNodes } from '../onnx/walk.ts';
import { applyTechnique } from './apply.ts';
import type { Calibration } from './calibrate.ts';
import { calibrateOn } from './calibrate-data.ts';
import { listCandidates, nameOfTechnique, workloadOf, type CandidateContext } from './candidates.ts';
import { fastest, percent, round, speedupOf } from './choose.ts';
import type { Attempt, Decision } from './decision.ts';
import { goldenCases } from './golden.ts';
import { assertBatches, completeGoal, type OptimizeOptions } from './options.ts';
import { prepareModel } from './prepare.ts';
import { isQuantizedOp } from './refusals.ts';
import { createReport, type Report } from './report.ts';
import { openSamples } from './samples.ts';
import { confirm, nearestOf, tryAll, type Tell } from './search.ts';
import { statesOf, type State } from './states.ts';
import type { Technique, ValueTypes } from './technique.ts';
import { createTrials, type Trial } from './trial.ts';
import { inferTypes } from './types.ts';

/** What came of a model. */
export interface Optimized {
  /** The model that was taken: the original itself where none is better. */
  readonly model: ModelProto;
  /** Whether another model than the original was taken. */
  readonly isChanged: boolean;
  readonly decision: Decision;
  readonly report: Report;
  /** A few inputs with the original's answers, for `inlay publish --golden` and `writeGolden`. */
  readonly golden: readonly GoldenCase[];
}

/**
 * Tries what suits a model and a target, compares answers with those of the original, measures speed in turns with it,
 * and takes the fastest model that holds the goal. Where none does, and accuracy is what is missing, the layers that
 * cost the most stay in floats, one after the other. So do the layers next to the inputs of a model with fixed ranges, as
 * long as that makes it faster. Where nothing is better, the original comes back with the reason.
 *
 * Without a stated goal of size, what is taken is never slower than 0.97 times the original at any batch.
 * @throws `RangeError` for options that are none; {@link InputError} for samples that do not fit the model;
 * {@link ModelError} for a model that cannot be read, or, with a technique that is named, not be rewritten so;
 * `signal.reason` when it is given up.
 */
export async function optimizeModel(model: ModelProto, options: OptimizeOptions): Promise<Optimized> {
  const { runtime, batches = [1], threads = 1, technique = 'auto', signal } = options;
  assertBatches(batches);
  const [state] = statesOf(model);
  const goal = completeGoal(options.goal, batches, state !== undefined);
  const warnings = [
    ...(state === undefined || options.evaluate !== undefined ? [] : [noteOn(state)]),
    ...(options.isForced !== true && Array.from(allNodes(model)).some(isQuantizedOp)
      ? ['The model is quantized already, which leaves little to gain: start from the float model.']
      : []),
  ];
  const bytes = encodeModel(model);
  const tell = (step: string, ratio: number, candidate?: string): void => {
    assertNotAborted(signal);
    options.onProgress?.({ step, ratio, ...(candidate !== undefined && { candidate }) });
  };
  const facts = { target: runtime.target, runtime: runtime.description, batches, threads, goal };

  tell('opening the model', 0);
  const refusal = await whyNotOpen(bytes, options);
  if (refusal !== undefined)
    return unmeasured(model, bytes, { ...facts, workload: workloadOf(model) }, refusal, options);

  const samples = await openSamples(bytes, options, warnings);
  const trials = await createTrials({ bytes, samples, options, goal, batches, threads });
  try {
    tell('preparing', 0.05);
    const prepared = await prepare(model, options, (note) => warnings.push(note));
    const types = await inferTypes(prepared, runtime);
    const calibration = await calibrated(prepared, types, options, technique, tell);
    warnings.push(...(calibration?.warnings ?? []));
    // Weights may be computed from constants before.
    const workload = workloadOf(prepared);
    const context: CandidateContext = {
      target: runtime.target,
      workload,
      goal,
      batches,
      isCalibrated: calibration !== undefined,
    };
    const { candidates, dismissed } = technique === 'auto' ? listCandidates(context) : named(technique);
    const found = await confirm(
      await tryAll(candidates, { trials, prepared, types, calibration, options, tell }),
      (tried) => decide(tried, trials.original(), goal, technique).best,
      trials,
    );
    const attempts = [...found.map(({ attempt }) => attempt), ...dismissed.map(toDismissed)];
    const { best, reason: verdict } = decide(found, trials.original(), goal, technique);
    const untried = calibration === undefined && dismissed.find(({ name }) => name === 'int8-static');
    const reason =
      best === undefined && untried
        ? `${verdict}; ${untried.name} was not tried: ${untried.reason}`
        : verdict;
    tell('comparing layers', 0.95);
    const shown = best ?? nearestOf(found.filter(({ make }) => make !== undefined));
    const layers = shown && (await trials.layers(shown, prepared));
    const complete = (attempt: Attempt): Attempt =>
      withOutcome(
        attempt === shown?.attempt && layers ? { ...attempt, layers } : attempt,
        best?.attempt,
        reason,
      );
    const decision: Decision = {
      ...facts,
      workload,
      ...(trials.minScore !== undefined && { minScore: trials.minScore }),
      samples: { count: samples.list.length, isMadeUp: samples.isMadeUp },
      ...(calibration && { calibration: { method: calibration.method, samples: calibration.samples } }),
      batches: trials.batches,
      original: trials.original(),
      attempts: attempts.map(complete),
      chosen: best?.attempt.name ?? null,
      reason,
      warnings: [...warnings, ...trials.warnings, ...(best?.attempt.warnings ?? [])],
    };
    tell('done', 1);
    return {
      model: best?.make?.() ?? model,
      isChanged: best !== undefined,
      decision,
      report: createReport(decision),
      golden: goldenCases(samples.list, trials.expected),
    };
  } finally {
    await trials.close();
  }
}

/** What the target does not say of a model, another runtime may; what that one cannot do says nothing of the target. */
async function prepare(
  model: ModelProto,
  { runtime, preparer }: OptimizeOptions,
  warn: (note: string) => void,
): Promise<ModelProto> {
  if (runtime.optimized !== undefined || preparer === undefined) return prepareModel(model, runtime, warn);
  try {
    return await prepareModel(model, preparer, warn);
  } catch (error) {
    if (!isInlayError(error)) throw error;
    return prepareModel(model, runtime, warn);
  }
}

function noteOn({ input, output }: State): string {
  return (
    `The output "${output}" has the form of the input "${input}": where it goes into the next call, errors add up. ` +
    'Judge the model on whole sequences, with evaluate.'
  );
}

/** Decides among what was tried. */
function decide(
  tried: readonly Trial[],
  original: Attempt,
  goal: Decision['goal'],
  technique: OptimizeOptions['technique'],
): { readonly best: Trial | undefined; readonly reason: string } {
  const good = tried.filter(({ missed, make }) => missed.length === 0 && make !== undefined);
  const isSizeAsked = goal.maxSizeRatio !== undefined && goal.maxSizeRatio < 1;
  // A technique that is named is taken when it holds the goal, whether or not it is faster.
  const contenders = technique === 'auto' && !isSizeAsked ? [original] : [];
  const winner = fastest([...contenders, ...good.map(({ attempt }) => attempt)]);
  const best = good.find(({ attempt }) => attempt === winner);
  if (best !== undefined) {
    const speed = speedupOf(best.attempt) ?? 1;
    const size = best.attempt.sizeRatio ?? 1;
    return {
      best,
      reason: `${best.attempt.name} runs ${round(speed)} times as fast in ${percent(size)} of the size`,
    };
  }
  if (good.length > 0)
    return { best: undefined, reason: 'nothing is more than 5 % faster than the original' };
  if (tried.length === 0)
    return {
      best: undefined,
      reason: 'there is nothing in the model that a technique for this target would speed up',
    };
  const isAnyUsable = tried.some(({ attempt }) => attempt.outcome !== 'failed');
  return { best: undefined, reason: `no candidate ${isAnyUsable ? 'holds the goal' : 'can be used'}` };
}

function withOutcome(attempt: Attempt, best: Attempt | undefined, why: string): Attempt {
  if (attempt.name === best?.name) return { ...attempt, outcome: 'chosen', reason: why };
  if (attempt.outcome !== 'beaten') return attempt;
  const speed = speedupOf(attempt) ?? 1;
  if (best === undefined)
    return {
      ...attempt,
      reason: `it is not more than 5 % faster than the original, at ${speed.toFixed(2)} times`,
    };
  const isSlower = speed < (speedupOf(best) ?? 1);
  return {
    ...attempt,
    reason: isSlower ? `${best.name} is faster` : `${best.name} is as fast and nearer to the original`,
  };
}

function toDismissed({ name, reason }: { readonly name: string; readonly reason: string }): Attempt {
  return { name, outcome: 'dismissed', reason };
}

function named(technique: Technique): ReturnType<typeof listCandidates> {
  return {
    candidates: [{ name: nameOfTechnique(technique), technique, reason: 'it is asked for' }],
    dismissed: [],
  };
}

async function calibrated(
  prepared: ModelProto,
  types: ValueTypes,
  { calibration, runtime, signal }: OptimizeOptions,
  technique: 'auto' | Technique,
  tell: Tell,
): Promise<Calibration | undefined> {
  const isNeeded = technique === 'auto' || technique.kind === 'static';
  if (!isNeeded) return undefined;
  if (calibration === undefined) {
    if (technique === 'auto') return undefined;
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      'Static quantization needs ranges of activations; give calibration data.',
    );
  }
  if (technique === 'auto' && runtime.target === 'webgpu') return undefined;
  tell('calibrating', 0.1);
  return calibrateOn(calibration, prepared, runtime, { types, ...(signal && { signal }) });
}

/** Why a model does not open, where that is for an operator that the library does not know; other faults are thrown. */
async function whyNotOpen(
  bytes: Uint8Array,
  { runtime, threads = 1 }: OptimizeOptions,
): Promise<string | undefined> {
  try {
    await (await runtime.open(bytes, { threads })).release();
    return undefined;
  } catch (error) {
    if (!isInlayError(error) || error.code !== 'ERR_INLAY_MODEL_UNSUPPORTED') throw error;
    return error.message.replace(/\.$/, '');
  }
}

/** Structural edits work on any model; nothing is taken by itself that nobody could measure. */
function unmeasured(
  model: ModelProto,
  bytes: Uint8Array,
  facts: Pick<Decision, 'target' | 'runtime' | 'batches' | 'threads' | 'goal' | 'workload'>,
  refusal: string,
  { technique = 'auto', ...options }: OptimizeOptions,
): Optimized {
  const why = `nothing was measured, since this runtime does not open the model: ${refusal}`;
  const original: Attempt = {
    name: 'original',
    outcome: 'beaten',
    reason: why,
    sizeBytes: bytes.length,
    sizeRatio: 1,
  };
  const rewritten = technique === 'auto' ? undefined : applyTechnique(model, technique, options);
  const sizeBytes = rewritten === undefined ? 0 : encodeModel(rewritten.model).length;
  const attempts: Attempt[] =
    rewritten === undefined || technique === 'auto'
      ? []
      : [
          {
            name: nameOfTechnique(technique),
            technique,
            outcome: 'chosen',
            reason: 'it is asked for',
            sizeBytes,
            sizeRatio: sizeBytes / bytes.length,
            changed: rewritten.changed.length,
            kept: rewritten.kept,
            warnings: rewritten.warnings,
          },
        ];
  const decision: Decision = {
    ...facts,
    samples: { count: 0, isMadeUp: false },
    original,
    attempts,
    chosen: attempts[0]?.name ?? null,
    reason: attempts[0] === undefined ? why : `${attempts[0].name} is asked for; ${why}`,
    warnings: rewritten?.warnings ?? [],
  };
  return {
    model: rewritten?.model ?? model,
    isChanged: rewritten !== undefined,
    decision,
    report: createReport(decision),
    golden: [],
  };
}
