/** Carries out any technique. */

import { InputError } from '../core/errors.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { quantizeDynamic } from './dynamic.ts';
import { quantizeLstms } from './dynamic-lstm.ts';
import { toFloat16 } from './float16.ts';
import { quantizeBlocks } from './nbits.ts';
import { pruneModel } from './prune.ts';
import { quantizeStatic } from './static.ts';
import type { Ranges, Rewritten, StaticInt8, Technique, TechniqueOptions, ValueTypes } from './technique.ts';

/** What some techniques need to know. */
export interface ApplyOptions extends TechniqueOptions {
  /** Types of values, as `inferTypes` finds them. Default: none is known. */
  readonly types?: ValueTypes;
  /** Ranges of activations, as `calibrate` finds them. */
  readonly ranges?: Ranges | undefined;
}

/**
 * Makes a model smaller or faster by one technique.
 * @throws {@link InputError} `ERR_INLAY_FEED_MISSING` for static quantization without ranges; {@link ModelError} for a
 * model that the technique cannot be applied to.
 */
export function applyTechnique(
  model: ModelProto,
  technique: Technique,
  { types = new Map(), ranges, ...options }: ApplyOptions = {},
): Rewritten {
  switch (technique.kind) {
    case 'dynamic':
      return quantizeDynamic(model, technique, options);
    case 'static':
      if (ranges === undefined) {
        throw new InputError(
          'ERR_INLAY_FEED_MISSING',
          'Static quantization needs ranges of activations; give calibration data.',
        );
      }
      return withLstms(technique, quantizeStatic(model, technique, ranges, { ...options, types }), options);
    case 'nbits':
      return quantizeBlocks(model, technique, options);
    case 'float16':
      return toFloat16(model, technique, types, options);
    default:
      return pruneModel(model, technique, options);
  }
}

function withLstms(
  { lstms = false, reduceRange = false }: StaticInt8,
  made: Rewritten,
  options: TechniqueOptions,
): Rewritten {
  if (!lstms) return made;
  const { model, ...also } = quantizeLstms(made.model, { reduceRange }, options);
  return {
    model,
    changed: [...made.changed, ...also.changed],
    kept: [...made.kept, ...also.kept],
    warnings: [...made.warnings, ...also.warnings],
  };
}
