/** One technique from beginning to end: preparing, inferring types, calibrating, rewriting. */

import { isInlayError } from '../core/errors.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { applyTechnique } from './apply.ts';
import { calibrateOn } from './calibrate-data.ts';
import type { CalibrationData } from './options.ts';
import { prepareModel } from './prepare.ts';
import type { OptimizeRuntime } from './runtime.ts';
import type { Ranges, Rewritten, Technique, TechniqueOptions, ValueTypes } from './technique.ts';
import { inferTypes } from './types.ts';

/** Options of {@link convertModel}. */
export interface ConvertOptions extends TechniqueOptions {
  /** Opens the model where a technique needs to know more of it than is written. */
  readonly runtime: OptimizeRuntime;
  /** Tidies the model first, see {@link prepareModel}. Default true. */
  readonly prepares?: boolean;
  /** Data that static quantization reads ranges from. */
  readonly calibration?: CalibrationData;
  readonly signal?: AbortSignal;
  /** Hears what is being done. */
  readonly onProgress?: (step: string) => void;
}

/** Samples of calibration between two words of progress. */
const REPORTED = 16;

/**
 * Carries a technique out on a model as it comes. Where the runtime does not take the model, as with operators that it
 * does not know, the technique goes by what the file says, and a warning tells so.
 * @throws what {@link applyTechnique} throws; for static quantization also what {@link calibrateOn} does.
 */
export async function convertModel(
  given: ModelProto,
  technique: Technique,
  { runtime, prepares = true, calibration, signal, onProgress, ...options }: ConvertOptions,
): Promise<Rewritten> {
  const warnings: string[] = [];
  const attempt = async <Value>(
    step: string,
    otherwise: Value,
    work: () => Promise<Value>,
  ): Promise<Value> => {
    onProgress?.(step);
    try {
      return await work();
    } catch (error) {
      if (!isInlayError(error) || signal?.aborted) throw error;
      warnings.push(
        `Going by what the file says, since ${runtime.description} does not take the model: ${error.message}`,
      );
      return otherwise;
    }
  };
  const model = prepares
    ? await attempt('preparing the model', given, () =>
        prepareModel(given, runtime, (note) => warnings.push(note)),
      )
    : given;
  const unknown: ValueTypes = new Map();
  const isTyped = technique.kind === 'float16' || technique.kind === 'static';
  const types = isTyped
    ? await attempt('inferring types', unknown, () => inferTypes(model, runtime))
    : unknown;
  let ranges: Ranges | undefined;
  if (technique.kind === 'static' && calibration !== undefined) {
    onProgress?.('calibrating');
    const found = await calibrateOn(calibration, model, runtime, {
      types,
      ...(signal && { signal }),
      onProgress: ({ samples }) => {
        if (samples % REPORTED === 0) onProgress?.(`calibrating: ${samples} samples`);
      },
    });
    warnings.push(...found.warnings);
    ranges = found.ranges;
  }
  onProgress?.('rewriting the model');
  const rewritten = applyTechnique(model, technique, { ...options, types, ranges });
  return { ...rewritten, warnings: [...warnings, ...rewritten.warnings] };
}
